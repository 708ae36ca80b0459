"""The skill of a stitch at both places, from the products of the stitch and of its floor."""

import math
from typing import NamedTuple

import numpy as np

from src.skill.running import AtPlaces
from src.skill.within_class import WithinClass, skill
from src.statistics.intervals import DEVIATIONS
from src.statistics.jackknife import jackknife_variance
from src.values import Skill, StitchSkill


class Floor(NamedTuple):
    """The floors of a stitch at both places."""

    products: AtPlaces  # of the draw with the largest correlation, at either place
    places: np.ndarray  # (n,): of the images of the products among those of a stitch


def skill_of(products: AtPlaces, floor: Floor, n_twins: int) -> StitchSkill:
    """Return the skill of a stitch, with the jackknife over images of it and of its floor together.

    Args:
        n_twins: of the floor.
    """
    of_floor = floor.products
    return StitchSkill(
        _at_place(products.end_layer, of_floor.end_layer, floor.places),
        _at_place(products.output, of_floor.output, floor.places),
        n_images=len(products.output.products),
        n_twins=n_twins,
    )


def _at_place(stitch: WithinClass, floor: WithinClass, places: np.ndarray) -> Skill:
    """Return the skill at one place.

    Args:
        places: of the floor's images among those of the stitch, (n,).
    """
    value = float(skill(stitch.correlation, floor.correlation))
    floor_without_each = np.full(len(stitch.products), floor.correlation)
    floor_without_each[places] = floor.without_each
    without_each = skill(stitch.without_each, floor_without_each)
    if not np.isfinite(without_each).all():  # a floor of 1 without an image
        value = math.nan
    half_width = DEVIATIONS * math.sqrt(jackknife_variance(without_each))
    high = float(np.minimum(1, value + half_width))  # keeps NaN
    return Skill(stitch.correlation, floor.correlation, value, value - half_width, high)
