"""Judges stitches: is a pair of layers functionally similar, and how sure is that?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy), makes activations that may not be those of
the end network (*doses*), and may tell the class and nothing else (*β*). All three decide.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from src.choices.scores import SCORES
from src.ood.rows import StitchValidity
from src.ood.validity_limits import IN_DISTRIBUTION, ValidityLimits, side_of
from src.results.experiments import grouped
from src.similarity.rows import Null, SimilarityRow
from src.stitching.folders import StitchingRun
from src.stitching.rows import StitchRow
from src.verdict.groups import Group, groups_of, is_untrained
from src.verdict.intervals import ALPHA, Evidence, holm, images_needed, moderated, of_difference, of_share
from src.verdict.rows import IntervalRow, VerdictRow
from src.verdict.yardsticks import beta, rho

SIMILAR, FAR, NOT_SIMILAR, UNDECIDED = "similar", "accurate but out of distribution", "not similar", "undecided"
LABEL = "accurate by the label alone"
VERDICTS = (SIMILAR, LABEL, FAR, NOT_SIMILAR, UNDECIDED)
NO_CONTROL = "accurate, but there is no label-only control"
EXPLAINED = 0.3  # the largest penalty that too few images or epochs may explain
LOW = 0.5  # an accuracy of the end network that is said beside the word
MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
SIMILARITY_COLUMNS = [f"{name}{end}" for name in MEASURES for end in ("", *(f"_{part}" for part in Null._fields))]


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float  # the penalty, in [0, 1], that a similar pair may have
    validity: ValidityLimits = ValidityLimits()
    pairwise: bool = False  # test each pair for itself


class Case(NamedTuple):
    """The runs that are judged together, and the evidence of their predictions; None where these are not known."""

    group: Group
    accuracy: Evidence | None = None
    penalty: Evidence | None = None
    rho: Evidence | None = None
    beta: Evidence | None = None


def judge(
    runs: Iterable[StitchingRun], similarities: Sequence[SimilarityRow] = (), *, limits: Limits, pool: bool = False
) -> list[VerdictRow]:
    """Return the verdict on each pair of layers, method and pair of networks.

    Args:
        runs: with their evaluations.
        similarities: rows of tables of similarity; those at full rank of the same networks count.
        pool: take pairs of networks together that share no network.
    """
    rows = []
    for cases in _families(runs, pool=pool):
        known = [case for case in cases if case.penalty]
        adjusted = list if limits.pairwise else holm
        below = adjusted([case.penalty.p_below(limits.tolerance) for case in known])
        above = adjusted([case.penalty.p_above(limits.tolerance) for case in known])
        p_values = dict(zip(map(id, known), zip(below, above, strict=True), strict=True))
        for case in cases:
            p_below, p_above = p_values.get(id(case), (None, None))
            n_tests = 1 if limits.pairwise else len(known)
            verdict, reason = decide(case, p_below, p_above, limits, n_tests=n_tests)
            rows.append(VerdictRow(
                verdict=verdict, reason=reason, control=case.group.control, p_below=p_below, p_above=p_above,
                side=_side(case.group, limits), **_summary(case), **_estimate("rho", case.rho),
                **_estimate("beta", case.beta), **_validity(case.group), front_depth=case.group.runs[0].row.front_depth,
                end_depth=case.group.runs[0].row.end_depth,
                others=_aurocs(case.group) | _similarity(case.group, similarities),
            ))  # fmt: skip
    return rows


def intervals(runs: Iterable[StitchingRun], *, pool: bool = False) -> list[IntervalRow]:
    """Return the accuracies and penalties of runs with their intervals, grouped as for `judge`."""
    return [IntervalRow(**_summary(case)) for cases in _families(runs, pool=pool) for case in cases]


def _families(runs: Iterable[StitchingRun], *, pool: bool) -> list[list[Case]]:
    """Return the evidence on all pairs of layers of each method; they moderate each other's variances."""
    families = grouped(groups_of(runs, pool=pool), lambda group: (group.method, group.networks))
    return [_moderated([_case(group) for group in family]) for family in families.values()]


def _case(group: Group) -> Case:
    if group.labels is None:
        return Case(group)
    stitched, front, end = (group.predictions(name) for name in ("stitched", "front", "end"))
    is_encoder = any((classes < 0).any() for classes in front)
    return Case(
        group,
        of_share(group.right("stitched")),
        of_difference(group.right("end"), group.right("stitched")),
        None if is_encoder else rho(stitched, front, end),
        beta(stitched, group.predictions("control"), end) if group.label_only else None,
    )


def _moderated(cases: list[Case]) -> list[Case]:
    for name in ("accuracy", "penalty", "rho", "beta"):
        known = iter(moderated([getattr(case, name) for case in cases if getattr(case, name)]))
        cases = [case._replace(**{name: next(known)}) if getattr(case, name) else case for case in cases]
    return cases


def decide(
    case: Case, p_below: float | None, p_above: float | None, limits: Limits, *, n_tests: int
) -> tuple[str, str]:
    """Decide for one of `VERDICTS`, and say why.

    Args:
        p_below, p_above: of the penalty lying on that side of the tolerance, adjusted for the pairs tested at once.
        n_tests: how many these are.
    """
    group, penalty = case.group, case.penalty
    if any(is_untrained(run.row.experiment.end) for run in group.runs):
        return UNDECIDED, "the end network was never trained"
    if _is_at_chance(group, "end"):
        return UNDECIDED, "the end network is at chance"
    if penalty is None:
        return UNDECIDED, "no predictions of the same test images"
    if p_below < ALPHA:
        return _decide_accurate(case, limits)
    flaw = _flaw(group)
    if p_above < ALPHA:
        is_explained = flaw and penalty.value <= EXPLAINED and not _is_at_chance(group, "stitched")
        return (UNDECIDED, flaw) if is_explained else (NOT_SIMILAR, "the penalty is above the tolerance")
    n_needed = images_needed(limits.tolerance, n_tests)
    if penalty.n_images < n_needed:
        needed = f": {n_needed} are needed" if math.isfinite(n_needed) else ""
        return UNDECIDED, f"{penalty.n_images} test images are too few for this tolerance{needed}"
    return UNDECIDED, flaw or "the penalty may lie on either side of the tolerance"


def _decide_accurate(case: Case, limits: Limits) -> tuple[str, str]:
    """Decide about stitches whose penalty is below the tolerance."""
    side = _side(case.group, limits)
    if side not in (None, IN_DISTRIBUTION):
        return FAR, f"accurate, but {side}"
    if case.beta and not case.beta.p_below(0) > 1 - ALPHA:
        return LABEL, "accurate, but no closer to the end network than its label-only control"
    if side is None:
        return UNDECIDED, "accurate, but its doses are not known"
    return (SIMILAR, "accurate, in distribution, and more than the label") if case.beta else (UNDECIDED, NO_CONTROL)


def _flaw(group: Group) -> str:
    """Return why a penalty may be that of how the stitches were made; "" if it is not."""
    if any(run.row.is_matched_on_few for run in group.runs):
        return "matched on too few images"
    if not all(run.has_converged for run in group.runs if run.row.n_epochs):
        return "the training had not converged"
    return ""


def _is_at_chance(group: Group, name: str) -> bool:
    """Return whether an end network, or a stitch, may do no better than always predicting the commonest class.

    Without predictions, which tell how common it is, half of the images.
    """
    if group.labels is None:
        return any(run.row.end_accuracy <= 0.5 for run in group.runs)
    chance = np.bincount(group.labels).max() / len(group.labels)
    runs = (run for of_networks in group.right(name) for run in of_networks)
    return any(of_share([run[None]]).interval()[0] <= chance for run in runs)


def _side(group: Group, limits: Limits) -> str | None:
    """Return whether all stitches are in distribution, else on which side one fails; None where one is unknown."""
    sides = [side_of(run.validity, limits.validity) if run.validity else None for run in group.runs]
    failing = [side for side in sides if side not in (None, IN_DISTRIBUTION)]
    if failing:
        return failing[0]
    return None if None in sides else IN_DISTRIBUTION


def _summary(case: Case) -> dict[str, Any]:
    """Return the columns of `IntervalRow`; every pair of networks counts alike, however many seeds it has."""
    group = case.group
    metrics = [[run.row for run in runs] for runs in group.by_networks]
    accuracies = [[each.accuracy for each in of_networks] for of_networks in metrics]
    penalties = [[each.end_accuracy - each.accuracy for each in of_networks] for of_networks in metrics]
    names = ("end_accuracy", "agreement", "kappa", "representation_difference")
    means = {name: _average(getattr(each, name) for of_networks in metrics for each in of_networks) for name in names}
    return {
        "method": group.method,
        "networks": group.networks,
        **group.pair._asdict(),
        "n_runs": len(group.runs),
        "n_networks": len(metrics),
        **_estimate("accuracy", case.accuracy, _average(map(_average, accuracies))),
        **_estimate("penalty", case.penalty, _average(map(_average, penalties))),
        "seed_spread": max((max(each) - min(each) for each in accuracies if len(each) > 1), default=None),
        **{name: _or_none(mean) for name, mean in means.items()},
    }


def _estimate(name: str, evidence: Evidence | None, value: float = math.nan) -> dict[str, float | None]:
    """Return a value and its interval by column; None where they are not known."""
    value = evidence.value if evidence else value
    low, high = evidence.interval() if evidence and not math.isnan(value) else (None, None)
    return {name: _or_none(value), f"{name}_low": low, f"{name}_high": high}


def _validity(group: Group) -> dict[str, float | None]:
    """Return the mean validity over runs by column; None where a run was not measured."""
    names, measured = StitchValidity._fields, [run.validity for run in group.runs]
    means = map(_average, zip(*measured, strict=True)) if all(measured) else [math.nan] * len(names)
    return dict(zip(names, map(_or_none, means), strict=True))


def _aurocs(group: Group) -> dict[str, float]:
    """Return the mean AUROC of each detector over the runs that it evaluated, with the ends of its interval."""
    aurocs = {}
    for name in SCORES:
        for part in ("auroc", "auroc_low", "auroc_high"):
            values = [getattr(run.evaluations[name], part) for run in group.runs if name in run.evaluations]
            if values and None not in values:
                aurocs[f"{part}_{name}"] = _average(values)
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
                found = {name: row.values.get(name, math.nan) for name in SIMILARITY_COLUMNS}
                values |= {name: value for name, value in found.items() if not math.isnan(value)}
        if values:
            measured.append(values)
    shared = [name for name in SIMILARITY_COLUMNS if measured and all(name in values for values in measured)]
    return {name: _average(values[name] for values in measured) for name in shared}


def _is_same(measured: SimilarityRow, row: StitchRow) -> bool:
    """Return whether a similarity is of the networks and data of a stitch."""
    networks = tuple((each.identity, each.type) for each in measured.networks)
    return networks == row.experiment.network_keys and measured.dataset == row.dataset


def _or_none(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _average(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan
