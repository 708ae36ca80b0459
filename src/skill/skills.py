"""The skill of a stitch at the end layer and at the output, from its within-class products and its baseline."""

import math
from typing import NamedTuple

import numpy as np

from src.skill.running import AtPlaces
from src.skill.within_class import WithinClass, skill_score
from src.statistics.intervals import DEVIATIONS
from src.statistics.jackknife import jackknife_variance
from src.values import SkillEstimate, StitchSkill


class Baseline(NamedTuple):
    """The baseline of a stitch at the end layer and at the output."""

    products: AtPlaces  # of the draw with the largest correlation, at either place; NaN: no draw is finite
    places: np.ndarray  # (n,): of the images of the products among those of a stitch
    n_classes: int
    width: int  # of the random features
    n_copies: int  # that have as many channels as the front is wide
    rows_per_channel: float  # that the widest features were fitted to


def skill_of(products: AtPlaces, baseline: Baseline) -> StitchSkill:
    """Return the skill of a stitch, with an interval by the jackknife over the images of stitch and
    baseline."""
    of_baseline = baseline.products
    return StitchSkill(
        _at_place(products.end_layer, of_baseline.end_layer, baseline.places),
        _at_place(products.output, of_baseline.output, baseline.places),
        len(products.output.products),
        *baseline[2:],
    )


def _at_place(stitch: WithinClass, baseline: WithinClass, places: np.ndarray) -> SkillEstimate:
    """Return the skill at the end layer or at the output, with its interval.

    Args:
        places: of the baseline's images among those of the stitch, (n,).
    """
    value = float(skill_score(stitch.correlation, baseline.correlation))
    baseline_without_each = np.full(len(stitch.products), baseline.correlation)
    baseline_without_each[places] = baseline.without_each
    without_each = skill_score(stitch.without_each, baseline_without_each)
    if not np.isfinite(without_each).all():  # a baseline of 1 without an image
        value = math.nan
    half_width = DEVIATIONS * math.sqrt(jackknife_variance(without_each))
    high = float(np.minimum(1, value + half_width))  # keeps NaN
    return SkillEstimate(stitch.correlation, baseline.correlation, value, value - half_width, high)
