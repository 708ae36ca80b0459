"""Stitching layers: affine maps from the activation of one network to the shape of another's.

Their state dicts are those of the public code: `transform.weight`, `transform.bias`, and where
there is one a `cls_token` or `cls_token_weight`."""

import math
from collections.abc import Sequence
from typing import NamedTuple

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
    """Resize feature maps (B, C, H, W) to (B, C, *size), `bilinear` without aligned corners, or
    `nearest`."""
    return F.interpolate(
        maps, size=tuple(size), mode=mode, align_corners=False if mode == "bilinear" else None
    )


class Plan(NamedTuple):
    """The steps of a stitching layer, from a source activation to a target activation, in this
    order."""

    # the affine map is a 1×1 convolution of a map, otherwise a linear map of tokens or vectors
    is_convolution: bool
    side: int | None = None  # patch tokens of the source are laid out as a map of this side
    has_cls: bool = False  # the source has a CLS token
    keeps_cls: bool = False  # it is mapped like the patch tokens
    used_cls: str | None = None  # what becomes of it otherwise: see `StitchingLayer`
    size: tuple[int, int] | None = (
        None  # that a map is resized to beside the convolution; None leaves it as it is
    )
    convolves_first: bool = False  # the convolution precedes the resize
    grid: tuple[int, int] | None = None  # of the tokens that a map becomes
    made_cls: str | None = (
        None  # the CLS token that is put in front of the tokens: see `StitchingLayer`
    )

    def resizing(self, size_in: tuple[int, int], size_out: tuple[int, int]) -> "Plan":
        """Return this plan with a resize of the map between two sizes.

        Resizing weighs positions with weights that sum to 1, the convolution weighs channels: the
        two commute, bias included, so the one that leaves less to do goes first."""
        size = None if size_in == size_out else size_out
        return self._replace(size=size, convolves_first=math.prod(size_out) > math.prod(size_in))


def _between_maps(source: Shape, target: Shape, made_cls: str | None, used_cls: str | None) -> Plan:
    return Plan(is_convolution=True).resizing(tuple(source[1:]), tuple(target[1:]))


def _from_map_to_tokens(
    source: Shape, target: Shape, made_cls: str | None, used_cls: str | None
) -> Plan:
    n_patches = target[0] - (made_cls is not None)
    size = tuple(source[1:])
    grid = size if math.prod(size) == n_patches else (math.isqrt(n_patches),) * 2
    return Plan(is_convolution=True, grid=grid, made_cls=made_cls).resizing(size, grid)


def _from_tokens_to_map(
    source: Shape, target: Shape, made_cls: str | None, used_cls: str | None
) -> Plan:
    side = _side(source[0])
    plan = Plan(is_convolution=True, side=side, has_cls=has_cls_token(source[0]), used_cls=used_cls)
    return plan.resizing((side, side), tuple(target[1:]))


def _between_tokens(
    source: Shape, target: Shape, made_cls: str | None, used_cls: str | None
) -> Plan:
    if source[:-1] == target[:-1]:  # equally many tokens, or two vectors
        return Plan(is_convolution=False)
    has_cls = has_cls_token(source[0])
    needs_cls = has_cls_token(target[0])
    return Plan(
        is_convolution=False,
        side=_side(source[0]),
        has_cls=has_cls,
        keeps_cls=has_cls and needs_cls,
        used_cls=None if needs_cls else used_cls,
        grid=(_side(target[0]),) * 2,
        made_cls=made_cls if needs_cls and not has_cls else None,
    )


# By what the source is and what the target is; a vector is a token.
PLANS = {
    ("map", "map"): _between_maps,
    ("map", "tokens"): _from_map_to_tokens,
    ("tokens", "map"): _from_tokens_to_map,
    ("tokens", "tokens"): _between_tokens,
}


class StitchingLayer(nn.Module):
    """Lays out the source as a map or as tokens, resizes a map, and maps each position affinely.

    Patch tokens are laid out as a square map where the target is a map, or has another number of
    them; then they are resized and become tokens again. Two vectors, or tokens of equal number, are
    mapped as they are.

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
        forms = tuple("map" if len(shape) == 3 else "tokens" for shape in (source, target))
        self.plan = PLANS[forms](source, target, made_cls, used_cls)
        self.upsample_mode = upsample_mode
        width_in, width_out = (
            shape[0] if len(shape) == 3 else shape[-1] for shape in (source, target)
        )
        self.transform = (
            nn.Conv2d(width_in, width_out, 1)
            if self.plan.is_convolution
            else nn.Linear(width_in, width_out)
        )
        if self.plan.made_cls == "learn":
            self.cls_token = nn.Parameter(torch.randn(1, 1, width_out) * 1e-6)
        if self.plan.used_cls == "add":
            self.cls_token_weight = nn.Parameter(torch.tensor([0.1]))

    def layout(self, source: Tensor) -> Tensor:
        """Return the source as a map (B, C, H, W), which is to be resized to `plan.size`, or as
        tokens (B, T, D)."""
        plan = self.plan
        if plan.side is None:
            return source
        cls_token = source[:, :1]
        patches = source[:, plan.has_cls :]
        if plan.has_cls and plan.used_cls == "add":
            patches = patches + self.cls_token_weight * cls_token
        elif plan.has_cls and plan.used_cls == "only":
            patches = cls_token.expand_as(patches)
        maps = patches.transpose(1, 2).unflatten(2, (plan.side, plan.side))  # (B, D, side, side)
        if plan.is_convolution:
            return maps
        tokens = (
            resize(maps, plan.grid, self.upsample_mode).flatten(2).transpose(1, 2)
        )  # (B, T2, D1)
        return torch.cat([cls_token, tokens], dim=1) if plan.keeps_cls else tokens

    def targets(self, target: Tensor) -> Tensor:
        """Return the part of the target activation whose positions are those of the laid-out,
        resized source."""
        if self.plan.made_cls is not None:
            target = target[:, 1:]
        if self.plan.is_convolution and self.plan.grid is not None:
            return target.transpose(1, 2).unflatten(2, self.plan.grid)  # (B, D, H, W)
        return target

    def forward(self, source: Tensor) -> Tensor:
        """Map source activations (B, …) to the shape of target activations (B, …)."""
        stitched = self._transformed(self.layout(source))
        if self.plan.is_convolution and self.plan.grid is not None:
            stitched = stitched.flatten(2).transpose(1, 2)  # (B, H·W, D)
        if self.plan.made_cls is None:
            return stitched
        if self.plan.made_cls == "pool":
            cls_token = stitched.mean(1, keepdim=True)
        else:
            cls_token = self.cls_token.expand(len(stitched), -1, -1)
        return torch.cat([cls_token, stitched], dim=1)

    def _transformed(self, source: Tensor) -> Tensor:
        """Resize a laid-out source where it has another size than the target, and map each position
        affinely."""
        size = self.plan.size
        if size is None:
            return self.transform(source)
        if self.plan.convolves_first:
            return resize(self.transform(source), size, self.upsample_mode)
        return self.transform(resize(source, size, self.upsample_mode))

    def set_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Take over an affine map: weight (C2, C1), bias (C2,)."""
        with torch.no_grad():
            self.transform.weight.copy_(weight.reshape(self.transform.weight.shape))
            self.transform.bias.copy_(bias)

    @torch.no_grad()
    def sparsity(self) -> dict[str, float]:
        """Return the shares of weights and biases of the affine map whose magnitude is at most each
        of `THRESHOLDS`."""
        sizes = torch.cat([self.transform.weight.flatten(), self.transform.bias]).abs()
        shares = torch.stack(
            [(sizes <= float(threshold)).double().mean() for threshold in THRESHOLDS]
        ).tolist()
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
    """Build the stitching layer of a kind, from activations of one shape to those of another.

    Args:
        kind: `rc2c_pre`, `rc2c_post` (the same function), `c2c` (equal sizes), `t2t`, `c2t`, `t2c`.
        source, target: shapes of one front and one end activation, (C, H, W), (T, D) or (D,).
        sequences: whether their tokens are the steps of a recurrent layer, which are no map.
        init: `eye` starts as the identity; `rand` (torch's default, drawn from the global generator) is also
            where `pinv` starts from before direct matching.
        c2t_cls_token, t2c_cls_token, upsample_mode: `made_cls`, `used_cls` and the mode of `StitchingLayer`.
    Raises:
        UserError: the shapes do not fit the kind, or `eye` is asked for where there is no identity.
    """
    _check_shapes(kind, source, target, c2t_cls_token)
    if any(sequences) and (kind in ("c2t", "t2c") or source[:-1] != target[:-1]):
        raise UserError(
            f"{kind} would lay out the steps of a recurrent layer as a map, from shape {tuple(source)} to "
            f"{tuple(target)}; use t2t and layers of equally many tokens"
        )
    layer = StitchingLayer(
        source, target, made_cls=c2t_cls_token, used_cls=t2c_cls_token, upsample_mode=upsample_mode
    )
    if init != "eye":
        return layer
    width_out, width_in = layer.transform.weight.shape[:2]
    if kind in ("c2t", "t2c"):
        raise UserError(
            f"init eye is not defined for {kind}, whose two sides differ in kind; use rand or pinv"
        )
    if width_in != width_out:
        if kind != "t2t":
            raise UserError(
                f"init eye needs equal widths, not {width_in} and {width_out} channels; use rand or pinv"
            )
        warn(
            f"init eye between widths {width_in} and {width_out}: a rectangular identity, the rest is cut off or zero"
        )
    layer.set_affine(torch.eye(width_out, width_in), torch.zeros(width_out))
    return layer


def _check_shapes(kind: str, source: Shape, target: Shape, made_cls: str | None) -> None:
    """Raise a UserError if a kind of stitching layer does not fit two shapes."""
    forms = tuple({3: "conv", 2: "token"}.get(len(shape), "flat") for shape in (source, target))
    fitting = [name for name, forms_of_kind in STITCHING_TYPES.items() if forms_of_kind == forms]
    if forms == ("flat", "flat"):
        fitting.append("t2t")
    if kind not in fitting:
        remedy = (
            f"use {' or '.join(fitting)}"
            if fitting
            else "choose layers with feature maps or tokens"
        )
        raise UserError(
            f"{kind} stitches from a {STITCHING_TYPES[kind][0]} layer to a {STITCHING_TYPES[kind][1]} layer, "
            f"not from shape {_text(source)} to {_text(target)}; {remedy}"
        )
    if kind == "c2c" and tuple(source[1:]) != tuple(target[1:]):
        raise UserError(
            f"c2c needs maps of equal size, not {_text(source)} and {_text(target)}; use rc2c_pre"
        )
    if kind == "t2c" and not _is_grid(source[0]):
        raise UserError(
            f"t2c needs patch tokens that form a square, not {source[0]} tokens; choose another one, or t2t to "
            f"a layer of {source[0]} tokens"
        )
    if kind == "t2t" and source[:-1] != target[:-1]:
        _check_token_counts(source[0], target[0], made_cls)
    if kind == "c2t":
        _check_patches(math.prod(source[1:]), target[0], made_cls)


def _check_token_counts(n_source: int, n_target: int, made_cls: str | None) -> None:
    """Raise a UserError if tokens cannot be resized to another number of tokens."""
    if not (_is_grid(n_source) and _is_grid(n_target)):
        raise UserError(
            f"t2t needs equal token counts, or patch tokens that form squares, not {n_source} and {n_target}; "
            "choose another layer"
        )
    if has_cls_token(n_target) and not has_cls_token(n_source) and made_cls is None:
        raise UserError(
            f"t2t from {n_source} tokens, without a CLS token, to {n_target} with one: say how it is made, "
            "c2t_cls_token pool or learn"
        )


def _check_patches(n_positions: int, n_tokens: int, made_cls: str | None) -> None:
    """Raise a UserError if a map of so many positions cannot become so many tokens."""
    n_patches = n_tokens - (made_cls is not None)
    if n_positions != n_patches and (n_patches < 1 or has_cls_token(n_patches)):
        remedy = (
            "use c2t_cls_token pool or learn" if made_cls is None else "leave out c2t_cls_token"
        )
        raise UserError(
            f"c2t makes {n_patches} patch tokens for an end layer of {n_tokens} tokens, which form no square; "
            f"{remedy}, or choose another layer"
        )


def _text(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _side(n_tokens: int) -> int:
    """Return the side of the square that tokens form, a CLS token left out."""
    return math.isqrt(n_tokens - has_cls_token(n_tokens))


def _is_grid(n_tokens: int) -> bool:
    """Return whether tokens form a square, a CLS token left out."""
    return _side(n_tokens) ** 2 == n_tokens - has_cls_token(n_tokens) and n_tokens > 0
