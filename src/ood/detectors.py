"""Detectors: each scores how far the activations of a layer are out of distribution; see `src.choices.scores`.

One is a trained network from a store. The others are not trained: they sum up the activations of training images.
"""

import torch
from torch import Tensor

from src.choices.scores import N_NEIGHBOURS, SCORES
from src.errors import UserError, unknown_name
from src.models import Network
from src.ood.losses import energy
from src.ood.pooling import ClassMeans, mean_over_positions

ROUNDING = 1e-24  # of the squared mean: less variance than that is rounding, in double precision
RIDGE = 1e-6  # of the mean variance, added to each: dead channels make covariances singular
BANK_SIZE = 10_000  # samples that the nearest neighbours are sought among
NOT_FINITE = "the activations are not finite"
KEPT_VARIANCE = 0.95  # in the principal subspace


class Detector:
    """Scores the activations (B, C, H, W), (B, T, D) or (B, D) of one layer.

    Attributes:
        id_data, ood_data: the data that it was made with; of most, there is no OOD data.
    """

    id_data = ood_data = ""

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
    """Scores activations by their means over the positions.

    `normalised` says whether these means are divided by their norms (Mahalanobis++, Mueller and Hein 2025).
    """

    normalised = True

    def __init__(self):
        self.moments = Moments()

    def add(self, activations: Tensor, labels: Tensor) -> None:
        self.moments.add(self.features(activations), labels)

    def features(self, activations: Tensor) -> Tensor:
        """Pool activations to the features (B, C) that are scored, in double precision."""
        features = mean_over_positions(activations).double()
        if self.normalised:
            features = features / features.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return features


class Moments:
    """Sums over samples (n, C) by class, from batches; about a point near their mean, so that no digits are lost."""

    def __init__(self):
        self.n = 0
        self.classes = ClassMeans()  # of the differences to that point

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add samples (B, C) with their labels (B,)."""
        if self.n == 0:
            self.shift = features.mean(0)
            self.products = features.new_zeros(features.shape[1], features.shape[1])
        features = features - self.shift
        self.classes.add(features, labels)
        self.products.addmm_(features.T, features)
        self.n += len(features)

    @property
    def mean(self) -> Tensor:
        """The mean of all samples (C,)."""
        return self.shift + self.classes.overall()

    def class_means(self) -> Tensor:
        """Return the means (K, C) of the classes that have samples."""
        return self.shift + self.classes.present()

    def covariance(self) -> Tensor:
        """Return the covariance (C, C) of all samples, divided by their number."""
        total = self.classes.sums.sum(0)
        return (self.products - total.outer(total) / self.n) / self.n

    def covariance_within(self) -> Tensor:
        """Return the covariance (C, C) of the samples about the means of their classes."""
        present = self.classes.counts > 0
        sums = self.classes.sums[present] / self.classes.counts[present, None].sqrt()
        return (self.products - sums.T @ sums) / self.n


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

    def fit(self) -> None:
        self.classes = Gaussians(self.moments.class_means(), self.moments.covariance_within())

    def score(self, activations: Tensor) -> Tensor:
        return self.classes.distances(self.features(activations)).min(1).values


class RelativeMahalanobis(Mahalanobis):
    """The same less the distance to one Gaussian of all classes (Ren et al. 2021)."""

    def fit(self) -> None:
        if int((self.moments.classes.counts > 0).sum()) < 2:
            raise ValueError("the training images are of one class, whose distance is that to the mean of all")
        super().fit()
        self.background = Gaussians(self.moments.mean[None], self.moments.covariance())

    def score(self, activations: Tensor) -> Tensor:
        return super().score(activations) - self.background.distances(self.features(activations))[:, 0]


class NearestNeighbours(PooledDetector):
    """The distance to the k-th nearest neighbour among the first 10,000 samples (Sun et al. 2022).

    k is 50, or half of the smallest class among them: with fewer samples a class than neighbours, distances would be
    those to other classes.
    """

    def __init__(self):
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.n = 0

    def add(self, activations: Tensor, labels: Tensor) -> None:
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
        self.mean, covariance = self.moments.mean, self.moments.covariance()
        if not covariance.isfinite().all():
            raise ValueError(NOT_FINITE)
        variances, axes = torch.linalg.eigh(covariance)  # the largest variance last
        below = variances.clamp(min=0).cumsum(0)
        n_outside = int((below <= (1 - KEPT_VARIANCE) * below[-1] * (1 + 1e-12)).sum())
        self.outside = axes[:, :n_outside]

    def score(self, activations: Tensor) -> Tensor:
        return ((self.features(activations) - self.mean) @ self.outside).norm(dim=1)


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
