"""Obstacles to a verdict, such as too few fitting samples."""

from collections.abc import Sequence

from src.core.choices.stitching import KEEP_VARIANCE
from src.core.values import BATCH_DEPENDENT, STOCHASTIC, Metrics


def obstacle_of(stitches: Sequence[Metrics], form: str) -> str:
    """Return the obstacle to a verdict on stitches that are judged together, in words; "" without one.

    It is a stochastic or batch-dependent network, an end layer that a branch goes around, a fit that the cutoff of
    singular values truncated, or a fit to too few images.

    Args:
        form: how the stitches were matched, of `FORMS`; or an objective.
    """
    nondeterminism = {
        "front": {stitch.front_nondeterminism for stitch in stitches},
        "end": {stitch.end_nondeterminism for stitch in stitches},
    }
    for side, kinds in nondeterminism.items():
        if STOCHASTIC in kinds:
            return f"the {side} network is stochastic in evaluation mode"
        if BATCH_DEPENDENT in kinds:
            return f"the {side} network depends on the batch when it is evaluated"
    if any(stitch.end_is_cut is False for stitch in stitches):
        return (
            "the end layer lies inside a block, and the input reaches the output around it: choose the block, or "
            "another layer of misc/list_layers.py"
        )
    if any(stitch.is_truncated for stitch in stitches):
        return "the cutoff truncated the fit: use the cutoff exact"
    keeps_variance = form in KEEP_VARIANCE
    if any(stitch.has_few_fitting_samples(keeps_variance=keeps_variance) for stitch in stitches):
        return (
            "too few fitting samples: R² is much lower on the test inputs; fit to more, unless test inputs are "
            "unlike the training inputs"
        )
    return ""
