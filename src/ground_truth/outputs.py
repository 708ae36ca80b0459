"""One pass of each network over test images: how much outputs differ, and the numbers that
baselines compare."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr
from torch import Tensor

from src.models import Network
from src.models.calls import OUTPUT
from src.models.heads import pool

BASELINES = ("accuracy difference", "effective rank difference", "mean norm difference")


class Passed(NamedTuple):
    """What a network makes of n test images."""

    probabilities: NDArray  # (n, C)
    accuracy: float
    effective_ranks: NDArray  # (L,), of pooled activations; NaN where the network has no such layer
    mean_norms: NDArray  # (L,)


class OutputDifferences(NamedTuple):
    """Differences of the outputs of two networks; 0 where they are equal."""

    disagreement: float  # share of images with other predicted classes, in [0, 1]
    jensen_shannon: float  # mean divergence of the predicted distributions, in bits, in [0, 1]


def output_differences(first: ArrayLike, second: ArrayLike) -> OutputDifferences:
    """Measure how much two sets of predictions differ; the order of the two does not matter.

    The Jensen–Shannon divergence (Lin 1991) of p and q is (KL(p‖m) + KL(q‖m))/2 with m = (p + q)/2,
    in bits.

    Args:
        first, second: probabilities (n, C) of the same images; each row adds up to 1.
    Raises:
        ValueError: shapes do not fit, or rows are no probabilities.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"predictions {first.shape} and {second.shape} of other images or classes")
    for rows in (first, second):
        if not (rows >= 0).all() or not np.allclose(rows.sum(1), 1, rtol=0, atol=1e-4):
            raise ValueError("predictions are not probabilities: apply a softmax to logits first")
    middle = (first + second) / 2
    divergences = (rel_entr(first, middle) + rel_entr(second, middle)).sum(1) / (2 * math.log(2))
    disagreement = float((first.argmax(1) != second.argmax(1)).mean())
    return OutputDifferences(
        disagreement, float(divergences.clip(0, 1).mean())
    )  # rounding can leave less than 0


def pass_over(
    network: Network, batches: Iterable[tuple[Tensor, Tensor]], layers: Sequence[str]
) -> Passed:
    """Pass the images of batches through a network."""
    names = [layer for layer in layers if layer in network.layer_names]
    device = next(network.parameters()).device
    outputs, labels, features = [], [], {name: [] for name in names}
    with torch.no_grad():
        for x, y in batches:
            activations = network.activations(x.to(device), [*names, OUTPUT])
            outputs.append(activations[OUTPUT].softmax(1).double().cpu())
            labels.append(y.cpu())
            for name in names:
                features[name].append(pool(activations[name]).double().cpu())
    probabilities = torch.cat(outputs)
    accuracy = (probabilities.argmax(1) == torch.cat(labels)).double().mean().item()
    rows = {name: torch.cat(parts) for name, parts in features.items()}
    ranks = [effective_rank(rows[name]) if name in rows else math.nan for name in layers]
    norms = [rows[name].norm(dim=1).mean().item() if name in rows else math.nan for name in layers]
    return Passed(probabilities.numpy(), accuracy, np.array(ranks), np.array(norms))


def effective_rank(rows: Tensor) -> float:
    """Return the exponential of the entropy of the eigenvalues of the covariance of (n, D) (Roy and
    Vetterli 2007).

    It is between 1 and D; 1 where all rows are the same.
    """
    shares = torch.linalg.svdvals((rows - rows.mean(0)).double()).square()
    return torch.special.entr(shares / shares.sum().clamp(min=1e-300)).sum().exp().item()


def differences(passed: Sequence[Passed]) -> dict[str, NDArray]:
    """Return how much the accuracies and the outputs of each two of N networks differ: (N, N) each,
    by name."""
    found = [
        [output_differences(one.probabilities, two.probabilities) for two in passed]
        for one in passed
    ]
    of_outputs = zip(OutputDifferences._fields, np.array(found).transpose(2, 0, 1), strict=True)
    return {"accuracy": _gaps(np.array([each.accuracy for each in passed])), **dict(of_outputs)}


def baselines(passed: Sequence[Passed]) -> dict[str, NDArray]:
    """Return measures that know one number of each network: negative differences (N, N, L, L), as
    in `Tables`."""
    ranks, norms = (
        np.array(values) for values in zip(*(each[2:] for each in passed), strict=True)
    )  # (N, L)
    accuracies = np.broadcast_to([[each.accuracy] for each in passed], ranks.shape)
    gaps = (
        _gaps(values.ravel()).reshape(2 * values.shape) for values in (accuracies, ranks, norms)
    )  # (N, L, N, L)
    return {name: -each.transpose(0, 2, 1, 3) for name, each in zip(BASELINES, gaps, strict=True)}


def _gaps(values: NDArray) -> NDArray:
    return np.abs(values[:, None] - values)
