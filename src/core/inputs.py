"""Descriptions of the inputs of a network: classes, shape and normalisation of images; tokens and vectors,
which are not normalised."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Normalisation(NamedTuple):
    """Constants of each channel: a value v in [0, 1] becomes (v - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class InputSpec(NamedTuple):
    """The classes, the shape and the range of values of the inputs of a data set."""

    n_classes: int  # 0: unlabelled
    shape: tuple[int, ...]  # (C, H, W); of inputs that are no images, (T,) or (D,)
    normalisation: Normalisation | None = None  # None: values in [0, 1]
    classes: tuple[str, ...] = ()  # names of the classes by label; empty: unknown
    inputs: tuple = ()  # of data that are no images: three of them, nested as by `tensor.tolist()`

    def describe(self) -> str:
        """Return shape and number of classes as a text, such as "1×8×8, 10 classes"."""
        classes = "no labels"
        if self.n_classes:
            classes = f"{self.n_classes} classes"
        return f"{shape_text(self.shape)}, {classes}"

    def record(self) -> dict[str, Any]:
        """Return the record of the data that a network was trained for, in JSON's types;
        `of_record` reads it."""
        record = self._asdict()
        del record["inputs"]
        if self.normalisation is not None:
            record["normalisation"] = self.normalisation._asdict()
        return record

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "InputSpec":
        """Return the description in a record; a KeyError or a TypeError if it is none."""
        normalisation = None
        if record["normalisation"] is not None:
            constants = record["normalisation"]
            normalisation = Normalisation(tuple(constants["mean"]), tuple(constants["std"]))
        shape = tuple(record["shape"])
        return cls(record["n_classes"], shape, normalisation, tuple(record["classes"]))


def are_images(shape: Sequence[int]) -> bool:
    """Return whether inputs of a shape are images (C, H, W), rather than tokens or vectors."""
    return len(shape) == 3


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as a text, such as "1×8×8"."""
    return "×".join(map(str, shape))


def make_normalisation(
    mean: Sequence[float], std: Sequence[float], *, n_channels: int
) -> Normalisation | None:
    """Check the constants that a user gives, and return a Normalisation.

    Returns None for means of 0 and standard deviations of 1, which change nothing.

    Raises:
        ValueError: there is not one number a channel, a mean lies outside of [0, 1], or a standard deviation
        outside of (0, 1].
    """
    for name, values in (("mean", mean), ("std", std)):
        are_allowed = all(0 <= value <= 1 for value in values)
        if len(values) != n_channels or not are_allowed or (name == "std" and 0 in values):
            raise ValueError(
                f"{name} is {list(values)}; a number for each of {n_channels} channels is needed, "
                "of values in [0, 1] (levels divided by 255): a mean from 0 to 1, a std above 0 up "
                "to 1"
            )
    if set(mean) == {0} and set(std) == {1}:
        return None
    return Normalisation(tuple(mean), tuple(std))


def describe_values(normalisation: Normalisation | None) -> str:
    """Return the range of the values of images as a text for a message."""
    if normalisation is None:
        return "values in [0, 1]"
    mean = ", ".join(f"{value:.3g}" for value in normalisation.mean)
    std = ", ".join(f"{value:.3g}" for value in normalisation.std)
    return f"mean {mean} and std {std}"
