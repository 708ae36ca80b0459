"""ResNets, ResNeXts and wide ResNets (He et al. 2016, arXiv 1512.03385) of torchvision's blocks."""

from torch import Tensor, nn

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNet(nn.Module):
    """A ResNet with torchvision's state-dict keys: images (B, C, H, W) -> logits (B, n_classes).

    Checkpoints of torchvision load with `imagenet_stem`.

    Args:
        block: "BasicBlock" or "Bottleneck".
        depths: number of blocks in each of the four stages.
        groups: groups of the 3×3 convolutions in a Bottleneck (ResNeXt: Xie et al. 2017).
        base_width: width of these convolutions per 64 channels (Wide ResNet: Zagoruyko & Komodakis
            2016).
        same_width: give all stages 64 channels instead of 64, 128, 256, 512.
        same_size: keep the resolution of the stem in all stages instead of halving it.
        imagenet_stem: use a 7×7 convolution with stride 2 and pooling instead of CIFAR's 3×3 with
            stride 1.
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
        from torchvision.models import resnet  # loads as long as torch does

        # Stem
        if imagenet_stem:
            self.conv1 = nn.Conv2d(n_channels, 64, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(n_channels, 64, 3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.Identity()
        if imagenet_stem:
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        # Stages
        block_class = getattr(resnet, block)
        block_names = []
        in_width = 64
        for i, (stage, depth) in enumerate(zip(STAGES, depths, strict=True)):
            planes = 64
            if not same_width:
                planes = 64 * 2**i
            is_strided = i > 0 and not same_size
            stride = 2 if is_strided else 1
            width = planes * block_class.expansion
            shortcut = None
            if stride != 1 or in_width != width:
                convolution = nn.Conv2d(in_width, width, 1, stride=stride, bias=False)
                shortcut = nn.Sequential(convolution, nn.BatchNorm2d(width))
            blocks = [block_class(in_width, planes, stride, shortcut, groups, base_width)]
            for _ in range(depth - 1):
                blocks.append(block_class(width, planes, 1, None, groups, base_width))
            self.add_module(stage, nn.Sequential(*blocks))
            block_names += [f"{stage}.{index}" for index in range(depth)]
            in_width = width
        self.block_names = tuple(block_names)

        # Head
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_width, n_classes)
        self.apply(init_convolution)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in STAGES:
            x = self.get_submodule(stage)(x)
        return self.fc(self.avgpool(x).flatten(1))  # (B, C, 1, 1) -> (B, n_classes)


def init_convolution(module: nn.Module) -> None:
    """Draw the weights of a convolution by He et al. 2015 (arXiv 1502.01852), with fan-out."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
