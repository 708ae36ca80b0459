"""The rules that say whether a stitch may be judged: it was matched on enough images, and trained long enough."""

import math
from collections.abc import Sequence

from src.results.experiments import Experiment
from src.stitching.rows import Metrics, StitchRow

STILL_FELL = 0.02  # by which share a loss may fall over the last fifth of the epochs


def is_matched_on_few(metrics: Metrics | StitchRow) -> bool:
    """Return whether the fit of a matched pair does not hold on the test images."""
    if metrics.r2_matched is None or math.isnan(metrics.r2_matched) or math.isnan(metrics.r2_test):
        return False
    return metrics.r2_test < metrics.r2_matched - 0.03 - 0.2 * abs(metrics.r2_matched)


def is_as_matched(experiment: Experiment | StitchRow) -> bool:
    """Return whether a stitch is as it was matched: not trained since, of a source that is not truncated further."""
    ranks = [math.inf if rank is None else rank for rank in (experiment.front_pinv_rank, experiment.front_stitch_rank)]
    return experiment.n_epochs == 0 and ranks[0] <= ranks[1]


def has_converged(losses: Sequence[float]) -> bool:
    """Return whether a training loss fell by at most 2 % over the last fifth of the epochs; one epoch does not tell."""
    fifth = math.ceil(len(losses) / 5)
    if len(losses) <= fifth:
        return not losses
    before, last = losses[-1 - fifth], losses[-1]
    return before - last <= STILL_FELL * abs(before)
