"""The axes of activations, as passes of a network tell: channels first or last, and prefix tokens such as a
CLS token, which are equal for all images."""

import contextlib

import torch
from torch import Tensor, nn

from src.core.activations import MapSize, grid_of
from src.core.inputs import are_images
from src.models.calls import Calls, is_activation
from src.models.outputs import first_tensor
from src.models.restored import repeatable

CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.GroupNorm,
    nn.Upsample,
)
ON_LAST_AXIS = (nn.Linear, nn.LayerNorm)
# Up to rounding: the difference of a token between two images, relative to that of the other tokens
EQUAL = 0.01


def image_size_of(inputs: Tensor) -> MapSize | None:
    """Return height and width of images (B, C, H, W); None for inputs that are no images."""
    shape = inputs.shape[1:]
    if not are_images(shape):
        return None
    _, height, width = shape
    return height, width


def is_channels_last(layer: str, calls: Calls, image_size: MapSize | None) -> bool | None:
    """Return whether a layer has activations (H, W, C); None if nothing tells.

    The shape tells, or the module that computes the activation. Else a layer is taken for channels
    first in a network in which some layers are, and none is channels last or maps a last axis.

    Args:
        layer: with three axes besides the batch.
        image_size: height and width of the images; None: square.
    """
    is_last = _told(layer, calls, image_size)
    if is_last is not None:
        return is_last
    maps = [name for name, shape in calls.shapes.items() if len(shape) == 3]
    told = {_told(name, calls, image_size) for name in maps}
    has_last_axis = any(isinstance(calls.module_of[name], ON_LAST_AXIS) for name in maps)
    if told - {None} == {False} and not has_last_axis:
        return False
    return None


def _told(layer: str, calls: Calls, image_size: MapSize | None) -> bool | None:
    """Return what the shape of a layer tells, or its module; None if neither does."""
    shape = calls.shapes[layer]
    height, width = image_size or (1, 1)
    front, middle, back = shape
    is_first = middle * width == back * height
    is_last = front * width == middle * height
    if is_first == is_last and height != width:  # a stride rounds sizes, so that the ratio changes
        is_first = abs(middle * width - back * height) <= max(height, width)
        is_last = abs(front * width - middle * height) <= max(height, width)
    if is_first != is_last:
        return is_last
    position = calls.positions.get(layer)
    names = [name for name in calls.positions if calls.positions[name] == position]
    if any(isinstance(calls.module_of[name], CHANNELS_FIRST) for name in names):
        return False
    return None


def n_leading_equal(tokens: Tensor, image_size: MapSize | None) -> int:
    """Count the leading tokens that are equal for two images, which are prefix tokens.

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


def count_prefix_tokens(module: nn.Module, images: Tensor) -> int:
    """Count the tokens that stand in front of the patches where these tokens enter a network.

    They are equal for both images there, as a CLS token is. A number of tokens is looked at where it
    comes first in a pass: attention has not mixed the tokens.

    Args:
        images: (2, C, H, W), random.
    Returns:
        0 without such a place.
    """
    counts: dict[int, int] = {}  # of prefix tokens, by the number of tokens

    def look(value: object) -> None:
        tokens = first_tensor(value)
        if tokens is None or tokens.ndim != 3 or not is_activation(tokens, len(images)):
            return
        if tokens.shape[1] in counts or torch.equal(tokens[0], tokens[1]):  # or it sees no image
            return
        counts[tokens.shape[1]] = n_leading_equal(tokens, image_size_of(images))

    with repeatable(module, images), contextlib.ExitStack() as hooks:
        for part in list(module.modules())[1:]:
            before = part.register_forward_pre_hook(lambda _, inputs: look(inputs))
            behind = part.register_forward_hook(lambda _, inputs, output: look(output))
            hooks.callback(before.remove)
            hooks.callback(behind.remove)
        module(images.clone())
    return next(filter(None, counts.values()), 0)
