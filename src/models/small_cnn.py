"""A small plain convolutional network for quick experiments."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from src.errors import Misfit
from src.models.resnet import init_convolution

WIDTHS = (16, 32, 64, 128)
LEAST_SIDE = 2 ** (len(WIDTHS) - 1)  # of images, which all blocks but the last one halve


class SmallCNN(nn.Module):
    """BatchNorm of the images and four 3×3 convolutions with ReLU and pooling; about 100,000
    parameters.

    Each block has the name of the pooling that ends it.

    Args:
        image_shape: (C, H, W) of the images; raises Misfit if they have fewer than 8×8 pixels.
    """

    block_names = ("pool1", "pool2", "pool3", "pool4")
    channels_last = False

    def __init__(
        self, *, n_classes: int, n_channels: int, image_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if image_shape is not None and min(image_shape[1:]) < LEAST_SIDE:
            size = "×".join(map(str, image_shape))
            raise Misfit(
                f"small_cnn cannot take images of {size}, but from {LEAST_SIDE}×{LEAST_SIDE} pixels on; choose another "
                "one or a dataset"
            )
        for i, (in_width, width) in enumerate(
            zip((n_channels, *WIDTHS), WIDTHS, strict=False), start=1
        ):
            self.add_module(f"conv{i}", nn.Conv2d(in_width, width, 3, padding=1))
            self.add_module(
                f"pool{i}", nn.MaxPool2d(2) if i < len(WIDTHS) else nn.AdaptiveAvgPool2d(1)
            )
        self.fc = nn.Linear(WIDTHS[-1], n_classes)
        self.bn = nn.BatchNorm2d(n_channels)
        self.apply(init_convolution)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn(images)
        for i in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"pool{i}")(F.relu(self.get_submodule(f"conv{i}")(x)))
        return self.fc(x.flatten(1))  # (B, C, 1, 1) -> (B, n_classes)
