"""Networks that torch.fx cannot trace, or traces wrongly; each stands for what was met in networks of others."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block of two maps."""

    def __init__(self, width: int):
        super().__init__()
        self.one, self.two = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.two(F.relu(self.one(x))))


class Base(nn.Module):
    """A stem, blocks on maps (B, width, 4, 4), and a head on their mean."""

    block = Block

    def __init__(self, n_classes: int = 10, n_channels: int = 1, width: int = 12):
        super().__init__()
        self.stem = nn.Conv2d(n_channels, width, 2, stride=2)
        self.blocks = nn.ModuleList([self.block(width) for _ in range(3)])
        self.head = nn.Linear(width, n_classes)

    def features(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, images: Tensor):
        return self.head(self.features(images).mean((2, 3)))


class Values(Base):
    """Control flow on values."""

    def forward(self, images):
        if not torch.isfinite(images).all():
            raise ValueError("images are not finite")
        return super().forward(images)


class Shapes(Base):
    """Control flow on shapes, as in the checks of Hugging Face's networks."""

    def forward(self, images):
        if images.shape[1] != self.stem.in_channels:
            raise ValueError("make sure that the channels match")
        return super().forward(images)


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple


class Structured(Shapes):
    """Blocks that return tuples, and a dataclass as output."""

    class block(Block):  # noqa: N801
        def forward(self, x):
            return super().forward(x[0] if isinstance(x, tuple) else x), {"nothing": None}

    def features(self, images):
        return super().features(images)[0]

    def forward(self, images):
        features = self.features(images)
        return Output(None, super().forward(images), (features,))


class Recurrent(nn.Module):
    """Layers that return tuples: attention, and an LSTM over the tokens."""

    def __init__(self, n_classes: int = 10, n_channels: int = 1, width: int = 16):
        super().__init__()
        self.embed = nn.Conv2d(n_channels, width, 2, stride=2)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.again = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, n_classes)

    def forward(self, images):
        x = self.embed(images).flatten(2).transpose(1, 2)
        x, _ = self.attention(x, x, x)
        x, _ = self.lstm(x)
        x, (last, _) = self.again(x)
        return self.head(x.mean(1) + last[0])


class UntraceableRecurrent(Recurrent):
    """The same behind control flow."""

    def forward(self, images):
        return super().forward(images if images.max() > 0 else images + 1)


class Twice(Values):
    """A block that is called twice, also where it is not the last."""

    def features(self, images):
        x = self.blocks[0](self.stem(images))
        return self.blocks[2](self.blocks[1](self.blocks[0](x)))


class Views(Base):
    """A view that is changed in place."""

    def features(self, images):
        x = self.blocks[0](self.stem(images)) - 0.1
        x[:, ::2].mul_(0.5)
        return self.blocks[2](self.blocks[1](x))


class Numpy(Base):
    """NumPy between layers, through which no gradient goes."""

    def forward(self, images):
        scale = images.detach().cpu().numpy().mean((1, 2, 3), keepdims=True) + 1
        return super().forward(images / torch.from_numpy(scale).to(images))


KINDS = {
    "values": Values, "shapes": Shapes, "structured": Structured, "recurrent": UntraceableRecurrent, "twice": Twice,
    "views": Views, "numpy": Numpy,
}  # fmt: skip

values, shapes, structured, recurrent, twice, views, numpy = KINDS.values()
