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
from statistics import mean
from typing import NamedTuple

import numpy as np

from src.core.console import listed, note
from src.core.grouping import grouped
from src.core.user_code import titles_in
from src.results.corresponding import Correspondence, correspondence_of
from src.results.matrices import array_of, known
from src.results.measurements import Measurement, NetworkLayer, NetworkPair
from src.results.named_networks import UNLISTED, NamedNetwork
from src.results.network_means import MeanRow, averaged, mean_over_networks, means_by
from src.results.pair_kinds import PAIRS
from src.results.quantities import IN_VERDICT, shown_in
from src.results.verdict_rows import VerdictRow
from src.statistics.permutations import END, FRONT, Permuted, permutation_test
from src.verdict import SIMILAR, VERDICTS

SHARE = SIMILAR  # the quantity of many pairs of networks: the share of similar pairs
CORRESPONDING = "all corresponding layers of each pair of networks"
ALL_LAYERS = "all pairs of layers"  # which differ between pairs of networks


# Of the table of tests
COLUMNS = (
    "method",
    "quantity",
    "within",
    "across",
    "mean_within",
    "mean_across",
    "difference",
    "p_value",
    "lowest_p",
    "n_labelings",
    "is_exact",
    "n_networks",
    "n_second",
    "layers",
    "types",
)


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


class GroupTest(NamedTuple):
    """The answer to a question by a permutation test: a row of `FILE_group_tests.csv`.

    A network at several epochs counts once."""

    question: Question
    method: str
    quantity: str
    result: Permuted
    n_networks: int  # of the group
    n_second: int  # networks of the second group
    layers: str = ""  # the pairs of layers that the means are over
    types: str = ""  # of the networks of both groups, if these differ in type as well as in name

    @property
    def are_architectures(self) -> bool:
        """Whether both groups are called as the types of their networks."""
        names = sorted((self.question.group, self.question.second))
        return titles_in(self.types) == ", ".join(f"{name}: {name}" for name in names)

    @property
    def record(self) -> dict[str, object]:
        """The row in a CSV, by column."""
        return {
            "method": self.method,
            "quantity": self.quantity,
            "within": self.question.within,
            "across": self.question.across,
            "mean_within": self.result.mean_within,
            "mean_across": self.result.mean_across,
            "difference": self.result.difference,
            **self.result._asdict(),
            "n_networks": self.n_networks,
            "n_second": self.n_second,
            "layers": self.layers,
            "types": self.types,
        }


class Untestable(ValueError):
    """A question about groups that a permutation cannot answer; says why."""


class GroupComparison(NamedTuple):
    """The groups of networks, compared."""

    groups: list[MeanRow]
    tests: list[GroupTest]
    untested: list[str]  # questions without an answer, with the reason
    # Of each pair of networks, over the pairs of layers that are compared
    means: list[Measurement]


def values_of_verdicts(
    rows: Sequence[VerdictRow], networks: Iterable[NamedNetwork]
) -> Iterator[Measurement]:
    """Yield the quantities by which groups of networks are compared.

    Only methods with several pairs of independent networks have such quantities.

    Args:
        networks: all networks of the rows.
    """
    network_of_name = {network.name: network for network in networks}
    pairs = [row for row in rows if row.kind == PAIRS]
    networks_of_method = {
        method: {frozenset((row.front_network, row.end_network)) for row in rows_of_method}
        for method, rows_of_method in grouped(pairs, lambda row: row.method).items()
    }
    for row in pairs:
        if len(networks_of_method[row.method]) == 1:
            continue
        if row.front_network is None or row.end_network is None:  # taken together
            continue
        front, end = (
            NetworkLayer(
                network_of_name[getattr(row, f"{side}_network")],
                getattr(row, f"{side}_layer"),
                getattr(row, f"{side}_depth"),
                relative_depth=getattr(row, f"{side}_relative_depth"),
            )
            for side in (FRONT, END)
        )
        values = {verdict: float(row.verdict == verdict) for verdict in VERDICTS}
        for name in ("accuracy", *shown_in(IN_VERDICT)):
            values[name] = known(row, name=name)
        for quantity, value in values.items():
            yield Measurement(row.method, quantity, front, end, value)


def compare_groups(rows: Iterable[Measurement]) -> GroupComparison:
    """Return the means of each pair of groups, and the tests between groups, for each method.

    Networks that a list lacks belong to no group and are left out.
    """
    comparison = GroupComparison([], [], [], [])
    listed_rows = [
        row for row in rows if UNLISTED not in (network.group for network in row.networks)
    ]
    for of_method in grouped(listed_rows, lambda row: row.method).values():
        correspondence = correspondence_of(of_method)
        compared, layers = compared_layers(of_method, correspondence)
        means = means_over_layers(compared)
        comparison.means.extend(means)
        at_depths = list(map(correspondence.at_depths, compared))
        comparison.groups.extend(_group_rows(means, at_depths, layers))
        tests, untested = _tests_of(means, layers)
        comparison.tests.extend(tests)
        comparison.untested.extend(untested)
    return comparison


def means_over_layers(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return the mean over pairs of layers of each quantity and pair of networks.

    NaN is left out, and so are pairs of networks that have no further value.
    """
    means = []
    for row in averaged(rows, lambda row: (row.networks, row.quantity)):
        front, end = (NetworkLayer(network, layer="") for network in row.networks)
        means.append(row._replace(front=front, end=end))
    return means


def _group_rows(
    means: Sequence[Measurement], compared: Sequence[Measurement], layers: str
) -> Iterator[MeanRow]:
    """Yield a row for each pair of groups and quantity, with the mean over its pairs of networks; groups
    have the order of the networks.

    Args:
        means: of pairs of networks.
        compared: the rows that they are over, with relative depths.
        layers: the pairs of layers of these, as a text.
    """
    known_rows = [row for row in compared if not math.isnan(row.value)]
    compared_of = grouped(known_rows, lambda row: (row.groups, row.quantity))
    names = list(dict.fromkeys(itertools.chain.from_iterable(row.groups for row in means)))
    means_of = grouped(means, lambda row: row.groups)
    for groups in filter(means_of.__contains__, itertools.product(names, names)):
        for quantity, of_quantity in grouped(means_of[groups], lambda row: row.quantity).items():
            titles = _titles_of_layers(compared_of[groups, quantity])
            yield mean_over_networks(
                of_quantity,
                networks=" → ".join(groups),
                layers=layers,
                n_layers=mean(map(len, titles)),  # an integer where all pairs have as many
                pairs_of_layers="; ".join(dict.fromkeys(itertools.chain(*titles))),
            )


def _titles_of_layers(rows: Iterable[Measurement]) -> list[list[str]]:
    """Return the pairs of layers of each pair of networks, with relative depths, by depth."""
    titles: dict[NetworkPair, dict[str, tuple[float | None, float | None]]] = {}
    for row in rows:
        depths = (row.front.relative_depth, row.end.relative_depth)
        title = f"{row.front.layer} ({depths[0]:.2f}) → {row.end.layer} ({depths[1]:.2f})"
        titles.setdefault(row.networks, {})[title] = depths
    return [sorted(of_pair, key=of_pair.__getitem__) for of_pair in titles.values()]


def _tests_of(means: Sequence[Measurement], layers: str) -> tuple[list[GroupTest], list[str]]:
    """Return the tests of a method, and the questions that have no answer.

    Args:
        means: of pairs of networks.
        layers: that the means are over, as a text.
    """
    networks = itertools.chain.from_iterable(row.networks for row in means)
    types_of = {
        group: {network.type for network in of_group}
        for group, of_group in grouped(networks, lambda network: network.group).items()
    }
    by_quantity = grouped(means, lambda row: row.quantity)
    tests = []
    untested = []
    for question in questions(types_of):
        types = _unlike_types(question, types_of)
        reasons: dict[str, list[str]] = {}  # quantities by the reason
        for quantity, of_quantity in by_quantity.items():
            try:
                test = answer_to(question, of_quantity)
                tests.append(test._replace(layers=layers, types=types))
            except Untestable as error:
                reasons.setdefault(str(error), []).append(quantity)
        for reason, quantities in reasons.items():
            text = f"{question}, {means[0].method}: {reason}"
            if len(quantities) < len(by_quantity):
                text += f" ({', '.join(quantities)})"
            untested.append(text)
    return tests, untested


def note_on_layers(groups: Iterable[MeanRow]) -> None:
    """Print a note if the means of groups are over different pairs of layers."""
    layers_of_methods = {row.method: row.layers for row in groups}
    for layers, methods in grouped(layers_of_methods, layers_of_methods.__getitem__).items():
        if layers in (CORRESPONDING, ALL_LAYERS):
            note(
                f"{listed(methods)}: the means of groups are over {layers}, and these differ between pairs of "
                "networks; so a difference between groups may come from the layers"
            )


def _unlike_types(question: Question, types_of: Mapping[str, Set[str]]) -> str:
    """Return the types of both groups as a text; "" if they are equal, or are the groups' names."""
    groups = sorted((question.group, question.second))
    first, second = (types_of[group] for group in groups)
    if first == second or all(types_of[group] == {group} for group in groups):
        return ""
    return ", ".join(f"{group}: {' and '.join(sorted(types_of[group]))}" for group in groups)


def on_unlike_types(tests: Iterable[GroupTest]) -> str:
    """Return the sentence on groups that differ in architecture; "" if none do."""
    unlike = [test for test in tests if test.types]
    if not unlike:
        return ""
    if all(test.are_architectures for test in unlike):
        groups = itertools.chain.from_iterable(test.question[:2] for test in unlike)
        names = dict.fromkeys(map(titles_in, groups))
        return (
            f"The groups are architectures ({', '.join(names)}): a difference between groups is one of architectures "
            "and of all that goes with them."
        )
    types = dict.fromkeys(titles_in(test.types) for test in unlike)
    return (
        f"Groups differ in architecture as well ({'; '.join(types)}): no test tells which of the two makes a "
        "difference."
    )


def compared_layers(
    rows: Sequence[Measurement], correspondence: Correspondence
) -> tuple[list[Measurement], str]:
    """Choose the pairs of layers to compare groups by; return their rows, and a text.

    The text says which pairs were chosen, for tables.

    Args:
        rows: of one method; not empty.
    """
    if not correspondence.is_by_name:
        kept = [row for row in rows if correspondence.holds(row.pair, row.networks)]
        if {row.networks for row in kept} == {row.networks for row in rows}:
            return kept, CORRESPONDING
    layers_of_networks = [
        {row.pair for row in of_networks}
        for of_networks in grouped(rows, lambda row: row.networks).values()
    ]
    common = set.intersection(*layers_of_networks)
    corresponding = {pair for pair in common if pair.front_layer == pair.end_layer}
    chosen = corresponding or common
    if not chosen:
        return list(rows), ALL_LAYERS
    kept = [row for row in rows if row.pair in chosen]
    text = "1 pair of layers"
    if len(chosen) > 1:
        text = f"{len(chosen)} pairs of layers"
    if corresponding:
        text += " of the same name"
    return kept, text


def questions(groups: Iterable[str]) -> Iterator[Question]:
    """Yield two questions, one for each side, about every ordered pair of groups."""
    for group, second in itertools.permutations(groups, 2):
        yield Question(group, second, END)
        yield Question(group, second, FRONT)


def answer_to(question: Question, means: Sequence[Measurement]) -> GroupTest:
    """Return the answer to a question by a permutation test.

    The test moves networks from group to group. So all pairs of different networks of both groups
    need a value, in both directions.

    Args:
        means: values of a method and quantity, of pairs of networks.
    Raises:
        Untestable: the group has fewer than two networks, a network is in both groups, or a pair of
            networks has no value.
    """
    places = itertools.chain.from_iterable((row.front, row.end) for row in means)
    networks = grouped((place.network for place in places), lambda network: network.group)
    of_group, of_second = (
        list(dict.fromkeys(network.training for network in networks.get(group, ())))
        for group in (question.group, question.second)
    )
    if len(of_group) < 2:
        raise Untestable(f"{question.group} has fewer than two networks")
    if set(of_group) & set(of_second):
        raise Untestable("a network is in both groups")
    training_runs = [*of_group, *of_second]
    of_both = [row for row in means if set(row.training_runs) <= set(training_runs)]
    values = array_of(
        means_by(of_both, lambda row: row.training_runs), training_runs, training_runs
    )
    is_measured = ~np.isnan(values) | np.eye(len(training_runs), dtype=bool)
    if not of_second or not is_measured.all():
        raise Untestable("a pair of networks has no value")
    in_group = np.arange(len(training_runs)) < len(of_group)
    result = permutation_test(values, in_group, side=question.side)
    sizes = (len(of_group), len(of_second))
    return GroupTest(question, means[0].method, means[0].quantity, result, *sizes)
