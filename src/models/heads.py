"""A linear head for encoders."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.ground.errors import UserError
from src.models.activations import pool
from src.models.outputs import logits_of
from src.models.tokens import TokenLayout


def check_axes(title: str, shape: Sequence[int]) -> None:
    """Raise a UserError unless a shape is (C, H, W), (T, D) or (D,).

    Args:
        title: of the layer with activations of this shape.
    """
    if not 1 <= len(shape) <= 3:
        raise UserError(
            f"{title} gives activations of shape {'×'.join(map(str, shape))}; choose a "
            "layer with a feature map (C, H, W), tokens (T, D) or a vector (D)"
        )


class LinearProbe(nn.Linear):
    """A linear map of pooled activations: (B, D, H, W), (B, T, D) or (B, D) -> (B, n_classes).

    Args:
        width: D.
        layout: as in `pool`.
    """

    NAME = "linear_probe"  # of the child of an encoder

    def __init__(self, width: int, n_classes: int, layout: TokenLayout | None):
        super().__init__(width, n_classes)
        self.layout = layout

    def forward(self, output: object) -> Tensor:
        return super().forward(pool(logits_of(output), self.layout))


def add_head(
    encoder: nn.Module,
    output_shape: Sequence[int],
    n_classes: int,
    layout: TokenLayout | None,
    *,
    like: Tensor,
) -> None:
    """Add a fresh LinearProbe to an encoder, which then returns logits.

    The state dict gets the keys `linear_probe.weight` and `linear_probe.bias`.

    Args:
        output_shape: shape of the features for one image.
        layout: as in `pool`.
        like: a tensor of the type and on the device of the head.
    """
    width = pool(torch.empty(1, *output_shape, device="meta"), layout).shape[1]
    head = LinearProbe(width, n_classes, layout).to(like)
    encoder.add_module(LinearProbe.NAME, head)
    applies_all_children = type(encoder).forward is nn.Sequential.forward
    if not applies_all_children:
        encoder.register_forward_hook(_apply_head)


def _apply_head(encoder: nn.Module, inputs: tuple, output: object) -> Tensor:
    return encoder.get_submodule(LinearProbe.NAME)(output)
