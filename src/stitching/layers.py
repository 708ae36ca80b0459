"""Stitching layers: affine maps from the activation of one network to the shape of another's.

Their state dicts are those of the public code: `transform.weight`, `transform.bias`, and where there is one a
`cls_token` or `cls_token_weight`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.errors import UserError
from src.options import STITCHING_TYPES
from src.console import warn

Shape = Sequence[int]


def resize(maps: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Resize feature maps (B, C, H, W) to (B, C, *size), `bilinear` without aligned corners, or `nearest`."""
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=False if mode == "bilinear" else None)


class StitchingLayer(nn.Module):
    """Base: lay out the source, then map each position affinely.

    A subclass has an affine `transform` (a 1×1 convolution or a linear map); `layout` gives what it is applied
    to, and `targets` the part of a target activation that it is to meet position by position. With a `size`,
    the laid-out map is resized to it.
    """

    transform: nn.Conv2d | nn.Linear
    size: tuple[int, int] | None = None
    upsample_mode = "bilinear"

    def layout(self, source: Tensor) -> Tensor:
        """The source as a map (B, C, H, W) or as tokens (B, T, D), before any resizing."""
        return source

    def targets(self, target: Tensor) -> Tensor:
        """The part of the target activation whose positions are those of the laid-out, resized source."""
        return target

    def forward(self, source: Tensor) -> Tensor:
        """Map source activations (B, …) to the shape of target activations (B, …)."""
        return self.transform(self.layout(source))

    def set_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Take over an affine map: weight (C2, C1), bias (C2,)."""
        with torch.no_grad():
            self.transform.weight.copy_(weight.reshape(self.transform.weight.shape))
            self.transform.bias.copy_(bias)

    @torch.no_grad()
    def sparsity(self, threshold: float) -> float:
        """The share of weights and biases of the affine map whose magnitude is at most `threshold`."""
        values = torch.cat([self.transform.weight.flatten(), self.transform.bias])
        return (values.abs() <= threshold).double().mean().item()

    def l1_norm(self) -> Tensor:
        """The sum of the magnitudes of weights and biases of the affine map."""
        return self.transform.weight.abs().sum() + self.transform.bias.abs().sum()


class ConvToConv(StitchingLayer):
    """A 1×1 convolution between feature maps, which resizes where the sizes differ.

    Args:
        source: shape (C1, H1, W1).
        target: shape (C2, H2, W2).
        upsample_mode: `bilinear` or `nearest`.
    """

    def __init__(self, source: Shape, target: Shape, *, upsample_mode: str = "bilinear"):
        super().__init__()
        self.size = None if tuple(source[1:]) == tuple(target[1:]) else tuple(target[1:])
        self.upsample_mode = upsample_mode
        # Resizing weighs positions with weights that sum to 1, the convolution weighs channels: the two commute,
        # bias included, so the one that leaves less to do goes first.
        self.convolves_first = math.prod(target[1:]) > math.prod(source[1:])
        self.transform = nn.Conv2d(source[0], target[0], 1)

    def forward(self, source: Tensor) -> Tensor:
        maps = self.layout(source)
        if self.size is None:
            return self.transform(maps)
        if self.convolves_first:
            return resize(self.transform(maps), self.size, self.upsample_mode)
        return self.transform(resize(maps, self.size, self.upsample_mode))


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
        has_cls = math.isqrt(n_tokens) ** 2 != n_tokens
        side = math.isqrt(n_tokens - has_cls)
        super().__init__((width, side, side), target, upsample_mode=upsample_mode)
        self.side, self.has_cls = side, has_cls
        self.cls_use = cls_token if has_cls else None
        if cls_token == "add":
            self.cls_token_weight = nn.Parameter(torch.tensor([0.1]))

    def layout(self, source: Tensor) -> Tensor:
        cls, patches = source[:, :1], source[:, self.has_cls :]
        if self.cls_use == "add":
            patches = patches + self.cls_token_weight * cls
        elif self.cls_use == "only":
            patches = cls.expand_as(patches)
        return patches.transpose(1, 2).unflatten(2, (self.side, self.side))  # (B, D, side, side)


class TokensToTokens(StitchingLayer):
    """One linear map for all tokens: (B, T, D1) -> (B, T, D2)."""

    def __init__(self, source: Shape, target: Shape):
        super().__init__()
        self.transform = nn.Linear(source[1], target[1])


class ConvToTokens(StitchingLayer):
    """A 1×1 convolution whose positions become patch tokens: (B, C, H, W) -> (B, H·W, D), or one token more.

    Args:
        source: shape (C, H, W).
        target: shape (T, D).
        cls_token: the CLS token put in front: `pool` (the mean of the patch tokens), `learn` (a parameter) or
            None (there is none).
    """

    def __init__(self, source: Shape, target: Shape, *, cls_token: str | None = None):
        super().__init__()
        self.cls_use = cls_token
        self.transform = nn.Conv2d(source[0], target[1], 1)
        if cls_token == "learn":
            self.cls_token = nn.Parameter(torch.randn(1, 1, target[1]) * 1e-6)

    def targets(self, target: Tensor) -> Tensor:
        return target if self.cls_use is None else target[:, 1:]

    def forward(self, source: Tensor) -> Tensor:
        tokens = self.transform(source).flatten(2).transpose(1, 2)  # (B, H·W, D)
        if self.cls_use is None:
            return tokens
        cls = tokens.mean(1, keepdim=True) if self.cls_use == "pool" else self.cls_token.expand(len(tokens), -1, -1)
        return torch.cat([cls, tokens], dim=1)


def build_stitching_layer(
    kind: str,
    source: Shape,
    target: Shape,
    *,
    init: str = "rand",
    c2t_cls_token: str | None = None,
    t2c_cls_token: str | None = None,
    upsample_mode: str = "bilinear",
) -> StitchingLayer:
    """Build the stitching layer `kind` between activations of the given shapes.

    Args:
        kind: `rc2c_pre`, `rc2c_post` (the same function; see ConvToConv), `c2c` (equal sizes), `t2t`, `c2t`, `t2c`.
        source: shape of one front activation, (C, H, W) or (T, D).
        target: shape of one end activation.
        init: `eye` starts as the identity; `rand` (torch's default, drawn from the global generator) is also
            where `pinv` starts from before direct matching.
    Raises:
        UserError: the shapes do not fit the kind, or an identity is asked for where there is none.
    """
    _check_shapes(kind, source, target, c2t_cls_token)
    if kind == "t2t":
        layer = TokensToTokens(source, target)
    elif kind == "c2t":
        layer = ConvToTokens(source, target, cls_token=c2t_cls_token)
    elif kind == "t2c":
        layer = TokensToConv(source, target, cls_token=t2c_cls_token, upsample_mode=upsample_mode)
    else:
        layer = ConvToConv(source, target, upsample_mode=upsample_mode)
    if init == "eye":
        _set_identity(layer, kind)
    return layer


def _set_identity(layer: StitchingLayer, kind: str) -> None:
    width_out, width_in = layer.transform.weight.shape[:2]
    if kind in ("c2t", "t2c"):
        raise UserError(f"-i eye is not defined for {kind}, whose two sides differ in kind; use -i rand or -i pinv")
    if width_in != width_out:
        if kind != "t2t":
            raise UserError(f"-i eye needs equal widths, not {width_in} and {width_out} channels; use -i rand or pinv")
        warn(f"-i eye between widths {width_in} and {width_out}: a rectangular identity, the rest is cut off or zero")
    layer.set_affine(torch.eye(width_out, width_in), torch.zeros(width_out))


def _check_shapes(kind: str, source: Shape, target: Shape, c2t_cls_token: str | None) -> None:
    kinds = tuple({3: "conv", 2: "token"}.get(len(shape), "flat") for shape in (source, target))
    if kinds != STITCHING_TYPES[kind]:
        fitting = [name for name, wanted in STITCHING_TYPES.items() if wanted == kinds]
        remedy = f"use {' or '.join(fitting)}" if fitting else "choose layers with feature maps or tokens"
        raise UserError(
            f"{kind} stitches from a {STITCHING_TYPES[kind][0]} layer to a {STITCHING_TYPES[kind][1]} layer, "
            f"not from shape {_text(source)} to {_text(target)}; {remedy}"
        )
    if kind == "c2c" and tuple(source[1:]) != tuple(target[1:]):
        raise UserError(f"c2c needs maps of equal size, not {_text(source)} and {_text(target)}; use rc2c_pre")
    if kind == "t2t" and source[0] != target[0]:
        raise UserError(f"t2t needs equal token counts, not {source[0]} and {target[0]}; choose other networks")
    if kind == "c2t" and math.prod(source[1:]) + (c2t_cls_token is not None) != target[0]:
        n_patches = math.prod(source[1:])
        remedy = f"a front layer of {target[0]} positions, or of {target[0] - 1} with -c2t-cls pool or learn"
        remedy = "-c2t-cls pool or learn" if n_patches + 1 == target[0] else remedy
        made = f"{n_patches} patch tokens{'' if c2t_cls_token is None else ' and a CLS token'}"
        raise UserError(f"c2t makes {made} of {_text(source)}, but the end layer has {target[0]}; use {remedy}")
    if kind == "t2c" and all(math.isqrt(n) ** 2 != n for n in (source[0], source[0] - 1)):
        raise UserError(f"t2c needs patch tokens that form a square, not {source[0]} tokens; choose another one")


def _text(shape: Shape) -> str:
    return "×".join(map(str, shape))
