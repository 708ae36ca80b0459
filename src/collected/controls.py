"""Finds the controls of stitches, and compares both.

The control of a stitch begins in the class that its front network predicts, beside an untrained
network of its type (`src.models.control`). Networks, layers and method are those of the stitch.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain

import numpy as np

from src.collected.groups import CLASS_CONTROL, Group
from src.ground.console import warn_once
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

    None for controls, and unless each run has a control. None with a warning if the control did not
    identify the same images.
    """
    if group.control == CLASS_CONTROL or not controls:
        return None
    stitch_values = []
    control_values = []
    for run in group.runs:
        control = controls.get(_key(run))
        if control is None:
            return None
        of_stitch = identified_images(run)
        of_control = identified_images(control)
        if of_stitch is None or of_control is None:
            _warn(run, control, "not both have identified images; evaluate both folders")
            return None
        misfit = _misfit(of_stitch, of_control)
        if misfit:
            _warn(run, control, misfit)
            return None
        stitch_values.append(of_stitch.values)
        control_values.append(of_control.values)
    return compare_with_controls(stitch_values, control_values)


def _key(run: StitchingRun) -> Hashable:
    """Return a value that a stitch and its control share."""
    experiment: Experiment = dataclasses.replace(run.row, class_control=False)
    return run.row.pair, experiment.key


def _warn(run: StitchingRun, control: StitchingRun, reason: str) -> None:
    """Warn, once for all stitches of a folder, that they are not compared with their controls."""
    warn_once(
        f"stitches in {run.folder.parent} are not compared with their controls in "
        f"{control.folder.parent}: {reason}"
    )


def _misfit(stitch: IdentifiedImages, control: IdentifiedImages) -> str:
    """Return why a stitch and its control cannot be compared; "" if they can."""
    are_same_images = np.array_equal(stitch.images, control.images)
    if not are_same_images or not np.array_equal(stitch.foils, control.foils):
        return "other images or foils were identified; evaluate both folders on the same images"
    if stitch.values.shape != control.values.shape:
        return "images were identified at other layers; evaluate both folders again"
    if np.isnan(stitch.values).any() or np.isnan(control.values).any():
        return "activations are not finite"
    return ""
