"""Networks that classify the activations of another network: the OOD detectors of the paper
(section 5).

They are networks of the zoo behind a resize or a linear map, which fits the activations to their
input."""

from torch import Tensor, nn

from src.errors import UserError
from src.models.resnet import ResNet
from src.models.vit import Transformer, init_linear

Shape = tuple[int, ...] | None


class RepresentationResNet(ResNet):
    """A CIFAR ResNet on a representation (B, C, H, W) that is resized to the size of the images, or
    to 32×32.

    Args:
        representation_shape: (C, H, W) of one sample.
        image_shape: (C, H, W) of the images.
        resnet: the other arguments of `ResNet`.
    """

    def __init__(self, *, representation_shape: Shape, image_shape: Shape = None, **resnet) -> None:
        _check(representation_shape, "(channels, height, width)", (3,))
        super().__init__(n_channels=representation_shape[0], **resnet)
        size = (32, 32) if image_shape is None else tuple(image_shape[1:])
        self.resize = nn.Upsample(size=size, mode="bilinear", align_corners=False)

    def forward(self, representation: Tensor) -> Tensor:
        return super().forward(self.resize(representation))


class RepresentationTransformer(Transformer):
    """A ViT on tokens (B, N, D) of another network, behind a linear map where its width is not D.

    It adds neither a CLS token nor positions, since the tokens have them already.

    Args:
        representation_shape: (tokens, width) of one sample; (width,) is a single token.
        transformer: the other arguments of `Transformer`.
    """

    def __init__(self, *, representation_shape: Shape, width: int, **transformer) -> None:
        _check(representation_shape, "(tokens, width)", (1, 2))
        given_width = representation_shape[-1]
        dim_transform = nn.Identity() if given_width == width else nn.Linear(given_width, width)
        super().__init__({"dim_transform": dim_transform}, width=width, **transformer)
        self.is_flat = len(representation_shape) == 1
        self.apply(init_linear)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.dim_transform(
            tokens[:, None] if self.is_flat else tokens
        )  # (B, D) -> (B, 1, D)


def _check(shape: Shape, expected: str, n_axes: tuple[int, ...]) -> None:
    """Raise a UserError if a classifier cannot take representations of this shape."""
    if shape is None or len(shape) not in n_axes:
        given = "images" if shape is None else tuple(shape)
        raise UserError(
            f"this classifier takes activations of shape {expected}, not {given}; "
            "repr_cls_resnet* take maps, repr_cls_vit_* tokens; exec_train_representation_classifier.py trains them"
        )
