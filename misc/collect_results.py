#!/usr/bin/env python3
"""Collect the accuracies of a folder of stitching runs, ours or the public code's, as matrix, CSV
and heat map."""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.verdict import write_groups
from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Print the accuracy matrix of a folder of stitching runs; write it as CSV and heat map."
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
        "-r",
        "--recursive",
        action="store_true",
        help="include the runs in all folders below, as for a folder that holds none itself. Write "
        "grid_measurements.csv as well: a row for each measurement of two layers, from all stitches and from all "
        "tables similarity/*.csv",
    )
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write, with the figure beside it. Default: grid.csv in source_dir",
    )
    add(
        "--networks",
        help="list of networks as for misc/all_pairs.py, with their names and groups. With -r, grid_groups.csv and "
        "grid_group_tests.csv compare the groups",
    )
    return options


def collect(args) -> None:
    """Print the matrices of a folder, and write its tables."""
    from src.core.errors import UserError
    from src.figures.pages import writing
    from src.results import collected
    from src.results.folders import holds_runs, is_run

    source_dir = Path(args.source_dir)
    types = (args.front_model_type, args.end_model_type)
    if args.front_model_type and not args.end_model_type:
        raise UserError("give the types of both networks, or none")
    if is_run(source_dir) and not args.output:
        raise UserError(f"{source_dir} is a run, whose grid.csv stays as it is; give -o")
    recursive = args.recursive or not holds_runs(source_dir)
    results = collected.collect([source_dir], args.networks, recursive=recursive)
    if not results.similarities:
        refuse_empty(source_dir, results.stitches)
    if args.end_model_type:
        check_types(source_dir, results.stitches, types)
    path = Path(args.output or source_dir / "grid.csv")
    with writing(path, __file__, is_named=bool(args.output)):
        if results.stitches:
            write_accuracies(args, path, results)
        if recursive:
            write_measurements(args, path, results)


def check_types(source_dir: Path, stitches, types: tuple[str, str]) -> None:
    """Raise a UserError if the networks of stitches have types that differ from `types`, of the front and
    the end network."""
    from src.core.errors import UserError

    recorded = {(stitch.row.front_model_type, stitch.row.end_model_type) for stitch in stitches}
    if recorded and recorded != {types}:
        pairs = " or ".join(sorted(f"{front} to {end}" for front, end in recorded))
        raise UserError(
            f"{source_dir} has stitches of {pairs}, not of {' to '.join(types)}; leave the types out"
        )


def write_measurements(args, path: Path, results) -> None:
    """Write the table of all measurements, and with a list of networks the tables of its groups."""
    from src.core.console import note
    from src.core.files import write_csv
    from src.results.between_groups import compare_groups, note_on_layers
    from src.results.measurements import COLUMNS, IN_COLUMNS, between_networks

    rows = results.measurements(apart_from=IN_COLUMNS)
    measurements = path.with_name(f"{path.stem}_measurements.csv")
    write_csv(measurements, COLUMNS, [row.record for row in rows if not math.isnan(row.value)])
    note(f"wrote {measurements}")
    if args.networks:
        compared = []
        for row in between_networks(rows):
            compared.append(row._replace(method=f"{row.method}, {row.dataset}"))
        comparison = compare_groups(compared)
        print_groups(comparison)
        write_groups(path, comparison)
        note(f"wrote {path.stem}_groups.csv and {path.stem}_group_tests.csv beside it")
        note_on_layers(comparison.groups)


def print_groups(comparison) -> None:
    """Print the means and tests of groups: of similarity by all measures, of stitches as the verdict does."""
    from src.core.console import result
    from src.core.grouping import grouped
    from src.figures.words import OF_GROUPS, lines_on_groups, tables_of_groups

    for method, groups in grouped(comparison.groups, lambda row: row.method).items():
        measured = dict.fromkeys(row.quantity for row in groups)
        names = [name for name in OF_GROUPS if name in measured] or list(measured)
        tests = [test for test in comparison.tests if test.method == method]
        for text in (*tables_of_groups(groups, tests, names), *lines_on_groups(groups, tests)):
            result(f"{text}\n")


def write_accuracies(args, path: Path, results) -> None:
    """Print the matrices of a folder, and write its table of runs and its figure."""
    from operator import attrgetter

    from src.core.console import table
    from src.core.user_code import titles_in
    from src.figures.grids import write_grid
    from src.results.grid_matrices import shown_experiments
    from src.results.matrices import pivot

    # With a list, experiments are called by the names of the networks.
    names = results.names if args.networks else None
    newest = [stitch.row for stitch in results.newest]
    for title, rows in shown_experiments(newest, names).items():
        table(titles_in(title), *pivot(rows, attrgetter("accuracy")))
    rows = [stitch.row for stitch in results.stitches]
    write_grid(path, rows, names=names)


def refuse_empty(source_dir: Path, stitches) -> None:
    """Raise a UserError if a folder gave no stitches."""
    from src.core.errors import UserError

    if not stitches:
        raise UserError(
            f"{source_dir} holds no finished stitching run; give the folder that holds their folders, or a folder "
            "above it"
        )


def main(argv=None) -> int:
    return cli.run(parser(), collect, argv)


if __name__ == "__main__":
    sys.exit(main())
