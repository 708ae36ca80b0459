#!/usr/bin/env python3
"""Collect all results below a folder, of this suite or of the public code: matrices of accuracy, one table
of everything that was measured, curves over depth, groups of networks, and best matches of layers."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli, figures, results
from src.core.choices.similarity import SIMILARITY
from src.core.console import listed, note, result
from src.core.errors import UserError
from src.core.user_code import titles_in
from src.results.network_names import pairs_in_words

if TYPE_CHECKING:
    from pandas import DataFrame

    from src.results.reports import Comparison

MAX_MATRICES = 12  # that are drawn
MAX_PRINTED = 4  # matrices
MAX_TABLES = 12  # of best matches of layers that are printed


def parser() -> cli.Parser:
    options = cli.Parser(
        "Print the accuracy matrices of all stitching runs below a folder. Write one table of all results, with the "
        "tables of similarity (similarity/*.csv) below the folder, and of several networks curves over depth: how well "
        "corresponding layers can be stitched, and how similar they are. These are layers of the same name, in "
        "networks of different types those of nearest relative depth."
    )
    add = options.add_argument
    add("source_dir", help="folder of stitching runs, or above them")
    add(
        "front_model_type",
        nargs="?",
        type=cli.network,
        help="type of the front network that the runs must have, as for the paper's code",
    )
    add("end_model_type", nargs="?", type=cli.network, help="and of the end network")
    add(
        "--networks",
        help="list of networks as for misc/all_pairs.py, with their names and groups: compare the groups, and draw a "
        "line for each pair of groups. Default: networks.csv in the folder, if there is one",
    )
    add(
        "--best-matches",
        action="store_true",
        help="find as well, for each layer of a network, the most similar layer of each other network, by each measure "
        "and by the accuracy and skill of stitches; say how often it is the corresponding one",
    )
    add(
        "--quantities",
        nargs="+",
        default=[],
        metavar="NAME",
        help="show only these quantities in the curves and best matches, such as accuracy, cka or 'direct matching'; "
        "without it, curves have no accuracies, and the first measure of similarity",
    )
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write, with the matrices beside it (.png). Of several networks there are the curves (_depth.png), "
        "all means (_means.csv) and the tests between groups (_tests.csv), with --best-matches these "
        "(_best_matches.csv). Default: collected.csv in source_dir",
    )
    return options


def main(args: Namespace) -> None:
    """Print the matrices of a folder, and write its tables."""
    types = (args.front_model_type, args.end_model_type)
    if args.front_model_type and not args.end_model_type:
        raise UserError("give the types of both networks, or none")
    networks = args.networks or results.frame.list_in([args.source_dir])
    frame = results.frame.read(args.source_dir, networks=networks)
    if args.end_model_type:
        check_types(args.source_dir, frame, types)
    path = Path(args.output or Path(args.source_dir, "collected.csv"))
    with results.run.outputs(path, __file__):
        results.frame.write_frame(path, frame)
        show_accuracies(path, frame, has_list=bool(networks))
        summary = report(args, path, frame, has_list=bool(networks))
    note(f"wrote {path}, and further tables and figures beside it")
    if summary:
        result(summary)


def check_types(source_dir: str, frame: "DataFrame", types: tuple[str, str]) -> None:
    """Raise a UserError if the types of the front and the end networks differ from `types`."""
    recorded = set(frame[results.tables.TYPES].itertuples(index=False, name=None))
    if recorded and recorded != {types}:
        pairs = " or ".join(sorted(f"{front} to {end}" for front, end in recorded))
        raise UserError(
            f"{source_dir} has stitches of {pairs}, not of {' to '.join(types)}; leave the types out"
        )


def show_accuracies(path: Path, frame: "DataFrame", *, has_list: bool) -> None:
    """Print and draw the accuracies of each method and pair of networks."""
    stitches = frame[frame.method != SIMILARITY]
    experiments = stitches.groupby(["method", "networks"], sort=False)
    has_networks = has_list or stitches.networks.nunique() > 1
    shown = []
    drawn = []
    for place, ((method, networks), rows) in enumerate(list(experiments)[:MAX_MATRICES]):
        names = [networks] if has_networks else []
        names += [method] if has_networks or experiments.ngroups > 1 else []
        title = titles_in(", ".join(names))
        values = results.reports.matrix(rows, "accuracy")
        if place < MAX_PRINTED:
            figures.maps.print_values(title, values)
        framed = figures.maps.framed_in(rows)
        shown.append(figures.maps.Map("accuracy", values, title, framed))
        drawn.append(rows)
    if len(experiments) > MAX_MATRICES:
        note(f"{MAX_MATRICES} of {len(experiments)} experiments are drawn; the CSV has all of them")
    if drawn:
        import pandas

        figures.maps.draw_layers(
            path.with_suffix(".png"), shown, source=source_of(pandas.concat(drawn))
        )


def source_of(frame: "DataFrame") -> str:
    """Return the caption's sentence on the networks and the images of rows."""
    pairs = set(frame[results.tables.NETWORKS].itertuples(index=False, name=None))
    images = frame[["dataset", "n_images"]].astype(object)
    images = images.where(images.notna(), None)
    return figures.pages.on_data(
        pairs_in_words(pairs), set(images.itertuples(index=False, name=None))
    )


def report(args: Namespace, path: Path, frame: "DataFrame", *, has_list: bool) -> str:
    """Write the means over pairs of networks, and print and draw what they show; return the caption of the
    curves, "" without curves."""
    measures = results.frame.measures_in(frame)
    means = {}
    summary = ""
    depths = results.reports.over_depth(frame, ["accuracy", "accuracy_drop", "skill", *measures])
    if len(depths):
        means["depth"] = depths
        summary = draw_curves(args, path, frame, depths)
    if has_list:
        comparison = results.reports.compare_groups(
            frame, [*results.reports.SHARES, *results.reports.MEASURED, *measures]
        )
        print_groups(comparison, frame)
        figures.words.note_on_layers(comparison.groups)
        if comparison.untested:
            note(f"groups that cannot be tested: {listed(comparison.untested, n=1)}")
        means["groups"] = comparison.groups
        if len(comparison.tests):
            results.frame.write_frame(path.with_name(f"{path.stem}_tests.csv"), comparison.tests)
    if args.best_matches:
        matches = find_best_matches(args, frame, measures)
        results.frame.write_frame(path.with_name(f"{path.stem}_best_matches.csv"), matches)
        means["best matches"] = results.reports.match_shares(matches)
    means = {name: table for name, table in means.items() if len(table)}
    if means:
        results.frame.write_means(path.with_name(f"{path.stem}_means.csv"), means)
    return summary


def draw_curves(args: Namespace, path: Path, frame: "DataFrame", depths: "DataFrame") -> str:
    """Draw the curves over depth of the chosen quantities; return their caption."""
    from src.verdict import Limits

    if depths.networks.nunique() == 1:
        depths = depths.assign(networks="")
    shown = drawn_depths(depths, args.quantities)
    rows = results.reports.corresponding(results.reports.of_two_networks(frame))
    sources = [results.reports.on_architectures(rows), source_of(rows)]
    beside = path.with_name(f"{path.stem}_depth.png")
    figures.curves.draw_depth(beside, shown, Limits(), source=" ".join(filter(None, sources)))
    return figures.curves.summary_of_depth(shown)


def drawn_depths(rows: "DataFrame", quantities: Sequence[str]) -> "DataFrame":
    """Return the rows to draw: those of the chosen quantities, or else all but accuracies, and only the first
    measure of similarity."""
    if quantities:
        return chosen_rows(rows, quantities)
    measures = list(rows.quantity[rows.method == SIMILARITY].unique())
    return rows[~rows.quantity.isin(["accuracy", *measures[1:]])]


def chosen_rows(rows: "DataFrame", chosen: Sequence[str]) -> "DataFrame":
    """Return the rows of chosen quantities or methods; all rows if none is chosen.

    Raises:
        UserError: no row has a name.
    """
    names = dict.fromkeys(rows[["quantity", "method"]].drop_duplicates().to_numpy().ravel())
    for name in chosen:
        if name not in names:
            raise UserError(
                f"--quantities {name}: there are {', '.join(names)}; give some of these"
            )
    if not chosen:
        return rows
    return rows[rows.quantity.isin(chosen) | rows.method.isin(chosen)]


def print_groups(comparison: "Comparison", frame: "DataFrame") -> None:
    """Print the means and tests of groups, of stitches and of all measures of similarity."""
    groups = comparison.groups
    if groups.empty:
        return
    tests = comparison.tests
    lines: dict[str, None] = {}  # of all methods, each once
    for method, of_method in groups.groupby("method", sort=False):
        measured = list(of_method.quantity.unique())
        names = [name for name in figures.words.OF_GROUPS if name in measured] or measured
        of_tests = tests[tests.method == method] if len(tests) else tests
        for table in figures.words.tables_of_groups(of_method, of_tests, names):
            result(f"{table}\n")
        lines |= dict.fromkeys(figures.words.lines_on_groups(of_method, of_tests, frame))
    result(figures.words.wrapped(lines))


def find_best_matches(args: Namespace, frame: "DataFrame", measures: Sequence[str]) -> "DataFrame":
    """Find the best matches of layers by all quantities, and print those of the chosen quantities."""
    rows = results.reports.best_matches(frame, [*results.reports.MATCHED, *measures])
    if rows.empty:
        raise UserError(
            f"{args.source_dir} has no stitches of two trained networks, and no table of their similarity in a folder "
            "similarity"
        )
    shown = chosen_rows(rows, args.quantities)
    of_layers = figures.words.tables_of_matches(shown)
    for table in [
        *of_layers[:MAX_TABLES],
        *figures.words.tables_of_shares(results.reports.match_shares(shown)),
    ]:
        result(f"{table}\n")
    if len(of_layers) > MAX_TABLES:
        note(
            f"{MAX_TABLES} of {len(of_layers)} tables of layers are printed; the CSV has all best matches"
        )
    return rows


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
