"""Vision transformers (Dosovitskiy et al. 2021, arXiv 2010.11929) with timm's keys, so that its
checkpoints load."""

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.errors import UserError


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, equation 1): (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # (B, N, 3 D) -> (B, N, 3, heads, D / heads) -> three of (B, heads, N, D / heads)
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (B, heads, N, D / heads) -> (B, N, D)


class Block(nn.Module):
    """Attention and an MLP on each token, each behind a LayerNorm and around a residual (equations
    2 and 3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        mlp = {
            "fc1": nn.Linear(width, 4 * width),
            "act": nn.GELU(),
            "fc2": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(mlp))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbedding(nn.Module):
    """A linear map of each patch to a token: images (B, C, H, W) -> (B, H/patch · W/patch,
    width)."""

    def __init__(self, n_channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(n_channels, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # (B, D, H', W') -> (B, H' W', D)


class Transformer(nn.Module):
    """Blocks, a LayerNorm and a head that reads the first token; a subclass embeds the input by
    modules `embedding`."""

    def __init__(
        self,
        embedding: Mapping[str, nn.Module],
        *,
        width: int,
        depth: int,
        heads: int,
        n_classes: int,
    ) -> None:
        super().__init__()
        for name, module in embedding.items():
            self.add_module(name, module)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, n_classes)
        self.block_names = tuple(f"blocks.{i}" for i in range(depth))

    def embed(self, x: Tensor) -> Tensor:
        """Map the input to the tokens (B, N, width) of the first block."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.blocks(self.embed(x)))
        return self.head(tokens[:, 0])  # (B, N, D) -> (B, n_classes)


class VisionTransformer(Transformer):
    """A ViT on images of one size: patches, a CLS token in front of them and learned positions.

    Args:
        patch: side of a patch in pixels.
        image_size: side of the images, used where `image_shape` (C, H, W) is None.
    """

    def __init__(
        self,
        *,
        patch: int,
        image_size: int,
        n_channels: int,
        image_shape: tuple[int, int, int] | None = None,
        width: int,
        **transformer: int,
    ) -> None:
        height, breadth = (image_size, image_size) if image_shape is None else image_shape[1:]
        if height % patch or breadth % patch:
            raise UserError(
                f"images of {height}×{breadth} pixels cannot be cut into patches of {patch}×{patch}; "
                "choose a network with smaller patches or a dataset of other images"
            )
        n_tokens = 1 + (height // patch) * (breadth // patch)
        patch_embed = PatchEmbedding(n_channels, width, patch)
        # Drawn here and again below, as in timm: a seed then gives timm's weights.
        pos_embed = nn.Parameter(torch.randn(1, n_tokens, width))
        super().__init__(
            {"patch_embed": patch_embed, "pos_drop": nn.Identity()}, width=width, **transformer
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = pos_embed
        draw_normal(self.pos_embed)
        nn.init.normal_(self.cls_token, std=1e-6)
        self.apply(init_linear)

    def embed(self, images: Tensor) -> Tensor:
        patches, n_expected = self.patch_embed(images), self.pos_embed.shape[1] - 1
        if patches.shape[1] != n_expected:
            raise UserError(
                f"the images give {patches.shape[1]} patches, this network was built for {n_expected}; "
                "build it with the image_shape of the data or resize the images"
            )
        tokens = torch.cat(
            [self.cls_token.expand(len(patches), -1, -1), patches], dim=1
        )  # (B, 1 + N, D)
        return self.pos_drop(tokens + self.pos_embed)


def init_linear(module: nn.Module) -> None:
    """Draw the weights of a linear layer from a normal distribution and set its bias to 0; skip
    other modules."""
    if isinstance(module, nn.Linear):
        draw_normal(module.weight)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def draw_normal(weight: Tensor) -> None:
    """Fill `weight` from N(0, 0.02²) by the inverse of the normal distribution function, as timm
    does."""
    weight.uniform_(-1, 1).erfinv_().mul_(0.02 * math.sqrt(2))
    weight.clamp_(-2, 2)  # uniform_ may give -1, whose inverse is -inf; timm clamps it to -2, too
