"""The printed report of verdicts: maps of symbols, counts, reasons with remedies, comparisons of groups, and a
conclusion.

Accuracy drops are in points of accuracy, other quantities in their own unit.
"""

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product
from typing import Any, NamedTuple

import pandas as pd

from src.core.choices import WITH_POSITIONS, on_lost_positions
from src.core.console import aligned, counted, decimals, listed, note, points
from src.core.grouping import grouped
from src.core.user_code import short, titles_in
from src.core.values import LOW_ACCURACY
from src.figures.scales import title_of
from src.figures.sections import by_method, has_two_networks, parts_of
from src.results.network_names import pairs_in_words
from src.results.reports import (
    ALL_LAYERS,
    CORRESPONDING,
    SHARE,
    matrix,
    on_unlike_accuracies,
    on_unlike_types,
)
from src.results.tables import LAYERS, NETWORKS
from src.statistics.intervals import ALPHA
from src.verdict import ACCURATE_ONLY, INCONCLUSIVE, NOT_MATCHED, SIMILAR, VERDICTS, Limits

SIGNS = {SIMILAR: "S", ACCURATE_ONLY: "A", NOT_MATCHED: "N", INCONCLUSIVE: "?"}
OF_GROUPS = (SHARE, "accuracy_drop", "skill", "skill_at_end")
CONTROLS = {  # by the column `control`; and how many of them must be similar
    "self": ("layers stitched to themselves", "all must be"),
    "untrained": ("stitches from networks that were never trained", "none may be"),
}
NO_CHOICE = "only one layer"  # in place of a share that could not be other than 1
# What best matches answer, by the side of the layer in stitches; of similarity there are no sides
SOUGHT = {"front": "best end layer", "end": "best front layer", "": "best match"}
N_NAMED = 3  # networks, or pairs of networks, that a line names
N_LAYERS = 6  # similar pairs of layers that the answer names
WIDTH = 120  # characters of a printed line
MAX_TESTS = 12  # lines of tests between groups, a method


class Table(NamedTuple):
    """A text table with a title."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """Format the title and the columns, right-aligned but for the first one."""
        return f"{self.title}\n{aligned([self.header, *self.lines], to_right=True)}"


def table_of(title: str, cells: pd.DataFrame) -> Table:
    """Return the table of a frame of texts; the name of its index is the title of the first column."""
    return Table(title, [cells.index.name or "", *cells], list(map(list, cells.itertuples())))


def number(name: str, value: float | None, *, sign: str = "") -> str:
    """Format a value of a quantity; "" for None and NaN."""
    if value is None or pd.isna(value):
        return ""
    if name == "accuracy_drop":
        return points(value, sign=sign)
    return f"{round(value, 2) + 0.0:{sign}.2f}"  # −0.0 becomes 0.0


def share_of(similar: float, inconclusive: float) -> str:
    """Format the share of similar pairs, with its upper bound if some pairs are inconclusive."""
    ends = [number(SHARE, similar), number(SHARE, similar + inconclusive)]
    return " to ".join(ends if inconclusive > 0 else ends[:1])


def wrapped(sentences: Iterable[str]) -> str:
    """Wrap sentences to a limited width, each beginning a new line."""
    return "\n".join(textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in sentences)


def sign_maps(frame: pd.DataFrame) -> list[Table]:
    """Return a table over layers for each pair of networks or groups: a symbol of the verdict for each method,
    · if not stitched; of several pairs of networks, the percentage that is similar."""
    tables = []
    for pair, parts in grouped(parts_of(frame), lambda part: part.pair).items():
        rows = pd.concat([part.rows for part in parts])
        heading = pair
        texts = rows.verdict.map(SIGNS)
        if parts[0].n_pairs > 1:
            heading += f" ({parts[0].n_pairs} pairs, % similar)"
            keys = [rows[name] for name in (*LAYERS, "method")]
            shares = (rows.verdict == SIMILAR).groupby(keys).transform("mean")
            texts = (100 * shares).map("{:.0f}".format)
        signs = rows.assign(sign=texts).drop_duplicates([*LAYERS, "method"])
        table = signs.groupby(LAYERS, sort=False).sign.agg(" ".join).unstack()
        order = matrix(rows, "accuracy")
        cells = table.reindex(index=order.index, columns=order.columns).fillna("·")
        title = f"{heading}: {listed(part.method for part in parts)}"
        tables.append(table_of(title, cells.rename_axis(None)))
    return tables


def certainty(limits: Limits) -> str:
    """Return the sentence on the statistical tests behind the verdicts."""
    if limits.pairwise:
        return "Each pair of layers is tested by itself, at the level of 5 %."
    return (
        "Tests are at the level of 5 %: of the accuracy drop with a correction for all pairs of layers of a method in "
        "networks of the same types (false discovery rate), of skill in each pair by itself."
    )


def counts(frame: pd.DataFrame) -> Table:
    """Return a table of the number of pairs of layers with each verdict, by method and kind of pairs of networks,
    and of similar ones among corresponding layers and pairs stitched in both directions; empty columns are left
    out."""
    lines = {}
    for (method, kind), rows in frame.groupby(["method", "kind"], sort=False):
        title = titles_in(method)
        if frame.networks[frame.method == method].nunique() > 1:
            title += f", {pairs_in_words(set(rows[NETWORKS].itertuples(index=False)), kind)}"
        is_same = (rows.front_type == rows.end_type) & (rows.front_layer == rows.end_layer)
        n = rows.verdict.value_counts().reindex(VERDICTS, fill_value=0).map(str)
        lines[title] = {
            **n,
            "all": str(len(rows)),
            "similar at the same layer": _share(rows.verdict[is_same] == SIMILAR),
            "similar both ways": _share(_both_ways(rows)),
        }
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("method")
    return table_of("Pairs of layers", table.loc[:, (table != "").any()])


def _both_ways(rows: pd.DataFrame) -> pd.Series:
    """Return whether pairs of layers are similar both ways, each pair once, where that is known."""
    pairs = [
        frozenset([(row.front_network, row.front_layer), (row.end_network, row.end_layer)])
        for row in rows.itertuples()
    ]
    return rows.both_ways.groupby(pairs).first().dropna()


def _share(are_similar: pd.Series) -> str:
    """Format the number of true values, such as "2 of 4"; "" for no values."""
    return f"{are_similar.astype(bool).sum()} of {len(are_similar)}" if len(are_similar) else ""


def conclusion(frame: pd.DataFrame) -> str:
    """Return the sentence on how many pairs of layers are similar by each method, and for two networks which;
    controls count only if there is nothing else."""
    rows = frame[frame.control.isna()] if frame.control.isna().any() else frame
    parts = []
    for method, of_method in rows.groupby("method", sort=False):
        similar = of_method[of_method.verdict == SIMILAR]
        n_accurate = (of_method.p_below < ALPHA).sum()
        n_inconclusive = (of_method.verdict == INCONCLUSIVE).sum()
        pairs = counted(len(of_method), "pair", "pairs")
        text = f"{titles_in(method)}: {n_accurate} of {pairs} of layers keep the accuracy; similar: {len(similar)}"
        if len(similar) and has_two_networks(rows):
            text += f" ({listed(_layers_of(similar), n=N_LAYERS)})"
        text += f"; inconclusive: {n_inconclusive}"
        parts.append(f"{text[0].upper()}{text[1:]}.")
    return " ".join(parts)


def _layers_of(similar: pd.DataFrame) -> list[str]:
    """Return the pairs of layers of two networks, each once, and whether they are similar in both directions."""
    names = []
    for (front, end), rows in similar.groupby(["front_layer", "end_layer"], sort=False):
        directions = " in both directions" if len(rows) > 1 else ""
        names.append(f"{front} → {end}{directions}")
    return names


def on_groups(groups: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Return the sentence on the largest difference of skill between groups; "" without one."""
    if tests.empty or not (tests.quantity == "skill").any():
        return ""
    skills = tests[tests.quantity == "skill"]
    test = skills.loc[skills.difference.abs().idxmax()]
    means = groups[(groups.quantity == "skill") & (groups.method == test.method)]
    value_of = means.set_index("networks").value
    within, across = (
        f"{number('skill', value_of[name])} ({titles_in(name)})"
        for name in (test.within, test.across)
    )
    lowest = ", the lowest possible with so few networks" if test.p_value == test.lowest_p else ""
    return (
        f"The largest difference between groups is of skill by {titles_in(test.method)}: {within} and {across}, p "
        f"{test.p_value:.2g}{lowest}."
    )


def reasons(frame: pd.DataFrame) -> list[str]:
    """Return a line for each reason of *accurate only* and *inconclusive*: its count, its methods and the
    remedy."""
    rows = frame[frame.verdict.isin([ACCURATE_ONLY, INCONCLUSIVE])]
    plain = [re.sub(r" \(.*?\)", "", text).removeprefix("accurate, but ") for text in rows.reason]
    lines = []
    for (verdict, reason), of_reason in rows.assign(plain=plain).groupby(["verdict", "plain"]):
        methods = of_reason.method.map(titles_in).value_counts(sort=False)
        counted = ", ".join(f"{n} by {method}" for method, n in methods.items())
        lines.append(f"{verdict.capitalize()}, {counted}: {reason}.")
    return lines


def remarks(frame: pd.DataFrame, limits: Limits) -> Iterator[str]:
    """Yield the remarks on lost spatial positions, networks of low accuracy and controls."""
    positions = on_lost_positions(frame.stitching_type.repeat(frame.n_runs))
    if positions:
        yield f"{positions} {WITH_POSITIONS}"
    ends = frame.assign(end=frame.end_network.fillna(frame.networks)).drop_duplicates(
        "end", keep="last"
    )
    low = ends[ends.end_accuracy < LOW_ACCURACY]
    if len(low):
        texts = (f"{row.end} ({100 * row.end_accuracy:.0f} %)" for row in low.itertuples())
        yield f"The accuracy of the end network alone is below 50 %: {listed(texts, n=N_NAMED)}."
    trained = frame[frame.control.isna()].drop_duplicates("networks", keep="last")
    gaps = (trained.end_accuracy - trained.front_accuracy).round(9)
    losses = dict(zip(trained.networks, gaps, strict=True))
    worse = {name: gap for name, gap in losses.items() if gap > limits.tolerance}
    if worse:
        texts = (f"{name} ({points(gap)})" for name, gap in worse.items())
        yield (
            f"In {len(worse)} of {len(losses)} pairs of networks the front network alone is up to "
            f"{points(max(worse.values()))} points less accurate than the end network, more than the accuracy drop "
            f"of a similar stitch may be, so its last layers can hardly be similar: {listed(texts, n=N_NAMED)}."
        )
    for kind, (title, must) in CONTROLS.items():
        n = Counter(frame.verdict[frame.control == kind])
        if n:
            yield (
                f"Control: of {n.total()} {title} {n[SIMILAR]} are similar ({must}), {n[INCONCLUSIVE]} inconclusive."
            )


def tables_of_groups(
    groups: pd.DataFrame, tests: pd.DataFrame, names: Sequence[str] = OF_GROUPS
) -> list[Table]:
    """Return tables of the means of each pair of groups by method, and of the differences between groups with
    p-values.

    Args:
        groups, tests: of `src.results.reports.Comparison`.
        names: of the quantities.
    """
    tables = []
    for method, means in by_method(groups):
        lines = {}
        for networks, rows in means.groupby("networks", sort=False):
            title = f"{titles_in(networks)} ({rows.n_pairs.max()})"
            of_quantity = rows.set_index("quantity")
            lines[title] = {title_of(name): _mean(of_quantity, name) for name in names}
        cells = pd.DataFrame.from_dict(lines, orient="index")
        title = f"Groups, {titles_in(method)}: means over {means.layers.iloc[0]}"
        tables.append(table_of(title, cells.rename_axis("front → end (pairs of networks)")))
    tested = {name: title_of(name) for name in names if name != SHARE}
    for method, answers in by_method(tests):
        texts = [
            f"{number(test.quantity, test.difference, sign='+')} ({test.p_value:.2g})"
            for test in answers.itertuples()
        ]
        asked = "(" + answers.within.map(titles_in) + ") − (" + answers.across.map(titles_in) + ")"
        table = answers.assign(question=asked, text=texts).pivot(
            index="question", columns="quantity", values="text"
        )
        rows = asked.unique()[:MAX_TESTS]
        cells = table.fillna("").reindex(index=rows, columns=list(tested), fill_value="")
        title = f"Differences between groups, {titles_in(method)} (p-value)"
        tables.append(table_of(title, cells.rename(columns=tested).rename_axis("question")))
    return tables


def _mean(means: pd.DataFrame, name: str) -> str:
    """Format the mean of a quantity, with its number of layers if others have more; for similar pairs also the
    share if all inconclusive ones were similar.

    Args:
        means: of a pair of groups, by quantity.
    """
    if name not in means.index:
        return ""
    row = means.loc[name]
    text = number(name, row.value)
    if name == SHARE:
        text = share_of(row.value, means.value.get(INCONCLUSIVE, 0))
    most = means.n_layers.max()
    if row.n_layers < most:
        text += f" ({round(row.n_layers, 1):g} of {round(most, 1):g} layers)"
    return text


def lines_on_groups(
    groups: pd.DataFrame, tests: pd.DataFrame, frame: pd.DataFrame
) -> Iterator[str]:
    """Yield notes on the comparison of groups: the layers behind means, p-values and their limits, omitted
    tests, and differences in type and accuracy.

    Args:
        frame: that the means are of.
    """
    if groups.empty:
        return
    complete = groups.sort_values("n_layers", ascending=False, kind="stable")
    sets = (
        complete.drop_duplicates(["method", "networks"])
        .sort_index()
        .groupby("pairs_of_layers", sort=False)
    )
    for layers, of_layers in sets:
        subject = "Layers (relative depths)"
        if len(sets) > 1:
            subject += f" of {', '.join(dict.fromkeys(map(titles_in, of_layers.networks)))}"
        yield f"{subject}: {listed(layers.split('; '))}"
    if (groups.value[groups.quantity == INCONCLUSIVE] > 0).any():
        yield "A share of similar pairs has two bounds: without and with the inconclusive stitches."
    if len(sets) > 1:
        yield "The groups are compared over different layers, which may explain their difference as well."
    if tests.empty:
        return
    yield "p is two-sided, by permutations of the networks, and not corrected for the number of tests."
    sizes = tests[["n_networks", "n_second"]].astype(int)
    by_sizes = tests.assign(fewest=sizes.min(axis=1), most=sizes.max(axis=1))
    for row in by_sizes.drop_duplicates(["fewest", "most"]).itertuples():
        yield (
            f"{row.n_labelings:.0f} ways to divide networks into groups of {row.most} + {row.fewest} are compared, so "
            f"no p of such groups can be below {row.lowest_p:.2g}."
        )
    n_questions = len(tests[["within", "across"]].drop_duplicates())
    if n_questions > MAX_TESTS:
        yield f"{n_questions - MAX_TESTS} more comparisons of groups are in the CSV of tests."
    yield from filter(None, [on_unlike_types(tests), on_unlike_accuracies(frame, tests)])


def note_on_layers(groups: pd.DataFrame) -> None:
    """Print a note if the means of groups are over different pairs of layers."""
    if groups.empty:
        return
    for layers, rows in groups.groupby("layers"):
        if layers in (CORRESPONDING, ALL_LAYERS):
            note(
                f"{listed(rows.method.unique())}: the means of groups are over {layers}, and these differ between "
                "pairs of networks; so a difference between groups may come from the layers"
            )


def tables_of_shares(shares: pd.DataFrame) -> list[Table]:
    """Return tables of how often the best match is the corresponding layer, for each method and side: one row
    for each pair of groups, and for each measure the share and its chance level. Where a layer had no other to
    be compared with, cells say so.

    Args:
        shares: from `src.results.reports.match_shares`.
    """
    no_choice = shares.chance == 1
    texts = shares.assign(
        share=shares.value.map(decimals).mask(no_choice, NO_CHOICE),
        chance=shares.chance.map(decimals).mask(no_choice, ""),
        networks=shares.networks.map(titles_in) + " (" + shares.n_pairs.astype(str) + ")",
    )
    by = ["method", "dataset", "side"]
    tables = []
    for (*data, side), rows in texts.groupby(by, sort=False, dropna=False):
        columns = list(product(rows.quantity.unique(), ("share", "chance")))
        cells = rows.pivot(index="networks", columns="quantity", values=["share", "chance"])
        in_order = cells.swaplevel(axis=1).reindex(rows.networks.unique(), columns=columns)
        lines = [list(line) for line in in_order.fillna("").itertuples()]
        header = ["", *chain.from_iterable((title_of(name), "chance") for name, _ in columns[::2])]
        title = f"{SOUGHT[side]}: how often it is the corresponding layer, {_on_data(*data)}"
        tables.append(Table(title, header, lines))
    return tables


def tables_of_matches(matches: pd.DataFrame) -> list[Table]:
    """Return tables of the most frequent best match of each layer by each measure, for each pair of types,
    method and side.

    Args:
        matches: from `src.results.reports.best_matches`.
    """
    tables = []
    keys = ["method", "dataset", "side", "front_type", "end_type"]
    for (*data, side, first, second), rows in matches.groupby(keys, sort=False, dropna=False):
        cells = rows.pivot_table(
            index="front_layer",
            columns="quantity",
            values="end_layer",
            aggfunc=_most_frequent,
            fill_value="",
            sort=False,
        ).rename(columns=title_of)
        layers = rows.groupby("front_layer").corresponding.agg(_distinct)
        cells.insert(0, "corresponding", layers)
        names = [short(titles_in(kind)) for kind in (second, first)]
        title = f"{SOUGHT[side]} in {names[0]} for each layer of {names[1]}, {_on_data(*data)}"
        tables.append(table_of(title, cells.rename_axis(None)))
    return tables


def _on_data(method: str, dataset: Any) -> str:
    """Return the method and the data set, as a text."""
    return f"{method}, {short(dataset)}" if isinstance(dataset, str) else method


def _most_frequent(matches: pd.Series) -> str:
    """Return the most frequent best match and its count, such as "layer3 (4/5)"."""
    n = matches.value_counts(sort=False)
    return f"{n.idxmax()} ({n.max()}/{len(matches)})"


def _distinct(layers: pd.Series) -> str:
    """Return the distinct layers in texts that separate these by semicolons."""
    return ", ".join(dict.fromkeys(";".join(layers.dropna()).split(";")))


def report(
    frame: pd.DataFrame,
    limits: Limits,
    comparison: Any,
    further: Iterable[str] = (),
    *,
    has_maps: bool = True,
) -> str:
    """Return the printed report of verdicts, in paragraphs.

    Args:
        comparison: of the groups of networks.
        further: sentences, such as warnings.
        has_maps: begin with the maps of signs.
    """
    groups = comparison.groups
    tests = comparison.tests
    blocks = []
    if has_maps:
        signs = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items())
        blocks = [*map(str, sign_maps(frame)), f"{signs}; rows: front layers, columns: end layers"]
    blocks += [
        str(counts(frame)),
        wrapped(reasons(frame)),
        *map(str, tables_of_groups(groups, tests)),
        wrapped(lines_on_groups(groups, tests, frame)),
        wrapped([*remarks(frame, limits), *further]),
    ]
    return "\n\n".join(filter(None, blocks))


def answer(frame: pd.DataFrame, comparison: Any) -> str:
    """Return the conclusion: the similar pairs, and of groups the clearest difference."""
    of_groups = on_groups(comparison.groups, comparison.tests)
    return " ".join(filter(None, [conclusion(frame), of_groups]))
