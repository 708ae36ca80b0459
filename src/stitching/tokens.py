"""Stitching layers from or to tokens (B, T, D), of which a CLS token may be the first."""

import math

import torch
from torch import Tensor, nn

from src.models.heads import has_cls_token
from src.stitching.affine import ConvToConv, Shape, StitchingLayer, resize


class TokensToConv(ConvToConv):
    """Patch tokens laid out as a square map, then as between maps: (B, T, D) -> (B, C, H, W).

    Args:
        source: shape (T, D); there is a CLS token in front unless T is a square.
        target: shape (C, H, W).
        cls_token: what becomes of the CLS token: dropped (`drop` or None), added to each patch token with a
            learned weight (`add`), or put in the place of all of them (`only`).
        upsample_mode: as in ConvToConv.
    """

    def __init__(self, source: Shape, target: Shape, *, cls_token: str | None = None, upsample_mode: str = "bilinear"):
        n_tokens, width = source
        side = _side(n_tokens)
        super().__init__((width, side, side), target, upsample_mode=upsample_mode)
        self.side, self.has_cls = side, has_cls_token(n_tokens)
        self.used_cls = cls_token if self.has_cls else None
        if cls_token == "add":
            self.cls_token_weight = nn.Parameter(torch.tensor([0.1]))

    def layout(self, source: Tensor) -> Tensor:
        return _as_map(source, self)


class TokensToTokens(StitchingLayer):
    """One linear map for all tokens: (B, T, D1) -> (B, T, D2), or without tokens: (B, D1) -> (B, D2)."""

    def __init__(self, source: Shape, target: Shape):
        super().__init__()
        self.transform = nn.Linear(source[-1], target[-1])


class ResizedTokens(TokensToTokens):
    """One linear map for all tokens of a grid that is resized first: (B, T1, D1) -> (B, T2, D2).

    A CLS token on both sides is mapped like the others. One of the source alone is used as in TokensToConv, one of
    the target alone is made as in ConvToTokens.

    Args:
        source, target: shapes (T, D); there is a CLS token in front unless T is a square.
        made_cls, used_cls: what is done about a CLS token of the target or of the source alone.
        upsample_mode: as in ConvToConv.
    """

    def __init__(self, source: Shape, target: Shape, *, made_cls: str | None, used_cls: str | None, upsample_mode: str):
        super().__init__(source, target)
        has_cls = [has_cls_token(shape[0]) for shape in (source, target)]
        self.side, self.has_cls = _side(source[0]), has_cls[0]
        self.grid, self.upsample_mode = (_side(target[0]),) * 2, upsample_mode
        self.keeps_cls = all(has_cls)
        self.source_key = (self.grid, self.keeps_cls)
        self.cls_use = made_cls if has_cls == [False, True] else None
        self.target_key = (self.cls_use is not None,)
        if self.cls_use == "learn":
            self.cls_token = nn.Parameter(torch.randn(1, 1, target[1]) * 1e-6)
        self.used_cls = used_cls if has_cls == [True, False] else None
        if self.used_cls == "add":
            self.cls_token_weight = nn.Parameter(torch.tensor([0.1]))

    def layout(self, source: Tensor) -> Tensor:
        tokens = resize(_as_map(source, self), self.grid, self.upsample_mode).flatten(2).transpose(1, 2)  # (B, T2, D1)
        return torch.cat([source[:, :1], tokens], dim=1) if self.keeps_cls else tokens

    def targets(self, target: Tensor) -> Tensor:
        return target if self.cls_use is None else target[:, 1:]

    def forward(self, source: Tensor) -> Tensor:
        return _with_cls(self.transform(self.layout(source)), self)


class ConvToTokens(ConvToConv):
    """A 1×1 convolution whose positions become patch tokens: (B, C, H, W) -> (B, T, D); maps are resized to the grid.

    Args:
        source: shape (C, H, W).
        target: shape (T, D).
        cls_token: the CLS token put in front: `pool` (the mean of the patch tokens), `learn` (a parameter) or
            None (there is none).
        upsample_mode: as in ConvToConv.
    """

    def __init__(self, source: Shape, target: Shape, *, cls_token: str | None = None, upsample_mode: str = "bilinear"):
        n_patches = target[0] - (cls_token is not None)
        grid = tuple(source[1:]) if math.prod(source[1:]) == n_patches else (math.isqrt(n_patches),) * 2
        super().__init__(source, (target[1], *grid), upsample_mode=upsample_mode)
        self.grid, self.cls_use = grid, cls_token
        self.target_key = (grid, cls_token is not None)
        if cls_token == "learn":
            self.cls_token = nn.Parameter(torch.randn(1, 1, target[1]) * 1e-6)

    def targets(self, target: Tensor) -> Tensor:
        patches = target if self.cls_use is None else target[:, 1:]
        return patches.transpose(1, 2).unflatten(2, self.grid)  # (B, D, H, W)

    def forward(self, source: Tensor) -> Tensor:
        return _with_cls(super().forward(source).flatten(2).transpose(1, 2), self)  # (B, H·W, D)


def _side(n_tokens: int) -> int:
    return math.isqrt(n_tokens - has_cls_token(n_tokens))


def is_grid(n_tokens: int) -> bool:
    """Return whether tokens form a square, a CLS token left out."""
    return _side(n_tokens) ** 2 == n_tokens - has_cls_token(n_tokens) and n_tokens > 0


def _as_map(tokens: Tensor, layer: TokensToConv | ResizedTokens) -> Tensor:
    """Patch tokens (B, T, D) as a map (B, D, side, side), with the CLS token used as the layer says."""
    cls, patches = tokens[:, :1], tokens[:, layer.has_cls :]
    if layer.used_cls == "add":
        patches = patches + layer.cls_token_weight * cls
    elif layer.used_cls == "only":
        patches = cls.expand_as(patches)
    return patches.transpose(1, 2).unflatten(2, (layer.side, layer.side))


def _with_cls(tokens: Tensor, layer: ConvToTokens | ResizedTokens) -> Tensor:
    """Put the CLS token in front that a layer makes, if it makes one."""
    if layer.cls_use is None:
        return tokens
    cls = tokens.mean(1, keepdim=True) if layer.cls_use == "pool" else layer.cls_token.expand(len(tokens), -1, -1)
    return torch.cat([cls, tokens], dim=1)
