#!/usr/bin/env python3
"""Judge stitched pairs of layers: similar, accurate but out of distribution, not similar, or undecided."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli
from src.ood.registry import SCORES


def parser() -> cli.Parser:
    options = cli.Parser(
        "Judge which stitched pairs of layers are functionally similar, how sure that is, and whether the accuracy is "
        "bought with activations that are not like the end network's own."
    )
    add = options.add_argument
    add("source_dirs", nargs="+", help="folders of stitching runs, with their OOD evaluations if there are any")
    add("-sim", "--similarity", nargs="+", default=[], help="CSVs of exec_compute_low_rank_sim_metrics.py -o")
    add(
        "--tolerance",
        type=cli.real_number(at_least=0),
        default=5.0,
        help="points of accuracy that a similar pair may lose against the end network",
    )
    add(
        "--noise-dose",
        type=cli.real_number(at_least=0),
        default=5.0,
        help="most noise, in percent, that activations in distribution may resemble; more is off the manifold",
    )
    add(
        "--shrinkage-dose",
        type=cli.real_number(at_least=0),
        default=15.0,
        help="most shrinkage, in percent, that activations in distribution may resemble; more is collapsed",
    )
    add(
        "--detector",
        type=cli.several(SCORES),
        default=",".join(SCORES),
        help="those whose evaluations count, with commas between them",
    )
    add("--pairwise", action="store_true", help="test each pair of layers for itself, without Holm's correction")
    add("--pool", action="store_true", help="take pairs of networks that share no network together, as repetitions")
    add("--verbose", action="store_true", help="print a line for each pair of layers and method")
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        default="verdict.csv",
        help="CSV to write; the sentences (.md) and a map of each method (.png) go beside it",
    )
    cli.add_figure(options)
    return options


def give_verdict(args) -> None:
    from src.console import note, result, warn
    from src.errors import UserError
    from src.ood.rules import ValidityLimits
    from src.results.captions import describe_stitches
    from src.results.folders import read_runs
    from src.similarity.report import read_similarities
    from src.verdict import Limits, judge
    from src.verdict.report import print_verdicts, sentences, write_files

    runs = []
    for folder in args.source_dirs:
        of_folder, skipped = read_runs(folder, detectors=args.detector)
        runs += of_folder
        for reason in skipped:
            warn(f"skipped: {reason}")
    if not runs:
        folders = ", ".join(args.source_dirs)
        raise UserError(f"{folders}: no finished stitching run; give folders that hold their folders")
    similarities = [row for path in args.similarity for row in read_similarities(path)]

    doses = ValidityLimits(args.noise_dose / 100, args.shrinkage_dose / 100)
    limits = Limits(args.tolerance / 100, doses, pairwise=args.pairwise)
    verdicts = judge(runs, similarities, limits=limits, pool=args.pool)
    if similarities and not any(row.similarities for row in verdicts):
        warn("-sim: no row is of the networks, layers and data of these stitches at full rank")
    if args.verbose:
        print_verdicts(verdicts)
        result()
    result("\n".join(sentences(verdicts, limits)))
    below = describe_stitches([run.row for run in runs])
    write_files(Path(args.output), verdicts, limits, caption=below, **cli.figure_options(args))
    note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), give_verdict, argv)


if __name__ == "__main__":
    sys.exit(main())
