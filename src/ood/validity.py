"""Validity of activations: are they where real activations are, and as spread out?

*Density* tells how close activations lie to the activations of training images: it is low for
activations off the manifold, and high for collapsed activations. *Recall* tells which share of the
training images the activations cover: it is low for collapsed activations. A single score would
call collapsed activations typical.

The same density means little noise at one layer, and much noise at another. So both numbers are
translated into *doses*: the amount of noise, and of shrinkage towards the mean, that gives the end
network's own activations of the test images the same numbers.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from src.moments import Moments, Rows
from src.ood.cells import cells
from src.ood.detectors import mean_over_positions
from src.ood.evaluation_rows import StitchValidity
from src.ood.identifying import identify, share_of
from src.results.tables import IntervalEstimate
from src.runtime import generator

K = 5  # neighbours
N_IMAGES = 2_000  # training images at most; callers choose as many test images at most
NOISES = (0.1, 0.2, 0.3, 0.5)  # standard deviations of a channel
SHRINKAGES = (0.05, 0.1, 0.2, 0.3)  # shares of the way to the mean


class ValidityScores(NamedTuple):
    """Density, recall and relative Fréchet distance of activations, compared with training images.

    All three are plain numbers without a unit.
    """

    density: float  # in [0, N / k] for N training images; real activations have about 1
    recall: float  # share of the training images that are covered, in [0, 1]
    frechet: float  # squared Fréchet distance over the total variance of the training images


class Doses(NamedTuple):
    """Density and recall of the end network's own test activations at increasing doses.

    The first dose of each array is 0. Between two measured doses, recall and the logarithm of the
    density are interpolated.
    """

    n_images: int  # test images
    noisy_density: NDArray  # (5,), at 0 and `NOISES`
    shrunk_density: NDArray  # (5,), at 0 and `SHRINKAGES`
    shrunk_recall: NDArray  # (5,), at 0 and `SHRINKAGES`

    def noise(self, density: float) -> float:
        """Return the dose of noise, in [0, 0.2], that lowers the network's own density to `density`.

        The dose is the share of the noise in the variance: s² / (1 + s²) for noise of s standard
        deviations. 0 means that no noise is needed; 0.2 means "at least 0.2". NaN if the density
        without noise is 0.
        """
        if self.noisy_density[0] == 0:
            return math.nan
        squares = np.square([0, *NOISES])
        doses = squares / (1 + squares)
        return _dose(-float(self._log(density)), -self._log(self.noisy_density), doses)

    def shrinkage(self, density: float, recall: float) -> float:
        """Return the dose of shrinkage, in [0, 0.3], that explains a density and a recall.

        The dose is the share of the way to the mean. It is the larger one of the dose that raises
        the density to `density` and the dose that lowers the recall to `recall`. 0.3 means "at
        least 0.3". NaN if density or recall without shrinkage are 0.
        """
        if self.shrunk_density[0] == 0 or self.shrunk_recall[0] == 0:
            return math.nan
        doses = np.array([0, *SHRINKAGES])
        by_density = _dose(float(self._log(density)), self._log(self.shrunk_density), doses)
        by_recall = _dose(-recall, -self.shrunk_recall, doses)
        return max(by_density, by_recall)

    def _log(self, density: ArrayLike) -> NDArray:
        """Return the logarithm of densities after adding the least positive density, 1 / (K n)."""
        return np.log(np.asarray(density) + 1 / (K * self.n_images))


def _dose(value: float, curve: NDArray, doses: NDArray) -> float:
    """Return the least dose at which a rising curve reaches a value.

    The dose is 0 below the curve, and the largest dose above the curve.
    """
    heights, first = np.unique(np.maximum.accumulate(curve), return_index=True)
    return float(np.interp(value, heights, doses[first], right=doses[-1]))


class Validity:
    """Measures the validity of activations at one layer of the end network.

    Density (Naeem et al. 2020): each training image has a ball, centred at its activation, whose
    radius is the distance to the k-th nearest training image (k = 5). Density is the mean number of
    balls that a test activation lies in, over k. Recall (Kynkäänniemi et al. 2019) swaps the roles:
    the test activations have balls, and recall is the share of training images in at least one
    ball. Both compare activations at a few positions (see `cells`), such as 2×2 of a map. The
    Fréchet distance (Heusel et al. 2017) compares means over positions. It is squared, and relative
    to the variance of the training images.

    Order of calls:

        validity.add(activations)         for each batch of training images
        validity.fit()
        validity.measure(activations)     density, recall and Fréchet distance of any activations

    For the doses of a stitch and its identification, the end network's own activations of the test
    images come first:

        validity.add_end(activations)     for each batch of test images
        validity.fit_end(foils)
        validity.of_stitch(features(stitched_activations))

    Args:
        is_sequence: tokens are the steps of a recurrent layer (see `cells`).

    Attributes:
        end_scores: the scores of the end network's own test activations; after `fit_end`.
        doses: their density and recall at increasing doses; after `fit_end`.
        deviations: standard deviations of the channels of these activations, (C,); after `fit_end`.
    """

    def __init__(self, *, is_sequence: bool = False) -> None:
        self.is_sequence = is_sequence
        self._parts: list[Tensor] = []
        self._end_moments = Moments()  # of the end network's own test activations

    def add(self, activations: Tensor, labels: Tensor | None = None) -> None:
        """Take in a batch of training images. Images after the first 2,000 are ignored.

        Args:
            activations: (B, C, H, W), (B, T, D) or (B, D).
            labels: not used; detectors take them in the same call.
        """
        n_missing = N_IMAGES - sum(map(len, self._parts))
        self._parts.append(features(activations[:n_missing], is_sequence=self.is_sequence))

    def fit(self) -> None:
        """Finish the training images.

        Raises:
            ValueError: there are fewer than 6 images, or their activations are not finite or all
                equal.
        """
        training = torch.cat(self._parts)
        self._parts.clear()
        self._centre = training.mean((0, 1))
        self._cells, pooled = _split(training - self._centre)
        self._radii = _radii(self._cells)

        # For the Fréchet distance: the mean, and a root (C, C) of the covariance, root · rootᵀ
        _, self._mean, scatter = Rows.of(pooled).moments()
        variances, axes = torch.linalg.eigh(scatter / len(pooled))
        self._variance = variances.sum()
        if not self._variance > 0:
            raise ValueError("the activations of the training images are all the same")
        self._root = axes * variances.clamp(min=0).sqrt()

    def measure(self, activations: Tensor) -> ValidityScores:
        """Return density, recall and Fréchet distance of the activations of n images.

        Give all images in one call: recall cannot be averaged over batches.

        Args:
            activations: (n, C, H, W), (n, T, D) or (n, D).
        Raises:
            ValueError: there are fewer than 6 images, or the activations are not finite.
        """
        return self._measure(features(activations, is_sequence=self.is_sequence))

    def _measure(self, samples: Tensor) -> ValidityScores:
        """Return density, recall and Fréchet distance of `features`, (n, positions + 1, C)."""
        sample_cells, pooled = _split(samples.to(self._centre.device) - self._centre)
        sample_radii = _radii(sample_cells)
        distances = torch.cdist(sample_cells, self._cells)  # (n, N)
        n_in_balls = (distances <= self._radii).sum().item()
        density = n_in_balls / (K * len(samples))
        is_covered = (distances <= sample_radii[:, None]).any(0)  # (N,)
        recall = is_covered.double().mean().item()
        return ValidityScores(density, recall, self._frechet(pooled))

    def _frechet(self, pooled: Tensor) -> float:
        """Return the squared Fréchet distance of means over positions (n, C), over tr Σ₁.

        It is ‖μ₁−μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½. The last trace is the nuclear norm of
        Σ₁^½Σ₂^½, the sum of the roots of the eigenvalues of its Gram matrix.
        """
        mean, centred = Rows.of(pooled)
        product = centred @ self._root / math.sqrt(len(centred))  # (n, C)
        if len(product) < product.shape[1]:
            gram = product @ product.T
        else:
            gram = product.T @ product
        shared = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        variance = centred.square().sum() / len(centred)
        distance = (mean - self._mean).square().sum() + self._variance + variance - 2 * shared
        return (distance / self._variance).item()

    def add_end(self, activations: Tensor) -> None:
        """Take in the end network's own activations of a batch of test images, after `fit`."""
        self._parts.append(features(activations, is_sequence=self.is_sequence))
        self._end_moments = self._end_moments.pooled(Rows.of(activations).moments(diagonal=True))

    def fit_end(self, foils: Tensor) -> None:
        """Finish the end network's own test activations: measure validity and doses.

        Args:
            foils: the index of each test image's foil, (n,); see `choose_foils`.
        Raises:
            ValueError: there are fewer than 6 images, or their activations are not finite.
        """
        samples = torch.cat(self._parts)
        self._parts.clear()
        # Over images and positions, (C,)
        self.deviations = self._end_moments.covariance.sqrt()
        self.end_scores = self._measure(samples)
        self.doses = self._measure_doses(samples)
        self._end_cells, _ = _split(samples - self._centre)
        self._foils = foils

    def of_stitch(self, samples: Tensor) -> StitchValidity:
        """Return scores and doses of a stitch, beside the end network's own scores.

        Scores and doses of the stitch are NaN if its activations are not finite.

        Args:
            samples: `features` of the stitched activations of the test images,
                (n, positions + 1, C).
        """
        if not samples.isfinite().all():
            scores = ValidityScores(math.nan, math.nan, math.nan)
            return StitchValidity(*scores, *self.end_scores, math.nan, math.nan)
        scores = self._measure(samples)
        noise = self.doses.noise(scores.density)
        shrinkage = self.doses.shrinkage(scores.density, scores.recall)
        return StitchValidity(*scores, *self.end_scores, noise, shrinkage)

    def identification_of(self, samples: Tensor) -> IntervalEstimate:
        """Return the share of test images that a stitch identifies, with its interval of 95 %.

        All three numbers are NaN if the activations are not finite.

        Args:
            samples: as for `of_stitch`, with the images in the order in which `add_end` took them.
        """
        if not samples.isfinite().all():
            return IntervalEstimate(math.nan, math.nan, math.nan)
        stitched_cells, _ = _split(samples - self._centre)
        return share_of(identify(stitched_cells, self._end_cells, self._foils))

    def _measure_doses(self, samples: Tensor) -> Doses:
        """Measure the end network's own test activations with noise, and with shrinkage.

        An image gets one number of noise a channel, at all positions: independent noise at each
        position would be averaged away in a cell. The noise is in standard deviations of the
        channel. Shrinkage moves each cell towards its mean over images.
        """
        end_cells, _ = _split(samples - self._centre)
        mean = end_cells.mean(0)
        deviations = self.deviations.to(end_cells)
        noise = draw_noise(len(end_cells), len(deviations)).to(end_cells) * deviations
        n_positions = end_cells.shape[1] // noise.shape[1]
        perturbed = _Perturbed.of(
            end_cells - mean,
            noise.repeat(1, n_positions),  # (n, positions · C)
            self._cells - mean,
            radii=_radii(end_cells),
            training_radii=self._radii,
        )
        noisy_density = [
            perturbed.density(perturbed.closeness(1, amount)) for amount in (0, *NOISES)
        ]
        shrunk_density = []
        shrunk_recall = []
        for shrinkage in (0, *SHRINKAGES):
            share = 1 - shrinkage
            closeness = perturbed.closeness(share, 0)
            shrunk_density.append(perturbed.density(closeness))
            shrunk_recall.append(perturbed.recall(closeness, share=share))
        return Doses(
            len(end_cells),
            np.array(noisy_density),
            np.array(shrunk_density),
            np.array(shrunk_recall),
        )


class _Perturbed(NamedTuple):
    """Test activations x, noise e, and their products with training activations y.

    One pair of products serves all doses. With z = ax + se, a share a of the activations and an
    amount s of noise, ‖y‖² − ‖z − y‖² = 2a⟨x, y⟩ + 2s⟨e, y⟩ − ‖z‖².
    """

    activations: Tensor  # x, (n, D)
    noise: Tensor  # e, (n, D)
    activations_by_training: Tensor  # ⟨x, y⟩, (n, N)
    noise_by_training: Tensor  # ⟨e, y⟩, (n, N)
    squares_of_training: Tensor  # ‖y‖², (N,)
    radii: Tensor  # of x, (n,)
    training_radii: Tensor  # of y, (N,)

    @classmethod
    def of(
        cls,
        activations: Tensor,
        noise: Tensor,
        training: Tensor,
        *,
        radii: Tensor,
        training_radii: Tensor,
    ) -> "_Perturbed":
        """Prepare activations and noise (n, D), and training activations (N, D)."""
        return cls(
            activations,
            noise,
            activations_by_training=activations @ training.T,
            noise_by_training=noise @ training.T,
            squares_of_training=training.square().sum(1),
            radii=radii,
            training_radii=training_radii,
        )

    def closeness(self, share: float, amount: float) -> Tensor:
        """Return ‖y‖² − ‖z − y‖² of perturbed activations z = share · x + amount · e, (n, N)."""
        perturbed = (share * self.activations).add_(self.noise, alpha=amount)
        products = (share * self.activations_by_training).add_(self.noise_by_training, alpha=amount)
        return products.mul_(2).sub_(perturbed.square().sum(1, keepdim=True))

    def density(self, closeness: Tensor) -> float:
        """Return the density of perturbed activations from their closeness (n, N)."""
        least_in_balls = self.squares_of_training - self.training_radii.square()  # (N,)
        n_in_balls = (closeness >= least_in_balls).sum().item()
        return n_in_balls / (K * len(closeness))

    def recall(self, closeness: Tensor, *, share: float) -> float:
        """Return the recall of shrunk activations, share · x, from their closeness (n, N).

        Shrinking shrinks the balls of the activations by the same share.
        """
        radii = share * self.radii[:, None]
        is_covered = (closeness >= self.squares_of_training - radii.square()).any(0)  # (N,)
        return is_covered.double().mean().item()


def draw_noise(n_images: int, n_channels: int) -> Tensor:
    """Draw standard normal noise (n_images, n_channels); the same numbers in each call."""
    return torch.randn(n_images, n_channels, generator=generator(0))


def features(activations: Tensor, *, is_sequence: bool = False) -> Tensor:
    """Return the cells of activations and their mean over positions, (n, positions + 1, C).

    The mean is the last position. Features of batches may be concatenated.

    Args:
        activations: (n, C, H, W), (n, T, D) or (n, D).
        is_sequence: tokens are the steps of a recurrent layer (see `cells`).
    """
    in_cells = cells(activations, is_sequence=is_sequence)
    mean = mean_over_positions(activations)[:, None]
    return torch.cat([in_cells, mean], 1)


def _split(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Split `features` into cells (n, positions · C) and means over positions (n, C)."""
    return samples[:, :-1].flatten(1), samples[:, -1]


def _radii(samples: Tensor) -> Tensor:
    """Return the distance of each sample (n, D) to its k-th nearest sample, (n,)."""
    if len(samples) <= K:
        raise ValueError(f"{len(samples)} images are too few to have {K} neighbours")
    if not samples.isfinite().all():
        raise ValueError("the activations are not finite")
    distances = torch.cdist(samples, samples).fill_diagonal_(math.inf)
    return distances.kthvalue(K, dim=1).values
