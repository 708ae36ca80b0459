"""A linear head for encoders, and averages of activations over positions."""

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from src.ground.errors import UserError
from src.ground.runtime import at_least_single
from src.models.calls import logits_of
from src.models.tokens import TokenLayout, layout_or_guess


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


def pool(activations: Tensor, layout: TokenLayout | None = None) -> Tensor:
    """Return the features (B, D) that a linear probe reads.

    Args:
        activations: (B, D, H, W), averaged over the positions; (B, T, D), of which the CLS token is
            taken, or the mean over the patches or steps if there is none; or (B, D), which stay.
        layout: of the tokens; None: it is guessed from their number.
    """
    if activations.ndim == 4:
        return activations.mean((2, 3))
    if activations.ndim == 3:
        layout = layout_or_guess(activations, layout)
        if layout.has_cls:
            return activations[:, 0]
        return activations[:, layout.n_prefix :].mean(1)
    return activations


def mean_over_positions(activations: ArrayLike | Tensor) -> Tensor:
    """Average activations (B, C, H, W) or (B, T, C) over positions, (B, C), in at least float32.

    All tokens count, unlike in `pool`: a CLS token is one of them. Activations (B, C) stay.
    """
    activations = at_least_single(activations).detach()
    if activations.ndim == 4:
        return activations.mean((2, 3))
    if activations.ndim == 3:
        return activations.mean(1)
    return activations


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
