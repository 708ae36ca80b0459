"""Finds the controls of stitches, and compares both.

The control of a stitch begins in the class that its front network predicts, beside an untrained
network of its type (`src.models.control`). Networks, layers and method are those of the stitch.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain

import numpy as np

from src.collected.groups import CLASS_CONTROL, Group
from src.runs.evaluations import identified_images
from src.runs.folders import StitchingRun
from src.tables.evaluation_rows import IdentifiedImages
from src.tables.experiments import Experiment
from src.verdict import Compared, compare_with_controls

Controls = Mapping[Hashable, StitchingRun]  # by the `_key` of the stitch


def controls_of(groups: Iterable[Group]) -> Controls:
    """Return the runs of all controls, for `compared`."""
    runs = chain.from_iterable(group.runs for group in groups if group.control == CLASS_CONTROL)
    return {_key(run): run for run in runs}


def compared(group: Group, controls: Controls) -> Compared | None:
    """Compare the stitches of a group with their controls.

    None for controls, and unless each run has a control that identified the same images.
    """
    if group.control == CLASS_CONTROL:
        return None
    stitch_values = []
    control_values = []
    for run in group.runs:
        control = controls.get(_key(run))
        if control is None:
            return None
        of_stitch = identified_images(run)
        of_control = identified_images(control)
        if of_stitch is None or of_control is None or not _are_comparable(of_stitch, of_control):
            return None
        stitch_values.append(of_stitch.values)
        control_values.append(of_control.values)
    return compare_with_controls(stitch_values, control_values)


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
