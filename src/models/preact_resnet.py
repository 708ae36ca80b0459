"""Pre-activation ResNets (He et al. 2016, arXiv 1603.05027): norms and activations come first.

The families `preact_resnet*`, `wide_resnet_*` (Zagoruyko & Komodakis 2016, arXiv 1605.07146) and
`liu2020_wrn` have one structure. They differ in details and, in the checkpoints of the public code,
in the names of modules.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.resnet import init_convolution


class Family(NamedTuple):
    """Names of the modules of a family, and its details.

    A dot in a name leads into a container.
    """

    stem: str
    stages: tuple[str, ...]
    # Norm, activation, convolution, norm, activation, convolution, shortcut
    block: tuple[str, ...]
    norm: str
    head: str
    activation: type[nn.Module]  # modules are named `relu…` even where this is SiLU
    # Kernel size of the shortcut where the shape changes. With 1, its input is activated.
    shortcut_size: int
    same_padding: bool  # pad strided convolutions as TensorFlow does
    mean: tuple[float, ...]  # of the training images, per channel
    std: tuple[float, ...]
    dropout: float = 0.0  # probability, between the convolutions of a block
    he_init: bool = False  # draw convolutions by He et al. 2015; the bias of the head is 0


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
    # From the paper on the energy score (Liu et al. 2020, arXiv 2010.03759), trained with 30 %
    # dropout.
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
    """A 3×3 convolution of stride 2 with the padding "SAME" of TensorFlow.

    At an odd size both sides are padded, at an even size only the end.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (width % 2, 1, height % 2, 1)))


class PreActBlock(nn.Module):
    """A residual block of two 3×3 convolutions: (B, C1, H, W) -> (B, C2, H/stride, W/stride).

    A norm and an activation precede each convolution. Where the shape changes, the shortcut is a
    convolution, elsewhere the identity.
    """

    def __init__(self, family: Family, in_width: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.dropout = family.dropout
        self.shortcut_is_activated = family.shortcut_size == 1
        convolution_0 = _convolution(family, in_width, width, 3, stride)
        convolution_1 = _convolution(family, width, width, 3, 1)
        modules = [nn.BatchNorm2d(in_width), family.activation(), convolution_0]
        modules += [nn.BatchNorm2d(width), family.activation(), convolution_1]
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
        if not shortcut:
            return x + residual
        if self.shortcut_is_activated:
            x = activated
        return shortcut[0](x) + residual


class PreActResNet(nn.Module):
    """A pre-activation ResNet: images (B, C, H, W) -> logits (B, n_classes).

    A stem, stages of blocks, norm, activation, pooling and a head. It normalises the images by
    constants of three colour channels; with another number of channels by the mean of the
    constants.

    Args:
        family: key of `FAMILIES`.
        depths: number of blocks in each stage.
        widths: number of channels in each stage. All stages but the first halve the resolution.
        stem_width: number of channels in front of the first stage.
    """

    channels_last = False
    mean: Tensor  # (C, 1, 1)
    std: Tensor  # (C, 1, 1)

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
        self.family = FAMILIES[family]

        # Constants of the images
        for key in ("mean", "std"):
            constants = torch.tensor(getattr(self.family, key))
            if n_channels != 3:
                constants = constants.mean().expand(n_channels)
            self.register_buffer(key, constants.reshape(n_channels, 1, 1), persistent=False)

        # Stem and stages
        stem = nn.Conv2d(n_channels, stem_width, 3, padding=1, bias=False)
        self.add_module(self.family.stem, stem)
        block_names: list[str] = []
        in_width = stem_width
        for stage, depth, width in zip(self.family.stages, depths, widths, strict=True):
            for i in range(depth):
                is_strided = i == 0 and len(block_names) > 0
                name = f"{stage}.{i}"
                stride = 2 if is_strided else 1
                block = PreActBlock(self.family, in_width, width, stride=stride)
                _add_at(self, name, block)
                block_names.append(name)
                in_width = width
        self.block_names = tuple(block_names)

        # Head
        self.add_module(self.family.norm, nn.BatchNorm2d(in_width))
        self.relu = self.family.activation()
        head = nn.Linear(in_width, n_classes)
        self.add_module(self.family.head, head)
        if self.family.he_init:
            self.apply(init_convolution)
            nn.init.zeros_(head.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        for name in (self.family.stem, *self.block_names, self.family.norm, "relu"):
            x = self.get_submodule(name)(x)
        features = x.mean(dim=(2, 3))  # (B, C, H, W) -> (B, C)
        return self.get_submodule(self.family.head)(features)


def _convolution(family: Family, in_width: int, width: int, size: int, stride: int) -> nn.Conv2d:
    """Return a convolution that keeps the resolution, or halves it with stride 2."""
    if family.same_padding and size == 3 and stride == 2:
        return SamePaddedConv2d(in_width, width, size, stride=stride, bias=False)
    return nn.Conv2d(in_width, width, size, stride=stride, padding=size // 2, bias=False)


def _add_at(root: nn.Module, path: str, module: nn.Module) -> None:
    """Add a module below `root` at a dotted path; make the containers on the way."""
    *containers, name = path.split(".")
    parent = root
    for container in containers:
        if container not in dict(parent.named_children()):
            parent.add_module(container, nn.Module())
        parent = parent.get_submodule(container)
    parent.add_module(name, module)
