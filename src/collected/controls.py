"""Compares stitches with their controls: do they identify more images than the class alone?

The control of a stitch begins in the class that its front network predicts, beside an untrained
network of its type (`src.models.control`). Networks, layers and method are those of the stitch.
"""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain
from typing import NamedTuple

import numpy as np
from scipy.special import bdtrc

from src.collected.groups import CLASS_CONTROL, Group
from src.runs.evaluations import identified_images
from src.runs.folders import StitchingRun
from src.tables.evaluation_rows import IdentifiedImages
from src.tables.experiments import Experiment

Controls = Mapping[Hashable, StitchingRun]  # by the `_key` of the stitch


class Compared(NamedTuple):
    """The control of a stitch. NaN: there is none, or the two cannot be compared."""

    identification: float = math.nan  # of the control: its smallest share along the way
    p_value: float = math.nan  # small: the stitch identifies more images at every layer


def controls_of(groups: Iterable[Group]) -> Controls:
    """Return the runs of all controls, for `compare`."""
    runs = chain.from_iterable(group.runs for group in groups if group.control == CLASS_CONTROL)
    return {_key(run): run for run in runs}


def compare(group: Group, controls: Controls) -> Compared:
    """Compare the stitches of a group with their controls.

    The stitch has to identify more images than the control at every layer of its way. The control
    counts where it identifies fewest. All tests have to agree, so that each has the whole level (an
    intersection–union test): the largest p-value counts. Of several runs the largest counts, too.

    Returns:
        NaN for controls, and unless each run has a control that identified the same images.
    """
    if group.control == CLASS_CONTROL:
        return Compared()
    pairs = []
    for run in group.runs:
        control = controls.get(_key(run))
        if control is None:
            return Compared()
        of_stitch = identified_images(run)
        of_control = identified_images(control)
        if of_stitch is None or of_control is None or not _are_comparable(of_stitch, of_control):
            return Compared()
        pairs.append((of_stitch, of_control))
    shares = np.mean([control.values.mean(1) for _, control in pairs], axis=0)  # by layer
    weakest = shares.argmin()
    p_values = [
        p_of_more(at_layer, control.values[weakest])
        for stitch, control in pairs
        for at_layer in stitch.values
    ]
    return Compared(float(shares[weakest]), max(p_values))


def p_of_more(first: np.ndarray, second: np.ndarray) -> float:
    """Test whether the first of two identifies more of the same images; return the p-value.

    It is McNemar's (1947) exact test in one direction. Of the images that one of both identifies
    more than the other, those of the first are a binomial number with the probability ½.

    Args:
        first, second: 1, 0, or ½ for a tie, (n,).
    """
    n_first = int((first > second).sum())
    n_second = int((first < second).sum())
    if n_first == 0:
        return 1.0
    return float(bdtrc(n_first - 1, n_first + n_second, 0.5))


def _key(run: StitchingRun) -> Hashable:
    """Return a value that a stitch and its control share."""
    experiment: Experiment = dataclasses.replace(run.row, class_control=False)
    return run.row.pair, experiment.key


def _are_comparable(stitch: IdentifiedImages, control: IdentifiedImages) -> bool:
    """Return whether both identified the same images, with the same foils, at as many layers."""
    are_same_images = np.array_equal(stitch.images, control.images)
    are_same_foils = np.array_equal(stitch.foils, control.foils)
    has_same_layers = stitch.values.shape == control.values.shape
    is_finite = not np.isnan(stitch.values).any() and not np.isnan(control.values).any()
    return are_same_images and are_same_foils and has_same_layers and is_finite
