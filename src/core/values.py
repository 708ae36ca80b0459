"""Named tuples of results, which computations return and tables keep.

This module imports neither torch nor scipy: tables are read without them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from src.core.console import decimals

Rank = int | None  # None: the full rank

# Alignments; with every other alignment, images are the samples
BY_POSITION = ("positions", "tokens")

# How a network is stochastic or batch-dependent when it is evaluated, see `src.models.determinism`
STOCHASTIC = "random"
BATCH_DEPENDENT = "batch"

# Permutations of images
ALL_IMAGES = "all images"
WITHIN_CLASSES = "within classes"
# The same, with the largest value over pairs of layers of each permutation
LARGEST = {ALL_IMAGES: "largest over layers", WITHIN_CLASSES: "largest over layers, within classes"}

LOW_ACCURACY = 0.5  # of a network; a lower one is named


class Interval(NamedTuple):
    """The ends of an interval of 95 %."""

    low: float
    high: float


class IntervalEstimate(NamedTuple):
    """A value with the ends of its interval of 95 %; all three are NaN if the value is undefined."""

    value: float
    low: float
    high: float

    def __repr__(self) -> str:
        if math.isnan(self.value):
            return "–"
        return f"{decimals(self.value)} [{decimals(self.low)}, {decimals(self.high)}]"


class Pair(NamedTuple):
    """The two layers that a stitch connects."""

    front_layer: str
    end_layer: str

    def __str__(self) -> str:
        return f"{self.front_layer} -> {self.end_layer}"


class Predictions(NamedTuple):
    """The classes that a stitch and its two networks predict, and the labels.

    Each is an array (N,) of integers over the same test images. An encoder predicts no class: -1.
    """

    stitched: np.ndarray
    front: np.ndarray
    end: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The measurements of a stitch, as in `grid.csv`; `QUANTITIES` describes the numbers.

    The public code keeps three of them: the accuracy and the two errors.
    """

    accuracy: float
    front_accuracy: float = math.nan
    end_accuracy: float = math.nan
    matching_error: float | None = None  # None: nothing was matched
    representation_difference: float = math.nan
    agreement: float = math.nan
    kappa: float = math.nan
    n_images: int | None = None
    n_fitting_samples: int | None = None
    matching_rank: int | None = None
    r2_fit: float | None = None
    r2_test: float = math.nan
    # Whether the cutoff of singular values truncated the fit, see `Matching`. None: not known
    truncated: bool | None = None
    # The place of the layer among all layers of its network
    front_depth: int | None = None
    end_depth: int | None = None
    # Its relative depth: the share of the network's blocks that a pass to it computes
    front_relative_depth: float | None = None
    end_relative_depth: float | None = None
    # Whether all paths to the output lead through the end layer; False inside a residual block
    end_is_cut: bool | None = None
    # `STOCHASTIC` or `BATCH_DEPENDENT` for a stochastic or batch-dependent network
    front_nondeterminism: str | None = None
    end_nondeterminism: str | None = None

    @property
    def is_truncated(self) -> bool:
        """Whether the cutoff truncated the fit."""
        return bool(self.truncated)

    def has_few_fitting_samples(self, *, keeps_variance: bool) -> bool:
        """Return whether the map was fitted to too few samples: R² is much lower on the test images.

        Args:
            keeps_variance: the map gives the variance of its target, as by `covariance`. Then R² is
                2ρ − 1 for a correlation ρ with the target, and by least squares ρ²: ρ² is compared.
        """
        if self.r2_fit is None:
            return False
        matched = self.r2_fit
        test = self.r2_test
        if keeps_variance:
            matched = (max(0, 1 + matched) / 2) ** 2
            test = (max(0, 1 + test) / 2) ** 2
        return test < matched - 0.03 - 0.2 * abs(matched)


class SkillEstimate(NamedTuple):
    """Within-class correlation, baseline and skill of a stitch at one place, see `src.skill`."""

    correlation: float  # within classes, in [-1, 1]; NaN: activations are not finite
    baseline: float  # the correlation that untrained features reach when given the class
    skill: float  # (correlation − baseline) / (1 − baseline)
    low: float  # the ends of its interval of 95 %, over images
    high: float


class StitchSkill(NamedTuple):
    """The skill of a stitch at the end layer and at the output."""

    end_layer: SkillEstimate
    output: SkillEstimate
    n_images: int
    n_classes: int  # of the end network
    width: int  # of the random features in the baseline: the rank of the front, rounded
    n_copies: int  # untrained copies side by side in the baseline, at most
    rows_per_channel: float  # that the widest features of the baseline were fitted to


class MeasuredStitch(NamedTuple):
    """All measurements of a stitch."""

    metrics: Metrics
    predictions: Predictions
    skill: StitchSkill
    losses: list[float]  # of the epochs of a training run
    chosen: Mapping[str, str | None]  # the options that `auto` chose


class Null(NamedTuple):
    """A similarity against values when the images of one network are permuted (Gröger et al. 2026).

    The values are of the same layers, or the largest over pairs of layers.
    """

    p_value: float  # (1 + permutations that are as similar) / (1 + permutations)
    null_95: float  # 95 % of permutations are less similar
    calibrated: float  # 0 up to `null_95`, 1 for equal representations


class Similarity(NamedTuple):
    """The value of a measure of two layers; NaN where it is not defined."""

    value: float
    # By the images that trade places: ALL_IMAGES, WITHIN_CLASSES. Empty: none were permuted. Under
    # the names in LARGEST, against the largest values over layers
    nulls: Mapping[str, Null] = {}


class ComparedLayers(NamedTuple):
    """Two layers at two ranks, compared by measures of similarity."""

    layer1: str
    layer2: str
    rank1: Rank
    rank2: Rank
    alignment: str  # how CCA and Procrustes make samples of activations
    values: Mapping[str, Similarity]  # by measure
    # The second layer compared to the first, by measures that are not symmetric
    reversed_values: Mapping[str, Similarity] = {}

    @property
    def swapped(self) -> "ComparedLayers":
        """The second layer and the first. A measure without a reversed value keeps its value."""
        return ComparedLayers(
            self.layer2,
            self.layer1,
            self.rank2,
            self.rank1,
            self.alignment,
            {**self.values, **self.reversed_values},
            {name: self.values[name] for name in self.reversed_values},
        )
