"""Detectors: each scores how far the activations of a layer are out of distribution. `SCORES` has a
row for each.

One is a trained network from a store. The others are not trained: they sum up the activations of
training images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from src.choices.scores import N_NEIGHBOURS, SCORES, is_trained
from src.errors import UserError, unknown_name
from src.models import Network
from src.moments import ROUNDING, CrossMoments, Moments, Rows
from src.runtime import at_least_single
from src.user_code import CODE, failing_as_user_error, is_user_code, load

RIDGE = 1e-6  # of the mean variance, added to each: dead channels make covariances singular
BANK_SIZE = 10_000  # samples that the nearest neighbours are sought among
KEPT_VARIANCE = 0.95  # in the principal subspace


def energy(logits: Tensor) -> Tensor:
    """Return the free energy −logsumexp(logits) at temperature 1: (B, n_classes) -> (B,); low for
    ID.

    Liu, Wang, Owens and Li 2020, Energy-based Out-of-distribution Detection (arXiv 2010.03759),
    equation 4."""
    return -torch.logsumexp(at_least_single(logits), dim=-1)


def mean_over_positions(activations: Tensor) -> Tensor:
    """Average activations (B, C, H, W) or (B, T, D) over their positions; (B, D) stay. In single
    precision or more."""
    activations = at_least_single(activations.detach())
    if activations.ndim == 2:
        return activations
    return activations.mean((2, 3)) if activations.ndim == 4 else activations.mean(1)


class Detector:
    """Scores the activations (B, C, H, W), (B, T, D) or (B, D) of one layer.

    Of most, `add` takes in training images batch by batch, as moments of their features, and `fit`
    gets ready to score, or raises a ValueError that says why it cannot.

    Attributes:
        id_data, ood_data: the data that it was made with; of most, there is no OOD data.
        n_classes: of the training images; None: their labels tell, for which `add` waits.
        normalised: whether features are divided by their norms (Mahalanobis++, Mueller and Hein 2025).
    """

    id_data = ood_data = ""
    n_classes: int | None = None
    normalised = True

    def __init__(self) -> None:
        self.moments = Moments()

    def features(self, activations: Tensor) -> Tensor:
        """Average activations over positions: (B, C), in double precision."""
        features = mean_over_positions(activations).double()
        return F.normalize(features, eps=1e-30) if self.normalised else features

    def add(self, activations: Tensor, labels: Tensor) -> None:
        """Take in a batch of training images: activations, and labels (B,) from 0 on."""
        self.moments = self.moments.pooled(Rows.of(self.features(activations)).moments())

    def fit(self) -> None:
        """Get ready to score."""

    def score(self, activations: Tensor) -> Tensor:
        """Score a batch: (B,), high for out of distribution."""
        raise NotImplementedError


class EnergyDetector(Detector):
    """The energy of a classifier of activations that was fine-tuned to tell ID from OOD data (Liu
    et al. 2020)."""

    def __init__(self, network: Network):
        self.network = network

    def score(self, activations: Tensor) -> Tensor:
        return energy(self.network(activations))


class Gaussians:
    """Gaussians of one covariance (C, C) about means (K, C); raises ValueError where there is no
    variance."""

    def __init__(self, means: Tensor, covariance: Tensor):
        variance = covariance.trace() / len(covariance)
        if not variance > ROUNDING * means.square().mean():
            raise ValueError("the activations are constant or not finite")
        self.factor = torch.linalg.cholesky(
            covariance + RIDGE * variance * torch.eye(len(covariance)).to(covariance)
        )
        self.centre = means.mean(
            0
        )  # distances of differences keep the digits that far means would cost
        self.means = self._whitened(means)

    def _whitened(self, features: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor, (features - self.centre).T, upper=False).T

    def distances(self, features: Tensor) -> Tensor:
        """Squared Mahalanobis distances (B, K) of (B, C)."""
        return torch.cdist(self._whitened(features), self.means).square()


class Mahalanobis(Detector):
    """The least squared Mahalanobis distance to a class mean, with pooled covariance (Lee et al.
    2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.with_classes = (
            CrossMoments()
        )  # of membership in the classes (K,) with the features (C,)

    def add(self, activations: Tensor, labels: Tensor) -> None:
        features, known = Rows.of(self.features(activations)), self.with_classes
        n_classes = self.n_classes or max(int(labels.max()) + 1, known.mean1.numel())
        members = Rows.of(
            labels[:, None] == torch.arange(n_classes, device=labels.device)
        )  # (B, K)
        if known.n_rows:
            more = (0, n_classes - len(known.mean1))
            known = known._replace(
                mean1=F.pad(known.mean1, more), scatter=F.pad(known.scatter, (0, 0, *more))
            )
        self.with_classes = known.pooled(members.cross(features))
        self.moments = self.moments.pooled(features.moments())

    def fit(self) -> None:
        n_rows, shares, mean, scatter = self.with_classes
        if shares.sum() < 1 - 1e-9:
            raise ValueError("training images without labels have no classes")
        present = shares > 0.5 / n_rows
        self.n_present, shares, scatter = (
            int(present.sum()),
            shares[present, None],
            scatter[present] / n_rows,
        )
        offsets = scatter / shares  # (K, C): class means less the mean of all
        self.classes = Gaussians(mean + offsets, self.moments.covariance - offsets.T @ scatter)

    def score(self, activations: Tensor) -> Tensor:
        return self.classes.distances(self.features(activations)).min(1).values


class RelativeMahalanobis(Mahalanobis):
    """The same less the distance to one Gaussian of all classes (Ren et al. 2021)."""

    def fit(self) -> None:
        super().fit()
        if self.n_present < 2:
            raise ValueError(
                "the training images are of one class, whose distance is that to the mean of all"
            )
        self.background = Gaussians(self.moments.mean[None], self.moments.covariance)

    def score(self, activations: Tensor) -> Tensor:
        return (
            super().score(activations) - self.background.distances(self.features(activations))[:, 0]
        )


class NearestNeighbours(Detector):
    """The distance to the k-th nearest neighbour among the first 10,000 samples (Sun et al. 2022).

    k is 50, or half of the smallest class among them: with fewer samples a class than neighbours,
    distances would be those to other classes."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.n = 0

    def add(self, activations: Tensor, labels: Tensor) -> None:
        left = BANK_SIZE - self.n
        if left:
            self.parts.append((self.features(activations[:left]), labels[:left]))
            self.n += len(self.parts[-1][0])

    def fit(self) -> None:
        self.bank, labels = map(torch.cat, zip(*self.parts, strict=True))
        self.parts.clear()
        if self.n < 2:
            raise ValueError("a single training image has no neighbours")
        if not self.bank.isfinite().all():
            raise ValueError("the activations are not finite")
        smallest = int(torch.unique(labels, return_counts=True)[1].min())
        self.n_neighbours = max(1, min(N_NEIGHBOURS, smallest // 2))

    def score(self, activations: Tensor) -> Tensor:
        return (
            torch.cdist(self.features(activations), self.bank)
            .kthvalue(self.n_neighbours, dim=1)
            .values
        )


class Residual(Detector):
    """The norm outside of the principal subspace that holds 95 % of the variance (ViM, Wang et al.
    2022)."""

    normalised = False

    def fit(self) -> None:
        """Find the axes (C, n) outside of the principal subspace."""
        covariance = self.moments.covariance
        if not covariance.isfinite().all():
            raise ValueError("the activations are not finite")
        variances, axes = torch.linalg.eigh(covariance)  # the largest variance last
        below = variances.clamp(min=0).cumsum(0)
        n_outside = int((below <= (1 - KEPT_VARIANCE) * below[-1] * (1 + 1e-12)).sum())
        self.outside = axes[:, :n_outside]

    def score(self, activations: Tensor) -> Tensor:
        return ((self.features(activations) - self.moments.mean) @ self.outside).norm(dim=1)


class UserDetector(Detector):
    """A detector of a user's code: a class with `add`, `fit` and `score`.

    Args:
        name: FILE.py:CLASS or package.module:class.
    Raises:
        UserError: the code fails, or the class lacks a method.
    """

    METHODS = ("add", "fit", "score")

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        make = load(name)
        with failing_as_user_error(name):
            self.detector = make()
        missing = [method for method in self.METHODS if not hasattr(self.detector, method)]
        if missing:
            raise UserError(
                f"{name} has no {', '.join(missing)}; a detector has add(activations, labels), fit() "
                "and score(activations)"
            )

    def add(self, activations: Tensor, labels: Tensor) -> None:
        with failing_as_user_error(self.name):
            self.detector.add(at_least_single(activations.detach()), labels)

    def fit(self) -> None:
        with failing_as_user_error(self.name, except_for=ValueError):
            self.detector.fit()

    def score(self, activations: Tensor) -> Tensor:
        with failing_as_user_error(self.name):
            returned = self.detector.score(at_least_single(activations.detach()))
            scores = torch.as_tensor(returned, dtype=torch.float64, device=activations.device)
        n_images = len(activations)
        if scores.shape != (n_images,):
            raise UserError(
                f"{self.name}: score returns shape {tuple(scores.shape)} for {n_images} images; let "
                f"it return a score for each, ({n_images},)"
            )
        if not scores.isfinite().all():
            raise UserError(f"{self.name}: score returns values that are not finite")
        return scores


DETECTORS = {
    "energy": EnergyDetector,
    "mahalanobis": Mahalanobis,
    "rmd": RelativeMahalanobis,
    "knn": NearestNeighbours,
    "residual": Residual,
}


def make_detector(name: str) -> Detector:
    """Make a detector that needs no training, by the name of its score; call `add` for each batch,
    `fit`, then `score`.

    Args:
        name: in `SCORES`, or FILE.py:CLASS of a user's code, which is run.
    Raises:
        UserError: there is none of that name, or the user's code fails.
    """
    if is_user_code(name):
        return UserDetector(name)
    if name not in SCORES:
        raise unknown_name("OOD score", name, [*SCORES, CODE])
    if is_trained(name):
        raise UserError(
            f"the {name} of activations needs a trained detector; load it from a DetectorStore"
        )
    return DETECTORS[name]()
