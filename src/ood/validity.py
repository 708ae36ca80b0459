"""Validity of activations on both sides: are they where real ones lie (density), and does all of those appear (recall)?

A score of one side calls collapsed activations typical, and one of pooled features does not see positions. Density and
recall count neighbours among features that keep four positions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from src.datasets.base import BaseImageSet
from src.ood.pooling import cells, mean_over_positions

K = 5
N_IMAGES = 2_000  # training images, and test images, at most


class ValidityScores(NamedTuple):
    """How a set of activations lies to those of training images."""

    density: float  # 1 is expected of more of the same images, less lie off the manifold, more are collapsed
    recall: float  # share of the training images that lie among these activations, in [0, 1]
    frechet: float  # squared Fréchet distance over the total variance of the training images


class Validity:
    """Density, recall and Fréchet distance of activations of one layer, against those of training images.

    Density (Naeem et al. 2020) is the mean number of balls that a sample lies in, over k = 5: each ball is centred at a
    training image, with the distance to its k-th neighbour as radius. Recall (Kynkäänniemi et al. 2019) is the share of
    training images that lie in one of the like balls of the samples. Both compare maps at 2×2 cells. The Fréchet
    distance (Heusel et al. 2017) compares means over positions.
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self.n = 0

    def add(self, activations: Tensor) -> None:
        """Take in a batch of training images, (B, C, H, W), (B, T, D) or (B, D), up to the first 2,000."""
        part = features(activations[: N_IMAGES - self.n])
        self._parts.append(part)
        self.n += len(part)

    def fit(self) -> None:
        """Get ready to measure.

        Raises:
            ValueError: there are too few training images, or the activations are not finite or do not vary.
        """
        reference = torch.cat(self._parts)
        self._parts.clear()
        self._centre = reference.mean((0, 1))
        self._cells, pooled = _split(reference - self._centre)
        self._radii = _radii(self._cells)
        self._mean, centred = _centred(pooled)
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        self._variance = variances.sum()
        if not self._variance > 0:
            raise ValueError("the activations of the training images are all the same")
        self._root = axes * variances.clamp(min=0).sqrt()  # (C, C); times its transpose, the covariance

    def measure(self, activations: Tensor) -> ValidityScores:
        """Measure the activations (n, C, H, W), (n, T, D) or (n, D) of all test images.

        Raises:
            ValueError: there are too few, or they are not finite.
        """
        return self.measure_features(features(activations))

    def measure_features(self, samples: Tensor) -> ValidityScores:
        """Measure what `features` makes of the activations, which may be put together from batches."""
        in_cells, pooled = _split(samples.to(self._centre.device) - self._centre)
        radii = _radii(in_cells)
        distances = torch.cdist(in_cells, self._cells)  # (n, N)
        density = (distances <= self._radii).sum().item() / (K * len(samples))
        recall = (distances <= radii[:, None]).any(0).double().mean().item()
        return ValidityScores(density, recall, self._frechet(pooled))

    def _frechet(self, pooled: Tensor) -> float:
        """Return (‖μ₁−μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½) / tr Σ₁; the last trace is the nuclear norm of Σ₁^½Σ₂^½."""
        mean, centred = _centred(pooled)
        product = centred @ self._root / math.sqrt(len(centred))  # (n, C)
        gram = product @ product.T if len(product) < product.shape[1] else product.T @ product
        shared = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        variance = centred.square().sum() / len(centred)
        distance = (mean - self._mean).square().sum() + self._variance + variance - 2 * shared
        return (distance / self._variance).item()


def choose_images(data: BaseImageSet) -> tuple[Tensor, Tensor]:
    """Choose at most 2,000 images at random, always the same: their indices (n,) in random order, and (N,) bool."""
    order = data.permutation(0)[:N_IMAGES]
    return order, torch.zeros(len(data), dtype=torch.bool).index_fill_(0, order, True)


def features(activations: Tensor) -> Tensor:
    """Return the cells of activations, and behind them the mean over positions: (n, positions + 1, C)."""
    return torch.cat([cells(activations), mean_over_positions(activations)[:, None]], 1)


def _split(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells (n, positions · C) and the means (n, C) among features."""
    return samples[:, :-1].flatten(1), samples[:, -1]


def _radii(samples: Tensor) -> Tensor:
    """Return the distance (n,) of each sample (n, D) to its k-th neighbour.

    Raises:
        ValueError: there are no k others, or the samples are not finite.
    """
    if len(samples) <= K:
        raise ValueError(f"{len(samples)} images are too few to have {K} neighbours")
    if not samples.isfinite().all():
        raise ValueError("the activations are not finite")
    distances = torch.cdist(samples, samples).fill_diagonal_(math.inf)
    return distances.kthvalue(K, dim=1).values


def _centred(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (C,) of samples (n, C), and the samples about it, in double precision."""
    samples = samples.double()
    mean = samples.mean(0)
    return mean, samples - mean
