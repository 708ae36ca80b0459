"""Validity of activations: are they where real activations are, and as spread out?

*Density* tells how close activations lie to the activations of training images: it is low for
activations off the manifold, and high for collapsed activations. *Recall* tells which share of the
training images the activations cover: it is low for collapsed activations. A single score would
call collapsed activations typical.

Neither has a limit that means the same in every network, so no verdict rests on them. They stand
beside the same numbers of the end network's own activations of the test images.
"""

import math
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from src.models.activations import at_least_single, cells_and_mean
from src.models.tokens import TokenLayout
from src.statistics.moments import Rows
from src.values import StitchValidity

K = 5  # neighbours
# Training images at most; callers measure, and identify, as many test images at most
N_IMAGES = 2_000


class ValidityScores(NamedTuple):
    """Density, recall and relative Fréchet distance of activations, compared with training images.

    All three are plain numbers without a unit.
    """

    density: float  # in [0, N / k] for N training images; real activations have about 1
    recall: float  # share of the training images that are covered, in [0, 1]
    frechet: float  # squared Fréchet distance over the total variance of the training images


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

    For the validity of a stitch, the end network's own activations of the test images come first:

        validity.add_end(activations)     for each batch of test images
        validity.fit_end()
        validity.of_stitch(cells_and_mean(stitched_activations))

    Args:
        layout: of tokens (see `cells`).

    Attributes:
        end_scores: the scores of the end network's own test activations; after `fit_end`.
    """

    def __init__(self, layout: TokenLayout | None = None) -> None:
        self.layout = layout
        self._parts: list[Tensor] = []

    def add(self, activations: ArrayLike | Tensor) -> None:
        """Take in a batch of training images. Images after the first 2,000 are ignored.

        Args:
            activations: (B, C, H, W), (B, T, D) or (B, D), tensor or array.
        """
        n_missing = N_IMAGES - sum(map(len, self._parts))
        missing = at_least_single(activations).detach()[:n_missing]
        self._parts.append(cells_and_mean(missing, self.layout))

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

    def measure(self, activations: ArrayLike | Tensor) -> ValidityScores:
        """Return density, recall and Fréchet distance of the activations of n images.

        Give all images in one call: recall cannot be averaged over batches.

        Args:
            activations: (n, C, H, W), (n, T, D) or (n, D), tensor or array.
        Raises:
            ValueError: there are fewer than 6 images, or the activations are not finite.
        """
        single = at_least_single(activations).detach()
        return self._measure(cells_and_mean(single, self.layout))

    def _measure(self, samples: Tensor) -> ValidityScores:
        """Return density, recall and Fréchet distance of `cells_and_mean`, (n, positions + 1, C)."""
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
        pooled = pooled.double()
        mean = pooled.mean(0)
        centred = pooled - mean
        product = centred @ self._root / math.sqrt(len(centred))  # (n, C)
        if len(product) < product.shape[1]:
            gram = product @ product.T
        else:
            gram = product.T @ product
        shared = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        variance = centred.square().sum() / len(centred)
        distance = (mean - self._mean).square().sum() + self._variance + variance - 2 * shared
        return (distance / self._variance).item()

    def add_end(self, activations: ArrayLike | Tensor) -> None:
        """Take in the end network's own activations of a batch of test images, after `fit`."""
        single = at_least_single(activations).detach()
        self._parts.append(cells_and_mean(single, self.layout))

    def fit_end(self) -> None:
        """Finish the end network's own test activations.

        Raises:
            ValueError: there are fewer than 6 images, or their activations are not finite.
        """
        samples = torch.cat(self._parts)
        self._parts.clear()
        self.end_scores = self._measure(samples)

    def of_stitch(self, samples: Tensor) -> StitchValidity:
        """Return the scores of a stitch, beside the end network's own scores.

        The scores of the stitch are NaN if its activations are not finite.

        Args:
            samples: `cells_and_mean` of the stitched activations of the test images,
                (n, positions + 1, C).
        """
        scores = ValidityScores(math.nan, math.nan, math.nan)
        if samples.isfinite().all():
            scores = self._measure(samples)
        return StitchValidity(*scores, *self.end_scores)


def _split(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Split `cells_and_mean` into cells (n, positions · C) and means over positions (n, C)."""
    return samples[:, :-1].flatten(1), samples[:, -1]


def _radii(samples: Tensor) -> Tensor:
    """Return the distance of each sample (n, D) to its k-th nearest sample, (n,)."""
    if len(samples) <= K:
        raise ValueError(f"{len(samples)} images are too few to have {K} neighbours")
    if not samples.isfinite().all():
        raise ValueError("the activations are not finite")
    distances = torch.cdist(samples, samples).fill_diagonal_(math.inf)
    return distances.kthvalue(K, dim=1).values
