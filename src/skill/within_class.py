"""The within-class correlation of a stitch, and its skill, with a jackknife over images.

Does a stitched network follow the end network within a class? From the activations of both, the
mean over the images of the same class is subtracted; the correlation of the rest, over all images and
coordinates, is 1 for the end network itself and 0 for a network that knows the class alone. A front
that shows its own image for a share q of the images, and a random one of the class otherwise, has q.

The baseline is the correlation that untrained features reach when given the class
(`src.skill.baseline`). The skill (Murphy 1988) is 0 at the baseline and 1 for the end network itself.

This module imports neither torch nor scipy.
"""

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from src.core.values import IntervalEstimate
from src.statistics.intervals import DEVIATIONS
from src.statistics.jackknife import jackknife_variance

ROUNDING = 1e-5  # of correlations
Values = TypeVar("Values", float, np.ndarray)


class WithinClass(NamedTuple):
    """Inner products (n,), by image, of activations less the means of their classes.

    s is a stitched activation, o the end network's own, both less the means of their classes.
    """

    products: np.ndarray  # ⟨s, o⟩
    squares: np.ndarray  # ‖s‖²
    own_squares: np.ndarray  # ‖o‖²
    n_of_class: np.ndarray  # the number of images of the image's class

    @property
    def correlation(self) -> float:
        """The within-class correlation Σ⟨s, o⟩ / √(Σ‖s‖² Σ‖o‖²); 0 if s is constant, NaN if o is constant or s
        is not finite."""
        return float(self._correlation(np.zeros(1), np.zeros(1, dtype=int))[0])

    @property
    def without_each(self) -> np.ndarray:
        """The leave-one-out correlations, without each image in turn, (n,).

        Without image i, the sums over its class of n images lose n/(n − 1) of its products.
        """
        n_of_class = np.maximum(self.n_of_class, 2)  # the only image of a class has no products
        return self._correlation(n_of_class / (n_of_class - 1), np.arange(len(self.products)))

    def _correlation(self, weights: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return the correlations without each of some images, whose products are subtracted with weights."""
        product = self.products.sum() - weights * self.products[images]
        square = self.squares.sum() - weights * self.squares[images]
        own_square = self.own_squares.sum() - weights * self.own_squares[images]
        norm = np.sqrt(np.maximum(square, 0) * np.maximum(own_square, 0))
        is_constant = (square <= 0) & (own_square > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(is_constant, 0.0, product / norm)


def within_class(stitched: ArrayLike, own: ArrayLike, classes: ArrayLike) -> WithinClass:
    """Compute the within-class products of stitched activations and those of the end network.

    Args:
        stitched, own: activations of the same images, both (n, …).
        classes: of the images, integers (n,).
    """
    _, places, counts = np.unique(_array(classes), return_inverse=True, return_counts=True)
    stitched_rest = _without_means(stitched, places, counts)
    own_rest = _without_means(own, places, counts)
    return WithinClass(
        (stitched_rest * own_rest).sum(1),
        np.square(stitched_rest).sum(1),
        np.square(own_rest).sum(1),
        counts[places],
    )


def _without_means(values: ArrayLike, places: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return values (n, D) less the means of their classes; `counts` has the number of images of each class."""
    rows = _array(values).reshape(len(places), -1)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, places, rows)
    return rows - (sums / counts[:, None])[places]


def _array(values: Any) -> np.ndarray:
    """Return an array or a tensor, of any device and with gradients or not, as float64."""
    if hasattr(values, "detach"):
        values = values.detach().double().cpu()
    return np.asarray(values, dtype=np.float64)


def within_class_correlation(
    stitched: ArrayLike, own: ArrayLike, classes: ArrayLike
) -> IntervalEstimate:
    """Return the within-class correlation with its interval of 95 %, by the jackknife over images.

    Of logits, subtract the mean of each image before, as `centred_logits` does: softmax does not see
    it. The only image of a class says nothing.

    Args:
        stitched: activations or logits of a stitched network, (n, …).
        own: those of the end network, of the same images and shape.
        classes: the class that the end network predicts for each image, (n,).
    Raises:
        ValueError: the shapes differ.
    """
    if np.shape(stitched) != np.shape(own) or len(np.shape(classes)) != 1:
        raise ValueError(
            f"stitched activations {np.shape(stitched)} and those of the end network {np.shape(own)} have to have one "
            f"shape, and classes {np.shape(classes)} an axis of images"
        )
    sums = within_class(stitched, own, classes)
    value = sums.correlation
    half_width = DEVIATIONS * math.sqrt(jackknife_variance(sums.without_each))
    low, high = np.clip((value - half_width, value + half_width), -1, 1).tolist()  # keeps NaN
    return IntervalEstimate(value, low, high)


def skill_score(correlation: Values, baseline: Values) -> Values:
    """Return (correlation − baseline) / (1 − baseline): 0 at the baseline, 1 for a correlation of 1.

    It is NaN for a baseline of 1, up to rounding.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        skills: Any = np.where(
            np.less(baseline, 1 - ROUNDING),
            (correlation - baseline) / np.subtract(1, baseline),
            math.nan,
        )
    return skills[()]  # a number for numbers
