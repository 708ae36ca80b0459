"""Best matches: for each layer of a network, the most similar layer of another network."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean
from typing import ClassVar, NamedTuple

from src.ground.grouping import grouped
from src.results.corresponding import Correspondence
from src.results.matrices import Matrix
from src.results.measurements import (
    SIMILARITY,
    Measurement,
    Trainings,
    between_networks,
    described,
)
from src.results.network_means import MeanRow, mean_over_pairs, means_by
from src.results.network_names import architecture, short

OF_STITCHES = ("accuracy", "skill")  # the quantities that stitches are matched by
FRONT = "front"
END = "end"
SEPARATOR = ";"  # between several corresponding layers
# What is asked, by the side of the layer in stitches; of similarity there are no sides
SOUGHT = {FRONT: "best end layer", END: "best front layer", "": "best match"}


@dataclass(frozen=True)
class BestMatchRow:
    """A row of the best matches: a layer, and the most similar layer of a second network."""

    contents: ClassVar[str] = "best matches"
    written_by: ClassVar[str] = "misc/compare_layers.py --best-matches"

    method: str  # of stitching, or "similarity"
    dataset: str | None
    measure: str  # of similarity, or a quantity of stitches
    side: str  # of the layer in the stitches, front or end; empty of similarity
    network: str
    group: str
    type: str
    layer: str
    relative_depth: float
    other_network: str
    other_group: str
    other_type: str
    best_layer: str  # of the second network
    best_relative_depth: float
    value: float  # of the best layer
    corresponding: str  # layers of the second network, separated by ";"; empty: not measured
    corresponding_value: float  # the most similar value of these
    # Of the corresponding layer among `n_layers`; 1 is the most similar, ties count against it
    place: int | None
    n_layers: int  # of the second network that the layer was compared with
    # Of both networks; no column
    trainings: Trainings = field(default=("", ""), compare=False)

    @property
    def is_corresponding(self) -> bool:
        """Whether the corresponding layer is the best match, without a tie."""
        return self.place == 1

    @property
    def groups(self) -> str:
        """The groups of both networks: front → end of stitches, else the layer's comes first."""
        groups = (self.group, self.other_group)
        if self.side == END:
            groups = (self.other_group, self.group)
        return " → ".join(map(short, groups))

    @property
    def architectures(self) -> tuple[str, str]:
        """The architectures of both networks; the layer's comes first."""
        return (
            architecture(self.network, self.type),
            architecture(self.other_network, self.other_type),
        )

    @property
    def corresponding_layers(self) -> list[str]:
        """The layers of the second network that correspond to the layer."""
        if not self.corresponding:
            return []
        return self.corresponding.split(SEPARATOR)

    @property
    def chance(self) -> float:
        """The probability that a random layer is a corresponding one."""
        return len(self.corresponding_layers) / self.n_layers


def best_matches(rows: Iterable[Measurement], correspondence: Correspondence) -> list[BestMatchRow]:
    """Return the best match of each layer in each compared network, by each measure and quantity.

    A stitch has two answers: of a front layer the best end layer, and of an end layer the best front
    layer. A measure is taken from the layer to the layers of the second network. Values are those of
    `between_networks`. Repeated values, as of several seeds, count by their mean.
    """
    matched = []
    for row in between_networks(rows):
        is_matched_by = row.method == SIMILARITY or row.quantity in OF_STITCHES
        if is_matched_by and not math.isnan(row.value):
            matched.append(row)
    matches: list[BestMatchRow] = []
    of_two = grouped(matched, lambda row: (row.method, row.dataset, row.quantity, row.networks))
    for (method, *_), of_networks in of_two.items():
        sides = [""]
        if method != SIMILARITY:
            sides = [FRONT, END]
        for side in sides:
            matches += _matches(of_networks, side, correspondence)
    return matches


def _matches(
    rows: Sequence[Measurement], side: str, correspondence: Correspondence
) -> Iterator[BestMatchRow]:
    """Yield the best match of each layer.

    Args:
        rows: of one quantity and two networks.
        side: of the layer in stitches; "" of measures, which the layer is the front layer of.
    """
    if side == END:
        rows = [row.turned for row in rows]
    first = rows[0]
    network, second_network = first.networks
    depths = correspondence.depths
    similarity = described(first.method, first.quantity).similarity
    mean_of = means_by(rows, lambda row: row.pair)
    by_layer = grouped(mean_of, lambda pair: pair.front_layer)
    for layer in sorted(by_layer, key=depths[network].__getitem__):
        value_of = {pair.end_layer: mean_of[pair] for pair in by_layer[layer]}
        corresponding = [
            name for name in correspondence.of(layer, first.networks) if name in value_of
        ]
        match = _match(value_of, corresponding, similarity)
        yield BestMatchRow(
            method=first.method,
            dataset=first.dataset,
            measure=first.quantity,
            side=side,
            network=network.name,
            group=network.group,
            type=network.type,
            layer=layer,
            relative_depth=depths[network][layer],
            other_network=second_network.name,
            other_group=second_network.group,
            other_type=second_network.type,
            best_layer=match.best,
            best_relative_depth=depths[second_network][match.best],
            value=value_of[match.best],
            corresponding=SEPARATOR.join(corresponding),
            corresponding_value=value_of.get(match.corresponding, math.nan),
            place=match.place,
            n_layers=len(value_of),
            trainings=first.trainings,
        )


class _Match(NamedTuple):
    """The best match of a layer."""

    best: str
    corresponding: str = ""  # the most similar one of the corresponding layers; "": there are none
    place: int | None = None  # of the latter among the other layers


def _match(
    value_of: Mapping[str, float],
    corresponding: Sequence[str],
    similarity: Callable[[float], float],
) -> _Match:
    """Return the best match of a layer.

    Args:
        value_of: the values of the layers that it is compared with.
        corresponding: those among them that correspond to it.
    """
    similarity_of = {name: similarity(value) for name, value in value_of.items()}
    best = max(similarity_of, key=similarity_of.__getitem__)
    if not corresponding:
        return _Match(best)
    nearest = max(corresponding, key=similarity_of.__getitem__)
    competitors = [name for name in value_of if name not in corresponding]
    place = 1 + sum(similarity_of[name] >= similarity_of[nearest] for name in competitors)
    return _Match(best, nearest, place)


def match_shares(rows: Iterable[BestMatchRow]) -> list[MeanRow]:
    """Return how often the best match is the corresponding layer, for each pair of groups.

    Layers whose corresponding layer was not measured do not count.
    """
    counted = [row for row in rows if row.place is not None]
    by_question = grouped(
        counted, lambda row: (row.method, row.dataset, row.measure, row.side, row.groups)
    )
    return [_share(of_question) for of_question in by_question.values()]


def _share(rows: Sequence[BestMatchRow]) -> MeanRow:
    """Return the share of rows of one measure and one pair of groups."""
    by_trainings = grouped(rows, lambda row: row.trainings)

    def means(value: Callable[[BestMatchRow], float]) -> dict[Trainings, float]:
        return {pair: fmean(map(value, of_pair)) for pair, of_pair in by_trainings.items()}

    first = rows[0]
    share = mean_over_pairs(means(lambda row: float(row.is_corresponding)), (0, 1))
    return MeanRow(
        method=first.method,
        dataset=first.dataset,
        quantity=first.measure,
        networks=first.groups,
        layers=SOUGHT[first.side],
        **share._asdict(),
        chance=fmean(means(lambda row: row.chance).values()),
        place=fmean(means(lambda row: float(row.place or 0)).values()),
        n_layers=fmean(means(lambda row: row.n_layers).values()),
    )


def tables_of_shares(rows: Sequence[BestMatchRow]) -> dict[str, Matrix]:
    """Return the shares of corresponding best matches, in a table by title for each method and side.

    A table has a line for each pair of groups, and a column for each measure.
    """
    tables = {}
    by_method = grouped(match_shares(rows), lambda row: (row.method, row.dataset, row.layers))
    for (method, dataset, sought), shares in by_method.items():
        by_groups = grouped(shares, lambda row: row.networks)
        columns = list(dict.fromkeys(row.quantity for row in shares))
        values = []
        for of_groups in by_groups.values():
            share_of = {row.quantity: row.value for row in of_groups}
            chance = fmean(row.chance for row in of_groups if row.chance is not None)
            values.append([chance, *(share_of.get(name, math.nan) for name in columns)])
        data = f", {short(dataset)}" if dataset else ""
        title = f"{sought}: how often it is the corresponding layer, {method}{data}"
        lines = [f"{groups} ({of_groups[0].n_pairs})" for groups, of_groups in by_groups.items()]
        titles = ["chance", *(described(method, name).title for name in columns)]
        tables[title] = Matrix(lines, titles, values)
    return tables


def tables_of_layers(rows: Sequence[BestMatchRow]) -> dict[str, Matrix]:
    """Return the best matches of layers, in tables by title.

    There is a table for each pair of architectures, method, data set and side. It has a line for each
    layer, and a column for each measure.

    A cell has the layer that is the best match in most pairs of networks, and in how many.
    """
    tables = {}
    by_table = grouped(rows, lambda row: (row.method, row.dataset, row.side, row.architectures))
    for (method, dataset, side, architectures), of_table in by_table.items():
        by_layer = grouped(of_table, lambda row: row.layer)
        columns = list(dict.fromkeys(row.measure for row in of_table))
        values = []
        for of_layer in by_layer.values():
            corresponding = chain.from_iterable(row.corresponding_layers for row in of_layer)
            distinct = ", ".join(dict.fromkeys(corresponding))
            by_measure = grouped(of_layer, lambda row: row.measure)
            best = [_most_frequent(by_measure.get(name, ())) for name in columns]
            values.append([distinct, *best])
        first, second = map(short, architectures)
        data = f", {short(dataset)}" if dataset else ""
        title = f"{SOUGHT[side]} in {second} for each layer of {first}, {method}{data}"
        titles = ["corresponding", *(described(method, name).title for name in columns)]
        tables[title] = Matrix(list(by_layer), titles, values)
    return tables


def _most_frequent(rows: Sequence[BestMatchRow]) -> str:
    """Return the most frequent best match and its count, such as "layer3 (4/5)"; "" without rows."""
    if not rows:
        return ""
    ((layer, n_pairs),) = Counter(row.best_layer for row in rows).most_common(1)
    return f"{layer} ({n_pairs}/{len(rows)})"
