"""Pre-activation ResNets (He et al. 2016, arXiv 1603.05027): normalisation and activation precede
each convolution.

The families `preact_resnet*`, `wide_resnet_*` (Zagoruyko & Komodakis 2016, arXiv 1605.07146) and
`liu2020_wrn` have one structure. They differ in details and, in the checkpoints of the public code,
in the names of their modules."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.resnet import init_convolution


class Family(NamedTuple):
    """Names of the modules of a family (a dot leads into a container), and details in which
    families differ."""

    stem: str
    stages: tuple[str, ...]
    block: tuple[str, ...]  # norm, activation, convolution, norm, activation, convolution, shortcut
    norm: str
    head: str
    activation: type[nn.Module]  # of modules called `relu…`, also where it is SiLU
    # kernel size of the shortcut where the shape changes; of 1, it maps the activated input
    shortcut_size: int
    same_padding: bool  # pad strided convolutions as TensorFlow does
    mean: tuple[float, ...]  # of the training images, per channel
    std: tuple[float, ...]
    dropout: float = 0.0  # probability, between the convolutions of a block
    he_init: bool = False  # draw convolutions as in He et al. 2015, and let the head's bias be 0


# Gowal et al. 2020 (arXiv 2010.03593): SiLU in place of ReLU, and TensorFlow's padding.
PREACT = Family(
    stem="conv_2d",
    stages=("layer_0", "layer_1", "layer_2", "layer_3"),
    block=("batchnorm_0", "relu_0", "conv_2d_1", "batchnorm_1", "relu_1", "conv_2d_2", "shortcut"),
    norm="batchnorm",
    head="logits",
    activation=nn.SiLU,
    shortcut_size=3,
    same_padding=True,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2471, 0.2435, 0.2616),
)
FAMILIES = {
    "preact": PREACT,
    "wide": PREACT._replace(
        stem="init_conv",
        stages=("layer.0.block", "layer.1.block", "layer.2.block"),
        block=("batchnorm_0", "relu_0", "conv_0", "batchnorm_1", "relu_1", "conv_1", "shortcut"),
        shortcut_size=1,
    ),
    # The network of the energy score's paper (Liu et al. 2020, arXiv 2010.03759), which trains it
    # with 30 % dropout.
    "liu2020": Family(
        stem="conv1",
        stages=("block1.layer", "block2.layer", "block3.layer"),
        block=("bn1", "relu1", "conv1", "bn2", "relu2", "conv2", "convShortcut"),
        norm="bn1",
        head="fc",
        activation=nn.ReLU,
        shortcut_size=1,
        same_padding=False,
        mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
        std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
        dropout=0.3,
        he_init=True,
    ),
}


class SamePaddedConv2d(nn.Conv2d):
    """A 3×3 convolution of stride 2, padded as TensorFlow's "SAME": at even sizes behind the last
    pixel alone."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (width % 2, 1, height % 2, 1)))


class PreActBlock(nn.Module):
    """A residual block of twice norm, activation and 3×3 convolution: (B, C1, H, W) -> (B, C2,
    H/stride, W/stride).

    Where the shape changes, the shortcut is a convolution, elsewhere the identity.
    """

    def __init__(self, family: Family, in_width: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.dropout, self.shortcut_activated = family.dropout, family.shortcut_size == 1
        first, second = (
            _convolution(family, n_in, width, 3, step)
            for n_in, step in ((in_width, stride), (width, 1))
        )
        modules = [nn.BatchNorm2d(in_width), family.activation(), first]
        modules += [nn.BatchNorm2d(width), family.activation(), second]
        if stride != 1 or in_width != width:
            modules.append(_convolution(family, in_width, width, family.shortcut_size, stride))
        for name, module in zip(family.block, modules, strict=False):
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        norm_0, activation_0, convolution_0, norm_1, activation_1, convolution_1, *shortcut = (
            self.children()
        )
        activated = activation_0(norm_0(x))
        hidden = activation_1(norm_1(convolution_0(activated)))
        residual = convolution_1(F.dropout(hidden, self.dropout, self.training))
        if shortcut:
            x = shortcut[0](activated if self.shortcut_activated else x)
        return x + residual


class PreActResNet(nn.Module):
    """A stem, stages of pre-activation blocks, normalisation, activation, pooling and a head.

    It normalises the images by constants of three colour channels, and by their mean for other
    numbers of channels. `depths` and `widths` are of the stages, of which all but the first halve
    the resolution."""

    channels_last = False

    def __init__(
        self,
        *,
        family: str,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        stem_width: int,
        n_classes: int,
        n_channels: int,
    ) -> None:
        super().__init__()
        self.family = names = FAMILIES[family]
        for key in ("mean", "std"):
            constants = torch.tensor(getattr(names, key))
            constants = constants if n_channels == 3 else constants.mean().expand(n_channels)
            self.register_buffer(key, constants.reshape(n_channels, 1, 1), persistent=False)
        self.add_module(names.stem, nn.Conv2d(n_channels, stem_width, 3, padding=1, bias=False))
        block_names: list[str] = []
        in_width = stem_width
        for stage, depth, width in zip(names.stages, depths, widths, strict=True):
            for i in range(depth):
                stride = 2 if block_names and i == 0 else 1
                block_names.append(f"{stage}.{i}")
                _place(self, block_names[-1], PreActBlock(names, in_width, width, stride=stride))
                in_width = width
        self.block_names = tuple(block_names)
        self.add_module(names.norm, nn.BatchNorm2d(in_width))
        self.relu = names.activation()
        self.add_module(names.head, nn.Linear(in_width, n_classes))
        if names.he_init:
            self.apply(init_convolution)
            nn.init.zeros_(self.get_submodule(names.head).bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.get_submodule(self.family.stem)((images - self.mean) / self.std)
        for name in (*self.block_names, self.family.norm, "relu"):
            x = self.get_submodule(name)(x)
        return self.get_submodule(self.family.head)(
            x.mean(dim=(2, 3))
        )  # (B, C, H, W) -> (B, C) -> (B, n_classes)


def _convolution(family: Family, in_width: int, width: int, size: int, stride: int) -> nn.Conv2d:
    if family.same_padding and size == 3 and stride == 2:
        return SamePaddedConv2d(in_width, width, size, stride=stride, bias=False)
    return nn.Conv2d(in_width, width, size, stride=stride, padding=size // 2, bias=False)


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` at the dotted `path` below `root`, and make the containers on the way."""
    *containers, name = path.split(".")
    for container in containers:
        if container not in dict(root.named_children()):
            root.add_module(container, nn.Module())
        root = root.get_submodule(container)
    root.add_module(name, module)
