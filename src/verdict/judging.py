"""Judges stitches: is a pair of layers functionally similar, and how sure is that?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy), and its activations may
show another image (*identification*), at the end layer or further on its way to the output. Both
decide."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control

from src.choices.similarity import ACTIVATIONS, measure_of
from src.collected.controls import compare, controls_of
from src.collected.groups import (
    CLASS_CONTROL,
    FRESH_END,
    Group,
    Names,
    families_of,
    is_same_run,
    kappa_of,
    value_of,
)
from src.collected.named_networks import named_networks
from src.models.steadiness import OF_BATCH, RANDOM
from src.reports.captions import common
from src.runs.folders import StitchingRun
from src.statistics.intervals import (
    ALPHA,
    Evidence,
    Runs,
    images_needed,
    of_difference,
    of_intervals,
    of_share,
    of_shares,
)
from src.tables.experiments import WEIGHTS
from src.tables.image_records import are_same
from src.tables.quantities import STITCHING, VALIDITY, measured_by
from src.tables.similarity_rows import SimilarityRow, value_column
from src.tables.tables import columns, from_record
from src.tables.verdict_rows import VerdictRow
from src.values import IntervalEstimate

SIMILAR = "similar"
LOST = "the image is lost"
NOT_MATCHED = "not matched"
UNDECIDED = "undecided"
VERDICTS = (SIMILAR, LOST, NOT_MATCHED, UNDECIDED)
MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
SIMILARITY_COLUMNS = [
    column
    for name in MEASURES
    for column in (name, f"{name}_p_value", f"{name}_null_95", f"{name}_calibrated")
]


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float = 0.05  # the penalty, in [0, 1], that a similar pair may have
    # The share of images that a similar pair identifies, half-way from chance to certainty
    identification: float = 0.75
    pairwise: bool = False  # p-values are not adjusted for the number of pairs


class Measured(NamedTuple):
    """The measurements of a group of runs, from predictions and activations.

    A network is at chance if it may be no better than always predicting the commonest class.
    """

    accuracy: Evidence  # of the stitches, in [0, 1]
    penalty: Evidence  # end accuracy − stitched accuracy
    # Agreement with the end network beyond the labels and the front network's predictions: the mean
    # over the runs, NaN where no run defines it
    kappa_within: IntervalEstimate
    # The share of identified images at each layer of the way; empty where a run was not evaluated
    way: dict[str, Evidence]
    is_end_at_chance: bool  # at least one end network is

    @property
    def lost_at(self) -> str:
        """The layer of the way with the smallest share, or the first layer with a share of NaN.

        It is "" if identification was not measured.
        """
        if not self.way:
            return ""
        shares = {layer: evidence.value for layer, evidence in self.way.items()}
        undefined = [layer for layer, share in shares.items() if math.isnan(share)]
        return undefined[0] if undefined else min(shares, key=shares.__getitem__)


class PValues(NamedTuple):
    """Tests of a penalty against the tolerance, adjusted for all pairs of a family.

    NaN: not tested.
    """

    below: float = math.nan  # small: the penalty is below the tolerance
    above: float = math.nan  # small: the penalty is above the tolerance


def judge(
    runs: Iterable[StitchingRun],
    similarities: Iterable[SimilarityRow] = (),
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    pool: bool = False,
    names: Names | None = None,
) -> list[VerdictRow]:
    """Return the verdict on each pair of layers, method and pair of networks.

    The rows come family by family (see `families_of`): the penalties of a family are tested
    together. Numbers that were not measured, or are not defined, are None.

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
    rows = []
    families = families_of(runs, names, pool=pool)
    controls = controls_of(chain.from_iterable(families))
    for family in families:
        measured = [measure(group) for group in family]
        tests = _tests(measured, limits)
        for group, measured_of_group, p_values in zip(family, measured, tests, strict=True):
            verdict, reason = decide(group, measured_of_group, limits, p_values)
            control = compare(group, controls)
            record = {
                "verdict": verdict,
                "reason": reason,
                "p_below": p_values.below,
                "p_above": p_values.above,
                **_identity(group),
                **_names_of(group, names),
                **_means(group),
                **_intervals(measured_of_group),
                "control_identification": control.identification,
                "p_control": control.p_value,
                **_aurocs(group),
                **_similarity(group, similarity_of_layers),
            }
            defined = {name: value for name, value in record.items() if _is_defined(value)}
            row = from_record(VerdictRow, defined)
            rows.append(replace(row, way=_intervals_of_way(measured_of_group)))
    return _with_both_ways(rows)


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


def _is_defined(value: Any) -> bool:
    """Return whether a value is neither None nor NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _tests(measured: Sequence[Measured | None], limits: Limits) -> list[PValues]:
    """Test the penalties of a family together; groups without predictions are not tested."""
    tested = [number for number, of_group in enumerate(measured) if of_group]
    penalties = [of_group.penalty for of_group in measured if of_group]
    below = adjusted([penalty.p_below(limits.tolerance) for penalty in penalties], limits)
    above = adjusted([penalty.p_above(limits.tolerance) for penalty in penalties], limits)
    p_values = [PValues()] * len(measured)
    for number, p_below, p_above in zip(tested, below, above, strict=True):
        p_values[number] = PValues(p_below, p_above)
    return p_values


def adjusted(p_values: Sequence[float], limits: Limits) -> Sequence[float]:
    """Return p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995).

    A test is positive if its adjusted p-value is below a level α. At most the share α of the
    positive tests is expected to be false. `limits.pairwise` leaves the p-values unadjusted.
    """
    if limits.pairwise or not p_values:
        return p_values
    return false_discovery_control(p_values).tolist()


def measure(group: Group) -> Measured | None:
    """Return the measurements of a group.

    None where a run has no predictions, or the labels of the test images differ.
    """
    predictions = _predictions(group)
    if predictions is None:
        return None
    labels = predictions[0][0]["labels"]

    # Right or wrong on each image, by pair of networks: (runs, N)
    right_end = [
        np.stack([classes["end"] == labels for classes in of_networks])
        for of_networks in predictions
    ]
    right_stitched = [
        np.stack([classes["stitched"] == labels for classes in of_networks])
        for of_networks in predictions
    ]
    chance = np.bincount(labels).max() / len(labels)
    kappas = [[kappa_of(classes) for classes in of_networks] for of_networks in predictions]
    return Measured(
        accuracy=of_share(right_stitched),
        penalty=of_difference(right_end, right_stitched),
        kappa_within=of_intervals(kappas, bounds=(-1.0, 1.0)),
        way=_way_of(group),
        is_end_at_chance=_may_be_below(right_end, chance),
    )


def _way_of(group: Group) -> dict[str, Evidence]:
    """Return the evidence on the share of identified images, by layer of the way.

    It is {} where a run was not evaluated, or runs were judged at different layers or images.
    """
    layers = {tuple(row.layer for row in run.way) for run in group.runs}
    numbers = {row.n_images for run in group.runs for row in run.way}
    if len(layers) != 1 or len(numbers) != 1:
        return {}
    (way,) = layers
    (n_images,) = numbers
    evidence = {}
    for place, layer in enumerate(way):
        shares = [np.array([run.way[place].share for run in runs]) for runs in group.by_networks]
        evidence[layer] = of_shares(shares, n_images=n_images)
    return evidence


def _predictions(group: Group) -> list[list[dict[str, np.ndarray]]] | None:
    """Return the predictions of the runs on each pair of networks.

    None where a run has none, or the labels of the test images differ.
    """
    predictions: list[list[dict[str, np.ndarray]]] = []
    labels = None
    for runs in group.by_networks:
        predictions.append([])
        for run in runs:
            classes = run.predictions
            if classes is None:
                return None
            if labels is None:
                labels = classes["labels"]
            if not np.array_equal(classes["labels"], labels):
                return None
            predictions[-1].append(classes)
    return predictions


def _may_be_below(right: Runs, share: float) -> bool:
    """Return whether a run may be right about no more than a share of the images."""
    return any(
        of_share([right_of_run[None]]).interval().low <= share
        for right_of_run in chain.from_iterable(right)
    )


def decide(
    group: Group, measured: Measured | None, limits: Limits, p_values: PValues
) -> tuple[str, str]:
    """Return one of `VERDICTS`, and the reason as a text."""
    if group.control == FRESH_END:
        return UNDECIDED, "the end network was never trained"
    if measured is None:
        return UNDECIDED, "no predictions of the same test images"
    if measured.is_end_at_chance:
        return UNDECIDED, "the end network is at chance"
    flaw = _flaw(group)
    if flaw:
        return UNDECIDED, flaw
    if p_values.below < ALPHA:
        return _decide_accurate(measured, limits)
    if not all(run.has_converged for run in group.runs if run.row.n_epochs):
        return UNDECIDED, "the training had not converged"
    if p_values.above < ALPHA:
        return NOT_MATCHED, _reason_of_loss(group, measured, limits)
    n_images = measured.penalty.n_images
    n_needed = images_needed(limits.tolerance)
    if n_images < n_needed:
        needed = f": {n_needed} are needed" if math.isfinite(n_needed) else ""
        return UNDECIDED, f"{n_images} test images are too few for this tolerance{needed}"
    return UNDECIDED, "the penalty may lie on either side of the tolerance"


def _decide_accurate(measured: Measured, limits: Limits) -> tuple[str, str]:
    """Return the verdict on stitches with a penalty below the tolerance, and the reason.

    A pair is similar if the share of identified images is above its limit at every layer of the
    way. All tests have to agree, so that each has the whole level (an intersection–union test,
    Berger 1982). The image is lost if the share is below the limit at one of L layers; each test
    has the level α/L.
    """
    if not measured.way:
        return UNDECIDED, "accurate, but identification was not measured"
    layer = measured.lost_at
    weakest = measured.way[layer]
    if math.isnan(weakest.value):
        return UNDECIDED, f"accurate, but the activations at {layer} are not finite"
    if weakest.p_below(limits.identification) * len(measured.way) < ALPHA:
        return LOST, f"accurate, but the image is lost at {layer}"
    if all(share.p_above(limits.identification) < ALPHA for share in measured.way.values()):
        return SIMILAR, "accurate, and the image is recognised all the way"
    return UNDECIDED, "accurate, but the image may or may not be recognised all the way"


def _reason_of_loss(group: Group, measured: Measured, limits: Limits) -> str:
    """Return the reason of a penalty above the tolerance; name a front that is much worse."""
    reason = "the penalty is above the tolerance"
    worse = _average([run.row.end_accuracy - run.row.front_accuracy for run in group.runs])
    if worse > limits.tolerance:
        reason += f", and the front network alone is {100 * worse:.1f} points worse"
    return reason


def _flaw(group: Group) -> str:
    """Return the flaw of a stitch, "" without a flaw: nothing is said of a stitch with one.

    A flaw is an unsteady network, a fit that the cutoff of singular values truncated, or a fit to
    too few images: it is not what its method can do.
    """
    for side in ("front", "end"):
        found = {getattr(run.row, f"{side}_unsteadiness") for run in group.runs}
        if RANDOM in found:
            return f"the {side} network is random when it is evaluated"
        if OF_BATCH in found:
            return f"the {side} network depends on the batch when it is evaluated"
    if any(run.row.is_truncated for run in group.runs):
        return "the cutoff truncated the fit"
    if any(run.row.is_matched_on_few for run in group.runs):
        return "matched on too few images"
    return ""


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
        **{name: common(rows, name) or None for name in WEIGHTS},
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


def _intervals(measured: Measured | None) -> dict[str, Any]:
    """Return the defined values with the ends of their intervals, by column, and `lost_at`."""
    if measured is None:
        return {}
    intervals = {
        "accuracy": measured.accuracy.interval(),
        "penalty": measured.penalty.interval(),
        "kappa_within": measured.kappa_within,
    }
    ends: dict[str, Any] = {}
    if measured.way and not math.isnan(measured.way[measured.lost_at].value):
        ends["lost_at"] = measured.lost_at
        intervals["identification"] = measured.way[measured.lost_at].interval()
    for name, interval in intervals.items():
        ends |= {
            name: interval.value,
            f"{name}_low": interval.low,
            f"{name}_high": interval.high,
        }
    return ends


def _intervals_of_way(measured: Measured | None) -> dict[str, IntervalEstimate]:
    """Return the share of identified images with its interval, by layer of the way."""
    if measured is None:
        return {}
    return {
        layer: share.interval()
        for layer, share in measured.way.items()
        if not math.isnan(share.value)
    }


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
    return {
        name: _average([values[name] for values in measured if name in values])
        for name in similarity_columns(measured)
    }


def similarity_columns(values: Iterable[Mapping[str, float]]) -> list[str]:
    """Return the columns of similarity that a verdict shows.

    They are all `SIMILARITY_COLUMNS`, and the columns of a user's measures that have values.

    Args:
        values: of rows of tables of similarity, by column.
    """
    columns = dict.fromkeys(chain.from_iterable(values))
    of_users = [name for name in columns if measure_of(value_column(name)).of == ACTIVATIONS]
    return [*SIMILARITY_COLUMNS, *of_users]


def _average(values: Sequence[float]) -> float:
    """Return the mean; NaN of no values."""
    if not values:
        return math.nan
    return sum(values) / len(values)
