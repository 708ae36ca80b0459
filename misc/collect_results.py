#!/usr/bin/env python3
"""Collect the accuracies of a folder of stitching runs, ours or the public code's, as matrix, CSV and heat map."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser("Print the accuracy matrix of a folder of stitching runs; write it as CSV and heat map. Of "
                         "two folders: both matrices, and the second less the first.")  # fmt: skip
    add = options.add_argument
    add("source_dir", help="folder that holds one folder for each run")
    add("other_dir", nargs="?", help="folder to compare with it; each of them then holds one experiment")
    add("-r", "--recursive", action="store_true", help="take the runs in all folders below, as well")
    add("-o", "--output", type=cli.table_or_figure,
        help="CSV or figure (.png, .pdf) to write; the other one goes beside it, a CSV has a PNG. Default: grid.csv in "
        "source_dir, and for two folders nothing")  # fmt: skip
    cli.add_title(options)
    return options


def collect(args) -> None:
    from src.console import table
    from src.stitching.reporting import Comparison, update_grid, write_grid
    from src.stitching.rows import accuracy_matrix, by_experiment, warn_of_repetitions
    from src.verdict.reporting import write_intervals

    folders = [str(Path(folder)) for folder in (args.source_dir, args.other_dir) if folder]
    runs = [runs_of(Path(folder), recursive=args.recursive) for folder in folders]
    experiments = [[run.row for run in folder_runs] for folder_runs in runs]
    for title, group in (item for rows in experiments for item in by_experiment(rows).items()):
        warn_of_repetitions(group)
        if not args.other_dir:
            table(title, *accuracy_matrix(group))
    output = Path(args.output or Path(args.source_dir) / "grid.csv")
    texts = {"figure": ".png" if output.suffix == ".csv" else output.suffix, "title": args.title}
    if args.other_dir:
        comparison = Comparison(folders, experiments)
        for name, panel in comparison.panels.items():
            table(name, comparison.fronts, comparison.ends, panel.values)
        if args.output:
            comparison.write(output.with_suffix(".csv"), **texts)
        return
    if args.output or args.recursive:
        write_grid(output.with_suffix(".csv"), experiments[0], **texts)
    else:  # which runs that end meanwhile keep up to date
        update_grid(Path(args.source_dir), create=True, title=args.title)
    write_intervals(output.with_name(f"{output.stem}_intervals.csv"), runs[0])


def runs_of(source_dir: Path, *, recursive: bool):
    """Return the finished runs of a folder, oldest first; warns of what is skipped."""
    from src.console import warn
    from src.errors import UserError
    from src.stitching.results import read_runs

    runs, skipped = read_runs(source_dir)
    if recursive:
        below = {marked.parent.parent for marked in source_dir.rglob("config.txt")} - {source_dir, source_dir.parent}
        for folder in sorted(below):
            folder_runs, others = read_runs(folder)
            runs, skipped = runs + folder_runs, skipped + others
        runs.sort(key=lambda run: run.folder.name)  # by time
    for reason in skipped:
        warn(f"skipped: {reason}")
    if not runs:
        raise UserError(f"{source_dir} holds no finished stitching run; give the folder that holds their folders")
    return runs


def main(argv=None) -> int:
    return cli.run(parser(), collect, argv)


if __name__ == "__main__":
    sys.exit(main())
