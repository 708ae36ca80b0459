#!/usr/bin/env python3
"""Collect the accuracies of a folder of stitching runs, ours or the public code's, as matrix, CSV and heat map."""

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
    add("other_dir", nargs="?", help="folder to compare with it; each of them then holds one experiment")
    add("-r", "--recursive", action="store_true", help="take the runs in all folders below, as well")
    add("--pool", action="store_true", help="intervals: take pairs of networks that share no network together")
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
    add("--networks", help="for --curves: the list of networks; each pair of its groups has a line of its own")
    cli.add_title(options)
    return options


def collect(args) -> None:
    if args.curves:
        draw_curves(args)
    else:
        collect_accuracies(args)


def draw_curves(args) -> None:
    from src.choices.scores import SCORES
    from src.console import note
    from src.errors import UserError
    from src.ground_truth.depth import depth_rows, write_depth
    from src.network_names import NetworkName
    from src.results.experiments import newest_runs
    from src.results.network_list import SIMILARITY, read_networks
    from src.similarity.report import read_similarities

    if args.other_dir or args.pool:
        raise UserError("--curves takes one folder, and all pairs of networks in it; leave out the other and --pool")
    source_dir = Path(args.source_dir)
    runs = newest_runs(runs_of(source_dir, recursive=True, detectors=SCORES, may_lack=True))
    tables = sorted(source_dir.rglob(f"{SIMILARITY}/*.csv"))
    listed = read_networks(args.networks) if args.networks else []
    groups = {NetworkName(each.path, each.type).identity: each.group for each in listed if each.group}
    rows = depth_rows(runs, [row for table in tables for row in read_similarities(table)], groups=groups)
    if not rows:
        raise UserError(
            f"{source_dir} has neither a stitch of a layer to the same layer of another network, nor a table of "
            f"similarity of two networks in a folder {SIMILARITY}"
        )
    output = Path(args.output or source_dir / "curves.csv")
    figure = ".png" if output.suffix == ".csv" else output.suffix
    write_depth(output.with_suffix(".csv"), rows, figure=figure, title=args.title)
    note(f"wrote {output.with_suffix('.csv')}")


def collect_accuracies(args) -> None:
    from src.console import note, table
    from src.results.experiments import by_experiment, newest_runs
    from src.results.matrices import accuracies
    from src.results.tables import write_table
    from src.stitching.grid_tables import Comparison, update_grid, write_grid
    from src.verdict import intervals
    from src.verdict.rows import IntervalRow

    folders = [str(Path(folder)) for folder in (args.source_dir, args.other_dir) if folder]
    runs = [runs_of(Path(folder), recursive=args.recursive) for folder in folders]
    counted = [newest_runs(of_folder) for of_folder in runs]
    rows = [[run.row for run in of_folder] for of_folder in counted]
    output = Path(args.output or Path(args.source_dir) / "grid.csv")
    texts = {"figure": ".png" if output.suffix == ".csv" else output.suffix, "title": args.title}

    if args.other_dir:
        stitches = [[row for row in of_folder if not row.control] for of_folder in rows]  # without their controls
        comparison = Comparison(folders, [some or all_rows for some, all_rows in zip(stitches, rows, strict=True)])
        for name, panel in comparison.panels.items():
            table(name, *panel.matrix)
        if args.output:
            comparison.write(output.with_suffix(".csv"), **texts)
        return

    for title, group in by_experiment(rows[0]).items():
        table(title, *accuracies(group))
    if args.output or args.recursive:
        write_grid(output.with_suffix(".csv"), [run.row for run in runs[0]], **texts)
    else:  # which runs that end meanwhile keep up to date
        update_grid(Path(args.source_dir), create=True, title=args.title)
    path = output.with_name(f"{output.stem}_intervals.csv")
    write_table(path, IntervalRow, intervals(counted[0], pool=args.pool))
    note(f"wrote {path}")


def runs_of(source_dir: Path, *, recursive: bool, detectors=(), may_lack: bool = False):
    """Return the finished runs of a folder, oldest first; warn of those that are skipped.

    Args:
        detectors: whose OOD evaluations are read with them.
        may_lack: a folder without runs is no error.
    """
    from src.console import warn
    from src.errors import UserError
    from src.ood.evaluated import with_evaluations
    from src.stitching.folders import folders_of_runs, read_runs

    runs, skipped = read_runs(source_dir, recursive=recursive)
    runs = with_evaluations(runs, detectors)
    for reason in skipped:
        warn(f"skipped: {reason}")
    if not runs and not may_lack:
        is_above = folders_of_runs(source_dir)
        remedy = "the folders below it do: give -r" if is_above else "give the folder that holds their folders"
        raise UserError(f"{source_dir} holds no finished stitching run; {remedy}")
    return runs


def main(argv=None) -> int:
    return cli.run(parser(), collect, argv)


if __name__ == "__main__":
    sys.exit(main())
