"""Best matches: for each layer of a network, the most similar layer of another network."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from statistics import fmean
from typing import NamedTuple

from src.core.grouping import grouped
from src.results.corresponding import Correspondence, architecture_of
from src.results.matrices import Matrix
from src.results.measurements import (
    SIMILARITY,
    Measurement,
    between_networks,
    described,
)
from src.results.network_means import MeanRow, averaged, mean_over_networks, means_by
from src.results.network_names import short

OF_STITCHES = ("accuracy", "skill")  # the quantities that stitches are matched by
FRONT = "front"
END = "end"
SEPARATOR = ";"  # between several corresponding layers
NO_CHOICE = "only one layer"  # in place of a share that could not be other than 1
# What is asked, by the side of the layer in stitches; of similarity there are no sides
SOUGHT = {FRONT: "best end layer", END: "best front layer", "": "best match"}


class BestMatch(NamedTuple):
    """The most similar layer of a second network, for a layer."""

    best: Measurement  # from the layer, its front, to the most similar one, its end
    side: str  # of the layer in stitches, FRONT or END; empty of similarity
    n_layers: int  # of the second network that the layer was compared with
    corresponding: tuple[Measurement, ...] = ()  # to the layers that correspond to it, as measured
    value: float = math.nan  # the most similar one of these
    # Of the corresponding layer among `n_layers`; 1 is the most similar, ties count against it
    place: int | None = None

    @property
    def groups(self) -> str:
        """The groups of both networks: front → end of stitches, else the layer's comes first."""
        groups = self.best.groups
        if self.side == END:
            groups = self.best.swapped.groups
        return " → ".join(map(short, groups))

    @property
    def chance(self) -> float:
        """The probability that a random layer is a corresponding one."""
        return len(self.corresponding) / self.n_layers

    @property
    def record(self) -> dict[str, object]:
        """The row in a CSV, by column."""
        layer, best = self.best.front, self.best.end
        return {
            "method": self.best.method,
            "dataset": self.best.dataset,
            "measure": self.best.quantity,
            "side": self.side,
            "network": layer.network.name,
            "group": layer.network.group,
            "type": layer.network.type,
            "layer": layer.layer,
            "relative_depth": layer.relative_depth,
            "other_network": best.network.name,
            "other_group": best.network.group,
            "other_type": best.network.type,
            "best_layer": best.layer,
            "best_relative_depth": best.relative_depth,
            "value": self.best.value,
            "corresponding": SEPARATOR.join(row.end.layer for row in self.corresponding),
            "corresponding_value": self.value,
            "place": self.place,
            "n_layers": self.n_layers,
        }


def best_matches(rows: Iterable[Measurement], correspondence: Correspondence) -> list[BestMatch]:
    """Return the best match of each layer in each compared network, by each measure and quantity.

    A stitch has two answers: of a front layer the best end layer, and of an end layer the best front
    layer. A measure is taken from the layer to the layers of the second network. Values are those of
    `between_networks`. Repeated values, as of several seeds, count by their mean.
    """
    matched = [
        row
        for row in between_networks(rows)
        if row.method == SIMILARITY or row.quantity in OF_STITCHES
    ]
    matches: list[BestMatch] = []
    of_two = grouped(matched, lambda row: (row.method, row.dataset, row.quantity, row.networks))
    for (method, *_), of_networks in of_two.items():
        if method == SIMILARITY:
            matches += _matches(of_networks, "", correspondence)
        else:
            swapped = [row.swapped for row in of_networks]
            matches += _matches(of_networks, FRONT, correspondence)
            matches += _matches(swapped, END, correspondence)
    return matches


def _matches(
    rows: Sequence[Measurement], side: str, correspondence: Correspondence
) -> Iterator[BestMatch]:
    """Yield the best match of each front layer.

    Args:
        rows: of one quantity and two networks.
        side: of the front layers in stitches.
    """
    means = map(correspondence.at_depths, averaged(rows, lambda row: row.pair))
    in_order = sorted(means, key=lambda row: row.front.relative_depth or 0)
    for layer, candidates in grouped(in_order, lambda row: row.front.layer).items():
        names = correspondence.of(layer, candidates[0].networks)
        corresponding = tuple(row for row in candidates if row.end.layer in names)
        match = BestMatch(max(candidates, key=similarity_of), side, len(candidates), corresponding)
        if corresponding:
            nearest = max(corresponding, key=similarity_of)
            competitors = [row for row in candidates if row.end.layer not in names]
            place = 1 + sum(similarity_of(row) >= similarity_of(nearest) for row in competitors)
            match = match._replace(value=nearest.value, place=place)
        yield match


def similarity_of(row: Measurement) -> float:
    """Return the value on a scale on which higher is more similar."""
    return described(row.method, row.quantity).similarity(row.value)


def match_shares(matches: Iterable[BestMatch]) -> list[MeanRow]:
    """Return how often the best match is the corresponding layer, for each pair of groups.

    Layers whose corresponding layer was not measured do not count.
    """
    counted = [match for match in matches if match.place is not None]
    by_question = grouped(
        counted, lambda match: (*_table_of(match), match.best.quantity, match.groups)
    )
    return [_share(of_question) for of_question in by_question.values()]


def _share(matches: Sequence[BestMatch]) -> MeanRow:
    """Return the share of matches of one measure and one pair of groups."""
    first = matches[0]

    def rows(value: Callable[[BestMatch], float]) -> list[Measurement]:
        return [match.best._replace(value=float(value(match))) for match in matches]

    def mean(value: Callable[[BestMatch], float]) -> float:
        return fmean(means_by(rows(value), lambda row: row.training_runs).values())

    return mean_over_networks(
        rows(lambda match: match.place == 1),
        possible=(0, 1),
        networks=first.groups,
        layers=SOUGHT[first.side],
        dataset=first.best.dataset,
        chance=mean(lambda match: match.chance),
        place=mean(lambda match: match.place or 0),
        n_layers=mean(lambda match: match.n_layers),
    )


def _table_of(match: BestMatch) -> tuple[str, str | None, str]:
    """Return method, data set and side of each table."""
    return match.best.method, match.best.dataset, match.side


def _architectures(match: BestMatch) -> tuple[str, str]:
    """Return the architectures of both networks; the layer's comes first."""
    first, second = map(architecture_of, match.best.networks)
    return first, second


def tables_of_shares(matches: Sequence[BestMatch]) -> dict[str, Matrix]:
    """Return the shares of corresponding best matches, in a table by title for each method and
    side.

    A table has a line for each pair of groups, and for each measure a column of shares and one of the
    chance of a random layer. Where a layer had no other to be compared with, cells say so.
    """
    tables = {}
    by_method = grouped(match_shares(matches), lambda row: (row.method, row.dataset, row.layers))
    for (method, dataset, sought), shares in by_method.items():
        by_groups = grouped(shares, lambda row: row.networks)
        columns = list(dict.fromkeys(row.quantity for row in shares))
        values = []
        for of_groups in by_groups.values():
            share_of = {row.quantity: row for row in of_groups}
            cells = [_share_and_chance(share_of.get(name)) for name in columns]
            values.append(list(chain.from_iterable(cells)))
        data = f", {short(dataset)}" if dataset else ""
        title = f"{sought}: how often it is the corresponding layer, {method}{data}"
        lines = [f"{groups} ({of_groups[0].n_pairs})" for groups, of_groups in by_groups.items()]
        titles = [(described(method, name).title, "chance") for name in columns]
        tables[title] = Matrix(lines, list(chain.from_iterable(titles)), values)
    return tables


def _share_and_chance(row: MeanRow | None) -> tuple[float | str, float | str]:
    """Return the share of a measure and its chance, as cells of a table."""
    if row is None or row.chance is None:
        return "", ""
    if row.chance == 1:
        return NO_CHOICE, ""
    return row.value, row.chance


def tables_of_layers(matches: Sequence[BestMatch]) -> dict[str, Matrix]:
    """Return the best matches of layers, in tables by title.

    There is a table for each pair of architectures, method, data set and side. It has a line for each
    layer, and a column for each measure.

    A cell has the layer that is the best match in most pairs of networks, and in how many.
    """
    tables = {}
    by_table = grouped(matches, lambda match: (_table_of(match), _architectures(match)))
    for ((method, dataset, side), (first, second)), of_table in by_table.items():
        by_layer = grouped(of_table, lambda match: match.best.front.layer)
        columns = list(dict.fromkeys(match.best.quantity for match in of_table))
        values = []
        for of_layer in by_layer.values():
            corresponding = chain.from_iterable(match.corresponding for match in of_layer)
            distinct = ", ".join(dict.fromkeys(row.end.layer for row in corresponding))
            by_measure = grouped(of_layer, lambda match: match.best.quantity)
            best = [_most_frequent(by_measure.get(name, ())) for name in columns]
            values.append([distinct, *best])
        data = f", {short(dataset)}" if dataset else ""
        title = (
            f"{SOUGHT[side]} in {short(second)} for each layer of {short(first)}, {method}{data}"
        )
        titles = ["corresponding", *(described(method, name).title for name in columns)]
        tables[title] = Matrix(list(by_layer), titles, values)
    return tables


def _most_frequent(matches: Sequence[BestMatch]) -> str:
    """Return the most frequent best match and its count, such as "layer3 (4/5)"; "" without
    matches."""
    if not matches:
        return ""
    ((layer, n_pairs),) = Counter(match.best.end.layer for match in matches).most_common(1)
    return f"{layer} ({n_pairs}/{len(matches)})"
