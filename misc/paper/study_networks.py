"""Networks of the study on training against attacks (misc/docs/study.md), which load the published
checkpoints.

All take images in [0, 1] and normalise them as they were trained. Sources: Csiszárik et al. 2021 (`tiny10`),
akamaster/pytorch_resnet_cifar10 (`resnet20` to `resnet56`), and the models of α,β-CROWN (the others)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

Channels = tuple[float, float, float]
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
RESNET_WIDTHS = (16, 16, 32, 64)  # of the first convolution and the three stages


class Normalise(nn.Module):
    """Normalises images; the constants are in no checkpoint."""

    def __init__(self, mean: Channels, std: Channels):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Tiny10(nn.Module):
    """Eight convolutions with batch normalisation, the mean over positions, and a linear layer."""

    WIDTHS = (3, 16, 16, 32, 32, 32, 64, 64, 64)
    STRIDES = (1, 1, 2, 1, 1, 2, 1, 1)
    KERNELS = (3, 3, 3, 3, 3, 3, 3, 1)

    def __init__(self, n_classes: int):
        super().__init__()
        self.normalise = Normalise(CIFAR_MEAN, (0.2023, 0.1994, 0.2010))
        for i, (n_in, n_out) in enumerate(pairwise(self.WIDTHS)):
            convolution = nn.Conv2d(n_in, n_out, self.KERNELS[i], self.STRIDES[i])
            self.add_module(f"conv{i + 1}", convolution)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(n_out))
            self.add_module(f"relu{i + 1}", nn.ReLU())
        self.fc = nn.Linear(self.WIDTHS[-1], n_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalise(images)
        for i in range(1, len(self.WIDTHS)):
            for kind in ("conv", "bn", "relu"):
                x = self.get_submodule(f"{kind}{i}")(x)
        return self.fc(x.mean((-2, -1)))


class NormalisedBlock(nn.Module):
    """A residual block; its shortcut takes every second position and pads channels with zeros."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride = stride
        self.n_padded = (n_out - n_in) // 2  # channels on each side

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, self.n_padded, self.n_padded))
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + shortcut)


class CifarResNet(nn.Module):
    """A ResNet for CIFAR-10 (He et al. 2016) with three stages of equally many blocks."""

    def __init__(self, n_blocks: int, n_classes: int):
        super().__init__()
        self.normalise = Normalise(IMAGENET_MEAN, (0.229, 0.224, 0.225))
        self.conv1 = nn.Conv2d(3, RESNET_WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(RESNET_WIDTHS[0])
        for i, (n_in, n_out) in enumerate(pairwise(RESNET_WIDTHS), start=1):
            blocks = [NormalisedBlock(n_in, n_out, stride=1 if i == 1 else 2)]
            blocks += [NormalisedBlock(n_out, n_out, stride=1) for _ in range(n_blocks - 1)]
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(RESNET_WIDTHS[-1], n_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(self.normalise(images))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((-2, -1)))


class Plain(nn.Module):
    """Two convolutions of kernel 4 and stride 2, then linear layers; ReLU between all."""

    def __init__(
        self,
        channels: Sequence[int],
        widths: Sequence[int],
        n_classes: int,
        normalise: Normalise,
        *,
        padding: int,
    ):
        super().__init__()
        self.normalise = normalise
        size = 32
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((3, *channels)):
            layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=padding), nn.ReLU()]
            size = (size + 2 * padding - 4) // 2 + 1
        layers.append(nn.Flatten())
        for n_in, n_out in pairwise((channels[-1] * size**2, *widths)):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], n_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(self.normalise(images))


class Block(nn.Module):
    """A residual block without normalisation; the shortcut is a convolution where the stride is 2."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(n_in, n_out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(functional.relu(self.conv1(x)))
        return functional.relu(inner + self.shortcut(x))


class ResNet2B(nn.Module):
    """A convolution, two residual blocks and two linear layers."""

    block_names = ("relu1", "layer1.0", "layer1.1", "relu2")

    def __init__(self, n_classes: int):
        super().__init__()
        self.normalise = Normalise(CIFAR_MEAN, (0.2471, 0.2435, 0.2616))
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.relu1 = nn.ReLU()
        self.layer1 = nn.Sequential(Block(8, 16, stride=2), Block(16, 16, stride=1))
        self.linear1 = nn.Linear(16 * 8 * 8, 100)
        self.relu2 = nn.ReLU()
        self.linear2 = nn.Linear(100, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer1(self.relu1(self.conv1(self.normalise(images))))
        return self.linear2(self.relu2(self.linear1(x.flatten(1))))


def tiny10(n_classes: int) -> nn.Module:
    return Tiny10(n_classes)


def resnet20(n_classes: int) -> nn.Module:
    return CifarResNet(3, n_classes)


def resnet32(n_classes: int) -> nn.Module:
    return CifarResNet(5, n_classes)


def resnet44(n_classes: int) -> nn.Module:
    return CifarResNet(7, n_classes)


def resnet56(n_classes: int) -> nn.Module:
    return CifarResNet(9, n_classes)


def cnn_a(n_classes: int) -> nn.Module:
    normalise = Normalise(CIFAR_MEAN, (0.2471, 0.2435, 0.2616))
    return Plain((16, 32), (100,), n_classes, normalise, padding=1)


def wide(n_classes: int) -> nn.Module:
    normalise = Normalise(IMAGENET_MEAN, (0.225, 0.225, 0.225))
    return Plain((16, 32), (100,), n_classes, normalise, padding=1)


def base(n_classes: int) -> nn.Module:
    normalise = Normalise(IMAGENET_MEAN, (0.225, 0.225, 0.225))
    return Plain((8, 16), (100,), n_classes, normalise, padding=1)


def pgd(n_classes: int) -> nn.Module:
    normalise = Normalise(CIFAR_MEAN, (0.2023, 0.1994, 0.2010))
    return Plain((16, 32), (100,), n_classes, normalise, padding=0)


def marabou_small(n_classes: int) -> nn.Module:
    normalise = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Plain((8, 16), (128, 64), n_classes, normalise, padding=0)


def marabou_medium(n_classes: int) -> nn.Module:
    normalise = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Plain((16, 32), (128, 64), n_classes, normalise, padding=0)


def resnet2b(n_classes: int) -> nn.Module:
    return ResNet2B(n_classes)
