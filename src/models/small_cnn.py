"""A small plain convolutional network for quick experiments."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from src.core.errors import Misfit
from src.core.inputs import shape_text
from src.models.resnet import init_convolution

WIDTHS = (16, 32, 64, 128)  # channels of the blocks
MIN_SIDE = 2 ** (len(WIDTHS) - 1)  # of images: all blocks but the last one halve the resolution


class SmallCNN(nn.Module):
    """Four convolutions with ReLU and pooling: images (B, C, H, W) -> logits (B, n_classes).

    BatchNorm of the images comes first. A block has the name of the pooling that ends it. There are
    about 100,000 parameters.

    Args:
        image_shape: (C, H, W) of the images.
    Raises:
        Misfit: the images have fewer than 8×8 pixels.
    """

    block_names = ("pool1", "pool2", "pool3", "pool4")
    channels_last = False

    def __init__(
        self, *, n_classes: int, n_channels: int, image_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if image_shape is not None and min(image_shape[1:]) < MIN_SIDE:
            size = shape_text(image_shape)
            raise Misfit(
                f"small_cnn cannot take images of {size}: the smallest are {MIN_SIDE}×{MIN_SIDE} pixels; choose "
                "another network or another data set"
            )
        in_width = n_channels
        for i, width in enumerate(WIDTHS, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(in_width, width, 3, padding=1))
            if i < len(WIDTHS):
                self.add_module(f"pool{i}", nn.MaxPool2d(2))
            else:
                self.add_module(f"pool{i}", nn.AdaptiveAvgPool2d(1))
            in_width = width
        self.fc = nn.Linear(in_width, n_classes)
        self.bn = nn.BatchNorm2d(n_channels)
        self.apply(init_convolution)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn(images)
        for i in range(1, len(WIDTHS) + 1):
            convolution = self.get_submodule(f"conv{i}")
            pooling = self.get_submodule(f"pool{i}")
            x = pooling(F.relu(convolution(x)))
        return self.fc(x.flatten(1))  # (B, C, 1, 1) -> (B, n_classes)
