"""A linear head for encoders, and the pooling of activations in front of it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.models.outputs import logits_of


def has_cls_token(n_tokens: int) -> bool:
    """Return whether a number of tokens includes a CLS token: the number is no square."""
    return math.isqrt(n_tokens) ** 2 != n_tokens


def pool(activations: Tensor, *, is_sequence: bool = False) -> Tensor:
    """Return the features (B, D) that a linear probe reads.

    Args:
        activations: (B, D, H, W), averaged over the positions; (B, T, D), of which the CLS token is
            taken, or the mean over the tokens if there is none; or (B, D), which stay.
        is_sequence: the tokens are the steps of a recurrent layer, without a CLS token.
    """
    if activations.ndim == 4:
        return activations.mean((2, 3))
    if activations.ndim == 3:
        n_tokens = activations.shape[1]
        if has_cls_token(n_tokens) and not is_sequence:
            return activations[:, 0]
        return activations.mean(1)
    return activations


class LinearProbe(nn.Linear):
    """A linear map of pooled activations: (B, D, H, W), (B, T, D) or (B, D) -> (B, n_classes).

    Args:
        width: D.
        is_sequence: as in `pool`.
    """

    NAME = "linear_probe"  # of the child of an encoder

    def __init__(self, width: int, n_classes: int, *, is_sequence: bool):
        super().__init__(width, n_classes)
        self.is_sequence = is_sequence

    def forward(self, output: Any) -> Tensor:
        return super().forward(pool(logits_of(output), is_sequence=self.is_sequence))


def add_head(
    encoder: nn.Module, output_shape: Sequence[int], n_classes: int, *, is_sequence: bool
) -> None:
    """Add a fresh LinearProbe to an encoder, which then returns logits.

    The state dict gets the keys `linear_probe.weight` and `linear_probe.bias`.

    Args:
        output_shape: shape of the features for one image.
        is_sequence: as in `pool`.
    """
    width = pool(torch.empty(1, *output_shape, device="meta")).shape[1]
    head = LinearProbe(width, n_classes, is_sequence=is_sequence).to(next(encoder.parameters()))
    encoder.add_module(LinearProbe.NAME, head)
    applies_all_children = type(encoder).forward is nn.Sequential.forward
    if not applies_all_children:
        encoder.register_forward_hook(_apply_head)


def _apply_head(encoder: nn.Module, inputs: tuple, output: Any) -> Tensor:
    return encoder.get_submodule(LinearProbe.NAME)(output)
