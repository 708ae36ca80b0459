"""The energy score and the losses with which a classifier learns to tell in-distribution from other data by it.

Liu, Wang, Owens and Li 2020, Energy-based Out-of-distribution Detection (arXiv 2010.03759). In a batch, a label of -1
marks an auxiliary out-of-distribution (OOD) sample.
"""

import torch
from torch import Tensor

from src.runtime import at_least_single

ENERGY_WEIGHT = 0.1
OUTLIER_EXPOSURE_WEIGHT = 0.5


def energy(logits: Tensor) -> Tensor:
    """Return the free energy −logsumexp(logits) at temperature 1: (B, n_classes) -> (B,); low for ID (equation 4)."""
    return -torch.logsumexp(at_least_single(logits), dim=-1)


def energy_penalty(logits: Tensor, labels: Tensor, *, m_in: float, m_out: float) -> Tensor:
    """Return the squared hinge that wants ID energies below `m_in` and OOD energies above `m_out` (equations 8 and 9).

    Args:
        logits: (B, n_classes).
        labels: (B,), -1 for OOD.
    Returns:
        The sum of the two means, times the weight 0.1 of the paper.
    """
    energies, is_ood = energy(logits), labels < 0
    too_high = (energies - m_in).clamp(min=0).square()
    too_low = (m_out - energies).clamp(min=0).square()
    return ENERGY_WEIGHT * (_mean_where(too_high, ~is_ood) + _mean_where(too_low, is_ood))


def outlier_exposure_penalty(logits: Tensor, labels: Tensor) -> Tensor:
    """Return half the cross-entropy of OOD samples to the uniform distribution (Hendrycks et al. 2019, section 3).

    Up to a constant, as in their code: the logarithm of the number of classes is left out.
    """
    to_uniform = -energy(logits) - at_least_single(logits).mean(dim=-1)
    return OUTLIER_EXPOSURE_WEIGHT * _mean_where(to_uniform, labels < 0)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum()
