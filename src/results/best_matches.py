"""Best matches: for each layer of a network, the most similar layer of another network."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean
from typing import ClassVar, NamedTuple

from src.choices.similarity import measure_of
from src.ground.grouping import grouped
from src.results.corresponding import Correspondence
from src.results.folders import StitchingRun
from src.results.groups import Names
from src.results.matrices import Matrix
from src.results.measured import MeasuredValue, NetworkPair, Trainings, trainings_of
from src.results.measurements import layer_values
from src.results.network_means import mean_over_pairs
from src.results.network_names import architecture, short
from src.results.quantities import QUANTITIES
from src.results.similarity_rows import SimilarityRow

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
    written_by: ClassVar[str] = "misc/collect_results.py --best-matches"

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


class MatchShareRow(NamedTuple):
    """The share of best matches that are corresponding layers: a row of `FILE_shares.csv`.

    Means over the layers of a pair of networks first, then over pairs of networks. The interval is of
    95 % over networks. A network at several epochs is one network."""

    method: str  # as in `BestMatchRow`
    dataset: str | None
    measure: str
    side: str
    networks: str  # front group → end group; of similarity the group of the layer comes first
    share: float
    low: float
    high: float
    chance: float  # the share of a random layer
    place: float  # the mean place of the corresponding layer, of `n_layers`
    n_layers: float
    n_networks: int
    n_pairs: int


def best_matches(
    runs: Sequence[StitchingRun],
    similarities: Sequence[SimilarityRow],
    names: Names,
    correspondence: Correspondence,
) -> list[BestMatchRow]:
    """Return the best match of each layer in each compared network, by each measure and quantity.

    A stitch has two answers: of a front layer the best end layer, and of an end layer the best front
    layer. A measure is taken from the layer to the layers of the second network. Values are those of
    `layer_values`. Repeated values, as of several seeds, count by their mean.

    Args:
        names: of all networks.
    """
    values = filter(_is_matched_by, layer_values(runs, similarities, names))
    rows: list[BestMatchRow] = []
    for of_networks in grouped(values, _key).values():
        sides = [""]
        if of_networks[0].quantity in OF_STITCHES:
            sides = [FRONT, END]
        for side in sides:
            rows += _rows(of_networks, side, correspondence)
    return rows


def _is_matched_by(value: MeasuredValue) -> bool:
    """Return whether layers are matched by a value: a defined value of a measure, or of a quantity
    in `OF_STITCHES`."""
    is_left_out = value.quantity in QUANTITIES and value.quantity not in OF_STITCHES
    return not (is_left_out or math.isnan(value.value))


def _key(value: MeasuredValue) -> tuple[str, str, NetworkPair]:
    return value.method, value.quantity, value.networks


def _rows(
    values: Sequence[MeasuredValue], side: str, correspondence: Correspondence
) -> Iterator[BestMatchRow]:
    """Yield the best match of each layer.

    Args:
        values: of one quantity and two networks.
        side: of the layer in stitches; "" of measures, which the layer is the front layer of.
    """
    first = values[0]
    network, second_network = first.networks
    if side == END:
        network, second_network = second_network, network
    depths = correspondence.depths
    by_layers = _by_layers(values, side)
    for layer in sorted(by_layers, key=depths[network].__getitem__):
        value_of = by_layers[layer]
        corresponding = [
            name for name in correspondence.of(layer, (network, second_network)) if name in value_of
        ]
        match = _match(value_of, corresponding, _similarity_of(first.quantity))
        yield BestMatchRow(
            method=first.method.removesuffix(f", {first.dataset}"),
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
            trainings=trainings_of((network, second_network)),
        )


def _similarity_of(quantity: str) -> Callable[[float], float]:
    """Return the function that turns values of a quantity or measure into similarities."""
    if quantity in OF_STITCHES:
        return QUANTITIES[quantity].similarity
    return measure_of(quantity).similarity


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


def _by_layers(values: Iterable[MeasuredValue], side: str) -> dict[str, dict[str, float]]:
    """Return the values by layer, and by the layer of the second network that it is compared with."""
    by_layers: dict[str, dict[str, list[float]]] = {}
    for value in values:
        layer, compared = value.pair
        if side == END:
            layer, compared = compared, layer
        by_layers.setdefault(layer, {}).setdefault(compared, []).append(value.value)
    return {
        layer: {compared: fmean(repeated) for compared, repeated in by_compared.items()}
        for layer, by_compared in by_layers.items()
    }


def match_shares(rows: Iterable[BestMatchRow]) -> list[MatchShareRow]:
    """Return how often the best match is the corresponding layer, for each pair of groups.

    Layers whose corresponding layer was not measured do not count.
    """
    counted = [row for row in rows if row.place is not None]
    by_question = grouped(
        counted, lambda row: (row.method, row.dataset, row.measure, row.side, row.groups)
    )
    return [_share(of_question) for of_question in by_question.values()]


def _share(rows: Sequence[BestMatchRow]) -> MatchShareRow:
    """Return the share of rows of one measure and one pair of groups."""
    by_trainings = grouped(rows, lambda row: row.trainings)

    def means(value: Callable[[BestMatchRow], float]) -> dict[Trainings, float]:
        return {pair: fmean(map(value, of_pair)) for pair, of_pair in by_trainings.items()}

    first = rows[0]
    share = mean_over_pairs(means(lambda row: float(row.is_corresponding))).within(0, 1)
    return MatchShareRow(
        method=first.method,
        dataset=first.dataset,
        measure=first.measure,
        side=first.side,
        networks=first.groups,
        share=share.value,
        low=share.low,
        high=share.high,
        chance=fmean(means(lambda row: row.chance).values()),
        place=fmean(means(lambda row: float(row.place or 0)).values()),
        n_layers=fmean(means(lambda row: row.n_layers).values()),
        n_networks=share.n_networks,
        n_pairs=share.n_pairs,
    )


def tables_of_shares(rows: Sequence[BestMatchRow]) -> dict[str, Matrix]:
    """Return the shares of corresponding best matches, in a table by title for each method and side.

    A table has a line for each pair of groups, and a column for each measure.
    """
    tables = {}
    by_method = grouped(match_shares(rows), lambda row: (row.method, row.dataset, row.side))
    for (method, dataset, side), shares in by_method.items():
        by_groups = grouped(shares, lambda row: row.networks)
        columns = list(dict.fromkeys(row.measure for row in shares))
        values = []
        for of_groups in by_groups.values():
            share_of = {row.measure: row.share for row in of_groups}
            chance = fmean(row.chance for row in of_groups)
            values.append([chance, *(share_of.get(name, math.nan) for name in columns)])
        data = f", {short(dataset)}" if dataset else ""
        title = f"{SOUGHT[side]}: how often it is the corresponding layer, {method}{data}"
        lines = [f"{groups} ({of_groups[0].n_pairs})" for groups, of_groups in by_groups.items()]
        titles = ["chance", *(_title(name, side) for name in columns)]
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
        titles = ["corresponding", *(_title(name, side) for name in columns)]
        tables[title] = Matrix(list(by_layer), titles, values)
    return tables


def _title(measure: str, side: str) -> str:
    """Return the title of a measure of similarity, or of a quantity of stitches."""
    if side:
        return QUANTITIES[measure].title
    return measure_of(measure).title


def _most_frequent(rows: Sequence[BestMatchRow]) -> str:
    """Return the most frequent best match and its count, such as "layer3 (4/5)"; "" without rows."""
    if not rows:
        return ""
    ((layer, n_pairs),) = Counter(row.best_layer for row in rows).most_common(1)
    return f"{layer} ({n_pairs}/{len(rows)})"
