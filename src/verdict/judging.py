"""Judges stitches: is a pair of layers functionally similar, and how sure is that?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy), makes activations that may not be those of
the end network (*doses*), and may show another image (*identification*). All three decide.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control

from src.choices.scores import SCORES
from src.ood.rows import IN_DISTRIBUTION, StitchValidity, ValidityLimits, side_of
from src.results.captions import common
from src.results.experiments import WEIGHTS, grouped
from src.results.tables import IntervalEstimate, from_record
from src.similarity.rows import Null, SimilarityRow
from src.stitching.folders import StitchingRun
from src.verdict.groups import Group, groups_of, is_untrained
from src.verdict.intervals import ALPHA, Evidence, images_needed, of_difference, of_share
from src.verdict.rows import VerdictRow

SIMILAR = "similar"
BY_CLASS = "accurate by the class alone"
FAR = "accurate but out of distribution"
NOT_SIMILAR = "not similar"
UNDECIDED = "undecided"
VERDICTS = (SIMILAR, BY_CLASS, FAR, NOT_SIMILAR, UNDECIDED)
FEW_IMAGES = "matched on too few images"
EXPLAINED = 0.3  # the largest penalty that too few images or epochs may explain
MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
SIMILARITY_COLUMNS = [f"{name}{end}" for name in MEASURES for end in ("", *(f"_{part}" for part in Null._fields))]


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float = 0.05  # the penalty, in [0, 1], that a similar pair may have
    validity: ValidityLimits = ValidityLimits()
    identification: float = 0.75  # the share of identified images, half-way from chance to certainty
    pairwise: bool = False  # test each pair for itself


class Measured(NamedTuple):
    """What a verdict rests on, of a group of runs."""

    accuracy: Evidence
    penalty: Evidence
    kappa_within: IntervalEstimate
    identified: IntervalEstimate | None  # None: not measured


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
    values_of_layers = _by_layers(similarities)
    rows = []
    for family in grouped(groups_of(runs, pool=pool), lambda group: (group.method, group.networks)).values():
        rows += _judge_family(family, limits, values_of_layers)
    return rows


def _judge_family(family: Sequence[Group], limits: Limits, values_of_layers: Mapping) -> list[VerdictRow]:
    """Return the verdicts on the pairs of layers of one method and pair of networks, which are tested together."""
    measured = [measure(group) for group in family]
    penalties = [of_group.penalty for of_group in measured if of_group]
    p_below = iter(adjusted([penalty.p_below(limits.tolerance) for penalty in penalties], limits))
    p_above = iter(adjusted([penalty.p_above(limits.tolerance) for penalty in penalties], limits))
    rows = []
    for group, of_group in zip(family, measured, strict=True):
        p_values = {"p_below": next(p_below), "p_above": next(p_above)} if of_group else {}
        verdict, reason = decide(group, of_group, limits, **p_values)
        record = {
            **_summary(group),
            **_estimates(of_group),
            **p_values,
            **_aurocs(group),
            **_similarity(group, values_of_layers),
            "verdict": verdict,
            "reason": reason,
            "side": _side(group, limits),
        }
        is_defined = {name: value for name, value in record.items() if value is not None and value == value}
        rows.append(from_record(VerdictRow, is_defined))
    return rows


def adjusted(p_values: Sequence[float], limits: Limits) -> Sequence[float]:
    """Adjust p-values for the false discovery rate (Benjamini and Hochberg 1995), unless each pair is for itself.

    Of the pairs whose adjusted value is below a level, at most that share is expected to be called so falsely.
    """
    if limits.pairwise or not p_values:
        return p_values
    return false_discovery_control(p_values).tolist()


def measure(group: Group) -> Measured | None:
    """Return what the predictions of a group tell; None where it has none of the same images."""
    if group.labels is None:
        return None
    return Measured(
        accuracy=of_share(group.right("stitched")),
        penalty=of_difference(group.right("end"), group.right("stitched")),
        kappa_within=group.kappa_within,
        identified=group.identified,
    )


def decide(
    group: Group, measured: Measured | None, limits: Limits, *, p_below: float = math.nan, p_above: float = math.nan
) -> tuple[str, str]:
    """Decide for one of `VERDICTS`, and say why.

    Args:
        p_below, p_above: of the penalty lying on that side of the tolerance, adjusted for all pairs of the method.
    """
    if any(is_untrained(run.row.networks[1]) for run in group.runs):
        return UNDECIDED, "the end network was never trained"
    if measured is None:
        return UNDECIDED, "no predictions of the same test images"
    if _is_at_chance(group, "end"):
        return UNDECIDED, "the end network is at chance"
    flaw = _flaw(group)
    if p_below < ALPHA:
        if flaw == FEW_IMAGES:
            return UNDECIDED, flaw
        return _decide_accurate(_side(group, limits), measured.identified, limits)
    if p_above < ALPHA:
        is_explained = flaw and measured.penalty.value <= EXPLAINED and not _is_at_chance(group, "stitched")
        return (UNDECIDED, flaw) if is_explained else (NOT_SIMILAR, "the penalty is above the tolerance")
    n_needed = images_needed(limits.tolerance)
    if measured.penalty.n_images < n_needed:
        needed = f": {n_needed} are needed" if math.isfinite(n_needed) else ""
        return UNDECIDED, f"{measured.penalty.n_images} test images are too few for this tolerance{needed}"
    return UNDECIDED, flaw or "the penalty may lie on either side of the tolerance"


def _decide_accurate(side: str | None, identified: IntervalEstimate | None, limits: Limits) -> tuple[str, str]:
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
    """Return what may explain a penalty: too few images to match on, or too few epochs; "" for neither."""
    if any(run.row.is_matched_on_few for run in group.runs):
        return FEW_IMAGES
    if not all(run.has_converged for run in group.runs if run.row.n_epochs):
        return "the training had not converged"
    return ""


def _is_at_chance(group: Group, name: str) -> bool:
    """Return whether an end network, or a stitch, may do no better than always predicting the commonest class."""
    chance = np.bincount(group.labels).max() / len(group.labels)
    runs = (run for of_networks in group.right(name) for run in of_networks)
    return any(of_share([run[None]]).interval().low <= chance for run in runs)


def _side(group: Group, limits: Limits) -> str | None:
    """Return whether all stitches are in distribution, else on which side one fails; None where one is unknown."""
    sides = [side_of(run.validity, limits.validity) if run.validity else None for run in group.runs]
    failing = [side for side in sides if side not in (None, IN_DISTRIBUTION)]
    if failing:
        return failing[0]
    return None if None in sides else IN_DISTRIBUTION


def _summary(group: Group) -> dict[str, Any]:
    """Return what was measured, by column: means over the runs."""
    rows, measured = [run.row for run in group.runs], [run.validity for run in group.runs]
    names = ("accuracy", "end_accuracy", "agreement", "kappa", "representation_difference")
    validity = map(_average, zip(*measured, strict=True)) if all(measured) else ()
    accuracies = [[run.row.accuracy for run in of_networks] for of_networks in group.by_networks]
    return {
        "method": group.method,
        "networks": group.networks,
        **group.pair._asdict(),
        "control": group.control,
        "n_runs": len(rows),
        "n_networks": len(accuracies),
        **{name: _average(getattr(row, name) for row in rows) for name in names},
        "penalty": _average(row.end_accuracy - row.accuracy for row in rows),
        "seed_spread": max((max(each) - min(each) for each in accuracies if len(each) > 1), default=None),
        **dict(zip(StitchValidity._fields, validity, strict=False)),
        "noise_cost": _noise_cost(group),
        "front_depth": rows[0].front_depth,
        "end_depth": rows[0].end_depth,
        **{name: common(rows, name) or None for name in WEIGHTS},
    }


def _estimates(measured: Measured | None) -> dict[str, float]:
    """Return the values with their intervals by column, as far as they are defined."""
    if measured is None:
        return {}
    intervals = {
        "accuracy": measured.accuracy.interval(),
        "penalty": measured.penalty.interval(),
        "kappa_within": measured.kappa_within,
    }
    if measured.identified:
        intervals["identification"] = measured.identified
    columns = {}
    for name, interval in intervals.items():
        columns |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return columns


def _aurocs(group: Group) -> dict[str, float]:
    """Return the mean AUROC of each detector over the runs that it evaluated, with the ends of its interval."""
    aurocs = {}
    for name in SCORES:
        for part in ("auroc", "auroc_low", "auroc_high"):
            values = [getattr(run.evaluations[name], part) for run in group.runs if name in run.evaluations]
            if values and None not in values:
                aurocs[f"{part}_{name}"] = _average(values)
    return aurocs


def _by_layers(rows: Iterable[SimilarityRow]) -> dict[tuple, dict[str, float]]:
    """Return the values at full rank by networks, data and layers; of those that several tables have, the last ones."""
    known: dict[tuple, dict[str, float]] = {}
    for row in rows:
        if row.rank1 is None and row.rank2 is None:
            networks = tuple(network.key for network in row.networks)
            values = {name: value for name, value in row.values.items() if not math.isnan(value)}
            known.setdefault((networks, row.dataset, (row.layer1, row.layer2)), {}).update(values)
    return known


def _similarity(group: Group, known: Mapping[tuple, Mapping[str, float]]) -> dict[str, float]:
    """Return the values of the same layers, networks and data; means over those networks that have any."""
    rows = [runs[0].row for runs in group.by_networks]
    found = [known.get((row.network_keys, row.dataset, tuple(group.pair)), {}) for row in rows]
    return {name: _average(values[name] for values in found if name in values) for name in SIMILARITY_COLUMNS}


def _noise_cost(group: Group) -> float | None:
    """Return the accuracy that noise of the limit costs the end networks, the mean over runs; None: not measured."""
    costs = [run.noise_cost for run in group.runs]
    return None if None in costs else _average(costs)


def _average(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan
