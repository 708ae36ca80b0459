"""Judges stitches: is a pair of layers functionally similar, and how sure is that?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy), makes activations that may not be those of
the end network (*doses*), and may tell the class and nothing else (*β*). All three decide.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from src.choices.scores import SCORES
from src.ood.rows import IN_DISTRIBUTION, StitchValidity, ValidityLimits, side_of
from src.results.experiments import grouped
from src.results.tables import from_record
from src.similarity.rows import Null, SimilarityRow
from src.stitching.folders import StitchingRun
from src.verdict.groups import Group, groups_of, is_untrained
from src.verdict.intervals import ALPHA, Evidence, holm, images_needed, moderated, of_difference, of_ratio, of_share
from src.verdict.rows import VerdictRow

SIMILAR, FAR, NOT_SIMILAR, UNDECIDED = "similar", "accurate but out of distribution", "not similar", "undecided"
LABEL = "accurate by the label alone"
VERDICTS = (SIMILAR, LABEL, FAR, NOT_SIMILAR, UNDECIDED)
NO_CONTROL = "accurate, but there is no label-only control"
EXPLAINED = 0.3  # the largest penalty that too few images or epochs may explain
MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
SIMILARITY_COLUMNS = [f"{name}{end}" for name in MEASURES for end in ("", *(f"_{part}" for part in Null._fields))]


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float = 0.05  # the penalty, in [0, 1], that a similar pair may have
    validity: ValidityLimits = ValidityLimits()
    pairwise: bool = False  # test each pair for itself


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
    rows, known = [], _by_layers(similarities)
    for family in grouped(groups_of(runs, pool=pool), lambda group: (group.method, group.networks)).values():
        evidence = _moderated([evidence_of(group) for group in family])
        tested = [each["penalty"] for each in evidence if each]
        adjusted = list if limits.pairwise else holm
        below = iter(adjusted([each.p_below(limits.tolerance) for each in tested]))
        above = iter(adjusted([each.p_above(limits.tolerance) for each in tested]))
        n_tests = 1 if limits.pairwise else len(tested)
        for group, each in zip(family, evidence, strict=True):
            p_values = {"p_below": next(below), "p_above": next(above)} if each else {}
            verdict, reason = decide(group, each, limits, n_tests=n_tests, **p_values)
            words = {"verdict": verdict, "reason": reason, "side": _side(group, limits)}
            record = _summary(group) | _estimates(each) | words | p_values | _aurocs(group) | _similarity(group, known)
            is_known = {name: value for name, value in record.items() if value is not None and value == value}
            rows.append(from_record(VerdictRow, is_known))
    return rows


def evidence_of(group: Group) -> dict[str, Evidence]:
    """Return the evidence of predictions by name, as far as they are known.

    `rho` is 1 for a stitch as alike as two networks that were trained apart, and 0 for one that is the end network.
    `left` is 1 − β: the share of its label-only control's disagreement with the end network that a stitch leaves.
    """
    if group.labels is None:
        return {}
    disagreement = group.differ("stitched", "end")
    evidence = {
        "accuracy": of_share(group.right("stitched")),
        "penalty": of_difference(group.right("end"), group.right("stitched")),
    }
    if not any((classes < 0).any() for classes in group.predictions("front")):  # encoders have none
        evidence["rho"] = of_ratio(disagreement, group.differ("front", "end"))
    if group.label_only:
        evidence["left"] = of_ratio(disagreement, group.differ("control", "end"))
    return evidence


def _moderated(family: list[dict[str, Evidence]]) -> list[dict[str, Evidence]]:
    """Return the evidence on all pairs of layers of a method; they moderate each other's variances."""
    for name in ("accuracy", "penalty", "rho", "left"):
        known = [each for each in family if name in each]
        for each, evidence in zip(known, moderated([each[name] for each in known]), strict=True):
            each[name] = evidence
    return family


def decide(
    group: Group,
    evidence: Mapping[str, Evidence],
    limits: Limits,
    *,
    n_tests: int,
    p_below: float = math.nan,
    p_above: float = math.nan,
) -> tuple[str, str]:
    """Decide for one of `VERDICTS`, and say why.

    Args:
        n_tests: how many pairs are tested at once.
        p_below, p_above: of the penalty lying on that side of the tolerance, adjusted for them.
    """
    if any(is_untrained(run.row.networks[1]) for run in group.runs):
        return UNDECIDED, "the end network was never trained"
    if not evidence:
        return UNDECIDED, "no predictions of the same test images"
    if _is_at_chance(group, "end"):
        return UNDECIDED, "the end network is at chance"
    if p_below < ALPHA:
        return _decide_accurate(_side(group, limits), evidence.get("left"))
    flaw, penalty = "", evidence["penalty"]
    if any(run.row.is_matched_on_few for run in group.runs):
        flaw = "matched on too few images"
    elif not all(run.has_converged for run in group.runs if run.row.n_epochs):
        flaw = "the training had not converged"
    if p_above < ALPHA:
        is_explained = flaw and penalty.value <= EXPLAINED and not _is_at_chance(group, "stitched")
        return (UNDECIDED, flaw) if is_explained else (NOT_SIMILAR, "the penalty is above the tolerance")
    n_needed = images_needed(limits.tolerance, n_tests)
    if penalty.n_images < n_needed:
        needed = f": {n_needed} are needed" if math.isfinite(n_needed) else ""
        return UNDECIDED, f"{penalty.n_images} test images are too few for this tolerance{needed}"
    return UNDECIDED, flaw or "the penalty may lie on either side of the tolerance"


def _decide_accurate(side: str | None, left: Evidence | None) -> tuple[str, str]:
    """Decide about stitches whose penalty is below the tolerance."""
    if side not in (None, IN_DISTRIBUTION):
        return FAR, f"accurate, but {side}"
    if left and left.p_below(1) >= ALPHA:
        return LABEL, "accurate, but no closer to the end network than its label-only control"
    if side is None:
        return UNDECIDED, "accurate, but its doses are not known"
    return (SIMILAR, "accurate, in distribution, and more than the label") if left else (UNDECIDED, NO_CONTROL)


def _is_at_chance(group: Group, name: str) -> bool:
    """Return whether an end network, or a stitch, may do no better than always predicting the commonest class."""
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
        "front_depth": rows[0].front_depth,
        "end_depth": rows[0].end_depth,
    }


def _estimates(evidence: Mapping[str, Evidence]) -> dict[str, float]:
    """Return the values with their intervals by column, as far as they are defined."""
    estimates = {}
    for name, each in evidence.items():
        value, (low, high) = each.value, each.interval()
        if name == "left":
            name, value, low, high = "beta", 1 - value, 1 - high, 1 - low
        if not math.isnan(value):
            estimates |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return estimates


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
            networks = tuple((each.identity, each.type) for each in row.networks)
            values = {name: value for name, value in row.values.items() if not math.isnan(value)}
            known.setdefault((networks, row.dataset, (row.layer1, row.layer2)), {}).update(values)
    return known


def _similarity(group: Group, known: Mapping[tuple, Mapping[str, float]]) -> dict[str, float]:
    """Return the values of the same layers, networks and data; means over those networks that have any."""
    rows = [runs[0].row for runs in group.by_networks]
    found = [known.get((row.network_keys, row.dataset, tuple(group.pair)), {}) for row in rows]
    return {name: _average(values[name] for values in found if name in values) for name in SIMILARITY_COLUMNS}


def _average(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan
