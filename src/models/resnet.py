"""ResNets, ResNeXts and wide ResNets (He et al. 2016, arXiv 1512.03385), built of torchvision's
blocks."""

from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNet(nn.Module):
    """A ResNet with torchvision's state-dict keys; torchvision's checkpoints load where the stem is
    the same.

    Args:
        block: "BasicBlock" or "Bottleneck".
        depths: the number of blocks in each of the four stages.
        groups: groups of the 3×3 convolutions in a Bottleneck (ResNeXt: Xie et al. 2017).
        base_width: width of these convolutions per 64 channels (Wide ResNet: Zagoruyko & Komodakis 2016).
        same_width: give all stages 64 channels instead of 64, 128, 256, 512.
        same_size: keep the resolution of the stem in all stages instead of halving it.
        imagenet_stem: use a 7×7 convolution with stride 2 and pooling instead of CIFAR's 3×3 with stride 1.
    """

    channels_last = False

    def __init__(
        self,
        *,
        block: str,
        depths: tuple[int, ...],
        n_classes: int,
        n_channels: int,
        groups: int = 1,
        base_width: int = 64,
        same_width: bool = False,
        same_size: bool = False,
        imagenet_stem: bool = False,
    ) -> None:
        super().__init__()
        block_class = getattr(torchvision_resnet, block)
        size, stride = (7, 2) if imagenet_stem else (3, 1)
        self.conv1 = nn.Conv2d(n_channels, 64, size, stride=stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet_stem else nn.Identity()
        in_width = 64
        for i, (stage, depth) in enumerate(zip(STAGES, depths, strict=True)):
            planes = 64 if same_width else 64 * 2**i
            stride = 1 if i == 0 or same_size else 2
            width, shortcut = planes * block_class.expansion, None
            if stride != 1 or in_width != width:
                convolution = nn.Conv2d(in_width, width, 1, stride=stride, bias=False)
                shortcut = nn.Sequential(convolution, nn.BatchNorm2d(width))
            blocks = [block_class(in_width, planes, stride, shortcut, groups, base_width)]
            blocks += [
                block_class(width, planes, 1, None, groups, base_width) for _ in range(depth - 1)
            ]
            self.add_module(stage, nn.Sequential(*blocks))
            in_width = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_width, n_classes)
        self.block_names = tuple(
            f"{stage}.{i}" for stage in STAGES for i in range(len(self.get_submodule(stage)))
        )
        self.apply(init_convolution)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))  # (B, C, 1, 1) -> (B, n_classes)


def init_convolution(module: nn.Module) -> None:
    """Draw a convolution's weights as in He et al. 2015 (arXiv 1502.01852), by fan-out; skip other
    modules."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
