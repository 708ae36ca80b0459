"""Detectors: each scores how far the activations of a layer are out of distribution. `src.choices.scores` lists them.

One is a trained network from a store. The others are not trained: they sum up the activations of training images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from src.choices.scores import N_NEIGHBOURS, SCORES
from src.errors import UserError, unknown_name
from src.models import Network
from src.moments import ROUNDING, Moments, Rows
from src.ood.pooling import mean_over_positions
from src.runtime import at_least_single

RIDGE = 1e-6  # of the mean variance, added to each: dead channels make covariances singular
BANK_SIZE = 10_000  # samples that the nearest neighbours are sought among
NOT_FINITE = "the activations are not finite"
KEPT_VARIANCE = 0.95  # in the principal subspace


def energy(logits: Tensor) -> Tensor:
    """Return the free energy −logsumexp(logits) at temperature 1: (B, n_classes) -> (B,); low for ID.

    Liu, Wang, Owens and Li 2020, Energy-based Out-of-distribution Detection (arXiv 2010.03759), equation 4.
    """
    return -torch.logsumexp(at_least_single(logits), dim=-1)


class Detector:
    """Scores the activations (B, C, H, W), (B, T, D) or (B, D) of one layer.

    Attributes:
        id_data, ood_data: the data that it was made with; of most, there is no OOD data.
        n_classes: of the training images; None: their labels tell, for which `add` waits.
    """

    id_data = ood_data = ""
    n_classes: int | None = None

    def add(self, activations: Tensor, labels: Tensor) -> None:
        """Take in a batch of training images: activations, and labels (B,) from 0 on."""

    def fit(self) -> None:
        """Get ready to score, once `add` has taken in all training images.

        Raises:
            ValueError: they do not suffice; says why.
        """

    def score(self, activations: Tensor) -> Tensor:
        """Score a batch: (B,), high for out of distribution."""
        raise NotImplementedError


class EnergyDetector(Detector):
    """The energy of a classifier of activations that was fine-tuned to tell ID from OOD data (Liu et al. 2020)."""

    def __init__(self, network: Network):
        self.network = network

    def score(self, activations: Tensor) -> Tensor:
        return energy(self.network(activations))


class PooledDetector(Detector):
    """Scores activations by their means over the positions, from moments of those of the training images.

    `normalised` says whether these means are divided by their norms (Mahalanobis++, Mueller and Hein 2025).
    """

    normalised = True

    def __init__(self) -> None:
        self.moments = Moments()

    def add(self, activations: Tensor, labels: Tensor) -> None:
        self.take_in(self.features(activations), labels)

    def take_in(self, features: Tensor, labels: Tensor) -> None:
        """Take in the features (B, C) of a batch of training images."""
        self.moments = self.moments.pooled(Rows.of(features).moments())

    def features(self, activations: Tensor) -> Tensor:
        """Pool activations to the features (B, C) that are scored, in double precision."""
        features = mean_over_positions(activations).double()
        if self.normalised:
            features = features / features.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return features


class Gaussians:
    """Gaussians of one covariance.

    Args:
        means: (K, C).
        covariance: (C, C); `RIDGE` times its mean variance is added to each.
    Raises:
        ValueError: there is no variance.
    """

    def __init__(self, means: Tensor, covariance: Tensor):
        variance = covariance.trace() / len(covariance)
        if not variance > ROUNDING * means.square().mean():
            raise ValueError("the activations are constant or not finite")
        ridged = covariance + RIDGE * variance * torch.eye(len(covariance)).to(covariance)
        self.factor = torch.linalg.cholesky(ridged)
        self.centre = means.mean(0)  # distances of differences keep the digits that far means would cost
        self.means = self._whitened(means)

    def _whitened(self, features: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor, (features - self.centre).T, upper=False).T

    def distances(self, features: Tensor) -> Tensor:
        """Squared Mahalanobis distances (B, K) of (B, C)."""
        return torch.cdist(self._whitened(features), self.means).square()


class Mahalanobis(PooledDetector):
    """The least squared Mahalanobis distance to a class mean, with pooled covariance (Lee et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = self.counts = torch.zeros(0)  # of each class: of features about `start` (K, C), and of images (K,)

    def take_in(self, features: Tensor, labels: Tensor) -> None:
        super().take_in(features, labels)
        n_classes = self.n_classes or int(labels.max()) + 1
        if self.n_classes is None and int(labels.min()) < 0:
            raise ValueError("training images without labels have no classes")
        if not len(self.counts):
            self.start = self.moments.mean  # near all means, so that sums lose no digits
            self.sums, self.counts = features.new_zeros(0, features.shape[1]), features.new_zeros(0)
        if n_classes > len(self.counts):
            missing = n_classes - len(self.counts)
            self.sums, self.counts = F.pad(self.sums, (0, 0, 0, missing)), F.pad(self.counts, (0, missing))
        self.sums.index_add_(0, labels, features - self.start)
        self.counts.index_add_(0, labels, torch.ones_like(labels, dtype=self.counts.dtype))

    def fit(self) -> None:
        present = self.counts > 0
        counts, means = self.counts[present, None], self.start + self.sums[present] / self.counts[present, None]
        between = means - self.moments.mean
        self.n_present = len(means)
        self.classes = Gaussians(means, self.moments.covariance - (counts * between).T @ between / self.moments.n_rows)

    def score(self, activations: Tensor) -> Tensor:
        return self.classes.distances(self.features(activations)).min(1).values


class RelativeMahalanobis(Mahalanobis):
    """The same less the distance to one Gaussian of all classes (Ren et al. 2021)."""

    def fit(self) -> None:
        super().fit()
        if self.n_present < 2:
            raise ValueError("the training images are of one class, whose distance is that to the mean of all")
        self.background = Gaussians(self.moments.mean[None], self.moments.covariance)

    def score(self, activations: Tensor) -> Tensor:
        return super().score(activations) - self.background.distances(self.features(activations))[:, 0]


class NearestNeighbours(PooledDetector):
    """The distance to the k-th nearest neighbour among the first 10,000 samples (Sun et al. 2022).

    k is 50, or half of the smallest class among them: with fewer samples a class than neighbours, distances would be
    those to other classes.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.n = 0

    def add(self, activations: Tensor, labels: Tensor) -> None:
        if self.n < BANK_SIZE:
            left = BANK_SIZE - self.n
            self.parts.append((self.features(activations[:left]), labels[:left]))
            self.n += len(self.parts[-1][0])

    def fit(self) -> None:
        """Put the bank of samples together; raises ValueError of a single one, or not finite ones."""
        if self.n < 2:
            raise ValueError("a single training image has no neighbours")
        self.bank, labels = map(torch.cat, zip(*self.parts, strict=True))
        if not self.bank.isfinite().all():
            raise ValueError(NOT_FINITE)
        smallest = int(torch.unique(labels, return_counts=True)[1].min())
        self.n_neighbours = max(1, min(N_NEIGHBOURS, smallest // 2))
        self.parts.clear()

    def score(self, activations: Tensor) -> Tensor:
        return torch.cdist(self.features(activations), self.bank).kthvalue(self.n_neighbours, dim=1).values


class Residual(PooledDetector):
    """The norm outside of the principal subspace that holds 95 % of the variance (ViM, Wang et al. 2022)."""

    normalised = False

    def fit(self) -> None:
        """Find the axes (C, n) outside of the principal subspace."""
        covariance = self.moments.covariance
        if not covariance.isfinite().all():
            raise ValueError(NOT_FINITE)
        variances, axes = torch.linalg.eigh(covariance)  # the largest variance last
        below = variances.clamp(min=0).cumsum(0)
        n_outside = int((below <= (1 - KEPT_VARIANCE) * below[-1] * (1 + 1e-12)).sum())
        self.outside = axes[:, :n_outside]

    def score(self, activations: Tensor) -> Tensor:
        return ((self.features(activations) - self.moments.mean) @ self.outside).norm(dim=1)


def make_detector(name: str) -> Detector:
    """Make a detector that needs no training, by the name of its score; call `add` for each batch, `fit`, then `score`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in SCORES:
        raise unknown_name("OOD score", name, SCORES)
    if SCORES[name].is_trained:
        raise UserError(f"the {name} of activations needs a trained detector; load it from a DetectorStore")
    return SCORES[name].detector()
