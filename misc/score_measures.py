#!/usr/bin/env python3
"""Score measures of similarity: by the paper's tests of sensitivity and specificity, or by known differences
of pairs of networks; and draw how measures fall as a layer keeps fewer principal components."""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


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


def score_by_truth(args) -> None:
    """Print and write the agreement of all quantities with known differences of networks."""
    from src.core.console import note, table
    from src.results.frame import read, write_frame
    from src.results.reports import agreement
    from src.results.run import outputs

    truth = read_truth(args.truth)
    scores = agreement(read(*args.tables, networks=args.networks), truth)
    columns = ["value", "low", "high", "p_value", "n_networks"]
    for (method, dataset), rows in scores.groupby(["method", "dataset"], sort=False, dropna=False):
        known = rows[rows.reason == ""]
        cells = [list(map(text, row)) for row in known[columns].itertuples(index=False)]
        titles = ["rank correlation", "low", "high", "p", "networks"]
        table(f"{method}, {dataset}", list(known.quantity), titles, cells)
        for row in rows[rows.reason != ""].itertuples():
            note(f"{method}, {row.quantity}: {row.reason}")
    if args.output:
        with outputs(args.output, __file__):
            write_frame(Path(args.output), scores)
        note(f"wrote {args.output}")


def read_truth(path: str):
    """Return the known differences of pairs of networks.

    Raises:
        UserError: the file cannot be read, or lacks a column or a number.
    """
    import pandas

    from src.core.errors import UserError
    from src.core.files import readable
    from src.results.frame import NETWORKS

    with readable(path, "give a CSV with the columns front_network, end_network and value"):
        truth = pandas.read_csv(path, dtype=dict.fromkeys(NETWORKS, str))
    missing = [name for name in (*NETWORKS, "value") if name not in truth]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; give the columns front_network, end_network and value"
        )
    if not pandas.api.types.is_numeric_dtype(truth.value) or truth.isna().any(axis=None):
        raise UserError(f"{path}: a cell is empty or no number; give each pair of networks a value")
    return truth


def test_measures(args) -> None:
    from src.core.console import note
    from src.core.errors import UserError
    from src.core.files import write_csv
    from src.results.rank_measurements import read_measurements
    from src.results.rank_tests import COLUMNS, sensitivity, specificity
    from src.results.run import outputs

    tables = read_measurements(args.tables)
    if not tables.values:
        raise UserError(
            "these tables hold no similarity and no stitching; add a CSV of one of them"
        )
    correlations = list(sensitivity(tables))
    places = list(specificity(tables))
    show_tests(correlations, places)
    if args.output:
        with outputs(args.output, __file__):
            write_csv(Path(args.output), COLUMNS, [*correlations, *places])
            draw(args, tables)
        note(f"wrote {args.output}")


def draw(args, tables) -> None:
    """Draw the curves over ranks beside the table, where there are some."""
    from src.figures.curves import draw_ranks
    from src.figures.pages import on_data
    from src.figures.shown import of_ranks
    from src.results.pair_kinds import counted
    from src.results.rank_curves import chosen_pairs, curves_of_pair

    shown = []
    pairs = {value.networks for value in tables.values}
    for pair in chosen_pairs(tables, args.layers, args.other_layer):
        title = pair.front_layer
        if pair.end_layer != title:
            title = f"{pair.front_layer} → {pair.end_layer}"
        shown += of_ranks(curves_of_pair(tables, pair), title)
    if shown:
        draw_ranks(
            Path(args.output).with_suffix(".png"),
            shown,
            y_title="similarity or accuracy",
            source=on_data(counted(pairs), {(value.dataset, None) for value in tables.values}),
        )


def show_tests(correlations: list, places: list) -> None:
    """Print the tests, with warnings of what could not be tested."""
    from src.core.console import warn
    from src.results.rank_tests import MIXED

    if correlations:
        show_sensitivity(correlations)
    else:
        warn("no sensitivity: no pair of layers was measured at several ranks")
    if places:
        show_specificity(places)
    else:
        warn(
            "no specificity: no two layers of the same name were measured at full rank beside"
            " others"
        )
    mixed = dict.fromkeys(row["measure"] for row in places if MIXED in row["note"])
    if mixed:
        warn(
            f"specificity of {', '.join(mixed)}: {MIXED}, so alignments are ranked rather than"
            " layers; measure with --alignment pool"
        )


def show_sensitivity(rows: list) -> None:
    """Print how measures correlate with probing accuracy over ranks."""
    from src.core.console import result
    from src.results.rank_tests import BASELINE, summary_of_correlations

    result(
        "Sensitivity: rank correlation of measure and probing accuracy over the ranks of the varied"
        " layer"
    )
    result("(a line has both layers, and the varied one; p-values are two-sided)")
    result("(distances with their sign flipped: higher is more similar)")
    result(f"({BASELINE}: the baseline, which all that rises with the rank reaches)")
    columns = {
        "n": "ranks",
        "spearman": "rho",
        "spearman_p": "p",
        "kendall": "tau",
        "kendall_p": "p",
        "note": "",
    }
    show(rows, columns, summary=summary_of_correlations)


def show_specificity(rows: list) -> None:
    """Print the place of the layer of the same name, by measure."""
    from src.core.console import result
    from src.results.rank_tests import summary_of_places

    result(
        "Specificity: place of the layer of the same name among all layers of the varied network,"
        " at full rank"
    )
    result(
        "(a line has both layers, and the varied one; 1 is the most similar; ties count against it)"
    )
    show(rows, {"n": "layers", "place": "place", "note": ""}, summary=summary_of_places)


def show(rows: list, columns: dict[str, str], *, summary) -> None:
    """Print rows by setting and measure, each group followed by its summary.

    Args:
        columns: titles of the columns behind the two layers and the varied one, by column.
        summary: returns the text for the rows of a group.
    """
    from src.core.console import result, table
    from src.core.grouping import grouped

    groups = grouped(rows, lambda row: (row["setting"], row["measure"]))
    for (setting, measure), tests in groups.items():
        labels = [f"{row['layer1']} {row['layer2']} {row['varied']}" for row in tests]
        cells = [[text(row[field]) for field in columns] for row in tests]
        result()
        table(f"{measure} | {setting}", labels, list(columns.values()), cells)
        result(summary(tests))
    result()


def text(value) -> str:
    """Return the text of a cell: numbers with four digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
