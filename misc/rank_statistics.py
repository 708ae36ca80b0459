#!/usr/bin/env python3
"""Sensitivity and specificity of similarity measures, from CSVs of similarity, probing and
stitching."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Test how well measures of similarity follow probing accuracy over ranks (sensitivity) and find the "
        "corresponding layer (specificity), after Ding et al. 2021."
    )
    options.add_argument(
        "tables",
        nargs="+",
        help="CSVs of exec_compute_low_rank_sim_metrics.py -o, of exec_probe.py -o, and grid.csv of exec_stitch.py, "
        "in any order",
    )
    options.add_argument("-o", "--output", type=cli.csv_file, help="CSV to write, one row a test")
    return options


def statistics(args) -> None:
    from src.console import note, result, warn
    from src.errors import UserError
    from src.results.tables import write_table
    from src.sensitivity.measurements import read_measurements
    from src.sensitivity.rank_tests import (
        BASELINE,
        MIXED,
        RankTestRow,
        sensitivity,
        specificity,
        summary_of_correlations,
        summary_of_places,
    )

    tables = read_measurements(args.tables)
    if not tables.measurements:
        raise UserError(
            "these tables hold no similarity and no stitching; add a CSV of one of them"
        )
    correlations, places = list(sensitivity(tables)), list(specificity(tables))

    if correlations:
        result(
            "Sensitivity: rank correlation of measure and probing accuracy over the ranks of the varied layer"
        )
        result(
            "(distances with their sign flipped: higher is more similar; p-values are two-sided)"
        )
        result(f"({BASELINE}: the baseline, which all that rises with the rank reaches)")
        columns = {
            "n": "ranks",
            "spearman": "rho",
            "spearman_p": "p",
            "kendall": "tau",
            "kendall_p": "p",
            "note": "",
        }
        show(correlations, columns, summary=summary_of_correlations)
    else:
        warn("no sensitivity: no pair of layers was measured at several ranks")
    if places:
        result(
            "Specificity: place of the layer of the same name among all layers of the varied network, at full rank"
        )
        result("(1 is the most similar; ties count against it)")
        show(places, {"n": "layers", "place": "place", "note": ""}, summary=summary_of_places)
    else:
        warn(
            "no specificity: no two layers of the same name were measured at full rank beside others"
        )
    mixed = dict.fromkeys(row.measure for row in places if MIXED in row.note)
    if mixed:
        warn(
            f"specificity of {', '.join(mixed)}: {MIXED}, so alignments are ranked rather than layers; "
            "measure with --alignment pool"
        )
    if args.output:
        write_table(args.output, RankTestRow, [*correlations, *places])
        note(f"wrote {args.output}")


def show(rows: list, columns: dict[str, str], *, summary) -> None:
    """Print rows by setting and measure, each group followed by its summary."""
    from src.console import result

    names = {"layer1": "layer1", "layer2": "layer2", "varied": "varied", **columns}
    cells = [list(names.values())] + [[text(getattr(row, name)) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    for group in dict.fromkeys((row.setting, row.measure) for row in rows):
        members = [i for i, row in enumerate(rows) if (row.setting, row.measure) == group]
        result(f"\n{group[1]} | {group[0]}")
        result("\n".join(f"  {lines[i]}" for i in [0, *(i + 1 for i in members)]))
        result(f"  {summary([rows[i] for i in members])}")
    result()


def text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def main(argv=None) -> int:
    return cli.run(parser(), statistics, argv)


if __name__ == "__main__":
    sys.exit(main())
