#!/usr/bin/env python3
"""Collect the accuracies of a folder of stitching runs, ours or the public code's, as matrix, CSV and heat map."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser("Print the accuracy matrix of a folder of stitching runs; write it as CSV and heat map.")
    options.add_argument("source_dir", help="folder that holds one folder for each run")
    options.add_argument("-r", "--recursive", action="store_true", help="take the runs in all folders below, as well")
    options.add_argument("-o", "--output", type=cli.csv_file,
                         help="CSV to write, a PNG goes beside it; default: grid.csv in source_dir")  # fmt: skip
    return options


def collect(args) -> None:
    from src.console import table, warn
    from src.errors import UserError
    from src.stitching.results import (
        accuracy_matrix,
        by_experiment,
        read_runs,
        update_grid,
        warn_of_repetitions,
        write_grid,
    )

    source_dir = Path(args.source_dir)
    runs, skipped = read_runs(source_dir)
    if args.recursive:
        below = {marked.parent.parent for marked in source_dir.rglob("config.txt")} - {source_dir, source_dir.parent}
        for folder in sorted(below):
            found, others = read_runs(folder)
            runs, skipped = runs + found, skipped + others
        runs.sort(key=lambda run: run.folder.name)  # by time
    for reason in skipped:
        warn(f"skipped: {reason}")
    if not runs:
        raise UserError(f"{source_dir} holds no finished stitching run; give the folder that holds their folders")
    rows = [run.row for run in runs]
    for title, group in by_experiment(rows).items():
        warn_of_repetitions(group)
        table(title, *accuracy_matrix(group))

    if args.output or args.recursive:
        write_grid(Path(args.output or source_dir / "grid.csv"), rows)
    else:  # which runs that end meanwhile keep up to date
        update_grid(source_dir, create=True)


def main(argv=None) -> int:
    return cli.run(parser(), collect, argv)


if __name__ == "__main__":
    sys.exit(main())
