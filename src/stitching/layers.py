"""Stitching layers: affine maps from activations of a front network to the shape of activations of
an end network.

Their state dicts are those of the public code: `transform.weight`, `transform.bias`, and for some
layers a `cls_token` or `cls_token_weight`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.choices import AUTO, GRID, MAP, SEQUENCE, STITCHING_TYPES, VECTOR
from src.console import warn
from src.errors import UserError
from src.models.heads import has_cls_token, pool

Shape = Sequence[int]
Size = tuple[int, int]  # height and width of a map
THRESHOLDS = ("0", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1")  # of sparsity

# The type that AUTO chooses, by the kind of the source (rows) and of the target (columns)
TYPES_OF_KINDS = {
    MAP: {MAP: "rc2c_pre", GRID: "c2t", SEQUENCE: "c2s", VECTOR: "c2v"},
    GRID: {MAP: "t2c", GRID: "t2t", SEQUENCE: "t2s", VECTOR: "t2v"},
    SEQUENCE: {MAP: "s2c", GRID: "s2t", SEQUENCE: "s2s", VECTOR: "s2v"},
    VECTOR: {MAP: "v2c", GRID: "v2t", SEQUENCE: "v2s", VECTOR: "t2t"},
}


def resize(maps: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Resize feature maps (B, C, H, W) to (B, C, *size).

    Args:
        mode: `bilinear`, without aligned corners, or `nearest`.
    """
    if mode == "nearest":
        return F.interpolate(maps, size=tuple(size), mode=mode)
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=False)


def kind_of(shape: Shape, *, is_recurrent: bool = False) -> str:
    """Return the kind of an activation: MAP, GRID, SEQUENCE or VECTOR.

    Tokens (T, D) are a grid if T is a square, or a square and 1 for a CLS token in front.
    Otherwise they are a sequence, and so are the steps of a recurrent layer, whatever their number.

    Args:
        shape: (C, H, W), (T, D) or (D,).
        is_recurrent: the tokens are the steps of a recurrent layer, or computed from them.
    Raises:
        UserError: the shape has another number of axes.
    """
    if len(shape) == 3:
        return MAP
    if len(shape) == 1:
        return VECTOR
    if len(shape) != 2:
        raise UserError(
            f"activations of shape {_text(shape)} cannot be stitched; choose a layer with a feature "
            "map (C, H, W), tokens (T, D) or a vector (D)"
        )
    if is_recurrent or not _is_grid(shape[0]):
        return SEQUENCE
    return GRID


def type_for(source: Shape, target: Shape, recurrent: tuple[bool, bool] = (False, False)) -> str:
    """Return the stitching type that AUTO stands for between two layers.

    Equally many tokens of any kind are stitched by `t2t`, token by token. Otherwise
    `TYPES_OF_KINDS` decides.

    Args:
        source, target: (C, H, W), (T, D) or (D,).
        recurrent: for each of the two layers, as `is_recurrent` of `kind_of`.
    Raises:
        UserError: a shape has another number of axes.
    """
    if len(source) == len(target) == 2 and source[0] == target[0]:
        return "t2t"
    source_kind = kind_of(source, is_recurrent=recurrent[0])
    target_kind = kind_of(target, is_recurrent=recurrent[1])
    return TYPES_OF_KINDS[source_kind][target_kind]


class Plan(NamedTuple):
    """The steps of a stitching layer from source to target, in the order of the fields."""

    # The source becomes a single position: its CLS token, or the mean over its positions
    is_averaged: bool = False
    has_cls: bool = False  # the source has a CLS token
    keeps_cls: bool = False  # it is mapped like the patch tokens
    used_cls: str | None = None  # what becomes of it otherwise: see `StitchingLayer`
    # The positions of the source are laid out as a map of this size; None: it is used unchanged
    laid_out: Size | None = None
    token_size: Size | None = None  # the laid-out patches are resized to it, and are tokens again
    size: Size | None = None  # the laid-out map is resized to it beside the affine map
    convolves_first: bool = False  # the affine map precedes that resize
    # The affine map is a 1×1 convolution of a map, otherwise a linear map of tokens or vectors
    is_convolution: bool = True
    # The map whose positions are those of the target; None: the affine map makes the target
    target_map: Size | None = None
    made_cls: str | None = None  # the CLS token put in front of tokens: see `StitchingLayer`

    def resizing(self, size_in: Size, size_out: Size) -> "Plan":
        """Return this plan with a resize of the map between two sizes.

        Resizing weighs positions with weights that sum to 1, and the convolution weighs channels.
        The two commute, bias included. Enlarging comes behind the convolution, and all else in
        front of it, as that is less to compute.
        """
        size = None if size_in == size_out else size_out
        return self._replace(size=size, convolves_first=math.prod(size_out) > math.prod(size_in))

    @property
    def of_source(self) -> "Plan":
        """The steps in front of the affine map.

        Two pairs with one front layer map the same source if these steps are equal: matching then
        computes its moments once.
        """
        return self._replace(convolves_first=False, target_map=None, made_cls=None)


def plan_of(
    stitching_type: str,
    source: Shape,
    target: Shape,
    made_cls: str | None = None,
    used_cls: str | None = None,
) -> Plan:
    """Return the plan of a stitching type between two shapes that fit it.

    Args:
        made_cls, used_cls: as for `StitchingLayer`; without effect where they do not apply.
    """
    source_kind, target_kind = STITCHING_TYPES[stitching_type]
    if stitching_type == "t2t":
        return _between_tokens(source, target, made_cls, used_cls)
    if target_kind == VECTOR:
        has_cls = source_kind == GRID and has_cls_token(source[0])
        return Plan(is_averaged=True, has_cls=has_cls, target_map=(1, 1))
    if source_kind == VECTOR:
        return _from_vector(target)
    if source_kind == MAP and target_kind == MAP:
        return Plan().resizing(_map_size(source, MAP), _map_size(target, MAP))
    if stitching_type == "s2t" and not has_cls_token(target[0]):
        made_cls = None
    if target_kind != GRID:
        made_cls = None
    if source_kind != GRID:
        used_cls = None
    return _between_positions(stitching_type, source, target, made_cls, used_cls)


def _between_tokens(
    source: Shape, target: Shape, made_cls: str | None, used_cls: str | None
) -> Plan:
    """Return the plan of `t2t`, which resizes patch tokens where the numbers of tokens differ."""
    if source[:-1] == target[:-1]:  # equally many tokens, or two vectors
        return Plan(is_convolution=False)
    has_cls = has_cls_token(source[0])
    needs_cls = has_cls_token(target[0])
    return Plan(
        is_convolution=False,
        laid_out=_map_size(source, GRID),
        has_cls=has_cls,
        keeps_cls=has_cls and needs_cls,
        used_cls=None if needs_cls else used_cls,
        token_size=_map_size(target, GRID),
        made_cls=made_cls if needs_cls and not has_cls else None,
    )


def _from_vector(target: Shape) -> Plan:
    """Return the plan from a vector to a map, or to tokens, which include a CLS token.

    The vector is a map of one position, which is resized to all positions.
    """
    if len(target) == 3:
        size = _map_size(target, MAP)
    else:
        size = _map_size(target, SEQUENCE)
    return Plan(laid_out=(1, 1), target_map=size).resizing((1, 1), size)


def _between_positions(
    stitching_type: str, source: Shape, target: Shape, made_cls: str | None, used_cls: str | None
) -> Plan:
    """Return the plan between maps, grids and sequences, where one side is no map."""
    source_kind, target_kind = STITCHING_TYPES[stitching_type]

    # The positions of both sides without a CLS token, as maps
    size_in = _map_size(source, source_kind)
    size_out = _map_size(target, target_kind)
    if stitching_type == "c2t":
        size_out = _grid_for_map(size_in, target[0] - (made_cls is not None))

    # If a side is a sequence, positions of both sides are a row
    if SEQUENCE in (source_kind, target_kind):
        size_in = (1, math.prod(size_in))
        size_out = (1, math.prod(size_out))

    is_laid_out = source_kind != MAP or target_kind == SEQUENCE
    is_written_back = target_kind != MAP or source_kind == SEQUENCE
    plan = Plan(
        has_cls=source_kind == GRID and has_cls_token(source[0]),
        used_cls=used_cls,
        laid_out=size_in if is_laid_out else None,
        target_map=size_out if is_written_back else None,
        made_cls=made_cls,
    )
    return plan.resizing(size_in, size_out)


def _map_size(shape: Shape, kind: str) -> Size:
    """Return the size of the map that the positions of an activation form.

    The CLS token of a grid is left out.
    """
    if kind == MAP:
        return shape[1], shape[2]
    if kind == SEQUENCE:
        return 1, shape[0]
    side = _side(shape[0])
    return side, side


def _grid_for_map(size: Size, n_patches: int) -> Size:
    """Return the size of the grid of patch tokens that a map of this size becomes.

    It is the size of the map if there are as many patch tokens as positions, else a square.
    """
    if math.prod(size) == n_patches:
        return size
    side = math.isqrt(n_patches)
    return side, side


class StitchingLayer(nn.Module):
    """Lays out the source as a map or as tokens, resizes a map, and maps each position affinely.

    Between a sequence and a map (or a grid of patch tokens), the map is read or written row by row,
    and resized along the row. For a vector as target, the source is replaced by its CLS token, or
    by the mean over its positions if it has none. A vector as source gives the same values to all
    positions of the target, the CLS token included.

    `build_stitching_layer` checks that shapes and type fit; this class does not.

    Args:
        source, target: shapes (C, H, W), (T, D) or (D,).
        stitching_type: a name in `STITCHING_TYPES`; None: the type that `type_for` returns.
        made_cls: the CLS token that is put in front of stitched tokens: `pool` (their mean),
            `learn` (a parameter) or None. Between tokens it is made if the target has a CLS token
            and the source has none.
        used_cls: what becomes of the CLS token of a source if the target has none: dropped
            (`drop` or None), added to each patch token with a learned weight (`add`), or put in the
            place of all patch tokens (`only`). If both have a CLS token, it is mapped like the
            patch tokens.
        upsample_mode: `bilinear` or `nearest`.
    """

    def __init__(
        self,
        source: Shape,
        target: Shape,
        *,
        stitching_type: str | None = None,
        made_cls: str | None = None,
        used_cls: str | None = None,
        upsample_mode: str = "bilinear",
    ):
        super().__init__()
        self.stitching_type = stitching_type or type_for(source, target)
        self.target_shape = tuple(target)
        self.plan = plan_of(self.stitching_type, source, target, made_cls, used_cls)
        self.upsample_mode = upsample_mode
        width_in = _width(source)
        width_out = _width(target)
        self.transform: nn.Conv2d | nn.Linear
        if self.plan.is_convolution:
            self.transform = nn.Conv2d(width_in, width_out, 1)
        else:
            self.transform = nn.Linear(width_in, width_out)
        if self.plan.made_cls == "learn":
            self.cls_token = nn.Parameter(torch.randn(1, 1, width_out) * 1e-6)
        if self.plan.used_cls == "add":
            self.cls_token_weight = nn.Parameter(torch.tensor([0.1]))

    def layout(self, source: Tensor) -> Tensor:
        """Return the source as a map (B, C, H, W), as tokens (B, T, D) or as a vector (B, D).

        A map may still have to be resized, to `plan.size`; tokens are resized already.

        Args:
            source: (B, C, H, W), (B, T, D) or (B, D).
        """
        plan = self.plan
        if plan.is_averaged:
            return pool(source, is_sequence=not plan.has_cls)[:, :, None, None]
        if plan.laid_out is None:
            return source
        if source.ndim == 2:
            return source[:, :, None, None]
        if source.ndim == 4:
            return source.flatten(2).unflatten(2, plan.laid_out)
        patches = self._patches(source)
        maps = patches.transpose(1, 2).unflatten(2, plan.laid_out)  # (B, D, H, W)
        if plan.token_size is None:
            return maps
        resized = resize(maps, plan.token_size, self.upsample_mode)
        tokens = resized.flatten(2).transpose(1, 2)  # (B, T2, D1)
        if plan.keeps_cls:
            return torch.cat([source[:, :1], tokens], dim=1)
        return tokens

    def _patches(self, source: Tensor) -> Tensor:
        """Return the patch tokens of a source (B, T, D).

        The CLS token is added to each patch token, or stands in its place, if `used_cls` says so.
        """
        if not self.plan.has_cls:
            return source
        cls_token = source[:, :1]
        patches = source[:, 1:]
        if self.plan.used_cls == "add":
            return patches + self.cls_token_weight * cls_token
        if self.plan.used_cls == "only":
            return cls_token.expand_as(patches)
        return patches

    def targets(self, target: Tensor) -> Tensor:
        """Return the part of a target activation (B, …) that the affine map is matched to.

        It has as many positions as the source that is laid out and resized, in the same order. Left
        out is a CLS token that this layer makes.
        """
        if self.plan.made_cls is not None:
            target = target[:, 1:]
        if self.plan.target_map is None or target.ndim == 2:
            return target
        if target.ndim == 3:
            target = target.transpose(1, 2)  # (B, D, T)
        return target.flatten(2).unflatten(2, self.plan.target_map)

    def forward(self, source: Tensor) -> Tensor:
        """Map source activations (B, …) to the shape of target activations (B, …)."""
        stitched = self._transformed(self.layout(source))
        if self.plan.target_map is not None:
            stitched = self._written_back(stitched)
        if self.plan.made_cls is None:
            return stitched
        if self.plan.made_cls == "pool":
            cls_token = stitched.mean(1, keepdim=True)
        else:
            cls_token = self.cls_token.expand(len(stitched), -1, -1)
        return torch.cat([cls_token, stitched], dim=1)

    def _transformed(self, source: Tensor) -> Tensor:
        """Resize a laid-out source to `plan.size`, if any, and map each position affinely."""
        size = self.plan.size
        if size is None:
            return self.transform(source)
        if self.plan.convolves_first:
            return resize(self.transform(source), size, self.upsample_mode)
        return self.transform(resize(source, size, self.upsample_mode))

    def _written_back(self, stitched: Tensor) -> Tensor:
        """Return a stitched map (B, D, H, W) in the shape of a target without made CLS token.

        The result is a map with other height and width, tokens (B, T, D) or vectors (B, D).
        """
        if len(self.target_shape) == 1:
            return stitched.flatten(1)
        rows = stitched.flatten(2)  # (B, D, T)
        if len(self.target_shape) == 2:
            return rows.transpose(1, 2)
        return rows.unflatten(2, self.target_shape[1:])

    def set_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Set the affine map to a weight (C2, C1) and a bias (C2,)."""
        with torch.no_grad():
            self.transform.weight.copy_(weight.reshape(self.transform.weight.shape))
            self._bias.copy_(bias)

    @property
    def _bias(self) -> Tensor:
        return cast(Tensor, self.transform.bias)  # both kinds of transform have one

    @torch.no_grad()
    def sparsity(self) -> dict[str, float]:
        """Return the share of weights and biases with at most a magnitude, by `THRESHOLDS`."""
        sizes = torch.cat([self.transform.weight.flatten(), self._bias]).abs()
        shares = torch.stack(
            [(sizes <= float(threshold)).double().mean() for threshold in THRESHOLDS]
        )
        return dict(zip(THRESHOLDS, shares.tolist(), strict=True))

    def l1_norm(self) -> Tensor:
        """Return the sum of the magnitudes of weights and biases of the affine map."""
        return self.transform.weight.abs().sum() + self._bias.abs().sum()


def build_stitching_layer(
    stitching_type: str,
    source: Shape,
    target: Shape,
    *,
    recurrent: tuple[bool, bool] = (False, False),
    init: str = "rand",
    c2t_cls_token: str | None = None,
    t2c_cls_token: str | None = None,
    upsample_mode: str = "bilinear",
) -> StitchingLayer:
    """Build the stitching layer of a type between activations of two shapes.

    Args:
        stitching_type: a name in `STITCHING_TYPES`, or `auto`. `auto` takes the type that
            `type_for` returns. A CLS token that the source lacks is then the mean of the patch
            tokens, unless `c2t_cls_token` says otherwise.
        source, target: shapes of the front and the end activation of an image: (C, H, W), (T, D) or
            (D,).
        recurrent: for source and target, whether the tokens are the steps of a recurrent layer,
            which are no map.
        init: `eye` starts as the identity. All further names start from torch's random weights,
            drawn from the global generator; nothing is matched here.
        c2t_cls_token, t2c_cls_token, upsample_mode: `made_cls`, `used_cls` and the mode of
            `StitchingLayer`.
    Raises:
        UserError: the shapes do not fit the type, or there is no identity between them for `eye`.
    """
    if stitching_type == AUTO:
        stitching_type = type_for(source, target, recurrent)
        c2t_cls_token = _chosen_cls(stitching_type, target, c2t_cls_token)
    _check_kinds(stitching_type, source, target, recurrent)
    _check_shapes(stitching_type, source, target, c2t_cls_token)
    layer = StitchingLayer(
        source,
        target,
        stitching_type=stitching_type,
        made_cls=c2t_cls_token,
        used_cls=t2c_cls_token,
        upsample_mode=upsample_mode,
    )
    if init == "eye":
        _set_identity(layer)
    return layer


def _chosen_cls(stitching_type: str, target: Shape, option: str | None) -> str | None:
    """Return how `auto` makes the CLS token of a grid: as the option says, by default `pool`.

    None for a target without CLS token.
    """
    if stitching_type not in ("c2t", "s2t", "t2t") or not has_cls_token(target[0]):
        return None
    return option or "pool"


def _set_identity(layer: StitchingLayer) -> None:
    """Make the affine map of a stitching layer the identity.

    Raises:
        UserError: the two sides differ in kind, or a type other than `t2t` has unequal widths.
    """
    stitching_type = layer.stitching_type
    width_out, width_in = layer.transform.weight.shape[:2]
    source_kind, target_kind = STITCHING_TYPES[stitching_type]
    if source_kind != target_kind:
        raise UserError(
            f"init eye is not defined for {stitching_type}, whose two sides differ in kind; "
            "use rand or pinv"
        )
    if width_in != width_out:
        if stitching_type != "t2t":
            raise UserError(
                f"init eye needs equal widths, not {width_in} and {width_out} channels; "
                "use rand or pinv"
            )
        warn(
            f"init eye between widths {width_in} and {width_out}: a rectangular identity, the rest "
            "is cut off or zero"
        )
    layer.set_affine(torch.eye(width_out, width_in), torch.zeros(width_out))


def _check_kinds(
    stitching_type: str, source: Shape, target: Shape, recurrent: tuple[bool, bool]
) -> None:
    """Raise a UserError if two activations are not of the kinds of a stitching type."""
    fitting = type_for(source, target, recurrent)
    kinds = STITCHING_TYPES[stitching_type]
    n_axes = {MAP: 3, GRID: 2, SEQUENCE: 2, VECTOR: 1}
    fits = [len(source), len(target)] == [n_axes[kind] for kind in kinds]
    are_vectors = len(source) == len(target) == 1
    if not fits and not (are_vectors and stitching_type == "t2t"):
        raise UserError(
            f"{stitching_type} stitches from a {kinds[0]} to a {kinds[1]}, not from shape "
            f"{_text(source)} to {_text(target)}; use {fitting}"
        )
    source_is_misread = recurrent[0] and kinds[0] == GRID
    target_is_misread = recurrent[1] and kinds[1] == GRID
    if (source_is_misread or target_is_misread) and fitting != "t2t":
        raise UserError(
            f"{stitching_type} would lay out the steps of a recurrent layer as a map, from shape "
            f"{_text(source)} to {_text(target)}; use {fitting}"
        )


def _check_shapes(stitching_type: str, source: Shape, target: Shape, made_cls: str | None) -> None:
    """Raise a UserError if two shapes of the right kinds do not fit a stitching type."""
    if stitching_type == "c2c" and tuple(source[1:]) != tuple(target[1:]):
        raise UserError(
            f"c2c needs maps of equal size, not {_text(source)} and {_text(target)}; use rc2c_pre"
        )
    if stitching_type == "t2t" and source[:-1] != target[:-1]:
        _check_token_counts(source[0], target[0], made_cls)
    if stitching_type == "c2t":
        _check_patches(math.prod(source[1:]), target[0], made_cls)
    if stitching_type in ("t2c", "t2s", "t2v"):
        _check_grid(stitching_type, source[0], stitching_type.replace("t", "s"))
    if stitching_type == "s2t":
        _check_grid(stitching_type, target[0], "s2s")
        if has_cls_token(target[0]) and made_cls is None:
            raise UserError(
                f"s2t to {target[0]} tokens, the first of which is a CLS token: say how it is made, "
                "c2t_cls_token pool or learn"
            )


def _check_grid(stitching_type: str, n_tokens: int, remedy: str) -> None:
    """Raise a UserError if tokens form no grid; the remedy is the type that takes any number."""
    if not _is_grid(n_tokens):
        raise UserError(
            f"{stitching_type} needs patch tokens that form a square, not {n_tokens} tokens; "
            f"use {remedy}"
        )


def _check_token_counts(n_source: int, n_target: int, made_cls: str | None) -> None:
    """Raise a UserError if tokens cannot be resized to another number of tokens."""
    if not (_is_grid(n_source) and _is_grid(n_target)):
        raise UserError(
            "t2t needs equal token counts, or patch tokens that form squares, not "
            f"{n_source} and {n_target}; use s2s"
        )
    if has_cls_token(n_target) and not has_cls_token(n_source) and made_cls is None:
        raise UserError(
            f"t2t from {n_source} tokens, without a CLS token, to {n_target} with one: say how it "
            "is made, c2t_cls_token pool or learn"
        )


def _check_patches(n_positions: int, n_tokens: int, made_cls: str | None) -> None:
    """Raise a UserError if a map of so many positions cannot become so many tokens."""
    n_patches = n_tokens - (made_cls is not None)
    if n_positions != n_patches and (n_patches < 1 or has_cls_token(n_patches)):
        remedy = "leave out c2t_cls_token"
        if made_cls is None:
            remedy = "use c2t_cls_token pool or learn"
        raise UserError(
            f"c2t makes {n_patches} patch tokens for an end layer of {n_tokens} tokens, which form "
            f"no square; {remedy}, or use c2s"
        )


def _text(shape: Shape) -> str:
    """Return a shape as a text such as 3×8×8."""
    return "×".join(map(str, shape))


def _width(shape: Shape) -> int:
    """Return the number of channels of an activation: of a map, of each token or of a vector."""
    if len(shape) == 3:
        return shape[0]
    return shape[-1]


def _side(n_tokens: int) -> int:
    """Return the side of the square that tokens form without a CLS token."""
    return math.isqrt(n_tokens - has_cls_token(n_tokens))


def _is_grid(n_tokens: int) -> bool:
    """Return whether tokens form a square without a CLS token."""
    return _side(n_tokens) ** 2 == n_tokens - has_cls_token(n_tokens) and n_tokens > 0
