"""The verdicts on stitching runs: what is judged is gathered from runs and tables, in a row for each
pair of layers, method and pair of networks."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from src.choices.similarity import ACTIVATIONS, measure_of
from src.collected.controls import Controls, compared, controls_of
from src.collected.groups import (
    CLASS_CONTROL,
    FRESH_END,
    Group,
    Names,
    families_of,
    is_same_run,
    value_of,
)
from src.collected.named_networks import named_networks
from src.runs.folders import StitchingRun
from src.tables.experiments import WEIGHTS
from src.tables.image_records import are_same
from src.tables.quantities import STITCHING, VALIDITY, measured_by
from src.tables.similarity_rows import SimilarityRow, value_column
from src.tables.tables import columns, from_record
from src.tables.verdict_rows import VerdictRow
from src.values import OF_BATCH, RANDOM, Predictions
from src.verdict import SIMILAR, Limits, Stitches, Verdict, judge

MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
SIMILARITY_COLUMNS = [
    column
    for name in MEASURES
    for column in (name, f"{name}_p_value", f"{name}_null_95", f"{name}_calibrated")
]

# Rows of similarity by networks, data and layers
ByLayers = Mapping[Hashable, Sequence[SimilarityRow]]


def judge_runs(
    runs: Iterable[StitchingRun],
    similarities: Iterable[SimilarityRow] = (),
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    pool: bool = False,
    names: Names | None = None,
) -> list[VerdictRow]:
    """Return the verdict on each pair of layers, method and pair of networks.

    The rows come family by family (see `families_of`): a family is judged together. Numbers that
    were not measured, or are not defined, are None.

    Args:
        runs: with their evaluations.
        similarities: rows of tables of similarity. Rows of the stitched networks and layers, at
            full rank, add their values to the verdict.
        pool: take pairs of networks together that share no network.
        names: name, group and training of each network, by its key; default: networks are named by
            their paths.
    """
    runs = list(runs)
    if names is None:
        names = named_networks(chain.from_iterable(run.row.networks for run in runs), {})
    similarity_of_layers = _by_layers(similarities)
    families = families_of(runs, names, pool=pool)
    controls = controls_of(chain.from_iterable(families))
    rows = []
    for family in families:
        verdicts = judge([stitches_of(group) for group in family], limits=limits)
        for group, verdict in zip(family, verdicts, strict=True):
            row = _row(group, verdict, names, controls)
            rows.append(replace(row, others=row.others | _similarity(group, similarity_of_layers)))
    return _with_both_ways(rows)


def stitches_of(group: Group) -> Stitches:
    """Return the values by which a group of runs is judged."""
    rows = [run.row for run in group.runs]
    way = _way_of(group)
    n_identified = group.runs[0].way[0].n_images if way else 0
    return Stitches(
        predictions=_predictions(group),
        way=way,
        n_identified=n_identified,
        front_accuracy=_average([row.front_accuracy for row in rows]),
        end_accuracy=_average([row.end_accuracy for row in rows]),
        is_end_trained=group.control != FRESH_END,
        has_converged=all(run.has_converged for run in group.runs if run.row.n_epochs),
        flaw=_flaw(group),
    )


def _predictions(group: Group) -> list[list[Predictions]]:
    """Return the predictions of the runs on each pair of networks; [] if a run has none."""
    predictions: list[list[Predictions]] = []
    for runs in group.by_networks:
        predictions.append([])
        for run in runs:
            if run.predictions is None:
                return []
            predictions[-1].append(run.predictions)
    return predictions


def _way_of(group: Group) -> dict[str, list[np.ndarray]]:
    """Return the shares of identified images, by layer of the way and by pair of networks: (runs,).

    It is {} where a run was not evaluated, or runs were judged at different layers or images.
    """
    layers = {tuple(row.layer for row in run.way) for run in group.runs}
    numbers = {row.n_images for run in group.runs for row in run.way}
    if len(layers) != 1 or len(numbers) != 1:
        return {}
    (way,) = layers
    return {
        layer: [np.array([run.way[place].share for run in runs]) for runs in group.by_networks]
        for place, layer in enumerate(way)
    }


def _flaw(group: Group) -> str:
    """Return the flaw of stitches in words, "" without a flaw.

    A flaw is an unsteady network, a fit that the cutoff of singular values truncated, or a fit to
    too few images: it is not what its method can do.
    """
    rows = [run.row for run in group.runs]
    unsteadiness = {
        "front": {row.front_unsteadiness for row in rows},
        "end": {row.end_unsteadiness for row in rows},
    }
    for side, found in unsteadiness.items():
        if RANDOM in found:
            return f"the {side} network is random when it is evaluated"
        if OF_BATCH in found:
            return f"the {side} network depends on the batch when it is evaluated"
    if any(row.is_truncated for row in rows):
        return "the cutoff truncated the fit"
    if any(row.is_matched_on_few for row in rows):
        return "matched on too few images"
    return ""


def _row(group: Group, verdict: Verdict, names: Names, controls: Controls) -> VerdictRow:
    """Return the row of a verdict, without similarities and without `both_ways`."""
    control = compared(group, controls)
    record = {
        "verdict": verdict.word,
        "reason": verdict.reason,
        "p_below": verdict.p_below,
        "p_above": verdict.p_above,
        **_identity(group),
        **_names_of(group, names),
        **_means(group),
        **_intervals(verdict),
        **_aurocs(group),
    }
    if control is not None:
        record |= {"control_identification": control.identification, "p_control": control.p_value}
    defined = {name: value for name, value in record.items() if _is_defined(value)}
    way = {layer: share for layer, share in verdict.way.items() if not math.isnan(share.value)}
    return replace(from_record(VerdictRow, defined), way=way)


def _identity(group: Group) -> dict[str, Any]:
    """Return the columns that name a group, and the number of its runs."""
    rows = [run.row for run in group.runs]
    accuracies = [[run.row.accuracy for run in runs] for runs in group.by_networks]
    spreads = [
        max(of_networks) - min(of_networks) for of_networks in accuracies if len(of_networks) > 1
    ]
    return {
        "method": group.method,
        "networks": group.networks,
        **group.pair._asdict(),
        "control": group.control,
        "n_runs": len(rows),
        "n_networks": len(group.by_networks),
        "seed_spread": max(spreads, default=None),
        "front_depth": rows[0].front_depth,
        "end_depth": rows[0].end_depth,
        **{name: _common(getattr(row, name) for row in rows) for name in WEIGHTS},
    }


def _names_of(group: Group, names: Names) -> dict[str, Any]:
    """Return the columns that name both networks; of several pairs of networks, only
    `same_run`."""
    run = group.runs[0]
    columns: dict[str, Any] = {"same_run": is_same_run(run, names)}
    if len(group.by_networks) == 1:
        for side, key in zip(("front", "end"), run.row.network_keys, strict=True):
            columns |= {f"{side}_network": names[key].name, f"{side}_group": names[key].group}
    return columns


def _means(group: Group) -> dict[str, float]:
    """Return the means over runs of quantities of a verdict, by column, where all runs have
    values."""
    means = {}
    for name in measured_by(STITCHING, VALIDITY):
        values = [value_of(run, name) for run in group.runs]
        measured = [value for value in values if value is not None]
        if name in columns(VerdictRow) and len(measured) == len(values):
            means[name] = _average(measured)
    return means


def _intervals(verdict: Verdict) -> dict[str, Any]:
    """Return the estimates with the ends of their intervals, by column, and `lost_at`."""
    intervals = {
        "accuracy": verdict.accuracy,
        "penalty": verdict.penalty,
        "kappa_within": verdict.kappa_within,
        "identification": verdict.identification,
    }
    ends: dict[str, Any] = {}
    for name, interval in intervals.items():
        columns = {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        ends |= {name: value for name, value in columns.items() if not math.isnan(value)}
    if "identification" in ends:
        ends["lost_at"] = verdict.lost_at
    return ends


def _aurocs(group: Group) -> dict[str, float]:
    """Return the mean AUROC of each detector, with the ends of its interval, over the evaluated
    runs."""
    aurocs = {}
    names = dict.fromkeys(name for run in group.runs for name in run.evaluations)
    for name in names:
        evaluations = [run.evaluations[name] for run in group.runs if name in run.evaluations]
        for part in ("auroc", "auroc_low", "auroc_high"):
            values = [getattr(evaluation, part) for evaluation in evaluations]
            if values and None not in values:
                aurocs[f"{part}_{name}"] = _average(values)
    return aurocs


def _by_layers(rows: Iterable[SimilarityRow]) -> dict[tuple, list[SimilarityRow]]:
    """Return the rows at full rank by networks, data and layers."""
    by_layers: dict[tuple, list[SimilarityRow]] = {}
    for row in rows:
        if row.rank1 is None and row.rank2 is None:
            networks = tuple(network.key for network in row.networks)
            key = (networks, row.dataset, (row.layer1, row.layer2))
            by_layers.setdefault(key, []).append(row)
    return by_layers


def _similarity(
    group: Group, by_layers: Mapping[tuple, Sequence[SimilarityRow]]
) -> dict[str, float]:
    """Return the values of measures for the layers, networks and images of a group: means over its
    pairs of networks, as far as these have values. The last table counts."""
    measured: list[dict[str, float]] = []
    for runs in group.by_networks:
        stitch = runs[0].row
        values: dict[str, float] = {}
        for row in by_layers.get((stitch.network_keys, stitch.dataset, tuple(group.pair)), []):
            if are_same(row.test_images, stitch.test_images):
                values |= {name: item for name, item in row.values.items() if not math.isnan(item)}
        measured.append(values)
    means = {}
    for name in similarity_columns(measured):
        of_networks = [values[name] for values in measured if name in values]
        if of_networks:
            means[name] = _average(of_networks)
    return means


def similarity_columns(values: Iterable[Mapping[str, float]]) -> list[str]:
    """Return the columns of similarity that a verdict shows.

    They are all `SIMILARITY_COLUMNS`, and the columns of a user's measures that have values.

    Args:
        values: of rows of tables of similarity, by column.
    """
    columns = dict.fromkeys(chain.from_iterable(values))
    of_users = [name for name in columns if measure_of(value_column(name)).of == ACTIVATIONS]
    return [*SIMILARITY_COLUMNS, *of_users]


def _with_both_ways(rows: Sequence[VerdictRow]) -> list[VerdictRow]:
    """Return the rows with `both_ways`, where the pair was stitched in both directions."""

    def direction(row: VerdictRow) -> tuple[Any, ...]:
        front = (row.front_network, row.front_weights, row.front_layer)
        end = (row.end_network, row.end_weights, row.end_layer)
        return row.method, front, end

    stitches = [row for row in rows if row.front_network and row.control != CLASS_CONTROL]
    row_of_direction = {direction(row): row for row in stitches}
    judged = []
    for row in rows:
        method, front, end = direction(row)
        back = row_of_direction.get((method, end, front))
        is_control = row.control == CLASS_CONTROL
        if back is not None and front != end and not is_control:
            is_similar = row.verdict == back.verdict == SIMILAR
            row = replace(row, both_ways=is_similar)
        judged.append(row)
    return judged


def _common(values: Iterable[str | None]) -> str | None:
    """Return the value that all share; None if they differ or are ""."""
    distinct = set(values)
    return distinct.pop() or None if len(distinct) == 1 else None


def _is_defined(value: Any) -> bool:
    """Return whether a value is neither None nor NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _average(values: Sequence[float]) -> float:
    """Return the mean; NaN of no values."""
    if not values:
        return math.nan
    return sum(values) / len(values)
