"""Convergence of training runs, from their losses and learning rates."""

import math
from collections.abc import Sequence
from itertools import accumulate

# Shares of a loss, and of its whole fall, by which it may fall over the last fifth of the learning rate
STILL_FELL = 0.1
STILL_FELL_OF_ALL = 0.03


def learning_rates(
    n_epochs: int, *, scheduler: str = "none", reduce_lr_epochs: Sequence[int] = ()
) -> list[float]:
    """Return the learning rate of each epoch of a training run, as a share of the first one.

    The arguments are the options of `exec_stitch.py`.
    """
    epochs = range(n_epochs)
    if scheduler == "cosine":
        return [(1 + math.cos(math.pi * epoch / n_epochs)) / 2 for epoch in epochs]
    return [0.1 ** sum(last <= epoch for last in reduce_lr_epochs) for epoch in epochs]


def has_converged(losses: Sequence[float], rates: Sequence[float]) -> bool:
    """Return whether a training loss hardly fell over the last fifth of the learning rate.

    These are the last epochs with a fifth of the sum of all learning rates: of a constant rate the
    last fifth of the epochs, by `cosine` the last half. The fall is small if it is at most 10 %
    of the loss, and at most 3 % of the whole fall since the first epoch: a loss that has hardly
    begun to fall falls by a small share of itself, and by a large share of its whole fall.

    It is True without training, and False after a single epoch.

    Args:
        losses: of the epochs, in their order.
        rates: of the epochs, see `learning_rates`.
    """
    if len(losses) <= 1:
        return not losses
    fifth = sum(rates) / 5
    n_last = 1 + sum(total < fifth for total in accumulate(reversed(rates)))
    before = losses[-1 - min(n_last, len(losses) - 1)]
    fall = before - losses[-1]
    whole_fall = abs(losses[0] - losses[-1])
    return fall <= STILL_FELL * abs(before) and fall <= STILL_FELL_OF_ALL * whole_fall
