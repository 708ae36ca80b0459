"""Small networks that each have one trap for cutting, as it was met in networks of others; `TRAPS`
lists them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(width: int = 6) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1)


class Base(nn.Module):
    """A stem, a head on means of maps (B, 6, 4, 4), and `middle` between them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.one, self.two = conv(), conv()
        self.norm, self.same, self.drop = nn.BatchNorm2d(6), nn.Identity(), nn.Dropout(0.3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 4)

    def forward(self, images):
        return self.head(self.middle(self.stem(images)).mean((2, 3)))

    def middle(self, x):
        return self.two(self.one(x))


class CalledTwice(Base):
    def middle(self, x):
        return self.two(self.one(self.relu(self.one(x))))


class SharedRelu(Base):
    def middle(self, x):
        return self.relu(self.norm(self.two(self.relu(self.one(x)))))


class InPlaceSum(Base):
    def middle(self, x):
        identity = x
        x = self.one(x)
        x += identity
        y = self.two(x)
        y.relu_()  # the result is not used, but y is
        return y


class InPlaceModule(Base):
    """Its input, which it changes, is read again: so is what is made of halves that share no
    memory."""

    def middle(self, x):
        x = x + self.one(self.relu(x))
        left, right = x.chunk(2, 1)
        x = torch.cat([self.relu(left), right], 1)
        return self.norm(x) + self.two(self.relu(x))


class CapturedView(Base):
    """Nothing reads the aliases later, but they may be asked for."""

    def middle(self, x):
        x = self.one(x)
        pooled = self.drop(x).mean((2, 3), keepdim=True)
        same = self.two(self.same(x))
        x = self.relu(input=x)
        return x + pooled + same


class InPlaceOnTheImages(Base):
    def forward(self, images):
        images -= 0.5
        return super().forward(images)


class Dropout(Base):
    def middle(self, x):
        return self.two(F.dropout(self.one(x), 0.5, self.training))


class DictOutput(Base):
    def forward(self, images):
        return {"features": self.same(images), "logits": super().forward(images)}


class Attention(nn.Module):
    """A tuple as a value, a transposed value, a parameter that is added, a buffer, and a layer that
    leads nowhere."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.position = nn.Parameter(torch.randn(1, 16, 8))
        self.register_buffer("scale", torch.rand(8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.transposed, self.nowhere, self.never = nn.Identity(), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        x = self.embed(images.flatten(2).transpose(1, 2)) + self.position
        x = x + self.attention(x, x, x, need_weights=False)[0] * self.scale
        self.nowhere(x)
        return F.log_softmax(self.head(self.transposed(x.transpose(0, 1)).mean(0)), -1)


class Patches(nn.Module):
    """Maps (H, W, C) behind an embedding (C, H, W), and two blocks of attention, as a rule behind a
    CLS token."""

    def __init__(
        self, n_classes: int = 4, n_channels: int = 3, width: int = 6, has_cls: bool = True
    ):
        super().__init__()
        self.embed, self.mix = nn.Conv2d(n_channels, width, 2, stride=2), nn.Linear(width, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width)) if has_cls else None
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(width, 2, 32, batch_first=True) for _ in range(2)]
        )
        self.features, self.head = nn.Linear(width, 16), nn.Linear(16, n_classes)

    def forward(self, images):
        x = self.mix(self.embed(images).permute(0, 2, 3, 1)).relu().flatten(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.features(x.mean(1) if self.cls is None else x[:, 0]).relu())


class InPlaceView(Base):
    def middle(self, x):
        y = self.one(x)
        y.flatten(1).add_(1)
        return self.two(y)


class ReadAlias(Base):
    def middle(self, x):
        x = self.one(x)
        shortcut = self.same(x)
        return self.two(self.relu(x)) + shortcut


class Branch(Base):
    """A branch that is computed in front of the layers that it goes around, and one that no
    gradient leaves."""

    def middle(self, x):
        shortcut = self.norm(x)
        x = self.two(self.relu(self.one(x))) + shortcut
        return x + shortcut.detach().mean((2, 3), keepdim=True)


class RandomBranch(Base):
    def middle(self, x):
        return self.two(self.one(x)) + x * torch.randn(6, 1, 1)


class Detached(Base):
    def forward(self, images):
        return super().forward(images) + images.detach().mean((1, 2, 3))[:, None]


class Silent(Base):
    def forward(self, images):
        return (
            super().forward(images) * 0 + images.flatten(1)[:, :4] * 0
        )  # as heads that start at zero


class Block(nn.Module):
    """A residual block of two maps, which returns a tuple."""

    def __init__(self, width: int):
        super().__init__()
        self.one, self.two = (
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x):
        return F.relu(x + self.two(F.relu(self.one(x)))), {"nothing": None}


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple


class Structured(nn.Module):
    """Blocks that return tuples, control flow on values, and a dataclass as output."""

    def __init__(self, n_classes: int = 10, n_channels: int = 3, width: int = 12):
        super().__init__()
        self.stem = nn.Conv2d(n_channels, width, 2, stride=2)
        self.blocks = nn.ModuleList([Block(width) for _ in range(3)])
        self.head = nn.Linear(width, n_classes)

    def forward(self, images):
        if not torch.isfinite(images).all():
            raise ValueError("images are not finite")
        features = [self.stem(images)]
        for block in self.blocks:
            features.append(block(features[-1])[0])
        return Output(None, self.head(features[-1].mean((2, 3))), tuple(features))


class Recurrent(nn.Module):
    """Layers that return tuples: attention, and an LSTM over the tokens, of which one gives two
    values."""

    def __init__(self, n_classes: int = 10, n_channels: int = 3, width: int = 16):
        super().__init__()
        self.embed = nn.Conv2d(n_channels, width, 2, stride=2)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.again = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, n_classes)

    def forward(self, images):
        x = self.embed(images if images.max() > 0 else images + 1).flatten(2).transpose(1, 2)
        x, _ = self.attention(x, x, x)
        x, _ = self.lstm(x)
        x, (last, _) = self.again(x)
        return self.head(x.mean(1) + last[0])


class Numpy(Structured):
    """NumPy between layers, through which no gradient goes."""

    def forward(self, images):
        scale = images.detach().cpu().numpy().mean((1, 2, 3), keepdims=True) + 1
        return super().forward(images / torch.from_numpy(scale).to(images))


class NumpyOfAll(Base):
    """NumPy on values that have gradients, which it refuses."""

    def middle(self, x):
        return self.two(self.one(x) * torch.from_numpy(x.cpu().numpy().clip(-1, 1)))


TRAPS = [
    Base, CalledTwice, SharedRelu, InPlaceSum, InPlaceModule, CapturedView, InPlaceOnTheImages, Dropout, DictOutput,
    Attention, InPlaceView, ReadAlias, Branch, RandomBranch, Detached, Silent, Structured, Recurrent, Numpy, NumpyOfAll,
]  # fmt: skip
