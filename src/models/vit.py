"""Vision transformers (Dosovitskiy et al. 2021, arXiv 2010.11929) with the state-dict keys of timm.

Checkpoints of timm load.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.core.errors import UserError


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
    """Attention, then an MLP on the tokens, with residuals: (B, N, D) -> (B, N, D).

    A LayerNorm precedes attention and MLP (equations 2 and 3).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(width, 4 * width),
                act=nn.GELU(),
                fc2=nn.Linear(4 * width, width),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbedding(nn.Module):
    """A linear map of patches to tokens: images (B, C, H, W) -> (B, H/patch · W/patch, width)."""

    def __init__(self, n_channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(n_channels, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # (B, D, H', W') -> (B, H' W', D)


class Transformer(nn.Module):
    """Blocks, a LayerNorm and a head on the first token; a subclass embeds the input as tokens.

    Args:
        embedding: modules of the subclass, by name. They come first in the state dict.
        width: number of features of a token.
        depth: number of blocks.
        heads: number of attention heads.
    """

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
        """Return the tokens (B, N, width) of an input."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.blocks(self.embed(x)))
        return self.head(tokens[:, 0])  # (B, N, D) -> (B, n_classes)


class VisionTransformer(Transformer):
    """A ViT on images of one size: (B, C, H, W) -> logits (B, n_classes).

    A CLS token stands in front of the patches; positions are learned.

    Args:
        patch: side of a patch in pixels.
        image_size: side of the images, used where `image_shape` (C, H, W) is None.
        transformer: further arguments of `Transformer`.
    Raises:
        UserError: the images cannot be cut into patches.
    """

    patch_embed: PatchEmbedding
    pos_drop: nn.Identity

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
        if image_shape is None:
            image_shape = (n_channels, image_size, image_size)
        _, image_height, image_width = image_shape
        if image_height % patch or image_width % patch:
            raise UserError(
                f"images of {image_height}×{image_width} pixels cannot be cut into patches of "
                f"{patch}×{patch}; choose a network with other patches, or another data set"
            )
        n_tokens = 1 + (image_height // patch) * (image_width // patch)
        patch_embed = PatchEmbedding(n_channels, width, patch)
        # Drawn here and again below, as in timm: a seed then gives timm's weights
        pos_embed = nn.Parameter(torch.randn(1, n_tokens, width))
        embedding = {"patch_embed": patch_embed, "pos_drop": nn.Identity()}
        super().__init__(embedding, width=width, **transformer)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = pos_embed
        draw_normal(self.pos_embed)
        nn.init.normal_(self.cls_token, std=1e-6)
        self.apply(init_linear)

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, 1 + N, width) of images (B, C, H, W) with N patches.

        Raises:
            UserError: the network was built for another number of patches.
        """
        patches = self.patch_embed(images)  # (B, N, width)
        n_patches = patches.shape[1]
        n_expected = self.pos_embed.shape[1] - 1
        if n_patches != n_expected:
            raise UserError(
                f"the images give {n_patches} patches, this network was built for {n_expected}; "
                "build it with the image_shape of the data or resize the images"
            )
        cls_tokens = self.cls_token.expand(len(patches), -1, -1)  # (B, 1, width)
        tokens = torch.cat([cls_tokens, patches], dim=1)  # (B, 1 + N, width)
        return self.pos_drop(tokens + self.pos_embed)


def init_linear(module: nn.Module) -> None:
    """Draw the weights of a linear layer by `draw_normal`, and set its bias to 0.

    Modules of another kind stay.
    """
    if isinstance(module, nn.Linear):
        draw_normal(module.weight)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def draw_normal(weight: Tensor) -> None:
    """Fill a tensor from N(0, 0.02²), with the numbers that timm draws."""
    weight.uniform_(-1, 1).erfinv_().mul_(0.02 * math.sqrt(2))
    weight.clamp_(-2, 2)  # uniform_ may give -1, whose inverse is -inf
