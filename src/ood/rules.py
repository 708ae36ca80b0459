"""The rules that turn measurements into words: is a stitch in distribution, and may a detector be trusted?"""

import math
from typing import NamedTuple

from src.ood.rows import Sight, StitchValidity

IN_DISTRIBUTION, OFF, COLLAPSED = "in distribution", "off the manifold", "collapsed"
COLLAPSED_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own
TRUSTED, OVERFITTED = 0.8, 0.65  # AUROCs: what a detector sees at least, and telling test from training images at most


class ValidityLimits(NamedTuple):
    """Limits of density and recall, each divided by the value of the end network's own activations."""

    density_low: float = 0.5  # below: off the manifold
    density_high: float = 2.0  # above: collapsed
    recall: float = 0.5  # below: collapsed


def side_of(
    validity: StitchValidity,
    limits: ValidityLimits = ValidityLimits(),  # noqa: B008 - immutable
) -> str | None:
    """Say whether activations are in distribution, else on which side they fail; None where that is not defined."""
    if math.isnan(validity.density_ratio) or math.isnan(validity.recall_ratio):
        return None
    if validity.density_ratio < limits.density_low:
        return OFF
    if validity.density_ratio > limits.density_high or validity.recall_ratio < limits.recall:
        return COLLAPSED
    return IN_DISTRIBUTION


def doubts(sanity_auroc: float | None, sight: Sight | None) -> list[str] | None:
    """List why a detector is not trusted; none are left of a trusted one, and None where it was shown nothing.

    Args:
        sanity_auroc: of telling the sanity-check data from the ID data.
        sight: what it sees in corrupted activations.
    """
    if sanity_auroc is None and sight is None:
        return None
    shown = {} if sanity_auroc is None else {"the sanity-check data": sanity_auroc}
    if sight:
        shown |= {"mixed images": sight.seen_mixed, "moves to the class mean": sight.seen_half_way}
    reasons = [f"does not see {what} (AUROC below {TRUSTED})" for what, auroc in shown.items() if auroc < TRUSTED]
    if sight and sight.training_auroc > OVERFITTED:
        reasons.append(f"tells test from training images (AUROC above {OVERFITTED})")
    return reasons
