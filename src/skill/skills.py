"""The skill of a stitch at the end layer and at the output, from its within-class products and its baseline."""

import math
from typing import NamedTuple

import numpy as np

from src.core.values import SkillEstimate, StitchSkill
from src.skill.running import AtPlaces
from src.skill.within_class import WithinClass, skill_score
from src.statistics.intervals import DEVIATIONS
from src.statistics.jackknife import jackknife_variance


class Baseline(NamedTuple):
    """The baseline of a stitch at the end layer and at the output."""

    products: AtPlaces  # of the largest correlation at either place, on the images of the stitch; NaN: none is finite
    n_classes: int
    width: int  # of the random features
    n_copies: int  # that have as many channels as the front is wide
    rows_per_channel: float  # that the widest features were fitted to


def skill_of(products: AtPlaces, baseline: Baseline) -> StitchSkill:
    """Return the skill of a stitch, with an interval by the jackknife over images."""
    at_end, at_output = (
        _at_place(*of_both) for of_both in zip(products, baseline.products, strict=True)
    )
    n_images = len(products.output.products)
    return StitchSkill(at_end, at_output, n_images, *baseline[1:])


def _at_place(stitch: WithinClass, baseline: WithinClass) -> SkillEstimate:
    """Return the skill at the end layer or at the output, with its interval."""
    value = float(skill_score(stitch.correlation, baseline.correlation))
    without_each = skill_score(stitch.without_each, baseline.without_each)
    if not np.isfinite(without_each).all():  # a baseline of 1 without an image
        value = math.nan
    half_width = DEVIATIONS * math.sqrt(jackknife_variance(without_each))
    high = float(np.minimum(1, value + half_width))  # keeps NaN
    return SkillEstimate(stitch.correlation, baseline.correlation, value, value - half_width, high)
