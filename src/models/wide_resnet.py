"""Wide ResNets (Zagoruyko & Komodakis 2016, arXiv 1605.07146): few layers, many channels."""

from torch import nn

from src.models.preact_resnet import Names, PreActResNet

WIDE_NAMES = Names(
    stem="init_conv",
    stages=("layer.0.block", "layer.1.block", "layer.2.block"),
    block=("batchnorm_0", "relu_0", "conv_0", "batchnorm_1", "relu_1", "conv_1", "shortcut"),
    norm="batchnorm",
    head="logits",
)
LIU2020_NAMES = Names(
    stem="conv1",
    stages=("block1.layer", "block2.layer", "block3.layer"),
    block=("bn1", "relu1", "conv1", "bn2", "relu2", "conv2", "convShortcut"),
    norm="bn1",
    head="fc",
)
LIU2020_MEAN, LIU2020_STD = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)


def wide_resnet(*, depth: int, widening: int, n_classes: int, n_channels: int) -> PreActResNet:
    """WRN-`depth`-`widening` as in Gowal et al. 2020 (arXiv 2010.03593), with TensorFlow's padding."""
    return PreActResNet(
        WIDE_NAMES, **_shape(depth, widening), n_classes=n_classes, n_channels=n_channels
    )


def liu2020_wrn(*, depth: int, widening: int, n_classes: int, n_channels: int) -> PreActResNet:
    """WRN-40-2 of the energy score's paper (Liu et al. 2020, arXiv 2010.03759), which trains it with 30 % dropout."""
    network = PreActResNet(
        LIU2020_NAMES, **_shape(depth, widening), strided_convolution=nn.Conv2d, dropout=0.3, mean=LIU2020_MEAN,
        std=LIU2020_STD, n_classes=n_classes, n_channels=n_channels,
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(network.fc.bias)
    return network


def _shape(depth: int, widening: int) -> dict:
    """Three stages of two-convolution blocks; `depth` also counts the stem, the head and two shortcuts."""
    return {
        "depths": ((depth - 4) // 6,) * 3,
        "widths": (16 * widening, 32 * widening, 64 * widening),
        "stem_width": 16,
        "shortcut_size": 1,
    }
