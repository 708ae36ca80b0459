"""Curves over the retained rank of a layer: measures of similarity, stitching and linear probes."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from src.choices.similarity import SIMILARITY, measure_of
from src.core.console import warn
from src.core.errors import UserError
from src.results.rank_measurements import FULL, Measurements, by_series, over_ranks
from src.values import Pair

PROBE = "linear probe (accuracy)"  # the label of its curve


class RankCurve(NamedTuple):
    """The values of a measure over the ranks of a layer."""

    label: str
    setting: str  # tells curves of the same label apart
    values: dict[float, float]  # by rank


def chosen_pairs(
    tables: Measurements, layers: Sequence[str] | None, other_layer: str | None
) -> list[Pair]:
    """Return the pairs of layers that were measured at several ranks of the first layer, as far as
    they are to be shown.

    Args:
        layers: the first layers; None: of all measured pairs.
        other_layer: the second layer; None: the first layer again.
    Raises:
        UserError: a pair was not measured.
    """
    measured: dict[Pair, None] = {}
    for values in by_series(tables.values):
        measured |= dict.fromkeys(series.pair for series in over_ranks(values, side=0))
    if not layers:
        return [pair for pair in measured if pair.end_layer == (other_layer or pair.front_layer)]
    pairs = [Pair(layer, other_layer or layer) for layer in layers]
    missing = [" and ".join(pair) for pair in pairs if pair not in measured]
    if missing:
        available = ", ".join(" and ".join(pair) for pair in measured)
        raise UserError(
            f"these tables have no two ranks of the first layer of {', '.join(missing)}; choose by -l and -other among "
            f"the pairs that have them: {available or 'none'}"
        )
    return pairs


def curves_of_pair(tables: Measurements, pair: Pair) -> dict[str, dict[int, float]]:
    """Return the values by rank of each curve of a pair of layers, by label.

    Full rank is left out: it has no place on the axis of ranks. A warning names curves without a
    value at any other rank, as of probes without `-ranks`.
    """
    curves = [*_measured(tables, pair), *_probed(tables, pair)]
    labels = [curve.label for curve in curves]
    values_of_label = {}
    for curve in curves:
        label = curve.label
        if labels.count(label) > 1:
            label = f"{label}, {curve.setting}"
        values = {int(rank): value for rank, value in curve.values.items() if rank != FULL}
        if all(map(math.isnan, values.values())):  # as of functions of a user's code
            warn(
                f"no curve of the {label} at {pair[0]}: it has no value below full rank; give -ranks"
            )
        else:
            values_of_label[label] = values
    return values_of_label


def _measured(tables: Measurements, pair: Pair) -> Iterator[RankCurve]:
    """Yield the curves of measures and of stitching."""
    for values in by_series(tables.values):
        first = values[0]
        for series in over_ranks(values, side=0):
            if series.pair != pair:
                continue
            if first.method == SIMILARITY:
                measure = measure_of(first.quantity)
                similarities = {
                    rank: measure.similarity(value) for rank, value in series.values.items()
                }
                yield RankCurve(measure.similarity_title, first.setting, similarities)
            else:
                yield RankCurve(f"{first.method} (accuracy)", first.setting, series.values)


def _probed(tables: Measurements, pair: Pair) -> Iterator[RankCurve]:
    """Yield the curves of probes of the first layer, of the same networks and data as the
    curves."""
    measured = set()
    for values in by_series(tables.values):
        if pair in {series.pair for series in over_ranks(values, side=0)}:
            measured.add((values[0].front.network.name, values[0].dataset))
    for (network, layer, data), probes in tables.probes.items():
        if layer == pair.front_layer and {(network, data), (network, None)} & measured:
            accuracies = {rank: probe.accuracy for rank, probe in probes.items()}
            yield RankCurve(PROBE, f"{network}, {data}", accuracies)
