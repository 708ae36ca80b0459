#!/usr/bin/env python3
"""Draw in one figure how measures, probes and stitching fall as a layer is cut to fewer principal
components."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Draw sensitivity curves: measures of similarity, accuracy of probes and of stitching over the retained rank "
        "of a layer, in one figure."
    )
    add = options.add_argument
    add(
        "tables",
        nargs="+",
        help="CSVs of exec_compute_low_rank_sim_metrics.py -o, of exec_probe.py -o, and grid.csv of exec_stitch.py, "
        "in any order",
    )
    add(
        "-l",
        "--layers",
        nargs="+",
        help="truncated layers of the first (front) network, a panel for each; default: all that were measured at "
        "several ranks",
    )
    add(
        "-other",
        "--other-layer",
        help="layer of the second (end) network; default: the one of the same name",
    )
    add(
        "-o",
        "--output",
        type=cli.figure_file,
        required=True,
        help="figure to write, a PNG or a PDF",
    )
    add("--title", default="", help="title of the figure")
    return options


def draw(args) -> None:
    from src.console import note
    from src.errors import UserError
    from src.results.curves import curves
    from src.sensitivity.measurements import by_series, over_ranks, read_measurements

    tables = read_measurements(args.tables)
    series = by_series(tables.measurements)
    pairs = dict.fromkeys(layers for each in series for layers, *_ in over_ranks(each, side=0))
    if args.layers:
        wanted = [(layer, args.other_layer or layer) for layer in args.layers]
    else:
        wanted = [pair for pair in pairs if pair[1] == (args.other_layer or pair[0])]
    if not wanted or not pairs.keys() >= set(wanted):
        listed = ", ".join(map(" and ".join, pairs)) or "none"
        raise UserError(
            "these tables have no two ranks of the first layer of "
            f"{', '.join(' and '.join(pair) for pair in wanted if pair not in pairs) or 'a pair of that kind'}; "
            f"choose by -l and -other among the pairs that have them: {listed}"
        )
    panels = {
        first if first == second else f"{first} → {second}": lines_of(tables, (first, second))
        for first, second in wanted
    }
    labels = {
        "x_label": "retained rank",
        "y_label": "similarity, accuracy",
        "y_range": (-0.02, 1.02),
    }
    curves(Path(args.output), panels, **labels, title=args.title, caption=tables.caption)
    note(f"wrote {args.output}")


def lines_of(tables, pair: tuple[str, str]) -> dict[str, dict[int, float]]:
    """Return the curves of a pair of layers by label; full rank has no place on an axis of
    ranks."""
    from src.choices.similarity import MEASURES
    from src.sensitivity.measurements import FULL, by_series, over_ranks

    variants = {name for measure in MEASURES.values() for name in measure.companions}
    lines, models = (
        [],
        set(),
    )  # lines: (label, setting, values by rank); models: (identity, data set)
    for series in by_series(tables.measurements):
        first = series[0]
        measured = {layers: by_rank for layers, _, by_rank in over_ranks(series, side=0)}.get(pair)
        if measured is None or first.measure in variants:
            continue
        models.add((first.models[0], first.dataset))
        measure = MEASURES.get(first.measure)
        if measure:  # distances have their sign flipped
            scaled = {
                rank: measure.similarity(measure.sign * value) for rank, value in measured.items()
            }
            lines.append((measure.similarity_title, first.setting, scaled))
        else:
            lines.append((f"stitching accuracy ({first.method})", first.setting, measured))
    for (model, layer, data), probes in tables.probes.items():
        if layer == pair[0] and {(model, data), (model, None)} & models:
            accuracies = {rank: probe.accuracy for rank, probe in probes.items()}
            lines.append(("probe accuracy", f"{tables.titles[model]}, {data}", accuracies))
    labels = [label for label, *_ in lines]
    return {
        label if labels.count(label) == 1 else f"{label}, {setting}": {
            int(rank): value for rank, value in values.items() if rank != FULL
        }
        for label, setting, values in lines
    }


def main(argv=None) -> int:
    return cli.run(parser(), draw, argv)


if __name__ == "__main__":
    sys.exit(main())
