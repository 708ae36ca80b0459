"""Judges stitches: is a pair of layers functionally similar, and how sure is that?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy). Its activations may be
unlike the end network's activations (*doses*), and may show another image (*identification*). All
three decide."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control

from src.choices.similarity import ACTIVATIONS, measure_of
from src.ood.evaluation_rows import IN_DISTRIBUTION, ValidityLimits, side_of
from src.results.captions import common
from src.results.quantities import STITCHING, VALIDITY, measured_by
from src.results.tables import IntervalEstimate, from_record
from src.similarity.similarity_rows import SimilarityRow, value_column
from src.stitching.experiments import WEIGHTS
from src.stitching.folders import StitchingRun
from src.verdict.groups import (
    FRESH_END,
    Group,
    Names,
    families_of,
    is_same_run,
    kappa_of,
    value_of,
)
from src.verdict.intervals import (
    ALPHA,
    Evidence,
    Runs,
    images_needed,
    of_difference,
    of_intervals,
    of_share,
)
from src.verdict.named_networks import named_networks
from src.verdict.verdict_rows import VerdictRow

SIMILAR = "similar"
BY_CLASS = "accurate by the class alone"
FAR = "accurate but out of distribution"
NOT_SIMILAR = "not similar"
UNDECIDED = "undecided"
VERDICTS = (SIMILAR, BY_CLASS, FAR, NOT_SIMILAR, UNDECIDED)
FEW_IMAGES = "matched on too few images"
EXPLAINED = 0.3  # the largest penalty that too few images or epochs may explain
MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
SIMILARITY_COLUMNS = [
    column
    for name in MEASURES
    for column in (name, f"{name}_p_value", f"{name}_null_95", f"{name}_calibrated")
]


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float = 0.05  # the penalty, in [0, 1], that a similar pair may have
    validity: ValidityLimits = ValidityLimits()
    # The share of identified images, half-way from chance to certainty
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
    # The mean share of identified images; None where a run was not evaluated
    identification: IntervalEstimate | None
    is_end_at_chance: bool  # at least one end network is
    is_stitch_at_chance: bool  # at least one stitched network is


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
    for family in families_of(runs, names, pool=pool):
        measured = [measure(group) for group in family]
        tests = _tests(measured, limits)
        for group, measured_of_group, p_values in zip(family, measured, tests, strict=True):
            verdict, reason = decide(group, measured_of_group, limits, p_values)
            record = {
                "verdict": verdict,
                "reason": reason,
                "side": _side(group, limits),
                "p_below": p_values.below,
                "p_above": p_values.above,
                **_identity(group),
                **_names_of(group, names),
                **_means(group),
                **_intervals(measured_of_group),
                **_aurocs(group),
                **_similarity(group, similarity_of_layers),
            }
            defined = {name: value for name, value in record.items() if _is_defined(value)}
            rows.append(from_record(VerdictRow, defined))
    return rows


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

    # Values of single runs
    kappas = [[kappa_of(classes) for classes in of_networks] for of_networks in predictions]
    identification = None
    if all(run.identified for run in group.runs):
        identified = [[run.identified for run in runs] for runs in group.by_networks]
        identification = of_intervals(identified, bounds=(0.0, 1.0))
    return Measured(
        accuracy=of_share(right_stitched),
        penalty=of_difference(right_end, right_stitched),
        kappa_within=of_intervals(kappas, bounds=(-1.0, 1.0)),
        identification=identification,
        is_end_at_chance=_may_be_below(right_end, chance),
        is_stitch_at_chance=_may_be_below(right_stitched, chance),
    )


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
    if p_values.below < ALPHA:
        if flaw == FEW_IMAGES:
            return UNDECIDED, flaw
        return _decide_accurate(_side(group, limits), measured.identification, limits)
    if p_values.above < ALPHA:
        is_small = measured.penalty.value <= EXPLAINED and not measured.is_stitch_at_chance
        if flaw and is_small:
            return UNDECIDED, flaw
        return NOT_SIMILAR, "the penalty is above the tolerance"
    n_images = measured.penalty.n_images
    n_needed = images_needed(limits.tolerance)
    if n_images < n_needed:
        needed = f": {n_needed} are needed" if math.isfinite(n_needed) else ""
        return UNDECIDED, f"{n_images} test images are too few for this tolerance{needed}"
    return UNDECIDED, flaw or "the penalty may lie on either side of the tolerance"


def _decide_accurate(
    side: str | None, identified: IntervalEstimate | None, limits: Limits
) -> tuple[str, str]:
    """Return the verdict on stitches with a penalty below the tolerance, and the reason."""
    if identified and identified.high < limits.identification:
        return BY_CLASS, "accurate, but the image is not recognised"
    if side not in (None, IN_DISTRIBUTION):
        return FAR, f"accurate, but {side}"
    if side is None:
        return UNDECIDED, "accurate, but there is no OOD evaluation"
    if identified is None:
        return UNDECIDED, "accurate, but no predictions tell whether images are identified"
    if identified.low <= limits.identification:
        return UNDECIDED, "accurate, but the image may or may not be recognised"
    return SIMILAR, "accurate, in distribution, and the image is recognised"


def _flaw(group: Group) -> str:
    """Return the flaw that may explain a penalty, "" without a flaw.

    A flaw is to match on too few images, or to train for too few epochs.
    """
    if any(run.row.is_matched_on_few for run in group.runs):
        return FEW_IMAGES
    if not all(run.has_converged for run in group.runs if run.row.n_epochs):
        return "the training had not converged"
    return ""


def _side(group: Group, limits: Limits) -> str | None:
    """Return `IN_DISTRIBUTION` if all stitches are, else the side on which a first stitch fails.

    None where no stitch fails, and the validity of a run is not known.
    """
    validities = [run.validity for run in group.runs]
    sides = [side_of(validity, limits.validity) for validity in validities if validity]
    failing = [side for side in sides if side not in (None, IN_DISTRIBUTION)]
    if failing:
        return failing[0]
    if None in sides or None in validities:
        return None
    return IN_DISTRIBUTION


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
        if name in VerdictRow._fields and len(measured) == len(values):
            means[name] = _average(measured)
    return means


def _intervals(measured: Measured | None) -> dict[str, float]:
    """Return the defined values with the ends of their intervals, by column."""
    if measured is None:
        return {}
    intervals = {
        "accuracy": measured.accuracy.interval(),
        "penalty": measured.penalty.interval(),
        "kappa_within": measured.kappa_within,
    }
    if measured.identification:
        intervals["identification"] = measured.identification
    columns: dict[str, float] = {}
    for name, interval in intervals.items():
        columns |= {
            name: interval.value,
            f"{name}_low": interval.low,
            f"{name}_high": interval.high,
        }
    return columns


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


def _by_layers(rows: Iterable[SimilarityRow]) -> dict[tuple, dict[str, float]]:
    """Return the values at full rank by networks, data and layers; the last table counts."""
    by_layers: dict[tuple, dict[str, float]] = {}
    for row in rows:
        if row.rank1 is None and row.rank2 is None:
            networks = tuple(network.key for network in row.networks)
            values = {name: value for name, value in row.values.items() if not math.isnan(value)}
            key = (networks, row.dataset, (row.layer1, row.layer2))
            by_layers.setdefault(key, {}).update(values)
    return by_layers


def _similarity(group: Group, by_layers: Mapping[tuple, Mapping[str, float]]) -> dict[str, float]:
    """Return the values of measures for the layers, networks and data of a group: means over its
    pairs of networks, as far as these have values."""
    rows = [runs[0].row for runs in group.by_networks]
    measured = [
        by_layers.get((row.network_keys, row.dataset, tuple(group.pair)), {}) for row in rows
    ]
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
