"""One pass of each network over the test images, and comparisons of two passes.

Two networks may differ in their outputs. Baselines compare a single number of each network: a
measure of similarity should do better."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr
from torch import Tensor

from src.ground.errors import not_finite
from src.models import Network
from src.models.activations import at_least_single, mean_over_positions, pool
from src.models.calls import OUTPUT
from src.training import NO_CLASS, predicted_classes

BASELINES = ("accuracy difference", "effective rank difference", "mean norm difference")


class NetworkPass(NamedTuple):
    """Results of a pass of a network over n test images."""

    probabilities: NDArray  # (n, classes)
    accuracy: float
    effective_ranks: NDArray  # (L,), of pooled activations; NaN if the network lacks the layer
    mean_norms: NDArray  # (L,), likewise


class OutputDifferences(NamedTuple):
    """Differences of the outputs of two networks; 0 for equal outputs."""

    disagreement: float  # share of images with different predicted classes, in [0, 1]
    jensen_shannon: float  # mean divergence of the predicted distributions, in bits, in [0, 1]


def output_differences(first: ArrayLike, second: ArrayLike) -> OutputDifferences:
    """Measure how much two sets of predictions differ; their order does not matter.

    The Jensen–Shannon divergence of p and q (Lin 1991) is (KL(p‖m) + KL(q‖m))/2 with m = (p + q)/2,
    in bits.

    Args:
        first, second: probabilities (n, C) of the same images; each row adds up to 1.
    Raises:
        ValueError: the shapes differ, or rows are no probabilities.
    """
    first = np.asarray(first, dtype=np.float64)
    second = np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"predictions {first.shape} and {second.shape} of other images or classes")
    for predictions in (first, second):
        is_positive = (predictions >= 0).all()
        if not is_positive or not np.allclose(predictions.sum(1), 1, rtol=0, atol=1e-4):
            raise ValueError("predictions are not probabilities: apply a softmax to logits first")

    disagreement = (first.argmax(1) != second.argmax(1)).mean()
    middle = (first + second) / 2
    nats = (rel_entr(first, middle) + rel_entr(second, middle)).sum(1) / 2
    bits = (nats / math.log(2)).clip(0, 1)  # rounding can leave less than 0
    return OutputDifferences(float(disagreement), float(bits.mean()))


def pass_over(
    network: Network,
    batches: Iterable[tuple[Tensor, Tensor]],
    layers: Sequence[str],
    *,
    name: str = "the network",
) -> NetworkPass:
    """Run a network on batches of images and labels.

    Args:
        layers: L names; the network need not have all of these layers.
        name: of the network, for the error.
    Raises:
        UserError: the logits are not finite.
    """
    existing = [layer for layer in layers if layer in network.layer_names]
    layouts = {layer: network.token_layout(layer) for layer in existing}
    device = network.example.device
    probability_parts: list[Tensor] = []
    label_parts: list[Tensor] = []
    feature_parts: dict[str, list[Tensor]] = {layer: [] for layer in existing}
    with torch.no_grad():
        for images, labels in batches:
            activations = network.activations(images.to(device), [*existing, OUTPUT])
            logits = activations[OUTPUT]
            if (predicted_classes(logits) == NO_CLASS).any():
                raise not_finite(name)
            probability_parts.append(at_least_single(logits).softmax(1).double().cpu())
            label_parts.append(labels.cpu())
            for layer in existing:
                pooled = pool(at_least_single(activations[layer]), layouts[layer])
                feature_parts[layer].append(pooled.double().cpu())

    probabilities = torch.cat(probability_parts)
    is_right = probabilities.argmax(1) == torch.cat(label_parts)
    effective_ranks = np.full(len(layers), math.nan)
    mean_norms = np.full(len(layers), math.nan)
    for i, layer in enumerate(layers):
        if layer in feature_parts:
            features = torch.cat(feature_parts[layer])  # (n, D)
            effective_ranks[i] = effective_rank(features)
            mean_norms[i] = features.norm(dim=1).mean().item()
    return NetworkPass(
        probabilities.numpy(), is_right.double().mean().item(), effective_ranks, mean_norms
    )


def features_of(
    network: Network,
    batches: Iterable[tuple[Tensor, Tensor]],
    layers: Sequence[str],
    *,
    pooled: bool = False,
) -> dict[str, Tensor]:
    """Return the activations (n, ...) of n images by layer, in single precision on the CPU.

    Args:
        layers: names; the network need not have all of these layers.
        pooled: return averages over positions or tokens, (n, C), as measures of similarity take
            them that have images as samples.
    """
    existing = [layer for layer in layers if layer in network.layer_names]
    device = network.example.device
    parts: dict[str, list[Tensor]] = {layer: [] for layer in existing}
    with torch.no_grad():
        for images, _ in batches:
            for layer, activation in network.activations(images.to(device), existing).items():
                if pooled:
                    activation = mean_over_positions(at_least_single(activation))
                parts[layer].append(activation.float().cpu())
    return {layer: torch.cat(batches) for layer, batches in parts.items()}


def effective_rank(rows: Tensor) -> float:
    """Return the effective rank of rows (n, D), between 1 and D.

    It is the exponential of the entropy of the covariance's eigenvalues, which are divided by their
    sum first (Roy and Vetterli 2007). Equal rows have 1.
    """
    eigenvalues = torch.linalg.svdvals((rows - rows.mean(0)).double()).square()
    shares = eigenvalues / eigenvalues.sum().clamp(min=1e-300)
    return torch.special.entr(shares).sum().exp().item()


def differences(passes: Sequence[NetworkPass]) -> dict[str, NDArray]:
    """Return the differences between N networks, (N, N) by name.

    The names are `accuracy` and the fields of `OutputDifferences`.
    """
    accuracies = np.array([network_pass.accuracy for network_pass in passes])
    matrices = {"accuracy": _absolute_differences(accuracies)}
    of_pairs = [
        [output_differences(front.probabilities, end.probabilities) for end in passes]
        for front in passes
    ]
    for i, name in enumerate(OutputDifferences._fields):
        matrices[name] = np.array(of_pairs)[:, :, i]
    return matrices


def baseline_numbers(passes: Sequence[NetworkPass]) -> NDArray:
    """Return the numbers that the baselines compare, (3, N, L) in the order of `BASELINES`, of N
    networks with L layers. The accuracy is the same number at all layers."""
    ranks = np.array([network_pass.effective_ranks for network_pass in passes])  # (N, L)
    norms = np.array([network_pass.mean_norms for network_pass in passes])
    accuracies = np.empty_like(ranks)
    accuracies[:] = [[network_pass.accuracy] for network_pass in passes]
    return np.stack([accuracies, ranks, norms])


def baselines(numbers: NDArray) -> dict[str, NDArray]:
    """Return the baselines of N networks with L layers, (N, N, L, L) by name, as in `Tables`.

    A baseline is the negative difference between a number of a network at a layer and the same
    number of a network at a layer.

    Args:
        numbers: (3, N, L), from `baseline_numbers`.
    """
    matrices = {}
    for name, of_layers in zip(BASELINES, numbers, strict=True):
        gaps = _absolute_differences(of_layers.ravel())  # (N · L, N · L)
        gaps = gaps.reshape(*of_layers.shape, *of_layers.shape)  # (N, L, N, L)
        matrices[name] = -gaps.transpose(0, 2, 1, 3)
    return matrices


def _absolute_differences(values: NDArray) -> NDArray:
    """Return the absolute differences (n, n) between values (n,)."""
    return np.abs(values[:, None] - values)
