"""The row that figures draw: a measured value of two layers of two networks.

The functions below make such rows of the rows of tables. Rows keep the order of layers; networks and
groups have the natural order of their names in all figures.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from src.choices.similarity import ACTIVATIONS, SIMILARITY, measure_of
from src.core.user_code import titles_in
from src.figures.sections import parts_of, sections_of
from src.results.architectures import corresponding_layers
from src.results.matrices import Matrix, by_depth, depths_of, known
from src.results.network_names import IN_SHORT
from src.results.quantities import QUANTITIES
from src.results.verdict_rows import VerdictRow
from src.verdict import SIMILAR

if TYPE_CHECKING:
    from pandas import DataFrame

SHARE = SIMILAR  # the quantity of many pairs of networks: the share of similar pairs
POINTS = 100  # of accuracy
OF_STITCHES = ("accuracy_drop", "skill", "skill_at_end")


@dataclass(frozen=True)
class Shown:
    """A measured value, or a mean over pairs of networks. NaN: not measured, or no interval."""

    quantity: str  # a column of `QUANTITIES`, a measure of similarity or `SHARE`
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 1  # pairs of networks
    n_layers: float = math.nan  # pairs of layers of a mean over them
    method: str = ""  # of stitching, a measure, or another title of its panel or its line
    networks: tuple[str, str] = ("", "")  # front and end; "": several
    groups: tuple[str, str] = ("", "")
    training_runs: tuple[str, str] = ("", "")  # of the networks; equal at several epochs of one
    layers: tuple[str, str] = ("", "")
    place: float = math.nan  # relative depth, or rank
    verdict: str = ""  # the verdict on the stitch
    is_framed: bool = False  # the layers correspond


class Scale(NamedTuple):
    """The title of a quantity, and its values at the ends of its colours."""

    title: str
    different: float
    similar: float
    is_two_sided: bool = False  # similar in the middle, different at both ends
    is_open: bool = False  # values may lie beyond, as of a user's function

    @property
    def best(self) -> float:
        """The value of the most similar layers."""
        return (self.different + self.similar) / 2 if self.is_two_sided else self.similar


def scale_of(quantity: str) -> Scale:
    """Return the scale of a quantity or of a measure of similarity.

    Raises:
        ValueError: neither high nor low values are similar.
    """
    if quantity == SHARE:
        return Scale("share of similar pairs", 0, 1)
    if quantity == "accuracy_drop":
        return Scale("accuracy drop", POINTS, 0)
    if quantity not in QUANTITIES:
        measure = measure_of(quantity)
        is_open = measure.of == ACTIVATIONS
        return Scale(measure.title, measure.unrelated, measure.equal, is_open=is_open)
    entry = QUANTITIES[quantity]
    if entry.scale is None:
        raise ValueError(f"{entry.title} has no scale for the colours of a map")
    title = "skill at the output" if quantity == "skill" else entry.title
    return Scale(title, *entry.scale, entry.is_two_sided)


def unit_of(quantity: str) -> int:
    """Return the factor from a value in tables to a value in figures: losses of accuracy are points."""
    return POINTS if quantity == "accuracy_drop" else 1


def of_matrix(
    matrix: Matrix, quantity: str, title: str = "", framed: Iterable[tuple[str, str]] = ()
) -> Iterator[Shown]:
    """Yield the rows of a matrix of values, such as of front and end layers, under a title.

    Args:
        framed: pairs of layers that correspond.
    """
    for first, values in zip(matrix.rows, matrix.values, strict=True):
        for second, value in zip(matrix.columns, values, strict=True):
            layers = (first, second)
            is_framed = layers in framed
            yield Shown(quantity, value, method=title, layers=layers, is_framed=is_framed)


def of_verdicts(rows: Sequence[VerdictRow]) -> Iterator[Shown]:
    """Yield the rows of `of_stitches`, under each method and pair of architectures."""
    for part in parts_of(sections_of(rows)):
        kind = IN_SHORT.get(part.rows[0].kind, "")
        title = ", ".join(filter(None, [titles_in(part.method), kind]))
        yield from of_stitches(part.rows, title, corresponding_layers(part.rows))


def of_stitches(
    stitches: Sequence[Any], title: str, framed: Iterable[tuple[str, str]] = ()
) -> Iterator[Shown]:
    """Yield accuracy drop and both skills of judged stitches of one method, ordered by depth.

    Args:
        stitches: rows of a table of verdicts, or of a call from Python.
        framed: pairs of layers that correspond.
    """
    fronts = by_depth((row.front_layer for row in stitches), depths_of(stitches, "front"))
    ends = by_depth((row.end_layer for row in stitches), depths_of(stitches, "end"))

    def place(row: Any) -> tuple[int, int]:
        return fronts.index(row.front_layer), ends.index(row.end_layer)

    for row in sorted(stitches, key=place):
        layers = (row.front_layer, row.end_layer)
        networks = [getattr(row, f"{side}_network", None) or "" for side in ("front", "end")]
        for quantity in OF_STITCHES:
            unit = unit_of(quantity)
            yield Shown(
                quantity,
                unit * known(row, name=quantity),
                unit * known(row, name=f"{quantity}_low"),
                unit * known(row, name=f"{quantity}_high"),
                method=title,
                networks=(networks[0], networks[1]),
                layers=layers,
                verdict=row.verdict,
                is_framed=layers in framed,
            )


def of_networks(means: "DataFrame") -> list[Shown]:
    """Return a row for each mean over pairs of layers, of a pair of networks, method and quantity."""
    return [
        Shown(
            row.quantity,
            unit_of(row.quantity) * row.value,
            method=titles_in(row.method),
            networks=(row.front_network, row.end_network),
            groups=(titles_in(row.front_group), titles_in(row.end_group)),
            training_runs=(row.front_training, row.end_training),
        )
        for row in means.itertuples()
    ]


def of_means(means: "DataFrame") -> Iterator[Shown]:
    """Yield means over pairs of networks. Accuracy drops are in points, measures of similarity on the
    scale from unrelated (0) to equal (1) layers."""
    for row in means.itertuples():
        method = titles_in(row.method)
        unit = unit_of(row.quantity)
        values = [unit * value for value in (row.value, row.low, row.high)]
        if row.method == SIMILARITY:
            measure = measure_of(row.quantity)
            method = measure.similarity_title
            values = list(map(measure.similarity, values))
        value, low, high = values
        front, _, end = titles_in(row.networks).partition(" → ")
        yield Shown(
            row.quantity,
            value,
            low,
            high,
            n=row.n_pairs,
            n_layers=getattr(row, "n_layers", math.nan),
            method=method,
            groups=(front, end),
            layers=(row.layers, row.layers),
            place=getattr(row, "relative_depth", math.nan),
        )


def of_ranks(lines: Mapping[Any, Mapping[int | None, float]], title: str = "") -> Iterator[Shown]:
    """Yield the values by rank of lines with labels, of a panel with a title; full rank (None) has no
    place on its axis."""
    for label, value_of_rank in lines.items():
        for rank, value in value_of_rank.items():
            if rank is not None:
                yield Shown(title, value, method=str(label), place=rank)
