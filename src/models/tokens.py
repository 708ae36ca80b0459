"""Prefix tokens, such as a CLS token: those that two images have in common."""

from torch import Tensor

from src.activations import MapSize, grid_of
from src.ground.images import are_images

# Up to rounding: the difference of a token between two images, relative to that of the other tokens
EQUAL = 0.01


def image_size_of(inputs: Tensor) -> MapSize | None:
    """Return height and width of images (B, C, H, W); None for inputs that are no images."""
    shape = inputs.shape[1:]
    if not are_images(shape):
        return None
    _, height, width = shape
    return height, width


def n_leading_equal(tokens: Tensor, image_size: MapSize | None) -> int:
    """Count the leading tokens that are equal for two images: prefix tokens that saw no image yet.

    It is 0 where the leading tokens are constant over their features and the further tokens form no
    grid: the dead channels of a map (2, C, H·W).

    Args:
        tokens: (2, T, D), of two random images; not all tokens are equal.
        image_size: height and width of the images; None: the inputs are no images.
    """
    differences = (tokens[0] - tokens[1]).detach().float().square().mean(-1)  # (T,)
    are_equal = differences <= EQUAL**2 * differences.amax()
    n_equal = int(are_equal.cumprod(0).sum())
    leading = tokens[0, :n_equal]
    n_patches = tokens.shape[1] - n_equal
    if (leading == leading[:, :1]).all() and grid_of(n_patches, image_size) is None:
        return 0
    return n_equal
