"""Judges stitches: is a pair of layers functionally similar, and how sure is that?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy), makes activations that
may not be those of the end network (*doses*), and may show another image (*identification*). All
three decide."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control

from src.choices.scores import SCORES
from src.ood.evaluation_rows import IN_DISTRIBUTION, ValidityLimits, side_of
from src.results.captions import common
from src.results.quantities import STITCHING, VALIDITY, measured_by
from src.results.tables import IntervalEstimate, from_record
from src.similarity.similarity_rows import Null, SimilarityRow
from src.stitching.experiments import WEIGHTS
from src.stitching.folders import StitchingRun
from src.verdict.groups import Group, families_of, is_untrained, kappa_of, value_of
from src.verdict.intervals import (
    ALPHA,
    Evidence,
    Runs,
    images_needed,
    of_difference,
    of_intervals,
    of_share,
)
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
    f"{name}{end}" for name in MEASURES for end in ("", *(f"_{part}" for part in Null._fields))
]


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float = 0.05  # the penalty, in [0, 1], that a similar pair may have
    validity: ValidityLimits = ValidityLimits()
    identification: float = (
        0.75  # the share of identified images, half-way from chance to certainty
    )
    pairwise: bool = False  # test each pair for itself


class Measured(NamedTuple):
    """What the predictions and activations of a group of runs tell."""

    accuracy: Evidence
    penalty: Evidence
    kappa_within: IntervalEstimate  # the mean over the runs; NaN where no run defines it
    identification: IntervalEstimate | None  # likewise; None: one of the runs has none
    is_end_at_chance: (
        bool  # an end network may be no better than always predicting the commonest class
    )
    is_stitch_at_chance: bool  # likewise a stitch


class PValues(NamedTuple):
    """Tests of a penalty against the tolerance, adjusted for all pairs of the method; NaN: not
    tested."""

    below: float = math.nan
    above: float = math.nan


def judge(
    runs: Iterable[StitchingRun],
    similarities: Iterable[SimilarityRow] = (),
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    pool: bool = False,
) -> list[VerdictRow]:
    """Return the verdict on each pair of layers, method and pair of networks.

    Args:
        runs: with their evaluations.
        similarities: rows of tables of similarity; those at full rank of the same networks count.
        pool: take pairs of networks together that share no network.
    """
    similarity_of_layers = _by_layers(similarities)
    rows = []
    for family in families_of(runs, pool=pool):
        measured = [measure(group) for group in family]
        for group, of_group, p_values in zip(
            family, measured, _tests(measured, limits), strict=True
        ):
            verdict, reason = decide(group, of_group, limits, p_values)
            record = {
                "verdict": verdict,
                "reason": reason,
                "side": _side(group, limits),
                "p_below": p_values.below,
                "p_above": p_values.above,
                **_identity(group),
                **_means(group),
                **_intervals(of_group),
                **_aurocs(group),
                **_similarity(group, similarity_of_layers),
            }
            rows.append(
                from_record(
                    VerdictRow,
                    {name: value for name, value in record.items() if _is_defined(value)},
                )
            )
    return rows


def _is_defined(value: Any) -> bool:
    """Return whether a value is neither None nor NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _tests(measured: Sequence[Measured | None], limits: Limits) -> list[PValues]:
    """Test the penalties of a family together; groups without predictions are not tested."""
    penalties = [of_group.penalty for of_group in measured if of_group]
    below = adjusted([penalty.p_below(limits.tolerance) for penalty in penalties], limits)
    above = adjusted([penalty.p_above(limits.tolerance) for penalty in penalties], limits)
    tested = map(PValues, below, above)
    return [next(tested) if of_group else PValues() for of_group in measured]


def adjusted(p_values: Sequence[float], limits: Limits) -> Sequence[float]:
    """Adjust p-values for the false discovery rate (Benjamini and Hochberg 1995), unless each pair
    is for itself.

    Of the pairs whose adjusted value is below a level, at most that share is expected to be called
    so falsely."""
    if limits.pairwise or not p_values:
        return p_values
    return false_discovery_control(p_values).tolist()


def measure(group: Group) -> Measured | None:
    """Return what the predictions of a group tell; None where a run has none, or its test images
    differ."""
    labels = _shared_labels(group.runs)
    if labels is None:
        return None

    # Predictions, by pair of networks: (runs, N)
    right_end = [
        np.stack([run.predictions["end"] == labels for run in runs]) for runs in group.by_networks
    ]
    right_stitched = [
        np.stack([run.predictions["stitched"] == labels for run in runs])
        for runs in group.by_networks
    ]
    chance = np.bincount(labels).max() / len(labels)

    # Values of single runs
    kappas = [[kappa_of(run) for run in runs] for runs in group.by_networks]
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


def _shared_labels(runs: Sequence[StitchingRun]) -> np.ndarray | None:
    """Return the labels (N,) of the test images of all runs; None where a run has no predictions,
    or they differ."""
    labels = [None if run.predictions is None else run.predictions["labels"] for run in runs]
    if any(of_run is None or not np.array_equal(of_run, labels[0]) for of_run in labels):
        return None
    return labels[0]


def _may_be_below(right: Runs, share: float) -> bool:
    """Return whether one of the runs may be right about no more than a share of the images."""
    runs = chain.from_iterable(right)
    return any(of_share([run[None]]).interval().low <= share for run in runs)


def decide(
    group: Group, measured: Measured | None, limits: Limits, p_values: PValues
) -> tuple[str, str]:
    """Decide for one of `VERDICTS`, and say why."""
    if any(is_untrained(run.row.networks[1]) for run in group.runs):
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
        is_explained = (
            flaw and measured.penalty.value <= EXPLAINED and not measured.is_stitch_at_chance
        )
        return (
            (UNDECIDED, flaw)
            if is_explained
            else (NOT_SIMILAR, "the penalty is above the tolerance")
        )
    n_needed = images_needed(limits.tolerance)
    if measured.penalty.n_images < n_needed:
        needed = f": {n_needed} are needed" if math.isfinite(n_needed) else ""
        return (
            UNDECIDED,
            f"{measured.penalty.n_images} test images are too few for this tolerance{needed}",
        )
    return UNDECIDED, flaw or "the penalty may lie on either side of the tolerance"


def _decide_accurate(
    side: str | None, identified: IntervalEstimate | None, limits: Limits
) -> tuple[str, str]:
    """Decide about stitches whose penalty is below the tolerance."""
    if identified and identified.high < limits.identification:
        return BY_CLASS, "accurate, but the image is not recognised"
    if side not in (None, IN_DISTRIBUTION):
        return FAR, f"accurate, but {side}"
    if side is None:
        return UNDECIDED, "accurate, but its doses are not known"
    if identified is None:
        return UNDECIDED, "accurate, but its identification is not known"
    if identified.low <= limits.identification:
        return UNDECIDED, "accurate, but the image may or may not be recognised"
    return SIMILAR, "accurate, in distribution, and the image is recognised"


def _flaw(group: Group) -> str:
    """Return what may explain a penalty: too few images to match on, or too few epochs; "" for
    neither."""
    if any(run.row.is_matched_on_few for run in group.runs):
        return FEW_IMAGES
    if not all(run.has_converged for run in group.runs if run.row.n_epochs):
        return "the training had not converged"
    return ""


def _side(group: Group, limits: Limits) -> str | None:
    """Return whether all stitches are in distribution, else on which side one fails; None where one
    is unknown."""
    sides = [side_of(run.validity, limits.validity) if run.validity else None for run in group.runs]
    failing = [side for side in sides if side not in (None, IN_DISTRIBUTION)]
    if failing:
        return failing[0]
    return None if None in sides else IN_DISTRIBUTION


def _identity(group: Group) -> dict[str, Any]:
    """Return what a group is of, by column, and how many runs it has."""
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


def _means(group: Group) -> dict[str, float]:
    """Return the means over runs of the quantities that a verdict has, by column, where all runs
    have them."""
    means = {}
    for name in measured_by(STITCHING, VALIDITY):
        values = [value_of(run, name) for run in group.runs]
        if name in VerdictRow._fields and None not in values:
            means[name] = _average(values)
    return means


def _intervals(measured: Measured | None) -> dict[str, float]:
    """Return the values with their intervals by column, as far as they are defined."""
    if measured is None:
        return {}
    intervals = {
        "accuracy": measured.accuracy.interval(),
        "penalty": measured.penalty.interval(),
        "kappa_within": measured.kappa_within,
    }
    if measured.identification:
        intervals["identification"] = measured.identification
    columns = {}
    for name, interval in intervals.items():
        columns |= {
            name: interval.value,
            f"{name}_low": interval.low,
            f"{name}_high": interval.high,
        }
    return columns


def _aurocs(group: Group) -> dict[str, float]:
    """Return the mean AUROC of each detector over the runs that it evaluated, with the ends of its
    interval."""
    aurocs = {}
    for name in SCORES:
        for part in ("auroc", "auroc_low", "auroc_high"):
            values = [
                getattr(run.evaluations[name], part)
                for run in group.runs
                if name in run.evaluations
            ]
            if values and None not in values:
                aurocs[f"{part}_{name}"] = _average(values)
    return aurocs


def _by_layers(rows: Iterable[SimilarityRow]) -> dict[tuple, dict[str, float]]:
    """Return the values at full rank by networks, data and layers; of those that several tables
    have, the last ones."""
    known: dict[tuple, dict[str, float]] = {}
    for row in rows:
        if row.rank1 is None and row.rank2 is None:
            networks = tuple(network.key for network in row.networks)
            values = {name: value for name, value in row.values.items() if not math.isnan(value)}
            known.setdefault((networks, row.dataset, (row.layer1, row.layer2)), {}).update(values)
    return known


def _similarity(group: Group, known: Mapping[tuple, Mapping[str, float]]) -> dict[str, float]:
    """Return the values of the same layers, networks and data; means over those networks that have
    any."""
    rows = [runs[0].row for runs in group.by_networks]
    found = [known.get((row.network_keys, row.dataset, tuple(group.pair)), {}) for row in rows]
    return {
        name: _average(values[name] for values in found if name in values)
        for name in SIMILARITY_COLUMNS
    }


def _average(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan
