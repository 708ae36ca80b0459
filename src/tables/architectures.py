"""The architectures of the networks of stitches: layers of different ones share no matrix."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from src.ground.grouping import grouped
from src.tables.matrices import PairOfLayers
from src.tables.network_names import short
from src.values import Pair


class StitchOfTypes(PairOfLayers, Protocol):
    """A row of a stitch with the types of its networks."""

    @property
    def front_model_type(self) -> str | None:
        """The type of the front network."""

    @property
    def end_model_type(self) -> str | None:
        """The type of the end network."""


class StitchAtDepths(StitchOfTypes, Protocol):
    """A row of a stitch with the relative depths of its layers."""

    @property
    def front_relative_depth(self) -> float | None:
        """The relative depth of the front layer; None: not recorded."""

    @property
    def end_relative_depth(self) -> float | None:
        """The relative depth of the end layer; None: not recorded."""


def architecture_pairs(stitches: Sequence[StitchAtDepths]) -> list[str]:
    """Return for each stitch a title of the architectures of its networks, such as "a → b, c".

    Stitches with one title may share a matrix. Types with the same layers at the same relative depths
    are one architecture, whose title has all of them. The titles are "" if there is one pair of
    architectures.
    """
    layers: dict[str | None, set[tuple[str, float | None]]] = {}
    for row in stitches:
        front_layer = (row.front_layer, row.front_relative_depth)
        end_layer = (row.end_layer, row.end_relative_depth)
        layers.setdefault(row.front_model_type, set()).add(front_layer)
        layers.setdefault(row.end_model_type, set()).add(end_layer)

    architectures = grouped(layers, lambda kind: frozenset(layers[kind])).values()
    architecture_of = {kind: tuple(kinds) for kinds in architectures for kind in kinds}
    pairs = [
        (architecture_of[row.front_model_type], architecture_of[row.end_model_type])
        for row in stitches
    ]
    if len(set(pairs)) == 1:
        return [""] * len(pairs)
    title_of = {
        kinds: ", ".join(short(kind or "unknown") for kind in kinds)
        for kinds in architecture_of.values()
    }
    return [f"{title_of[front]} → {title_of[end]}" for front, end in pairs]


def same_layers(stitches: Iterable[StitchOfTypes]) -> list[Pair]:
    """Return the pairs of layers of the same name that correspond in all stitches, sorted: the
    networks are of one type."""
    corresponding: set[Pair] = set()
    across_types: set[Pair] = set()
    for row in stitches:
        if row.front_layer == row.end_layer:
            is_of_one_type = row.front_model_type == row.end_model_type
            pairs = corresponding if is_of_one_type else across_types
            pairs.add(Pair(row.front_layer, row.end_layer))
    return sorted(corresponding - across_types)  # equal stitches make equal figures
