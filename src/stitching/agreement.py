"""How far a stitch and its end network predict the same classes."""

from typing import NamedTuple

import torch
from torch import Tensor


class Agreement(NamedTuple):
    """How far two networks predict the same classes."""

    agreement: float  # share of equal predictions
    kappa: float  # Cohen's: 1 for equal, 0 for no more than chance; NaN where both give one and the same class


def agreement(predictions: Tensor, others: Tensor) -> Agreement:
    """Compare two predictions (N,) of the same images; Cohen 1960 for kappa."""
    n_classes = 1 + int(torch.maximum(predictions, others).max())
    shares = [torch.bincount(classes, minlength=n_classes).double() / len(classes) for classes in (predictions, others)]
    observed, by_chance = (predictions == others).double().mean().item(), (shares[0] @ shares[1]).item()
    return Agreement(observed, float("nan") if by_chance == 1 else (observed - by_chance) / (1 - by_chance))
