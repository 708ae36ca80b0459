"""The images that a network takes: their classes, shape and normalisation."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Normalisation(NamedTuple):
    """Mean that is subtracted from values in [0, 1], and standard deviation that divides them, for
    each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class ImageSpec(NamedTuple):
    """The classes, the shape and the values of the images of a data set."""

    n_classes: int  # 0: unlabelled
    shape: tuple[int, int, int]  # (C, H, W)
    normalisation: Normalisation | None = None  # None: values in [0, 1]
    classes: tuple[str, ...] = ()  # their names in the order of the labels; empty: not known

    def describe(self) -> str:
        """Return shape and number of classes as a text, such as 1×8×8, 10 classes."""
        classes = f"{self.n_classes} classes" if self.n_classes else "no labels"
        return f"{'×'.join(map(str, self.shape))}, {classes}"


def make_normalisation(
    mean: Sequence[float], std: Sequence[float], *, n_channels: int
) -> Normalisation | None:
    """Check the numbers of a user; means of 0 and deviations of 1 change nothing, which is None.

    Raises:
        ValueError: there is not one finite number a channel, or a deviation is not positive.
    """
    for name, values, lowest in (("mean", mean, -math.inf), ("std", std, 0)):
        if len(values) != n_channels or not all(lowest < value < math.inf for value in values):
            raise ValueError(
                f"{name} is {list(values)}; a number for each of {n_channels} channels is needed, std > 0"
            )
    return None if set(mean) == {0} and set(std) == {1} else Normalisation(tuple(mean), tuple(std))


def describe_values(normalisation: Normalisation | None) -> str:
    """Describe the values of images for a message."""
    if normalisation is None:
        return "values in [0, 1]"
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in normalisation)
    return f"mean {mean} and std {std}"
