#!/usr/bin/env python3
"""Judge stitched pairs of layers: similar, accurate but out of distribution, not similar, or undecided."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser("Judge which stitched pairs of layers are functionally similar, how sure that is, and whether "
                         "the accuracy is bought with activations that the end network has never seen.")  # fmt: skip
    add = options.add_argument
    add("source_dirs", nargs="+", help="folders of stitching runs, with their OOD evaluations if there are any")
    add("-sim", "--similarity", nargs="+", default=[], help="CSVs of exec_compute_low_rank_sim_metrics.py -o")
    add("--tolerance", type=cli.real_number(at_least=0), default=5.0,
        help="points of accuracy that a similar pair may lose against the end network")  # fmt: skip
    add("--in-distribution", type=cli.real_number(at_least=0), default=0.75,
        help="AUROC below which stitched activations count as in distribution")  # fmt: skip
    add("-o", "--output", type=cli.csv_file, default="verdict.csv",
        help="CSV to write; the sentences (.md) and a map of each method (.png) go beside it")  # fmt: skip
    cli.add_figure(options)
    return options


def give_verdict(args) -> None:
    from src.console import note, result, warn
    from src.errors import UserError
    from src.measurements import read_similarities
    from src.stitching.reporting import describe
    from src.verdict import judge, read_stitches, reporting

    stitches = []
    for folder in args.source_dirs:
        of_folder, skipped = read_stitches(Path(folder))
        stitches += of_folder
        for reason in skipped:
            warn(f"skipped: {reason}")
    if not stitches:
        raise UserError(
            f"{', '.join(args.source_dirs)}: no finished stitching run; give folders that hold their folders"
        )
    similarities = [row for path in args.similarity for row in read_similarities(Path(path))]
    limits = {"tolerance": args.tolerance / 100, "in_distribution": args.in_distribution}
    verdicts = judge(stitches, similarities, **limits)
    if similarities and not any(verdict.similarities for verdict in verdicts):
        warn("-sim: no row is of the networks, layers and data of these stitches at full rank")
    for verdict in verdicts:
        low, high = verdict.penalty.interval
        place = f"{verdict.networks}: {verdict.front_layer} -> {verdict.end_layer}"
        result(f"{verdict.method}, {place}: {verdict.verdict} (accuracy {verdict.accuracy.value:.4f}, penalty "
               f"{verdict.penalty.value:.4f} [{low:.4f}, {high:.4f}]; {verdict.reason})")  # fmt: skip
    result("\n" + "\n".join(reporting.sentences(verdicts, **limits)))
    texts = cli.figure_of(args) | {"caption": describe([stitch.row for stitch in stitches])}
    reporting.write_files(Path(args.output), verdicts, **limits, **texts)
    note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), give_verdict, argv)


if __name__ == "__main__":
    sys.exit(main())
