"""Compares groups of networks: means of pairs of groups, and tests between two groups.

The values of a pair of networks are averaged over pairs of layers first. Of networks of one
architecture, pairs of layers with equal names are taken if every pair of networks has them. Of
others, all pairs of corresponding layers are taken if every pair of networks has such. If there are
none, all pairs of layers are taken that every pair of networks has. If there are none either, all
pairs of layers are taken.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from statistics import fmean
from typing import NamedTuple

import numpy as np

from src.ground.console import listed, note
from src.ground.grouping import grouped
from src.ground.user_code import titles_in
from src.results.corresponding import Correspondence, Depths, relative_depths
from src.results.matrices import known
from src.results.measured import MeasuredLayer, MeasuredValue, NetworkPair, trainings_of
from src.results.named_networks import UNLISTED, NamedNetwork
from src.results.pair_kinds import PAIRS
from src.results.quantities import IN_VERDICT, shown_in
from src.results.verdict_rows import GroupRow, GroupTestRow, VerdictRow
from src.statistics.permutations import END, FRONT, Permuted, permutation_test
from src.verdict import SIMILAR, VERDICTS

SHARE = SIMILAR  # the quantity of many pairs of networks: the share of similar pairs
CORRESPONDING = "all corresponding layers of each pair of networks"
ALL_LAYERS = "all pairs of layers"  # which differ between pairs of networks


class GroupComparison(NamedTuple):
    """The groups of networks, compared."""

    groups: list[GroupRow]
    tests: list[GroupTestRow]
    untested: list[str]  # questions without an answer, with the reason
    # By method and quantity, and by pair of networks: over the pairs of layers that are compared
    means: dict[tuple[str, str], dict[NetworkPair, float]]


class Question(NamedTuple):
    """Asks how pairs within a group differ from pairs with a second group's network on one side."""

    group: str
    second: str
    side: str  # of the network of the second group: FRONT or END

    @property
    def within(self) -> str:
        """The pairs within the group, as a text."""
        return f"{self.group} → {self.group}"

    @property
    def across(self) -> str:
        """The pairs with a network of the second group, as a text."""
        if self.side == FRONT:
            return f"{self.second} → {self.group}"
        return f"{self.group} → {self.second}"

    def __str__(self) -> str:
        return f"({titles_in(self.within)}) − ({titles_in(self.across)})"


def values_of_verdicts(
    rows: Sequence[VerdictRow], networks: Iterable[NamedNetwork]
) -> Iterator[MeasuredValue]:
    """Yield the quantities by which groups of networks are compared.

    Only methods with several pairs of independent networks have such quantities.

    Args:
        networks: all networks of the rows.
    """
    network_of_name = {network.name: network for network in networks}
    pairs = [row for row in rows if row.kind == PAIRS]
    networks_of_method = {
        method: {row.networks for row in rows_of_method}
        for method, rows_of_method in grouped(pairs, lambda row: row.method).items()
    }
    for row in pairs:
        if len(networks_of_method[row.method]) == 1:
            continue
        if row.front_network is None or row.end_network is None:  # taken together
            continue
        front = MeasuredLayer(
            network_of_name[row.front_network],
            row.front_layer,
            row.front_depth,
            relative_depth=row.front_relative_depth,
        )
        end = MeasuredLayer(
            network_of_name[row.end_network],
            row.end_layer,
            row.end_depth,
            relative_depth=row.end_relative_depth,
        )
        values = {word: float(row.verdict == word) for word in VERDICTS}
        values["accuracy"] = known(row, name="accuracy")
        values |= {name: known(row, name=name) for name in shown_in(IN_VERDICT)}
        for quantity, value in values.items():
            yield MeasuredValue(row.method, quantity, front, end, value)


def compare_groups(values: Iterable[MeasuredValue]) -> GroupComparison:
    """Return the means of each pair of groups, and the tests between groups, for each method.

    Networks that a list lacks belong to no group and are left out.
    """
    comparison = GroupComparison([], [], [], {})
    listed_values = []
    for value in values:
        if UNLISTED not in (network.group for network in value.networks):
            listed_values.append(value)
    for method, values_of_method in grouped(listed_values, lambda value: value.method).items():
        all_layers = itertools.chain.from_iterable(
            (value.front, value.end) for value in values_of_method
        )
        correspondence = Correspondence(relative_depths(all_layers))
        compared, layers = compared_layers(values_of_method, correspondence)
        by_quantity = grouped(compared, lambda value: value.quantity)
        means = {name: means_of_networks(of_name) for name, of_name in by_quantity.items()}
        comparison.means.update({(method, name): of_name for name, of_name in means.items()})
        comparison.groups.extend(
            _group_rows(method, layers, _titles_of_layers(compared, correspondence.depths), means)
        )

        networks = itertools.chain.from_iterable(value.networks for value in compared)
        types_of = {
            group: {network.type for network in of_group}
            for group, of_group in grouped(networks, lambda network: network.group).items()
        }
        for question in questions(types_of):
            untested: dict[str, list[str]] = {}  # quantities by the reason
            for quantity, means_of_quantity in means.items():
                try:
                    answer = answer_to(question, means_of_quantity)
                except Untestable as error:
                    untested.setdefault(str(error), []).append(quantity)
                    continue
                types = _unlike_types(question, types_of)
                comparison.tests.append(
                    _test_row(method, quantity, question, answer, layers, types)
                )
            for reason, quantities in untested.items():
                text = f"{question}, {method}: {reason}"
                if len(quantities) < len(means):
                    text += f" ({', '.join(quantities)})"
                comparison.untested.append(text)
    return comparison


def note_on_layers(groups: Iterable[GroupRow]) -> None:
    """Print a note if the means of groups are over different pairs of layers."""
    layers_of_methods = {row.method: row.layers for row in groups}
    for layers, methods in grouped(layers_of_methods, layers_of_methods.__getitem__).items():
        if layers in (CORRESPONDING, ALL_LAYERS):
            note(
                f"{listed(methods)}: the means of groups are over {layers}, and these differ between pairs of "
                "networks; so a difference between groups may come from the layers"
            )


def _titles_of_layers(
    values: Iterable[MeasuredValue], depths: Depths
) -> dict[NetworkPair, list[str]]:
    """Return the pairs of layers of each pair of networks, with relative depths, by depth."""
    titles: dict[NetworkPair, dict[str, tuple[float, float]]] = {}
    for value in values:
        front_depth = depths[value.front.network][value.front.layer]
        end_depth = depths[value.end.network][value.end.layer]
        title = f"{value.front.layer} ({front_depth:.2f}) → {value.end.layer} ({end_depth:.2f})"
        titles.setdefault(value.networks, {})[title] = (front_depth, end_depth)
    return {pair: sorted(of_pair, key=of_pair.__getitem__) for pair, of_pair in titles.items()}


def _unlike_types(question: Question, types_of: Mapping[str, Set[str]]) -> str:
    """Return the types of both groups as a text; "" if they are equal, or are the groups' names."""
    groups = sorted((question.group, question.second))
    first, second = (types_of[group] for group in groups)
    if first == second or all(types_of[group] == {group} for group in groups):
        return ""
    return ", ".join(f"{group}: {' and '.join(sorted(types_of[group]))}" for group in groups)


def compared_layers(
    values: Sequence[MeasuredValue], correspondence: Correspondence
) -> tuple[list[MeasuredValue], str]:
    """Choose the pairs of layers to compare groups by; return their values, and a text.

    The text says which pairs were chosen, for tables.

    Args:
        values: of one method; not empty.
    """
    if not correspondence.is_by_name:
        kept = [value for value in values if correspondence.holds(value.pair, value.networks)]
        if {value.networks for value in kept} == {value.networks for value in values}:
            return kept, CORRESPONDING
    layers_of_networks = [
        {value.pair for value in of_networks}
        for of_networks in grouped(values, lambda value: value.networks).values()
    ]
    common = set.intersection(*layers_of_networks)
    corresponding = {pair for pair in common if pair.front_layer == pair.end_layer}
    chosen = corresponding or common
    if not chosen:
        return list(values), ALL_LAYERS
    kept = [value for value in values if value.pair in chosen]
    text = "1 pair of layers"
    if len(chosen) > 1:
        text = f"{len(chosen)} pairs of layers"
    if corresponding:
        text += " of the same name"
    return kept, text


def means_of_networks(values: Iterable[MeasuredValue]) -> dict[NetworkPair, float]:
    """Return the mean over pairs of layers, by pair of networks.

    NaN is left out, and so are pairs of networks that have no further value.
    """
    defined = [value for value in values if not math.isnan(value.value)]
    by_networks = grouped(defined, lambda value: value.networks)
    return {
        pair: math.fsum(value.value for value in of_pair) / len(of_pair)
        for pair, of_pair in by_networks.items()
    }


def questions(groups: Iterable[str]) -> Iterator[Question]:
    """Yield two questions, one for each side, about every ordered pair of groups."""
    for group, second in itertools.permutations(groups, 2):
        yield Question(group, second, END)
        yield Question(group, second, FRONT)


def _group_rows(
    method: str,
    layers: str,
    titles_of_layers: Mapping[NetworkPair, Sequence[str]],
    means: Mapping[str, Mapping[NetworkPair, float]],
) -> Iterator[GroupRow]:
    """Yield a row for each pair of groups, with the means over its pairs of networks.

    A network at several epochs is one network.

    Args:
        titles_of_layers: the pairs of layers of each pair of networks.
        means: by quantity, and by pair of networks.
    """
    pairs = dict.fromkeys(itertools.chain.from_iterable(means.values()))
    by_groups = grouped(pairs, lambda pair: (pair[0].group, pair[1].group))
    for (front_group, end_group), pairs_of_groups in by_groups.items():
        values = {}
        for quantity, means_of_quantity in means.items():
            defined = [pair for pair in pairs_of_groups if pair in means_of_quantity]
            of_trainings = [
                fmean(means_of_quantity[pair] for pair in pairs)
                for pairs in grouped(defined, trainings_of).values()
            ]
            if of_trainings:
                values[quantity] = fmean(of_trainings)
        titles = [titles_of_layers[pair] for pair in pairs_of_groups]
        yield GroupRow(
            method,
            front_group,
            end_group,
            layers,
            len(grouped(pairs_of_groups, trainings_of)),
            max(map(len, titles)),
            "; ".join(dict.fromkeys(itertools.chain.from_iterable(titles))),
            values,
        )


class Untestable(ValueError):
    """A question about groups that a permutation cannot answer; says why."""


class Answer(NamedTuple):
    """The answer to a question, with the numbers of networks of both groups.

    A network at several epochs counts once.
    """

    test: Permuted
    n_networks: int
    n_second: int


def answer_to(question: Question, means: Mapping[NetworkPair, float]) -> Answer:
    """Return the answer to a question by a permutation test.

    A network at several epochs is one network. The test moves networks from group to group. So all
    pairs of different networks of both groups need a value, in both directions.

    Args:
        means: values of a quantity, by pair of networks.
    Raises:
        Untestable: the group has fewer than two networks, a network is in both groups, or a pair of
            networks has no value.
    """
    trainings_of_group = _trainings(means, question.group)
    trainings_of_second = _trainings(means, question.second)
    if len(trainings_of_group) < 2:
        raise Untestable(f"{question.group} has fewer than two networks")
    if set(trainings_of_group) & set(trainings_of_second):
        raise Untestable("a network is in both groups")
    if not trainings_of_second:
        raise Untestable("a pair of networks has no value")
    trainings = [*trainings_of_group, *trainings_of_second]
    values = _matrix(means, trainings)
    if np.isnan(values[~np.eye(len(trainings), dtype=bool)]).any():
        raise Untestable("a pair of networks has no value")
    in_group = np.arange(len(trainings)) < len(trainings_of_group)
    test = permutation_test(values, in_group, side=question.side)
    return Answer(test, len(trainings_of_group), len(trainings_of_second))


def _test_row(
    method: str, quantity: str, question: Question, answer: Answer, layers: str, types: str
) -> GroupTestRow:
    """Return the row of the answer to a question.

    Args:
        types: of both groups, if they differ.
    """
    test = answer.test
    return GroupTestRow(
        method=method,
        quantity=quantity,
        within=question.within,
        across=question.across,
        mean_within=test.mean_within,
        mean_across=test.mean_across,
        difference=test.difference,
        p_value=test.p_value,
        lowest_p=test.lowest_p,
        n_labelings=test.n_labelings,
        is_exact=test.is_exact,
        n_networks=answer.n_networks,
        n_second=answer.n_second,
        layers=layers,
        types=types,
    )


def _trainings(means: Mapping[NetworkPair, float], group: str) -> list[str]:
    """Return the trainings of the networks of a group that have values."""
    networks = itertools.chain.from_iterable(means)
    trainings = (network.training for network in networks if network.group == group)
    return list(dict.fromkeys(trainings))


def _matrix(means: Mapping[NetworkPair, float], trainings: Sequence[str]) -> np.ndarray:
    """Return the means over epochs, (N, N), by training of the front and of the end network.

    NaN where there is no value.
    """
    values_of_cells: dict[tuple[str, str], list[float]] = {}
    for networks, mean in means.items():
        front, end = (network.training for network in networks)
        values_of_cells.setdefault((front, end), []).append(mean)
    values = np.full((len(trainings), len(trainings)), np.nan)
    for i, front in enumerate(trainings):
        for j, end in enumerate(trainings):
            if (front, end) in values_of_cells:
                values[i, j] = np.mean(values_of_cells[front, end])
    return values
