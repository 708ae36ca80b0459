"""Validity of activations on both sides: are they where real ones lie (density), and does all of
those appear (recall)?

A score of one side calls collapsed activations typical, and one of pooled features does not see
positions. Density and recall count neighbours among features that keep four positions. What they
are worth differs from layer to layer, so they are read as doses: of noise and of shrinkage that the
network's own activations would need for the same values."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.moments import Moments, Rows
from src.ood.cells import cells
from src.ood.detectors import mean_over_positions
from src.ood.evaluation_rows import StitchValidity
from src.ood.identifying import identify, share_of
from src.results.tables import IntervalEstimate
from src.runtime import generator

K = 5
N_IMAGES = 2_000  # training images, and test images, at most
NOISES = (0.1, 0.2, 0.3, 0.5)  # standard deviations of a channel
SHRINKAGES = (0.05, 0.1, 0.2, 0.3)  # shares of the way to the mean


class ValidityScores(NamedTuple):
    """How a set of activations lies to those of training images."""

    # 1 is expected of more of the same images, less lie off the manifold, more are collapsed
    density: float
    recall: float  # share of the training images that lie among these activations, in [0, 1]
    frechet: float  # squared Fréchet distance over the total variance of the training images


class Doses(NamedTuple):
    """The validity of a network's own test activations at doses of noise and of shrinkage, the
    first dose being none.

    Between the doses that were measured, recall and the logarithm of the density are interpolated.
    Beyond the own value the dose is 0, and beyond that of the largest dose it is this dose, which
    so means "at least"."""

    n_images: int
    noisy_density: np.ndarray  # (5,), at 0 and `NOISES`
    shrunk_density: np.ndarray  # (5,), at 0 and `SHRINKAGES`
    shrunk_recall: np.ndarray  # (5,)

    def noise(self, density: float) -> float:
        """Return the noise's share of the variance, 0 to 0.2, at which the own activations have
        this density.

        At s standard deviations it is s² / (1 + s²). NaN where the own density is 0.
        """
        doses = np.square([0, *NOISES]) / (1 + np.square([0, *NOISES]))
        return (
            _dose(-self._log(density), -self._log(self.noisy_density), doses)
            if self.noisy_density[0]
            else math.nan
        )

    def shrinkage(self, density: float, recall: float) -> float:
        """Return the share of the way to the mean, 0 to 0.3, at which they have this recall, or if
        more this density.

        NaN where the own density or recall is 0.
        """
        if not (self.shrunk_density[0] and self.shrunk_recall[0]):
            return math.nan
        doses = np.array([0, *SHRINKAGES])
        by_density = _dose(self._log(density), self._log(self.shrunk_density), doses)
        return max(by_density, _dose(-recall, -self.shrunk_recall, doses))

    def _log(self, density: float | np.ndarray) -> np.ndarray:
        """Return the logarithm; the least density that so many images can have, 1 / (k · n), is
        added to each."""
        return np.log(density + 1 / (K * self.n_images))


def _dose(value: float, curve: np.ndarray, doses: np.ndarray) -> float:
    """Return the least dose at which a rising curve has a value: 0 below the curve, the largest
    dose above it."""
    heights, first = np.unique(np.maximum.accumulate(curve), return_index=True)
    return float(np.interp(value, heights, doses[first], right=doses[-1]))


class Validity:
    """Density, recall and Fréchet distance of activations of one layer, against those of training
    images.

    Density (Naeem et al. 2020) is the mean number of balls that a sample lies in, over k = 5: each
    ball is centred at a training image, with the distance to its k-th neighbour as radius. Recall
    (Kynkäänniemi et al. 2019) is the share of training images that lie in one of the like balls of
    the samples. Both compare maps at 2×2 cells. The Fréchet distance (Heusel et al. 2017) compares
    means over positions.

    Of stitches, that of the network's own activations of the same images is measured first, and
    then stands beside it.

    Args:
        is_sequence: the tokens are the steps of a recurrent layer (see `cells`).

    `fit` and `measure` raise a ValueError of too few images and of activations that are not finite
    or do not vary."""

    def __init__(self, *, is_sequence: bool = False) -> None:
        self.is_sequence = is_sequence
        self._parts: list[Tensor] = []
        self._moments = Moments()  # of the own activations

    def add(self, activations: Tensor, labels: Tensor | None = None) -> None:
        """Take in a batch of training images, (B, C, H, W), (B, T, D) or (B, D), up to the first
        2,000."""
        part = activations[: N_IMAGES - sum(map(len, self._parts))]
        self._parts.append(features(part, is_sequence=self.is_sequence))

    def fit(self) -> None:
        """Get ready to measure."""
        reference = torch.cat(self._parts)
        self._parts.clear()
        self._centre = reference.mean((0, 1))
        self._cells, pooled = _split(reference - self._centre)
        self._radii = _radii(self._cells)
        _, self._mean, scatter = Rows.of(pooled).moments()
        variances, axes = torch.linalg.eigh(scatter / len(pooled))
        self._variance = variances.sum()
        if not self._variance > 0:
            raise ValueError("the activations of the training images are all the same")
        self._root = (
            axes * variances.clamp(min=0).sqrt()
        )  # (C, C); times its transpose, the covariance

    def measure(self, activations: Tensor) -> ValidityScores:
        """Measure the activations (n, C, H, W), (n, T, D) or (n, D) of all test images."""
        return self._measure(features(activations, is_sequence=self.is_sequence))

    def _measure(self, samples: Tensor) -> ValidityScores:
        """Measure what `features` makes of activations."""
        in_cells, pooled = _split(samples.to(self._centre.device) - self._centre)
        radii = _radii(in_cells)
        distances = torch.cdist(in_cells, self._cells)  # (n, N)
        density = (distances <= self._radii).sum().item() / (K * len(samples))
        recall = (distances <= radii[:, None]).any(0).double().mean().item()
        return ValidityScores(density, recall, self._frechet(pooled))

    def _frechet(self, pooled: Tensor) -> float:
        """Return (‖μ₁−μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½) / tr Σ₁; the last trace is the nuclear
        norm of Σ₁^½Σ₂^½."""
        mean, centred = Rows.of(pooled)
        product = centred @ self._root / math.sqrt(len(centred))  # (n, C)
        gram = product @ product.T if len(product) < product.shape[1] else product.T @ product
        shared = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        variance = centred.square().sum() / len(centred)
        distance = (mean - self._mean).square().sum() + self._variance + variance - 2 * shared
        return (distance / self._variance).item()

    def add_own(self, activations: Tensor) -> None:
        """Take in a batch of own activations, once `fit` has been called."""
        self._parts.append(features(activations, is_sequence=self.is_sequence))
        self._moments = self._moments.pooled(Rows.of(activations).moments(diagonal=True))

    def fit_own(self, foils: Tensor) -> None:
        """Measure the own activations; raises ValueError as `measure`.

        Args:
            foils: the foil of each image, (n,); see `choose_foils`.
        """
        samples = torch.cat(self._parts)
        self._parts.clear()
        self.deviations = (
            self._moments.covariance.sqrt()
        )  # (C,), of a channel over images and positions
        self.own = self._measure(samples)
        self.doses = self._measure_doses(samples)
        self._own_cells, _ = _split(samples - self._centre)
        self._foils = foils

    def of_stitch(self, samples: Tensor) -> StitchValidity:
        """Measure what `features` makes of the activations of a stitch, which may be put together
        from batches."""
        found = self._measure(samples)
        doses = self.doses.noise(found.density), self.doses.shrinkage(found.density, found.recall)
        return StitchValidity(*found, *self.own, *doses)

    def identification_of(self, samples: Tensor) -> IntervalEstimate:
        """Return the share of images that a stitch is identified by; takes what `of_stitch`
        takes."""
        stitched_cells, _ = _split(samples - self._centre)
        return share_of(identify(stitched_cells, self._own_cells, self._foils))

    def _measure_doses(self, samples: Tensor) -> Doses:
        """Measure own activations under noise and under shrinkage towards the mean of each cell.

        Noise is in standard deviations of a channel over images and positions, and the same at all
        positions of an image and channel: others would be averaged away. One product with the
        training images serves all doses: with x and y about the mean and noise e, ‖y‖² − ‖ax + se −
        y‖² = 2a⟨x, y⟩ + 2s⟨e, y⟩ − ‖ax + se‖²."""
        in_cells, _ = _split(samples - self._centre)
        radii, mean = _radii(in_cells)[:, None], in_cells.mean(0)
        own, training = in_cells - mean, self._cells - mean
        deviations = self.deviations.to(own)
        noise = draw_noise(len(own), len(deviations)).to(own) * deviations
        noise = noise.repeat(1, own.shape[1] // noise.shape[1])  # (n, positions · C)
        with_own, with_noise = own @ training.T, noise @ training.T  # (n, N)
        squares = training.square().sum(1)  # (N,)

        def at(share: float, amount: float) -> tuple[float, float]:
            """Return density and recall of ax + se."""
            moved = (share * own).add_(noise, alpha=amount)
            closeness = (share * with_own).add_(with_noise, alpha=amount).mul_(2)
            closeness.sub_(moved.square().sum(1, keepdim=True))
            density = (closeness >= squares - self._radii.square()).sum().item() / (K * len(own))
            return density, (closeness >= squares - (share * radii).square()).any(
                0
            ).double().mean().item()

        noisy = [at(1, amount)[0] for amount in (0, *NOISES)]
        shrunk = [at(1 - shrinkage, 0) for shrinkage in (0, *SHRINKAGES)]
        return Doses(len(own), np.array(noisy), *np.array(shrunk).T)


def draw_noise(n: int, n_channels: int) -> Tensor:
    """Return the noise of n images, (n, C): one number of unit variance for each image and channel,
    always the same."""
    return torch.randn(n, n_channels, generator=generator(0))


def features(activations: Tensor, *, is_sequence: bool = False) -> Tensor:
    """Return the cells of activations, and behind them the mean over positions: (n, positions + 1,
    C)."""
    return torch.cat(
        [cells(activations, is_sequence=is_sequence), mean_over_positions(activations)[:, None]], 1
    )


def _split(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells (n, positions · C) and the means (n, C) among features."""
    return samples[:, :-1].flatten(1), samples[:, -1]


def _radii(samples: Tensor) -> Tensor:
    """Return the distance (n,) of each sample (n, D) to its k-th neighbour."""
    if len(samples) <= K:
        raise ValueError(f"{len(samples)} images are too few to have {K} neighbours")
    if not samples.isfinite().all():
        raise ValueError("the activations are not finite")
    distances = torch.cdist(samples, samples).fill_diagonal_(math.inf)
    return distances.kthvalue(K, dim=1).values
