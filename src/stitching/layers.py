"""Stitching layers: affine maps from the activation of one network to the shape of another's.

Their state dicts are those of the public code: `transform.weight`, `transform.bias`, and where there is one a
`cls_token` or `cls_token_weight`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.choices import STITCHING_TYPES
from src.console import warn
from src.errors import UserError
from src.models.heads import has_cls_token

Shape = Sequence[int]
THRESHOLDS = ("0", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1")  # of sparsity


def resize(maps: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Resize feature maps (B, C, H, W) to (B, C, *size), `bilinear` without aligned corners, or `nearest`."""
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=False if mode == "bilinear" else None)


class StitchingLayer(nn.Module):
    """Lays out the source as a map or as tokens, resizes a map, and maps each position affinely.

    Patch tokens are laid out as a square map where the target is a map, or has another number of them; then they are
    resized and become tokens again. Two vectors, or tokens of equal number, are mapped as they are.

    Args:
        source, target: shapes (C, H, W), (T, D) or (D,); T tokens have a CLS token in front unless T is a square.
        made_cls: the CLS token that is put in front of tokens: `pool` (their mean), `learn` (a parameter) or None.
            Between tokens it is made where the target alone has one.
        used_cls: what becomes of a CLS token of the source alone: dropped (`drop` or None), added to each patch token
            with a learned weight (`add`), or put in the place of all of them (`only`). One on both sides is mapped
            like the others.
        upsample_mode: `bilinear` or `nearest`.
    """

    def __init__(
        self,
        source: Shape,
        target: Shape,
        *,
        made_cls: str | None = None,
        used_cls: str | None = None,
        upsample_mode: str = "bilinear",
    ):
        super().__init__()
        self.upsample_mode = upsample_mode
        self.side: int | None = None  # of the map that patch tokens are laid out as
        self.size: tuple[int, int] | None = None  # that the laid-out map is resized to; None leaves it as it is
        self.grid: tuple[int, int] | None = None  # of the tokens that a map becomes
        from_tokens, to_tokens = len(source) < 3, len(target) < 3
        has_cls = [len(shape) == 2 and has_cls_token(shape[0]) for shape in (source, target)]
        self.has_cls, self.keeps_cls = has_cls[0], all(has_cls)
        if from_tokens and to_tokens:
            made_cls = made_cls if has_cls == [False, True] else None
            used_cls = used_cls if has_cls == [True, False] else None
            self.transform = nn.Linear(source[-1], target[-1])
            if source[:-1] != target[:-1]:
                self.side, self.grid = _side(source[0]), (_side(target[0]),) * 2
        else:
            self.side = _side(source[0]) if from_tokens else None
            size_in = (self.side, self.side) if from_tokens else tuple(source[1:])
            if to_tokens:
                n_patches = target[0] - (made_cls is not None)
                self.grid = size_in if math.prod(size_in) == n_patches else (math.isqrt(n_patches),) * 2
            size_out = self.grid if to_tokens else tuple(target[1:])
            self.size = None if size_in == size_out else size_out
            # Resizing weighs positions with weights that sum to 1, the convolution weighs channels: the two commute,
            # bias included, so the one that leaves less to do goes first.
            self.convolves_first = math.prod(size_out) > math.prod(size_in)
            self.transform = nn.Conv2d(source[1] if from_tokens else source[0], target[-1 if to_tokens else 0], 1)
        self.made_cls = made_cls if to_tokens else None
        self.used_cls = used_cls if self.has_cls else None
        if self.made_cls == "learn":
            self.cls_token = nn.Parameter(torch.randn(1, 1, target[1]) * 1e-6)
        if from_tokens and used_cls == "add":
            self.cls_token_weight = nn.Parameter(torch.tensor([0.1]))

    def layout(self, source: Tensor) -> Tensor:
        """Return the source as a map (B, C, H, W), which is to be resized to `size`, or as tokens (B, T, D)."""
        if self.side is None:
            return source
        cls, patches = source[:, :1], source[:, self.has_cls :]
        if self.used_cls == "add":
            patches = patches + self.cls_token_weight * cls
        elif self.used_cls == "only":
            patches = cls.expand_as(patches)
        maps = patches.transpose(1, 2).unflatten(2, (self.side, self.side))  # (B, D, side, side)
        if self.grid is None:
            return maps
        tokens = resize(maps, self.grid, self.upsample_mode).flatten(2).transpose(1, 2)  # (B, T2, D1)
        return torch.cat([cls, tokens], dim=1) if self.keeps_cls else tokens

    def targets(self, target: Tensor) -> Tensor:
        """Return the part of the target activation whose positions are those of the laid-out, resized source."""
        if self.made_cls is not None:
            target = target[:, 1:]
        if isinstance(self.transform, nn.Conv2d) and self.grid is not None:
            return target.transpose(1, 2).unflatten(2, self.grid)  # (B, D, H, W)
        return target

    def forward(self, source: Tensor) -> Tensor:
        """Map source activations (B, …) to the shape of target activations (B, …)."""
        made = self.layout(source)
        if self.size is None:
            made = self.transform(made)
        elif self.convolves_first:
            made = resize(self.transform(made), self.size, self.upsample_mode)
        else:
            made = self.transform(resize(made, self.size, self.upsample_mode))
        if self.grid is not None and made.ndim == 4:
            made = made.flatten(2).transpose(1, 2)  # (B, H·W, D)
        if self.made_cls is None:
            return made
        cls = made.mean(1, keepdim=True) if self.made_cls == "pool" else self.cls_token.expand(len(made), -1, -1)
        return torch.cat([cls, made], dim=1)

    def set_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Take over an affine map: weight (C2, C1), bias (C2,)."""
        with torch.no_grad():
            self.transform.weight.copy_(weight.reshape(self.transform.weight.shape))
            self.transform.bias.copy_(bias)

    @torch.no_grad()
    def sparsity(self) -> dict[str, float]:
        """Return the shares of weights and biases of the affine map whose magnitude is at most each of `THRESHOLDS`."""
        sizes = torch.cat([self.transform.weight.flatten(), self.transform.bias]).abs()
        shares = torch.stack([(sizes <= float(threshold)).double().mean() for threshold in THRESHOLDS]).tolist()
        return dict(zip(THRESHOLDS, shares, strict=True))

    def l1_norm(self) -> Tensor:
        """Return the sum of the magnitudes of weights and biases of the affine map."""
        return self.transform.weight.abs().sum() + self.transform.bias.abs().sum()


def build_stitching_layer(
    kind: str,
    source: Shape,
    target: Shape,
    *,
    sequences: tuple[bool, bool] = (False, False),
    init: str = "rand",
    c2t_cls_token: str | None = None,
    t2c_cls_token: str | None = None,
    upsample_mode: str = "bilinear",
) -> StitchingLayer:
    """Build the stitching layer `kind` between activations of the given shapes.

    Args:
        kind: `rc2c_pre`, `rc2c_post` (the same function), `c2c` (equal sizes), `t2t`, `c2t`, `t2c`.
        source, target: shapes of one front and one end activation, (C, H, W), (T, D) or (D,).
        sequences: whether their tokens are the steps of a recurrent layer, which are no map.
        init: `eye` starts as the identity; `rand` (torch's default, drawn from the global generator) is also
            where `pinv` starts from before direct matching.
        c2t_cls_token, t2c_cls_token, upsample_mode: `made_cls`, `used_cls` and the mode of `StitchingLayer`.
    Raises:
        UserError: the shapes do not fit the kind, or an identity is asked for where there is none.
    """
    _check_shapes(kind, source, target, c2t_cls_token)
    if any(sequences) and (kind in ("c2t", "t2c") or source[:-1] != target[:-1]):
        raise UserError(
            f"{kind} would lay out the steps of a recurrent layer as a map, from shape {tuple(source)} to "
            f"{tuple(target)}; use t2t and layers of equally many tokens"
        )
    layer = StitchingLayer(source, target, made_cls=c2t_cls_token, used_cls=t2c_cls_token, upsample_mode=upsample_mode)
    if init != "eye":
        return layer
    width_out, width_in = layer.transform.weight.shape[:2]
    if kind in ("c2t", "t2c"):
        raise UserError(f"init eye is not defined for {kind}, whose two sides differ in kind; use rand or pinv")
    if width_in != width_out:
        if kind != "t2t":
            raise UserError(f"init eye needs equal widths, not {width_in} and {width_out} channels; use rand or pinv")
        warn(f"init eye between widths {width_in} and {width_out}: a rectangular identity, the rest is cut off or zero")
    layer.set_affine(torch.eye(width_out, width_in), torch.zeros(width_out))
    return layer


def _check_shapes(kind: str, source: Shape, target: Shape, made_cls: str | None) -> None:
    one, other = ("×".join(map(str, shape)) for shape in (source, target))
    kinds = tuple({3: "conv", 2: "token"}.get(len(shape), "flat") for shape in (source, target))
    fitting = [name for name, wanted in STITCHING_TYPES.items() if wanted == kinds]
    fitting += ["t2t"] if kinds == ("flat", "flat") else []
    if kind not in fitting:
        remedy = f"use {' or '.join(fitting)}" if fitting else "choose layers with feature maps or tokens"
        raise UserError(
            f"{kind} stitches from a {STITCHING_TYPES[kind][0]} layer to a {STITCHING_TYPES[kind][1]} layer, "
            f"not from shape {one} to {other}; {remedy}"
        )
    if kind == "c2c" and tuple(source[1:]) != tuple(target[1:]):
        raise UserError(f"c2c needs maps of equal size, not {one} and {other}; use rc2c_pre")
    if kind == "t2c" and not _is_grid(source[0]):
        raise UserError(
            f"t2c needs patch tokens that form a square, not {source[0]} tokens; choose another one, or t2t to "
            f"a layer of {source[0]} tokens"
        )
    if kind == "t2t" and source[:-1] != target[:-1]:
        if not (_is_grid(source[0]) and _is_grid(target[0])):
            raise UserError(
                f"t2t needs equal token counts, or patch tokens that form squares, not {source[0]} and {target[0]}; "
                "choose another layer"
            )
        if has_cls_token(target[0]) and not has_cls_token(source[0]) and made_cls is None:
            raise UserError(
                f"t2t from {source[0]} tokens, without a CLS token, to {target[0]} with one: say how it is made, "
                "c2t_cls_token pool or learn"
            )
    if kind == "c2t":
        n_patches = target[0] - (made_cls is not None)
        if math.prod(source[1:]) != n_patches and (n_patches < 1 or has_cls_token(n_patches)):
            remedy = "use c2t_cls_token pool or learn" if made_cls is None else "leave out c2t_cls_token"
            raise UserError(
                f"c2t makes {n_patches} patch tokens for an end layer of {target[0]} tokens, which form no square; "
                f"{remedy}, or choose another layer"
            )


def _side(n_tokens: int) -> int:
    return math.isqrt(n_tokens - has_cls_token(n_tokens))


def _is_grid(n_tokens: int) -> bool:
    """Return whether tokens form a square, a CLS token left out."""
    return _side(n_tokens) ** 2 == n_tokens - has_cls_token(n_tokens) and n_tokens > 0
