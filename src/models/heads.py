"""A linear head on an encoder, and how features are pooled for it."""

import math

from torch import Tensor, nn


def has_cls_token(n_tokens: int) -> bool:
    """Return whether a number of tokens includes a CLS token, as it does unless it is a square."""
    return math.isqrt(n_tokens) ** 2 != n_tokens


def pool(activations: Tensor, *, is_sequence: bool = False) -> Tensor:
    """Return the features (B, D) that a linear probe reads.

    Args:
        activations: (B, D, H, W), averaged over the positions; (B, T, D), of which the CLS token is taken, or the
            average where there is none; or (B, D), taken as they are.
        is_sequence: the tokens are the steps of a recurrent layer, without a CLS token.
    """
    if activations.ndim == 4:
        return activations.mean((2, 3))
    if activations.ndim == 3:
        has_cls = has_cls_token(activations.shape[1]) and not is_sequence
        return activations[:, 0] if has_cls else activations.mean(1)
    return activations


class LinearProbe(nn.Linear):
    """The head of an encoder: a linear map of its pooled output (B, D, H, W), (B, T, D) or (B, D) to the logits.

    As the child `linear_probe` of an encoder it turns this into a classifier, whose state dict has the encoder's keys
    and `linear_probe.weight` and `linear_probe.bias`.
    """

    NAME = "linear_probe"

    def __init__(self, width: int, n_classes: int, *, is_sequence: bool):
        super().__init__(width, n_classes)
        self.is_sequence = is_sequence

    def forward(self, activations: Tensor) -> Tensor:
        return super().forward(pool(activations, is_sequence=self.is_sequence))
