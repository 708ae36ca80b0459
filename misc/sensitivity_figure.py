#!/usr/bin/env python3
"""Draw how measures, probes and stitching fall as a layer keeps fewer principal components."""

import math
import sys
from pathlib import Path
from typing import NamedTuple

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
        help="CSVs of exec_compute_low_rank_sim_metrics.py -o and of exec_probe.py -o, and folders of exec_stitch.py, "
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
        help="figure to write, a PNG or a PDF; the other goes beside it",
    )
    cli.add_figure(options)
    return options


def draw(args) -> None:
    from src.figures.curves import draw_ranks
    from src.figures.pages import on_data
    from src.figures.shown import of_ranks
    from src.ground.console import note
    from src.results.outputs import outputs
    from src.results.rank_measurements import by_series, over_ranks, read_measurements

    tables = read_measurements(args.tables)
    measured = {
        pair: None for values in by_series(tables.values) for pair, *_ in over_ranks(values, side=0)
    }
    shown = []
    for first, second in chosen_pairs(list(measured), args.layers, args.other_layer):
        title = first if first == second else f"{first} → {second}"
        shown += of_ranks(curves_of_pair(tables, (first, second)), title)
    data = {(name, None) for name in tables.datasets}
    with outputs(args.output, __file__):
        draw_ranks(
            Path(args.output),
            shown,
            y_title="similarity or accuracy",
            title=args.title,
            source=on_data(1, data),
        )
        note(f"wrote {args.output}")


def chosen_pairs(
    measured: list[tuple[str, str]], layers: list[str] | None, other_layer: str | None
) -> list[tuple[str, str]]:
    """Return the pairs of layers that the command line names.

    Args:
        measured: the pairs that were measured at several ranks of the first layer.
        layers: the first layers, from the option -l; None: of all measured pairs.
        other_layer: the second layer, from the option -other; None: the first layer again.
    Raises:
        UserError: no pair is chosen, or one was not measured.
    """
    from src.ground.errors import UserError

    if layers:
        pairs = [(layer, other_layer or layer) for layer in layers]
    else:
        pairs = [pair for pair in measured if pair[1] == (other_layer or pair[0])]
    missing = [" and ".join(pair) for pair in pairs if pair not in measured]
    if missing or not pairs:
        available = [" and ".join(pair) for pair in measured]
        raise UserError(
            "these tables have no two ranks of the first layer of"
            f" {', '.join(missing) or 'a pair of that kind'}; choose by -l and -other among the"
            f" pairs that have them: {', '.join(available) or 'none'}"
        )
    return pairs


class RankCurve(NamedTuple):
    """The values of a measure over the ranks of a layer."""

    label: str
    setting: str  # tells curves of the same label apart
    values: dict[float, float]  # by rank


def curves_of_pair(tables, pair: tuple[str, str]) -> dict[str, dict[int, float]]:
    """Return the values by rank of each curve of a pair of layers, by label.

    Full rank is left out: it has no place on the axis of ranks. A warning names curves without a
    value at any other rank, as of probes without `-ranks`.
    """
    from src.ground.console import warn
    from src.results.rank_measurements import FULL

    curves = measured_curves(tables, pair)
    labels = [curve.label for curve in curves]
    values_of_label = {}
    for curve in curves:
        label = curve.label
        if labels.count(label) > 1:
            label = f"{label}, {curve.setting}"
        values = {int(rank): value for rank, value in curve.values.items() if rank != FULL}
        if not values:
            warn(
                f"no curve of the {label} at {pair[0]}: it was measured at full rank only; give -ranks"
            )
        elif all(map(math.isnan, values.values())):  # as of functions of a user's code
            warn(f"no curve of the {label} at {pair[0]}: it has no value below full rank")
        else:
            values_of_label[label] = values
    return values_of_label


def measured_curves(tables, pair: tuple[str, str]) -> list[RankCurve]:
    """List the curves of a pair of layers: measures and stitching, then probes of its first layer."""
    from src.choices.similarity import COMPANIONS, measure_of
    from src.results.measured import SIMILARITY
    from src.results.rank_measurements import by_series, over_ranks

    # Similarity and stitching; companions of a measure have no curve
    curves = []
    probed = set()  # networks and data sets whose probes belong to the pair
    for series in by_series(tables.values):
        values_of_pair = {layers: values for layers, _, values in over_ranks(series, side=0)}
        first = series[0]
        if pair not in values_of_pair or first.quantity in COMPANIONS:
            continue
        probed.add((first.front.network.name, first.dataset))
        values = values_of_pair[pair]
        label = f"{first.method} (accuracy)"
        if first.method == SIMILARITY:
            measure = measure_of(first.quantity)
            label = measure.similarity_title
            values = {rank: measure.similarity(value) for rank, value in values.items()}
        curves.append(RankCurve(label, first.setting, values))

    # Probes
    for (network, layer, data), probes in tables.probes.items():
        if layer == pair[0] and {(network, data), (network, None)} & probed:
            accuracies = {rank: probe.accuracy for rank, probe in probes.items()}
            curves.append(RankCurve("linear probe (accuracy)", f"{network}, {data}", accuracies))
    return curves


def main(argv=None) -> int:
    return cli.run(parser(), draw, argv)


if __name__ == "__main__":
    sys.exit(main())
