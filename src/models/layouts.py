"""Finds the axis of the channels: the first of three (convolutions) or the last (Swin, ConvNeXt inside)."""

from collections.abc import Mapping

Shape = tuple[int, ...]


def find_channels_last(
    shapes: Mapping[str, Shape], *, declared: bool | None, assumed: bool
) -> tuple[list[str], list[str]]:
    """Return the layers whose channels are last, and those of which the shape does not tell.

    Maps are square as a rule: (H, W, C) has two equal axes in front of another one, (C, H, W) behind it.

    Args:
        shapes: of one activation of each layer.
        declared: what the network says of itself; None: nothing.
        assumed: whether channels are last where the shape does not tell; if not, such layers are returned as unclear.
    """
    maps = {name: shape for name, shape in shapes.items() if len(shape) == 3}
    if declared is not None:
        return list(maps) if declared else [], []
    clear = {name for name, (first, second, third) in maps.items() if (first == second) != (second == third)}
    turned = [name for name, shape in maps.items() if (shape[0] == shape[1] if name in clear else assumed)]
    return turned, [name for name in maps if name not in clear and not assumed]
