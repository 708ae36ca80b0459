"""Networks that classify the activations of another network: the OOD detectors of the paper (section 5).

They are networks of the zoo behind a resize or a linear map, which fits the activations to their input.
"""

from torch import Tensor, nn

from src.errors import UserError
from src.models.resnet import ResNet
from src.models.vit import Transformer, init_linear


class RepresentationResNet(ResNet):
    """A CIFAR ResNet on a representation (B, C, H, W) that is resized to the size of the images.

    Args:
        representation_shape: (C, H, W) of one sample.
        image_shape: (C, H, W) of the images; None: 32×32 pixels.
        resnet: the other arguments of `ResNet`.
    Raises:
        UserError: `representation_shape` is None or does not have three entries.
    """

    def __init__(
        self,
        *,
        representation_shape: tuple[int, ...] | None,
        image_shape: tuple[int, int, int] | None = None,
        **resnet,
    ) -> None:
        channels, _, _ = _checked(representation_shape, ("channels", "height", "width"), "repr_cls_vit_*")
        super().__init__(n_channels=channels, **resnet)
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
    Raises:
        UserError: `representation_shape` is None or has neither one nor two entries.
    """

    def __init__(self, *, representation_shape: tuple[int, ...] | None, width: int, **transformer) -> None:
        shape = representation_shape and (1,) * (2 - len(representation_shape)) + tuple(representation_shape)
        _, given_width = _checked(shape, ("tokens", "width"), "repr_cls_resnet*")
        dim_transform = nn.Identity() if given_width == width else nn.Linear(given_width, width)
        super().__init__({"dim_transform": dim_transform}, width=width, **transformer)
        self.is_flat = len(representation_shape) == 1
        self.apply(init_linear)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.dim_transform(tokens[:, None] if self.is_flat else tokens)  # (B, D) -> (B, 1, D)


def _checked(shape: tuple[int, ...] | None, expected: tuple[str, ...], other_family: str) -> tuple[int, ...]:
    entries = f"({', '.join(expected)})"
    if shape is None:
        raise UserError(
            f"a representation classifier takes activations, of a representation_shape {entries}, not images; "
            "exec_train_representation_classifier.py trains it"
        )
    if len(shape) != len(expected):
        raise UserError(
            f"this classifier takes activations of shape {entries}, not {tuple(shape)}; did you mean {other_family}?"
        )
    return tuple(shape)
