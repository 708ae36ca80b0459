"""One pass of each network over the test images, and comparisons of two passes.

Two networks may differ in their outputs. Baselines compare a single number of each network: a
measure of similarity should do better."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr
from torch import Tensor

from src.datasets.base import Batches
from src.ground.activations import at_least_single, mean_over_positions, pool
from src.ground.errors import not_finite
from src.models import Network
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
    network: Network, batches: Batches, layers: Sequence[str], *, name: str = "the network"
) -> NetworkPass:
    """Run a network on batches of images and labels.

    Args:
        layers: L names; the network need not have all of these layers.
        name: of the network, for the error.
    Raises:
        UserError: the logits are not finite.
    """
    layouts = {layer: network.token_layout(layer) for layer in _existing(network, layers)}

    def kept(layer: str, activation: Tensor) -> Tensor:
        if layer in layouts:
            return pool(at_least_single(activation), layouts[layer]).double()
        if (predicted_classes(activation) == NO_CLASS).any():
            raise not_finite(name)
        return at_least_single(activation).softmax(1).double()

    labels, results = _gathered(network, batches, [*layouts, OUTPUT], kept)
    probabilities = results[OUTPUT]
    is_right = probabilities.argmax(1) == labels
    effective_ranks = np.full(len(layers), math.nan)
    mean_norms = np.full(len(layers), math.nan)
    for place, layer in enumerate(layers):
        if layer in layouts:
            effective_ranks[place] = effective_rank(results[layer])
            mean_norms[place] = results[layer].norm(dim=1).mean().item()
    return NetworkPass(
        probabilities.numpy(), is_right.double().mean().item(), effective_ranks, mean_norms
    )


def features_of(
    network: Network, batches: Batches, layers: Sequence[str], *, pooled: bool = False
) -> dict[str, Tensor]:
    """Return the activations (n, ...) of n images by layer, in single precision on the CPU.

    Args:
        layers: names; the network need not have all of these layers.
        pooled: return averages over positions or tokens, (n, C), as measures of similarity take
            them that have images as samples.
    """

    def kept(layer: str, activation: Tensor) -> Tensor:
        if pooled:
            activation = mean_over_positions(at_least_single(activation))
        return activation.float()

    _, features = _gathered(network, batches, _existing(network, layers), kept)
    return features


def _existing(network: Network, layers: Sequence[str]) -> list[str]:
    """Return the layers that a network has."""
    return [layer for layer in layers if layer in network.layer_names]


def _gathered(
    network: Network,
    batches: Batches,
    layers: Sequence[str],
    kept: Callable[[str, Tensor], Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the labels (n,) of n images, and activations by layer, reduced by `kept`, on the CPU."""
    device = network.example.device
    labels = []
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with torch.no_grad():
        for images, labels_of_batch in batches:
            labels.append(labels_of_batch.cpu())
            for layer, activation in network.activations(images.to(device), layers).items():
                parts[layer].append(kept(layer, activation).cpu())
    return torch.cat(labels), {layer: torch.cat(of_layer) for layer, of_layer in parts.items()}


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
    of_pairs = np.array(
        [
            [output_differences(front.probabilities, end.probabilities) for end in passes]
            for front in passes
        ]
    )
    accuracies = np.array([network_pass.accuracy for network_pass in passes])
    of_outputs = zip(OutputDifferences._fields, np.moveaxis(of_pairs, 2, 0), strict=True)
    return {"accuracy": _absolute_differences(accuracies), **dict(of_outputs)}


def baseline_numbers(passes: Sequence[NetworkPass]) -> NDArray:
    """Return the numbers that the baselines compare, (3, N, L) in the order of `BASELINES`, of N
    networks with L layers. The accuracy is the same number at all layers."""
    ranks = np.array([network_pass.effective_ranks for network_pass in passes])  # (N, L)
    norms = np.array([network_pass.mean_norms for network_pass in passes])
    accuracies = np.empty_like(ranks)
    accuracies[:] = [[network_pass.accuracy] for network_pass in passes]
    return np.stack([accuracies, ranks, norms])


def baselines(numbers: NDArray) -> dict[str, NDArray]:
    """Return the negative differences (N, N, L, L) of numbers of N networks at L layers, by name.

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
