"""Detectors: how far out of distribution are the activations of a layer?

A detector of the energy is a trained network from a store. The other detectors need no training:
they summarise the activations of training images. `SCORES` has a row for each score."""

import math

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from src.choices.scores import N_NEIGHBOURS, SCORES
from src.ground.activations import at_least_single, mean_over_positions
from src.ground.errors import UserError, unknown_name
from src.ground.user_code import CODE, failing_as_user_error, is_user_code, load
from src.models import Network
from src.statistics.moments import ROUNDING, CrossMoments, Moments, Rows

RIDGE = 1e-6  # share of the mean variance added to all variances, for channels that are dead
BANK_SIZE = 10_000  # samples among which nearest neighbours are found


def energy(logits: ArrayLike | Tensor) -> Tensor:
    """Return the free energy −logsumexp (B,) of logits (B, n_classes), low for ID (Liu et al. 2020, equation 4)."""
    return -torch.logsumexp(at_least_single(logits), dim=-1)


class Detector:
    """Scores the activations of one layer, (B, C, H, W), (B, T, C) or (B, C), tensors or arrays.

    Call `add` for each batch of training images, then `fit`, then `score`.

    Attributes:
        id_data: the data that the detector was made with.
        ood_data: the OOD data that the detector was trained with; empty if it needs none.
        n_classes: of the training images; None: the largest label tells.
    """

    id_data = ""
    ood_data = ""
    n_classes: int | None = None

    def features(self, activations: ArrayLike | Tensor) -> Tensor:
        """Return the means of activations over positions, divided by their norms, (B, C), in float64.

        So the size of activations is not seen (Mahalanobis++, Mueller and Hein 2025).
        """
        single = at_least_single(activations).detach()
        return F.normalize(mean_over_positions(single).double(), eps=1e-30)

    def add(self, activations: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> None:
        """Take in a batch of training images with labels (B,), from 0 on; -1: unlabelled."""

    def fit(self) -> None:
        """Finish the training images; a ValueError if they are constant, not finite or too few."""

    def score(self, activations: ArrayLike | Tensor) -> Tensor:
        """Return scores (B,), high for OOD; NaN for activations that are not finite."""
        raise NotImplementedError


class EnergyDetector(Detector):
    """The energy of a trained classifier of activations (Liu et al. 2020, arXiv 2010.03759).

    Fine-tuning has made the energy low for ID data and high for OOD data."""

    def __init__(self, network: Network):
        self.network = network

    def score(self, activations: ArrayLike | Tensor) -> Tensor:
        return energy(self.network(torch.as_tensor(activations)))


class Mahalanobis(Detector):
    """The least squared Mahalanobis distance to a class mean (Lee et al. 2018).

    All classes share the covariance of features about the class means."""

    def __init__(self) -> None:
        self.moments = Moments()  # of the features
        # Of membership in the classes (B, K), as 0 and 1, with the features (B, C)
        self.with_classes = CrossMoments()

    def add(self, activations: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> None:
        labels = torch.as_tensor(labels)
        n_classes = self.n_classes
        if n_classes is None:
            n_classes = max(int(labels.max()) + 1, self.with_classes.mean1.numel())
        earlier = _with_n_classes(self.with_classes, n_classes)
        classes = torch.arange(n_classes, device=labels.device)
        means = self.features(activations)  # (B, C)
        members = Rows.of(labels[:, None] == classes)  # (B, K)
        features = Rows.of(means)
        self.with_classes = earlier.pooled(members.cross(features))
        self.moments = self.moments.pooled(features.moments())

    def fit(self) -> None:
        n_rows, shares, mean, scatter = self.with_classes
        if shares.sum() < 1 - 1e-9:
            raise ValueError("training images without labels have no classes")
        is_present = shares > 0.5 / n_rows
        covariance = scatter[is_present] / n_rows  # of membership with features, (K, C)
        offsets = covariance / shares[is_present, None]  # class means less the mean, (K, C)
        between = offsets.T @ covariance  # covariance of the class means, (C, C)
        within = self.moments.covariance - between
        means = mean + offsets
        variance = within.trace() / len(within)
        if not variance > ROUNDING * means.square().mean():
            raise ValueError("the activations are constant or not finite")
        ridge = RIDGE * variance * torch.eye(len(within)).to(within)
        self.factor = torch.linalg.cholesky(within + ridge)
        # Far means would cost the digits of distances
        self.centre = means.mean(0)
        self.means = self._whitened(means)

    def _whitened(self, features: Tensor) -> Tensor:
        """Return features (B, C) less the centre, in coordinates where the covariance is one."""
        return torch.linalg.solve_triangular(self.factor, (features - self.centre).T, upper=False).T

    def score(self, activations: ArrayLike | Tensor) -> Tensor:
        distances = torch.cdist(self._whitened(self.features(activations)), self.means)
        return distances.square().min(1).values


def _with_n_classes(moments: CrossMoments, n_classes: int) -> CrossMoments:
    """Return moments of membership in more classes, which have had no samples so far."""
    if not moments.n_rows:
        return moments
    n_new = n_classes - len(moments.mean1)
    return moments._replace(
        mean1=F.pad(moments.mean1, (0, n_new)),
        scatter=F.pad(moments.scatter, (0, 0, 0, n_new)),
    )


class NearestNeighbours(Detector):
    """The distance to the k-th nearest neighbour among the first 10,000 samples (Sun et al. 2022).

    k is 50, but at most half of the samples of the smallest class: otherwise distances would reach
    into further classes."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._labels: list[Tensor] = []
        self.n = 0  # samples so far

    def add(self, activations: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> None:
        n_missing = BANK_SIZE - self.n
        if n_missing > 0:
            taken = torch.as_tensor(activations)[:n_missing]
            self._parts.append(self.features(taken))
            self._labels.append(torch.as_tensor(labels)[:n_missing])
            self.n += len(self._parts[-1])

    def fit(self) -> None:
        self.bank = torch.cat(self._parts)
        labels = torch.cat(self._labels)
        self._parts.clear()
        self._labels.clear()
        if self.n < 2:
            raise ValueError("a single training image has no neighbours")
        if not self.bank.isfinite().all():
            raise ValueError("the activations are not finite")
        _, n_of_classes = torch.unique(labels, return_counts=True)
        smallest = int(n_of_classes.min())
        self.n_neighbours = max(1, min(N_NEIGHBOURS, smallest // 2))

    def score(self, activations: ArrayLike | Tensor) -> Tensor:
        distances = torch.cdist(self.features(activations), self.bank)
        return distances.kthvalue(self.n_neighbours, dim=1).values


class UserDetector(Detector):
    """A detector of a user's code: a class with `add`, `fit` and `score`.

    The code sees no image whose activation is not finite: such an image scores NaN. A batch may
    hold the activations of several stitches.

    Args:
        name: FILE.py:CLASS.
    Raises:
        UserError: the code fails, or the class lacks a method.
    """

    METHODS = ("add", "fit", "score")

    def __init__(self, name: str):
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

    def add(self, activations: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> None:
        with failing_as_user_error(self.name):
            self.detector.add(at_least_single(activations).detach(), torch.as_tensor(labels))

    def fit(self) -> None:
        with failing_as_user_error(self.name, except_for=ValueError):
            self.detector.fit()

    def score(self, activations: ArrayLike | Tensor) -> Tensor:
        activations = torch.as_tensor(activations)
        is_finite = activations.flatten(1).isfinite().all(1)  # not so if a training diverged
        scores = activations.new_full((len(activations),), math.nan, dtype=torch.float64)
        if is_finite.any():
            scores[is_finite] = self._score(activations[is_finite])
        return scores

    def _score(self, activations: Tensor) -> Tensor:
        """Return scores (B,) of finite activations."""
        n_images = len(activations)
        with failing_as_user_error(self.name):
            returned = self.detector.score(at_least_single(activations).detach())
            scores = torch.as_tensor(returned, dtype=torch.float64, device=activations.device)
        if scores.shape != (n_images,):
            raise UserError(
                f"{self.name}: score returns shape {tuple(scores.shape)} for {n_images} images; let "
                f"it return a score for each, ({n_images},)"
            )
        if not scores.isfinite().all():
            raise UserError(f"{self.name}: score returns values that are not finite")
        return scores


DETECTORS: dict[str, type[Detector]] = {
    "energy": EnergyDetector,
    "mahalanobis": Mahalanobis,
    "knn": NearestNeighbours,
}


def make_detector(name: str) -> Detector:
    """Make a detector that needs no training, from the name of its score.

    Call `add` for each batch of training images, then `fit`, then `score`.

    Args:
        name: in `SCORES`, or FILE.py:CLASS of a user's code, which is run.
    Raises:
        UserError: there is no score of this name, it needs a trained detector, or the user's code
            fails.
    """
    if name in SCORES:
        if SCORES[name].is_trained:
            raise UserError(
                f"the {name} of activations needs a trained detector; load it from a DetectorStore"
            )
        return DETECTORS[name]()
    if is_user_code(name):
        return UserDetector(name)
    raise unknown_name("OOD score", name, [*SCORES, CODE])
