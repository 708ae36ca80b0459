"""The images that a network takes, as far as building it depends on them."""

from typing import NamedTuple


class ImageSpec(NamedTuple):
    """The classes and the shape of the images of a data set."""

    n_classes: int  # 0: unlabelled
    shape: tuple[int, int, int]  # (C, H, W)
