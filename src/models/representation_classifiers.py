"""Networks that classify the activations of another network: OOD detectors (the paper, section 5).

They are networks of the zoo behind a resize or a linear map, which fits the activations to the
input of the network.
"""

from typing import Any

from torch import Tensor, nn

from src.core.activations import positions_of
from src.core.errors import UserError
from src.core.inputs import are_images
from src.models.resnet import ResNet
from src.models.vit import Transformer, init_linear

Shape = tuple[int, ...]


class RepresentationResNet(ResNet):
    """A CIFAR ResNet on activations: (B, C, H, W) -> logits (B, n_classes).

    The activations are resized to the size of the images, or to 32×32.

    Args:
        representation_shape: (C, H, W) of an activation.
        image_shape: (C, H, W) of the images.
        resnet: further arguments of `ResNet`.
    Raises:
        UserError: `representation_shape` has not three axes.
    """

    def __init__(
        self,
        *,
        representation_shape: Shape | None,
        image_shape: Shape | None = None,
        **resnet: Any,
    ) -> None:
        n_channels, *_ = _checked(representation_shape, "(channels, height, width)", n_axes=(3,))
        super().__init__(n_channels=n_channels, **resnet)
        size = (32, 32)
        if image_shape is not None and are_images(image_shape):
            _, height, width = image_shape
            size = (height, width)
        self.resize = nn.Upsample(size=size, mode="bilinear", align_corners=False)

    def forward(self, representation: Tensor) -> Tensor:
        return super().forward(self.resize(representation))


class RepresentationTransformer(Transformer):
    """A ViT on tokens of another network: (B, N, D) or (B, D) -> logits (B, n_classes).

    A linear map comes first if the width of the ViT is not D. Neither a CLS token nor positions are
    added, since the tokens have both already.

    Args:
        representation_shape: (N, D) of an activation, or (D,) for a single token.
        width: number of features of a token in the ViT.
        transformer: further arguments of `Transformer`.
    Raises:
        UserError: `representation_shape` has not one or two axes.
    """

    dim_transform: nn.Module

    def __init__(
        self, *, representation_shape: Shape | None, width: int, **transformer: Any
    ) -> None:
        shape = _checked(representation_shape, "(tokens, width)", n_axes=(1, 2))
        dim_transform: nn.Module = nn.Identity()
        if shape[-1] != width:
            dim_transform = nn.Linear(shape[-1], width)
        super().__init__({"dim_transform": dim_transform}, width=width, **transformer)
        self.apply(init_linear)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, width) for tokens (B, N, D) or (B, D)."""
        return self.dim_transform(positions_of(tokens))


def _checked(shape: Shape | None, expected: str, *, n_axes: tuple[int, ...]) -> Shape:
    """Return the shape of an activation; a UserError if it has another number of axes."""
    if shape is None or len(shape) not in n_axes:
        actual = "images" if shape is None else tuple(shape)
        raise UserError(
            f"this classifier takes activations of shape {expected}, not {actual}; "
            "repr_cls_resnet* take maps, repr_cls_vit_* tokens; "
            "exec_train_representation_classifier.py trains them"
        )
    return shape
