"""The order of the axes of maps: (C, H, W), or (H, W, C)."""

from torch import nn

from src.core.activations import MapSize
from src.models.calls import Calls

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
