"""Wide ResNets (Zagoruyko & Komodakis 2016, arXiv 1605.07146)."""

from torch import nn

from src.models.preact_resnet import PREACT, Family, PreActResNet
from src.models.resnet import init_convolution

# Gowal et al. 2020 (arXiv 2010.03593), like the pre-activation ResNets.
WIDE = PREACT._replace(
    stem="init_conv",
    stages=("layer.0.block", "layer.1.block", "layer.2.block"),
    block=("batchnorm_0", "relu_0", "conv_0", "batchnorm_1", "relu_1", "conv_1", "shortcut"),
    shortcut_size=1,
    shortcut_activated=True,
)

# The network of the energy score's paper (Liu et al. 2020, arXiv 2010.03759), which trains it with 30 % dropout.
LIU2020 = Family(
    stem="conv1",
    stages=("block1.layer", "block2.layer", "block3.layer"),
    block=("bn1", "relu1", "conv1", "bn2", "relu2", "conv2", "convShortcut"),
    norm="bn1",
    head="fc",
    activation=nn.ReLU,
    shortcut_size=1,
    shortcut_activated=True,
    same_padding=False,
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
    dropout=0.3,
)


def wide_resnet(*, depth: int, widening: int, n_classes: int, n_channels: int) -> PreActResNet:
    """Build WRN-`depth`-`widening` with torch's default initialisation."""
    return _wide(WIDE, depth, widening, n_classes=n_classes, n_channels=n_channels)


def liu2020_wrn(*, depth: int, widening: int, n_classes: int, n_channels: int) -> PreActResNet:
    """Build WRN-`depth`-`widening` with dropout and the initialisation of He et al. 2015."""
    network = _wide(LIU2020, depth, widening, n_classes=n_classes, n_channels=n_channels)
    network.apply(init_convolution)
    nn.init.zeros_(network.fc.bias)
    return network


def _wide(family: Family, depth: int, widening: int, **sizes: int) -> PreActResNet:
    """Build three stages of (depth - 4) / 6 blocks with two convolutions each."""
    depths = ((depth - 4) // 6,) * 3
    widths = (16 * widening, 32 * widening, 64 * widening)
    return PreActResNet(family, depths=depths, widths=widths, stem_width=16, **sizes)
