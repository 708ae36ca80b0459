#!/usr/bin/env python3
"""Collect the accuracies of a folder of stitching runs, ours or the public code's, as matrix, CSV
and heat map."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Print the accuracy matrix of a folder of stitching runs; write it as CSV and heat map. Of two folders: both "
        "matrices, and the second less the first."
    )
    add = options.add_argument
    add("source_dir", help="folder that holds one folder for each run")
    add(
        "other_dir",
        nargs="?",
        help="folder to compare with it; each of them then holds one experiment",
    )
    add("end_type", nargs="?", type=cli.network, help="with this, the arguments are those of the public script: the "
        "folder and the types of both networks, which the runs have to be of")  # fmt: skip
    add(
        "-r",
        "--recursive",
        action="store_true",
        help="take the runs in all folders below, as well; a further CSV (grid_measurements.csv) has a row for each "
        "measurement of two layers, of all stitches and of all tables similarity/*.csv",
    )
    add(
        "--pool",
        action="store_true",
        help="intervals: take pairs of networks that share no network together",
    )
    add(
        "-o",
        "--output",
        type=cli.table_or_figure,
        help="CSV or figure (.png, .pdf) to write; the other one goes beside it, a CSV has a PNG. Default: grid.csv in "
        "source_dir, and for two folders nothing",
    )
    add(
        "--curves",
        action="store_true",
        help="draw instead, over depth, how well the same layer of two networks can be stitched and how similar it is: "
        "means over all stitches and tables similarity/*.csv below source_dir, with intervals; CSV and figure: "
        "curves.csv in source_dir",
    )
    add("--networks", help="for -r and --curves: the list of networks, which gives them names and groups; with "
        "--curves each pair of groups has a line of its own")  # fmt: skip
    add("--title", default="", help="title of the figure")
    return options


def collect(args) -> None:
    from src.errors import UserError

    if args.end_type:
        types = cli.network(args.other_dir), args.end_type
        check_types(Path(args.source_dir), types, recursive=args.recursive or args.curves)
        args.other_dir = None
    if args.networks and not (args.recursive or args.curves):
        raise UserError(
            "--networks names those of -r and --curves; give one of them, or leave it out"
        )
    if not args.curves:
        collect_accuracies(args)
    elif args.other_dir or args.pool:
        raise UserError(
            "--curves takes one folder, and all pairs of networks in it; leave out the other and --pool"
        )
    else:
        draw_curves(args)


def check_types(source_dir: Path, types, *, recursive: bool) -> None:
    """Raise a UserError if the runs of a folder are of other types than these of the front and the
    end network."""
    from src.errors import UserError
    from src.stitching.folders import read_runs

    runs, _ = read_runs(source_dir, recursive=recursive)
    recorded = {(run.row.front_model_type, run.row.end_model_type) for run in runs}
    if recorded and recorded != {types}:
        pairs = " or ".join(" to ".join(pair) for pair in sorted(recorded))
        raise UserError(
            f"{source_dir} has stitches of {pairs}, not of {' to '.join(types)}; leave the types out"
        )


def draw_curves(args) -> None:
    from src.collected.depth_curves import depth_rows, write_depth
    from src.console import note
    from src.errors import UserError
    from src.stitching.experiments import newest_runs

    source_dir = Path(args.source_dir)
    runs = newest_runs(runs_of(source_dir, recursive=True, may_lack=True))
    groups = {
        listed_as: network.group
        for listed_as, network in listed_networks(args).items()
        if network.group
    }
    rows = depth_rows(runs, similarities_of(source_dir), groups=groups)
    if not rows:
        raise UserError(
            f"{source_dir} has neither a stitch of a layer to the same layer of another network, nor a table of "
            "similarity of two networks in a folder similarity"
        )
    output = Path(args.output or source_dir / "curves.csv")
    figure = ".png" if output.suffix == ".csv" else output.suffix
    write_depth(output.with_suffix(".csv"), rows, figure=figure, title=args.title)
    note(f"wrote {output.with_suffix('.csv')}; its figure is beside it")


def collect_accuracies(args) -> None:
    from src.stitching.experiments import newest_runs
    from src.stitching.grid_tables import compare

    folders = [str(Path(folder)) for folder in (args.source_dir, args.other_dir) if folder]
    similarities = similarities_of(Path(args.source_dir)) if args.recursive else []
    runs = [
        runs_of(Path(folder), recursive=args.recursive, may_lack=bool(similarities))
        for folder in folders
    ]
    counted = [newest_runs(of_folder) for of_folder in runs]
    output = Path(args.output or Path(args.source_dir) / "grid.csv")
    texts = {"figure": ".png" if output.suffix == ".csv" else output.suffix, "title": args.title}
    if not args.other_dir:
        write_tables(args, runs[0], counted[0], similarities, output.with_suffix(".csv"), **texts)
        return
    rows = [[run.row for run in of_folder] for of_folder in counted]
    compare(folders, rows, output.with_suffix(".csv") if args.output else None, **texts)


def write_tables(args, runs, counted, similarities, path: Path, *, figure: str, title: str) -> None:
    """Print the matrices of a folder, and write its tables.

    Args:
        runs, counted: all of them, and of repeated ones the newest.
    """
    from src.collected.measurements import MeasurementRow, measurement_rows
    from src.console import note, table
    from src.files import write_csv
    from src.results.matrices import accuracies
    from src.results.tables import to_record, write_table
    from src.stitching.experiments import by_experiment
    from src.stitching.grid_tables import update_grid, write_grid
    from src.verdict import judge
    from src.verdict.verdict_rows import INTERVALS

    if args.recursive:
        measurements = path.with_name(f"{path.stem}_measurements.csv")
        rows = measurement_rows(counted, similarities, listed=listed_networks(args))
        write_table(measurements, MeasurementRow, rows)
        note(f"wrote {measurements}")
    if not runs:
        return
    for name, same in by_experiment([run.row for run in counted]).items():
        table(name, *accuracies(same))
    if args.output or args.recursive:
        write_grid(path, [run.row for run in runs], figure=figure, title=title)
    else:  # which runs that end meanwhile keep up to date
        update_grid(Path(args.source_dir), create=True, title=title)
    intervals = path.with_name(f"{path.stem}_intervals.csv")
    records = [to_record(row) for row in judge(counted, pool=args.pool)]
    write_csv(
        intervals, INTERVALS, [{name: record[name] for name in INTERVALS} for record in records]
    )
    note(f"wrote {intervals}")


def runs_of(source_dir: Path, *, recursive: bool, may_lack: bool):
    """Return the finished runs of a folder, oldest first; warn of those that are skipped.

    Args:
        recursive: of those below as well, with their evaluations.
        may_lack: a folder without runs is no error.
    """
    from src.console import warn
    from src.errors import UserError
    from src.ood.evaluation_rows import with_evaluations
    from src.stitching.folders import folders_of_runs, read_runs, warn_of_weights

    runs, skipped = read_runs(source_dir, recursive=recursive)
    warn_of_weights(runs)
    for reason in skipped:
        warn(f"skipped: {reason}")
    if not runs and not may_lack:
        is_above = folders_of_runs(source_dir)
        remedy = (
            "the folders below it do: give -r"
            if is_above
            else "give the folder that holds their folders"
        )
        raise UserError(f"{source_dir} holds no finished stitching run; {remedy}")
    return with_evaluations(runs) if recursive else runs


def similarities_of(source_dir: Path):
    """Return the rows of all tables of similarity below a folder."""
    from src.results.network_list import SIMILARITY
    from src.results.tables import read_table
    from src.results.weights import warn_of_earlier
    from src.similarity.similarity_rows import SimilarityRow

    paths = sorted(source_dir.rglob(f"{SIMILARITY}/*.csv"))
    rows = [row for path in paths for row in read_table(path, SimilarityRow)]
    warn_of_earlier((row.networks for row in rows), kind="row")
    return rows


def listed_networks(args):
    """Return the networks of the list, if there is one, by what tells that a result is of one of
    them."""
    from src.results.network_list import as_listed, read_networks

    return as_listed(read_networks(args.networks)) if args.networks else {}


def main(argv=None) -> int:
    return cli.run(parser(), collect, argv)


if __name__ == "__main__":
    sys.exit(main())
