"""Detectors, which score how far activations of a layer are out of distribution.

A detector of the energy is a trained network from a store. The Mahalanobis distance needs no
training: it summarises the activations of training images. `SCORES` has a row for each score."""

from pkgutil import resolve_name

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from src.core.activations import at_least_single, mean_over_positions
from src.core.choices.scores import SCORES
from src.core.errors import UserError, unknown_name
from src.models import Network
from src.statistics.moments import ROUNDING, CrossMoments, Moments, Rows

RIDGE = 1e-6  # share of the mean variance added to all variances, for channels that are dead


def energy(logits: ArrayLike | Tensor) -> Tensor:
    """Return the free energy −logsumexp (B,) of logits (B, n_classes), low for ID (Liu et al. 2020, equation 4)."""
    return -torch.logsumexp(at_least_single(logits), dim=-1)


class Detector:
    """Scores the activations of one layer, (B, C, H, W), (B, T, C) or (B, C), tensors or arrays.

    Call `add` for each batch of training images, then `fit`, then `score`.

    Attributes:
        id_data: the data that the detector was made with.
        ood_data: the OOD data that the detector was trained with; empty if it needs none.
        n_classes: of the training images; None: the largest label + 1.
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
        earlier = self.with_classes
        if earlier.n_rows:  # classes that have had no samples so far
            n_new = n_classes - len(earlier.mean1)
            earlier = earlier._replace(
                mean1=F.pad(earlier.mean1, (0, n_new)),
                scatter=F.pad(earlier.scatter, (0, 0, 0, n_new)),
            )
        classes = torch.arange(n_classes, device=labels.device)
        means = self.features(activations)  # (B, C)
        members = Rows.of(labels[:, None] == classes)  # (B, K)
        features = Rows.of(means)
        self.with_classes = earlier.pooled(members.cross(features))
        self.moments = self.moments.pooled(features.moments())

    def fit(self) -> None:
        n_rows, shares, mean, scatter = self.with_classes
        if shares.sum() < 1 - 1e-9:
            raise ValueError("training inputs without labels have no classes")
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


def make_detector(name: str) -> Detector:
    """Make a detector that needs no training, from the name of its score.

    Call `add` for each batch of training images, then `fit`, then `score`.

    Args:
        name: in `SCORES`.
    Raises:
        UserError: there is no score of this name, or it needs a trained detector.
    """
    if name not in SCORES:
        raise unknown_name("OOD score", name, SCORES)
    if SCORES[name].is_trained:
        raise UserError(
            f"the {name} of activations needs a trained detector; load it from a DetectorStore"
        )
    return resolve_name(SCORES[name].function)()
