#!/usr/bin/env python3
"""Score measures of similarity: by the paper's tests of sensitivity and specificity, or by known differences
of pairs of networks; and draw how measures fall as a layer keeps fewer principal components."""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli, figures, results
from src.core.console import decimals, note, result, table, warn
from src.core.errors import UserError
from src.core.files import readable
from src.results.network_names import pairs_in_words

if TYPE_CHECKING:
    from pandas import DataFrame

ON_SENSITIVITY = """\
Sensitivity: rank correlation of measure and probing accuracy over the ranks of the varied layer
(a line has both layers, and the varied one; p-values are two-sided)
(distances with their sign flipped: higher is more similar)
(rank itself: the correlation of anything that increases with the rank)"""
ON_SPECIFICITY = """\
Specificity: place of the layer of the same name among all layers of the varied network, at full rank
(a line has both layers, and the varied one; 1 is the most similar; ties count against it)"""


def parser() -> cli.Parser:
    options = cli.Parser(
        "Test how well measures of similarity follow probing accuracy over ranks (sensitivity) and find the "
        "corresponding layer (specificity), after Ding et al. 2021. With --truth, test instead how well each measure, "
        "and each quantity of stitches, orders pairs of networks by how they are known to differ."
    )
    add = options.add_argument
    add(
        "tables",
        nargs="+",
        help="CSVs of exec_compute_low_rank_sim_metrics.py -o and of exec_probe.py -o, and folders of exec_stitch.py, "
        "in any order; with --truth folders of results, such as results/DIR of misc/all_pairs.py",
    )
    add(
        "--truth",
        help="CSV with the columns front_network, end_network and value: how two networks are known to differ, in "
        "either order. Prints Spearman's rank correlation with measured dissimilarity over pairs of networks, its "
        "interval of 95 %% over networks, and p by permutations of the networks",
    )
    add(
        "--networks",
        help="list of networks as for misc/all_pairs.py, whose names --truth has. Default: networks.csv in the folder",
    )
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write, one row a test. The figure goes beside it: measures of similarity, accuracy of probes and "
        "of stitching over the retained rank of a layer",
    )
    add(
        "-l",
        "--layers",
        nargs="+",
        help="truncated layers of the first (front) network in the figure, a panel for each; default: all that were "
        "measured at several ranks",
    )
    add(
        "-other",
        "--other-layer",
        help="layer of the second (end) network in the figure; default: the one of the same name",
    )
    return options


def main(args: Namespace) -> None:
    if args.truth:
        score_by_truth(args)
    else:
        test_measures(args)


def score_by_truth(args: Namespace) -> None:
    """Print and write the rank correlation of all quantities with known differences of networks."""
    truth = read_truth(args.truth)
    scores = results.reports.agreement(
        results.frame.read(*args.tables, networks=args.networks), truth
    )
    columns = ["value", "low", "high", "p_value", "n_networks"]
    for (method, dataset), rows in scores.groupby(["method", "dataset"], sort=False, dropna=False):
        scored = rows[rows.reason == ""]
        cells = [list(map(text, row)) for row in scored[columns].itertuples(index=False)]
        titles = ["rank correlation", "low", "high", "p", "networks"]
        table(f"{method}, {dataset}", list(scored.quantity), titles, cells)
        for row in rows[rows.reason != ""].itertuples():
            note(f"{method}, {row.quantity}: {row.reason}")
    if args.output:
        with results.run.outputs(args.output, __file__):
            results.frame.write_frame(Path(args.output), scores)
        note(f"wrote {args.output}")


def read_truth(path: str) -> "DataFrame":
    """Read the known differences of pairs of networks from a CSV.

    Raises:
        UserError: the file cannot be read, or lacks a column or a number.
    """
    import pandas

    with readable(path, "give a CSV with the columns front_network, end_network and value"):
        truth = pandas.read_csv(path, dtype=dict.fromkeys(results.tables.NETWORKS, str))
    missing = [name for name in (*results.tables.NETWORKS, "value") if name not in truth]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; give the columns front_network, end_network and value"
        )
    if not pandas.api.types.is_numeric_dtype(truth.value) or truth.isna().any(axis=None):
        raise UserError(f"{path}: a cell is empty or no number; give each pair of networks a value")
    return truth


def test_measures(args: Namespace) -> None:
    """Print and write the tests of sensitivity and specificity, and draw the curves over ranks."""
    import pandas

    frame, probes = results.frame.read_ranks(*args.tables)
    correlations = results.ranks.sensitivity(frame, probes)
    places = results.ranks.specificity(frame)
    show_sensitivity(correlations)
    show_specificity(places)
    if args.output:
        with results.run.outputs(args.output, __file__):
            results.frame.write_frame(Path(args.output), pandas.concat([correlations, places]))
            draw(args, frame, probes, correlations)
        note(f"wrote {args.output}")
    result(answer(correlations, places))


def draw(
    args: Namespace, frame: "DataFrame", probes: "DataFrame", correlations: "DataFrame"
) -> None:
    """Draw the curves over ranks to a figure beside the table, if there are any."""
    curves = results.ranks.over_ranks(results.ranks.rank_values(frame))
    labels = correlations.assign(label=results.ranks.labels_of(correlations))
    panels: dict[str, Any] = {}  # the lines of each panel
    rho = {}
    for pair in results.ranks.chosen_pairs(curves, args.layers, args.other_layer):
        title = pair.front_layer
        if pair.end_layer != title:
            title = f"{pair.front_layer} → {pair.end_layer}"
        panels[title] = results.ranks.curves_of_pair(curves, probes, pair)
        is_of_pair = (labels[results.tables.LAYERS] == list(pair)).all(axis=1) & (
            labels.varied == "front"
        )
        rho[title] = labels[is_of_pair].set_index("label").spearman.to_dict()
    if panels:
        pairs = set(frame[results.tables.NETWORKS].itertuples(index=False, name=None))
        datasets = {(dataset, None) for dataset in frame.dataset}
        figures.curves.draw_ranks(
            Path(args.output).with_suffix(".png"),
            panels,
            y_title="value",
            truth=results.ranks.PROBE,
            rho=rho,
            source=figures.pages.on_data(pairs_in_words(pairs), datasets),
        )


def answer(correlations: "DataFrame", places: "DataFrame") -> str:
    """Return the concluding sentence: the mean rank correlation of each measure, or else its mean place."""
    in_ranks = "Mean rank correlation ρ with the accuracy of probes over ranks"
    in_places = "Mean place of the layer of the same name"
    for tests, column, subject in (
        (correlations, "spearman", in_ranks),
        (places, "place", in_places),
    ):
        defined = tests.assign(label=results.ranks.labels_of(tests)).dropna(subset=column)
        means = defined.groupby("label", sort=False)[column].mean()
        if len(means):
            texts = [f"{mean:.2f} ({label})" for label, mean in means.items()]
            return f"{subject}: {', '.join(texts)}."
    return "No test of these tables gives a result."


def show_sensitivity(tests: "DataFrame") -> None:
    """Print the rank correlations of measures with probing accuracy over ranks."""
    if tests.empty:
        warn("no sensitivity: no pair of layers was measured at several ranks")
        return
    result(ON_SENSITIVITY)
    titles = {"n": "ranks", "spearman": "rho", "spearman_p": "p", "kendall": "tau"}
    show(tests, {**titles, "kendall_p": "p", "note": ""}, mean_correlations)


def mean_correlations(tests: "DataFrame") -> str:
    """Return the mean correlations of a measure; none is called significant, as the layers of a network depend on
    each other."""
    if tests.spearman.isna().all():
        return "no correlation is defined"
    return f"mean rho {decimals(tests.spearman.mean())}, mean tau {decimals(tests.kendall.mean())}"


def show_specificity(tests: "DataFrame") -> None:
    """Print the place of the layer of the same name by each measure; warn if measures differ in alignment."""
    if tests.empty:
        warn(
            "no specificity: no two layers of the same name were measured at full rank beside"
            " others"
        )
        return
    result(ON_SPECIFICITY)
    show(tests, {"n": "layers", "place": "place", "note": ""}, mean_places)
    mixed = tests.quantity[tests.note.str.contains(results.ranks.MIXED)].unique()
    if len(mixed):
        warn(
            f"specificity of {', '.join(mixed)}: {results.ranks.MIXED}, so alignments are ranked rather than"
            " layers; measure with --alignment pool"
        )


def mean_places(tests: "DataFrame") -> str:
    """Return how often the layer of the same name is first, and its mean place, by the varied side."""
    texts = [
        f"{varied}: first in {(places == 1).sum()} of {len(places)}, mean place {places.mean():.2f}"
        for varied, places in tests.dropna(subset="place").groupby("varied", sort=False).place
    ]
    return "; ".join(texts) or "no place is defined"


def show(
    tests: "DataFrame", columns: dict[str, str], summary: "Callable[[DataFrame], str]"
) -> None:
    """Print tests grouped by setting and measure, with a summary after each group.

    Args:
        columns: titles of the columns behind the two layers and the varied one, by column.
        summary: returns the text for the rows of a group.
    """
    for (setting, quantity), rows in tests.groupby(["setting", "quantity"], sort=False):
        names = rows[["front_layer", "end_layer", "varied"]].itertuples(index=False)
        cells = [list(map(text, row)) for row in rows[list(columns)].itertuples(index=False)]
        result()
        table(f"{quantity} | {setting}", list(map(" ".join, names)), list(columns.values()), cells)
        result(summary(rows))
    result()


def text(value: object) -> str:
    """Format the value of a cell: numbers with four digits, "" for a missing value."""
    import pandas

    if pandas.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
