"""A small plain convolutional network for quick experiments."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from src.models.blocks import Network
from src.models.resnet import init_convolution

WIDTHS = (16, 32, 64, 128)


class SmallCNN(Network):
    """Four 3×3 convolutions with ReLU and pooling behind a normalisation of the images; about 100,000 parameters.

    Images need at least 8×8 pixels. The names of the blocks are those of the poolings, which end them.
    """

    block_names = ("pool1", "pool2", "pool3", "pool4")

    def __init__(self, *, n_classes: int, n_channels: int) -> None:
        super().__init__()
        for i, (in_width, width) in enumerate(zip((n_channels, *WIDTHS), WIDTHS, strict=False), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(in_width, width, 3, padding=1))
            self.add_module(f"pool{i}", nn.MaxPool2d(2) if i < len(WIDTHS) else nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(WIDTHS[-1], n_classes)
        self.bn = nn.BatchNorm2d(n_channels)
        self.apply(init_convolution)

    def steps(self) -> dict[str, Callable[[Tensor], Tensor]]:
        steps: dict[str, Callable[[Tensor], Tensor]] = {"bn": self.bn}
        for i, pool in enumerate(self.block_names, start=1):
            steps[f"conv{i}"] = self.get_submodule(f"conv{i}")
            steps[pool] = _behind_relu(self.get_submodule(pool))
        return steps | {"fc": self._classify}

    def _classify(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))  # (B, C, 1, 1) -> (B, n_classes)


def _behind_relu(pool: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: pool(F.relu(x))
