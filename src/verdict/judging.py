"""Judges stitches: is a pair of layers functionally similar, how sure is that, and is the stitch in distribution?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy) and makes activations that may not be those of
the end network. Both together decide. Penalties are tested in both directions, for all pairs of a method at once.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from src.ood.registry import SCORES
from src.ood.rules import IN_DISTRIBUTION, ValidityLimits, side_of
from src.results.experiments import grouped
from src.results.folders import StitchingRun
from src.results.records import to_record
from src.results.rows import (
    Auroc,
    Estimate,
    IntervalRow,
    Null,
    SimilarityRow,
    StitchRow,
    StitchValidity,
    Summary,
    VerdictRow,
)
from src.stitching.rules import has_converged, is_as_matched, is_matched_on_few
from src.verdict.groups import Group, groups_of
from src.verdict.intervals import ALPHA, Evidence, holm, images_needed, of_difference, of_networks, of_share

SIMILAR, FAR, NOT_SIMILAR, UNDECIDED = "similar", "accurate but out of distribution", "not similar", "undecided"
VERDICTS = (SIMILAR, FAR, NOT_SIMILAR, UNDECIDED)
MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
SIMILARITY_COLUMNS = [f"{name}{end}" for name in MEASURES for end in ("", *(f"_{part}" for part in Null._fields))]


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float  # the penalty, in [0, 1], that a similar pair may have
    validity: ValidityLimits = ValidityLimits()
    pairwise: bool = False  # test each pair for itself


class Case(NamedTuple):
    """The runs that are judged together, and what the tests of their penalty say."""

    group: Group
    penalty: Evidence | None
    p_below: float | None  # adjusted for all pairs of the method
    p_above: float | None
    n_tests: int  # pairs that are tested at once


def judge(
    runs: Iterable[StitchingRun], similarities: Sequence[SimilarityRow] = (), *, limits: Limits, pool: bool = False
) -> list[VerdictRow]:
    """Return the verdict on each pair of layers, method and pair of networks.

    Args:
        runs: with the evaluations by the detectors that count.
        similarities: rows of tables of similarity; those at full rank of the same networks count.
        pool: take pairs of networks together that share no network.
    """
    rows = []
    for family in grouped(groups_of(runs, pool=pool), lambda group: (group.method, group.networks)).values():
        for case in _tested(family, limits):
            group, validity = case.group, _validity(case.group)
            verdict, reason = decide(case, limits)
            rows.append(VerdictRow(
                group.method, group.networks, group.pair, verdict, reason, group.control, summarise(group),
                case.p_below, case.p_above, _side(group, limits), validity, _aurocs(group),
                _similarity(group, similarities),
            ))  # fmt: skip
    return rows


def intervals(runs: Iterable[StitchingRun], *, pool: bool = False) -> list[IntervalRow]:
    """Return the accuracies and penalties of runs with their intervals, grouped as for `judge`."""
    return [IntervalRow(*group[:2], group.pair, summarise(group)) for group in groups_of(runs, pool=pool)]


def _tested(family: Sequence[Group], limits: Limits) -> list[Case]:
    """Test the penalties of all pairs of a method against the tolerance, in both directions."""
    evidence = [_penalty(group) for group in family]
    known = [each for each in evidence if each]
    adjusted = list if limits.pairwise else holm
    below = iter(adjusted([each.p_below(limits.tolerance) for each in known]))
    above = iter(adjusted([each.p_above(limits.tolerance) for each in known]))
    n_tests = 1 if limits.pairwise else len(known)
    return [
        Case(group, each, next(below) if each else None, next(above) if each else None, n_tests)
        for group, each in zip(family, evidence, strict=True)
    ]


def decide(case: Case, limits: Limits) -> tuple[str, str]:
    """Decide for one of `VERDICTS`, and say why."""
    if _is_at_chance(case.group):
        return UNDECIDED, "the end network is at chance"
    if case.penalty is None:
        return UNDECIDED, "no predictions of the same test images"
    if case.p_below < ALPHA:
        return _decide_validity(case.group, limits)
    flaw = _flaw(case.group)
    if case.p_above < ALPHA:
        return (UNDECIDED, flaw) if flaw else (NOT_SIMILAR, "the penalty is above the tolerance")
    n_needed = images_needed(limits.tolerance, case.n_tests)
    if 0 < case.penalty.n_images < n_needed:
        needed = f": {n_needed} are needed" if math.isfinite(n_needed) else ""
        return UNDECIDED, f"{case.penalty.n_images} test images are too few for this tolerance{needed}"
    return UNDECIDED, flaw or "the penalty may lie on either side of the tolerance"


def _decide_validity(group: Group, limits: Limits) -> tuple[str, str]:
    """Decide about stitches whose penalty is below the tolerance."""
    side = _side(group, limits)
    if side not in (None, IN_DISTRIBUTION):
        return FAR, f"accurate, but {side}"
    if side is None:
        return UNDECIDED, "accurate, but its doses are not known"
    return SIMILAR, "accurate and in distribution"


def _flaw(group: Group) -> str:
    """Return why a penalty may be that of how the stitches were made; "" if it is not."""
    rows = [run.row for run in group.runs]
    if any(is_as_matched(row.experiment.method) and is_matched_on_few(row.metrics) for row in rows):
        return "matched on too few images"
    if not all(has_converged(run.losses) for run in group.runs if run.row.experiment.method.n_epochs):
        return "the training had not converged"
    return ""


def _side(group: Group, limits: Limits) -> str | None:
    """Return whether all stitches are in distribution, else on which side one fails; None where one is unknown."""
    sides = [side_of(run.validity, limits.validity) if run.validity else None for run in group.runs]
    failing = [side for side in sides if side not in (None, IN_DISTRIBUTION)]
    return failing[0] if failing else None if None in sides else IN_DISTRIBUTION


def _validity(group: Group) -> StitchValidity | None:
    """Return the mean validity over runs; None where a run was not measured."""
    measured = [run.validity for run in group.runs]
    return StitchValidity(*map(_average, zip(*measured, strict=True))) if all(measured) else None


def summarise(group: Group) -> Summary:
    """Return the means over the runs of a group; every pair of networks counts alike, however many seeds it has."""
    rows = [run.row for run in group.runs]
    spreads = [_spread([run.row.metrics.accuracy for run in runs]) for runs in group.by_networks if len(runs) > 1]
    names = ("end_accuracy", "agreement", "kappa", "representation_difference")
    means = [_average(getattr(row.metrics, name) for row in rows) for name in names]
    return Summary(
        len(rows), len(group.by_networks),
        _estimate(group, lambda row: row.metrics.accuracy, _accuracy(group)),
        _estimate(group, lambda row: row.metrics.end_accuracy - row.metrics.accuracy, _penalty(group)),
        max(spreads, default=None), *(None if math.isnan(mean) else mean for mean in means),
    )  # fmt: skip


def _accuracy(group: Group) -> Evidence | None:
    right = group.right("stitched")
    return of_share(right) if right else _of_networks_alone(group, lambda row: row.metrics.accuracy)


def _penalty(group: Group) -> Evidence | None:
    end, stitched = group.right("end"), group.right("stitched")
    if end:
        return of_difference(end, stitched)
    return _of_networks_alone(group, lambda row: row.metrics.end_accuracy - row.metrics.accuracy)


def _of_networks_alone(group: Group, value_of: Callable[[StitchRow], float]) -> Evidence | None:
    """Return the evidence of three pairs of networks or more that have no predictions; None of fewer, or equal ones."""
    means = [_average(value_of(run.row) for run in runs) for runs in group.by_networks]
    is_known = len(means) > 2 and not any(map(math.isnan, means)) and max(means) - min(means) > 1e-9
    return of_networks(means) if is_known else None


def _estimate(group: Group, value_of: Callable[[StitchRow], float], evidence: Evidence | None) -> Estimate:
    value = _average(_average(value_of(run.row) for run in runs) for runs in group.by_networks)
    if math.isnan(value):
        return Estimate(None)
    return Estimate(value, *(evidence.interval() if evidence else ()))


def _is_at_chance(group: Group) -> bool:
    """Return whether an end network may do no better than always predicting the commonest class.

    Without predictions, which tell how common it is, half of the images.
    """
    for run in group.runs:
        if run.predictions is None:
            if run.row.metrics.end_accuracy <= 0.5:
                return True
            continue
        labels = run.predictions["labels"]
        chance = np.bincount(labels).max() / len(labels)
        if of_share([(run.predictions["end"] == labels)[None]]).interval().low <= chance:
            return True
    return False


def _aurocs(group: Group) -> dict[str, Auroc]:
    """Return the mean AUROC of each detector over the runs that it evaluated."""
    aurocs = {}
    for name in SCORES:
        rows = [run.evaluations[name] for run in group.runs if name in run.evaluations]
        if rows:
            means = [_average(getattr(row, column) for row in rows) for column in Auroc._fields]
            aurocs[name] = Auroc(*means)
    return aurocs


def _similarity(group: Group, similarities: Sequence[SimilarityRow]) -> dict[str, float]:
    """Return the values of the same layers of the same networks and data at full rank; means over networks.

    Of values that several tables have, the last one counts.
    """
    pair, measured = group.pair, []
    for runs in group.by_networks:
        values: dict[str, float] = {}
        for row in similarities:
            if (row.layer1, row.layer2, row.rank1, row.rank2) == (*pair, None, None) and _is_same(row, runs[0].row):
                record = to_record(row)
                values |= {name: record[name] for name in SIMILARITY_COLUMNS if not _is_missing(record.get(name))}
        if values:
            measured.append(values)
    shared = [name for name in SIMILARITY_COLUMNS if measured and all(name in values for values in measured)]
    return {name: _average(values[name] for values in measured) for name in shared}


def _is_same(measured: SimilarityRow, row: StitchRow) -> bool:
    """Return whether a similarity is of the networks and data of a stitch."""
    networks = tuple((each.identity, each.type) for each in measured.networks)
    return networks == row.experiment.network_keys and measured.dataset == row.experiment.dataset


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _average(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)
