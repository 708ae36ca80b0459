"""Stitching layers: affine maps from the activation of one network to the shape of another's.

Their state dicts are those of the public code: `transform.weight`, `transform.bias`, and where there is one a
`cls_token` or `cls_token_weight`.
"""

import math

import torch

from src.choices import STITCHING_TYPES
from src.console import warn
from src.errors import UserError
from src.stitching.affine import ConvToConv, Shape, StitchingLayer, resize
from src.stitching.tokens import ConvToTokens, ResizedTokens, TokensToConv, TokensToTokens, has_cls_token, is_grid

__all__ = ["ConvToConv", "StitchingLayer", "build_stitching_layer", "resize"]


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
        source: shape of one front activation, (C, H, W), (T, D) or (D,).
        target: shape of one end activation.
        init: `eye` starts as the identity; `rand` (torch's default, drawn from the global generator) is also
            where `pinv` starts from before direct matching.
    Raises:
        UserError: the shapes do not fit the kind, or an identity is asked for where there is none.
    """
    _check_shapes(kind, source, target, c2t_cls_token)
    if kind == "t2t" and source[:-1] == target[:-1]:
        layer = TokensToTokens(source, target)
    elif kind == "t2t":
        use = {"made_cls": c2t_cls_token, "used_cls": t2c_cls_token}
        layer = ResizedTokens(source, target, **use, upsample_mode=upsample_mode)
    elif kind == "c2t":
        layer = ConvToTokens(source, target, cls_token=c2t_cls_token, upsample_mode=upsample_mode)
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
    fitting = [name for name, wanted in STITCHING_TYPES.items() if wanted == kinds]
    fitting += ["t2t"] if kinds == ("flat", "flat") else []
    if kind not in fitting:
        remedy = f"use {' or '.join(fitting)}" if fitting else "choose layers with feature maps or tokens"
        raise UserError(
            f"{kind} stitches from a {STITCHING_TYPES[kind][0]} layer to a {STITCHING_TYPES[kind][1]} layer, "
            f"not from shape {_text(source)} to {_text(target)}; {remedy}"
        )
    if kind == "c2c" and tuple(source[1:]) != tuple(target[1:]):
        raise UserError(f"c2c needs maps of equal size, not {_text(source)} and {_text(target)}; use rc2c_pre")
    if kind == "t2t" and source[:-1] != target[:-1]:
        _check_grids(source[0], target[0], c2t_cls_token)
    if kind == "c2t":
        n_patches = target[0] - (c2t_cls_token is not None)
        if math.prod(source[1:]) != n_patches and (n_patches < 1 or has_cls_token(n_patches)):
            remedy = "use -c2t-cls pool or learn" if c2t_cls_token is None else "leave out -c2t-cls"
            raise UserError(
                f"c2t makes {n_patches} patch tokens{'' if c2t_cls_token is None else ' and a CLS token'} for an end "
                f"layer of {target[0]} tokens, which form no square; {remedy}, or choose another layer"
            )
    if kind == "t2c" and not is_grid(source[0]):
        raise UserError(f"t2c needs patch tokens that form a square, not {source[0]} tokens; choose another one")


def _check_grids(n_source: int, n_target: int, c2t_cls_token: str | None) -> None:
    for n_tokens in (n_source, n_target):
        if not is_grid(n_tokens):
            raise UserError(
                f"t2t needs equal token counts, or patch tokens that form squares, not {n_source} and {n_target}; "
                "choose another layer"
            )
    if has_cls_token(n_target) and not has_cls_token(n_source) and c2t_cls_token is None:
        raise UserError(
            f"t2t from {n_source} tokens, without a CLS token, to {n_target} with one: say how it is made, "
            "-c2t-cls pool or learn"
        )


def _text(shape: Shape) -> str:
    return "×".join(map(str, shape))
