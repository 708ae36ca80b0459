"""Pre-activation ResNets (He et al. 2016, arXiv 1603.05027): normalisation and ReLU stand in front of a convolution.

The three families of this kind, `preact_resnet*`, `wide_resnet_*` and `liu2020_wrn`, have one structure, but keys of
their own in the checkpoints of the public code. So the names of the modules are data here.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.blocks import Network

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


class Names(NamedTuple):
    """What the modules of a family are called; a dot leads into a container."""

    stem: str
    stages: tuple[str, ...]
    block: tuple[str, ...]  # norm, ReLU, convolution, norm, ReLU, convolution, shortcut
    norm: str
    head: str


PREACT_NAMES = Names(
    stem="conv_2d",
    stages=("layer_0", "layer_1", "layer_2", "layer_3"),
    block=("batchnorm_0", "relu_0", "conv_2d_1", "batchnorm_1", "relu_1", "conv_2d_2", "shortcut"),
    norm="batchnorm",
    head="logits",
)


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's "SAME": size n becomes ceil(n / stride), an odd pixel goes to the end.

    At even sizes and stride 2 this differs from `padding=1`, which would put the pixel in front.
    """

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, padding))


class PreActBlock(nn.Module):
    """norm, ReLU, 3×3 convolution, twice, plus a shortcut: (B, C1, H, W) -> (B, C2, H/stride, W/stride).

    Where the shape changes, the shortcut is a convolution of the activated input; elsewhere it is the raw input.
    """

    def __init__(
        self, names: tuple[str, ...], in_width: int, width: int, *, stride: int, shortcut_size: int,
        strided_convolution: type[nn.Conv2d], dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        modules = [
            nn.BatchNorm2d(in_width), nn.ReLU(), _convolution(strided_convolution, in_width, width, 3, stride),
            nn.BatchNorm2d(width), nn.ReLU(), _convolution(strided_convolution, width, width, 3, 1),
        ]
        if stride != 1 or in_width != width:
            modules.append(_convolution(strided_convolution, in_width, width, shortcut_size, stride))
        for name, module in zip(names, modules, strict=False):
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        norm_0, relu_0, convolution_0, norm_1, relu_1, convolution_1, *shortcut = self.children()
        activated = relu_0(norm_0(x))
        if shortcut:
            x = shortcut[0](activated)
        hidden = relu_1(norm_1(convolution_0(activated)))
        return x + convolution_1(F.dropout(hidden, self.dropout, self.training))


class PreActResNet(Network):
    """A stem, stages of pre-activation blocks, and a last normalisation in front of pooling and head.

    Images are normalised by `mean` and `std` inside the network. These are given for three colour channels; for other
    numbers of channels their average is used.

    Args:
        names: names of the modules.
        depths, widths: number and channels of the blocks in each stage; from the second on, a stage halves the size.
        stem_width: channels of the stem.
        shortcut_size: kernel size of the shortcuts.
        strided_convolution: the class of the convolutions that halve the size.
        dropout: probability between the two convolutions of a block.
    """

    def __init__(
        self, names: Names, *, depths: tuple[int, ...], widths: tuple[int, ...], stem_width: int, shortcut_size: int,
        strided_convolution: type[nn.Conv2d] = SameConv2d, dropout: float = 0.0, mean: tuple[float, ...] = CIFAR10_MEAN,
        std: tuple[float, ...] = CIFAR10_STD, n_classes: int, n_channels: int,
    ) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("mean", _per_channel(mean, n_channels), persistent=False)
        self.register_buffer("std", _per_channel(std, n_channels), persistent=False)
        self.add_module(names.stem, nn.Conv2d(n_channels, stem_width, 3, padding=1, bias=False))
        blocks: list[str] = []
        in_width = stem_width
        for i, (stage, depth, width) in enumerate(zip(names.stages, depths, widths, strict=True)):
            for j in range(depth):
                block = PreActBlock(
                    names.block, in_width, width, stride=2 if i > 0 and j == 0 else 1, shortcut_size=shortcut_size,
                    strided_convolution=strided_convolution, dropout=dropout,
                )
                blocks.append(f"{stage}.{j}")
                _place(self, blocks[-1], block)
                in_width = width
        self.block_names = tuple(blocks)
        self.add_module(names.norm, nn.BatchNorm2d(in_width))
        self.relu = nn.ReLU()
        self.add_module(names.head, nn.Linear(in_width, n_classes))

    def steps(self) -> dict[str, Callable[[Tensor], Tensor]]:
        behind_stem = {name: self.get_submodule(name) for name in (*self.block_names, self.names.norm, "relu")}
        return {self.names.stem: self._stem, **behind_stem, self.names.head: self._classify}

    def _stem(self, images: Tensor) -> Tensor:
        return self.get_submodule(self.names.stem)((images - self.mean) / self.std)

    def _classify(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3))  # (B, C, H, W) -> (B, C)
        return self.get_submodule(self.names.head)(pooled)


def preact_resnet(*, depths: tuple[int, ...], n_classes: int, n_channels: int) -> PreActResNet:
    """ResNet-18 or -34 with pre-activation, as in Gowal et al. 2020 (arXiv 2010.03593): 3×3 shortcuts."""
    return PreActResNet(
        PREACT_NAMES, depths=depths, widths=(64, 128, 256, 512), stem_width=64, shortcut_size=3,
        n_classes=n_classes, n_channels=n_channels,
    )


def _convolution(strided: type[nn.Conv2d], in_width: int, width: int, size: int, stride: int) -> nn.Conv2d:
    if stride > 1 and strided is SameConv2d:
        return SameConv2d(in_width, width, size, stride=stride, bias=False)
    return nn.Conv2d(in_width, width, size, stride=stride, padding=size // 2, bias=False)


def _per_channel(constants: tuple[float, ...], n_channels: int) -> Tensor:
    if n_channels != len(constants):
        constants = (sum(constants) / len(constants),) * n_channels
    return torch.tensor(constants).reshape(n_channels, 1, 1)


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` at the dotted `path` below `root`, with the containers in between."""
    *containers, name = path.split(".")
    for container in containers:
        if container not in dict(root.named_children()):
            root.add_module(container, nn.Module())
        root = root.get_submodule(container)
    root.add_module(name, module)
