"""A ResNet-18 of 16 channels, with blocks and names of `resnet18_samewidth`, and a plain network
that is trained."""

from collections.abc import Callable
from pathlib import Path

from torch import nn
from torchvision.models.resnet import BasicBlock

from src.models import Network

WIDTH = 16


class Computed(nn.Module):
    """A network of layers and other attributes by name, whose output is a function of it and of images."""

    def __init__(self, function: Callable, **attributes):
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *images):
        return self.function(self, *images)


def _stage(stride: int) -> nn.Sequential:
    shortcut = nn.Conv2d(WIDTH, WIDTH, 1, stride, bias=False), nn.BatchNorm2d(WIDTH)
    first = BasicBlock(WIDTH, WIDTH, stride, None if stride == 1 else nn.Sequential(*shortcut))
    return nn.Sequential(first, BasicBlock(WIDTH, WIDTH))


class _NarrowResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = map(_stage, (1, 2, 2, 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(WIDTH, 10)

    def forward(self, images):
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def narrow_resnet() -> Network:
    """Return a network for grey images, with weights drawn from torch's generator."""
    return Network(_NarrowResNet())


PLAIN = Path(__file__).parent / "data" / "models" / "plain.pt"  # see README_models.md beside it


def plain_network() -> Network:
    """Return a network for grey images of 8×8 with randomly initialised weights; PLAIN has those of one that reads
    the digits.

    A test of words or ranks loads them, so that nothing hangs on the rounding of a training run. Layer
    4 has 16 maps of 4×4, layer 7 has 24 of 2×2."""
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )
    return Network(module, image_shape=(1, 8, 8), n_classes=10)


def house() -> Network:
    """Return a network of grey images whose layers are `stem`, `body` and `attic`, in this
    order."""

    def forward(net, images):
        return net.head(net.attic(net.body(net.stem(images).relu()).relu()).mean((2, 3)))

    layers = {"attic": nn.Conv2d(8, 8, 1), "body": nn.Conv2d(8, 8, 3, padding=1)}
    layers |= {"stem": nn.Conv2d(1, 8, 2, 2), "head": nn.Linear(8, 10)}
    return Network(Computed(forward, **layers), image_shape=(1, 8, 8), n_classes=10)
