"""The rule that turns doses into words: is a stitch in distribution, else on which side does it fail?"""

import math
from typing import NamedTuple

from src.ood.rows import StitchValidity

IN_DISTRIBUTION, OFF, COLLAPSED = "in distribution", "off the manifold", "collapsed"
COLLAPSED_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


class ValidityLimits(NamedTuple):
    """The largest doses of activations that are in distribution."""

    noise_dose: float = 0.05  # above: off the manifold
    shrinkage_dose: float = 0.15  # above: collapsed


def side_of(
    validity: StitchValidity,
    limits: ValidityLimits = ValidityLimits(),  # noqa: B008 - immutable
) -> str | None:
    """Say whether activations are in distribution, else on which side they fail; None where that is not defined."""
    if math.isnan(validity.noise_dose) or math.isnan(validity.shrinkage_dose):
        return None
    if validity.noise_dose > limits.noise_dose:
        return OFF
    return COLLAPSED if validity.shrinkage_dose > limits.shrinkage_dose else IN_DISTRIBUTION
