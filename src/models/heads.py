"""A linear head for encoders."""

from collections.abc import Sequence

from torch import Tensor, nn

from src.ground.activations import Form, TokenLayout, pool
from src.models.outputs import logits_of


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
    width = Form.of(output_shape).n_channels
    head = LinearProbe(width, n_classes, layout).to(like)
    encoder.add_module(LinearProbe.NAME, head)
    applies_all_children = type(encoder).forward is nn.Sequential.forward
    if not applies_all_children:
        encoder.register_forward_hook(_apply_head)


def _apply_head(encoder: nn.Module, inputs: tuple, output: object) -> Tensor:
    return encoder.get_submodule(LinearProbe.NAME)(output)
