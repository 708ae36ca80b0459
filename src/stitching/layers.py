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
from src.ground.console import warn
from src.ground.errors import UserError
from src.ground.images import shape_text
from src.models.activations import pool
from src.models.tokens import TokenLayout, guessed_layout

MapSize = tuple[int, int]  # height and width of a map
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


Layouts = tuple[TokenLayout | None, TokenLayout | None]  # of source and target; see `StitchSide.of`


class StitchSide(NamedTuple):
    """The activation on one side of a stitch."""

    shape: tuple[int, ...]  # (C, H, W), (T, D) or (D,)
    tokens: TokenLayout  # the order of tokens (T, D); of further shapes it means nothing

    @classmethod
    def of(cls, shape: Sequence[int], layout: TokenLayout | None = None) -> "StitchSide":
        """Return the side with a shape; without a layout, that of tokens is guessed."""
        if layout is None and len(shape) == 2:
            layout = guessed_layout(shape[0])
        return cls(tuple(shape), layout or TokenLayout())

    @property
    def kind(self) -> str:
        """The kind of the activation: MAP, GRID, SEQUENCE or VECTOR.

        Raises:
            UserError: the shape has another number of axes.
        """
        if len(self.shape) == 3:
            return MAP
        if len(self.shape) == 1:
            return VECTOR
        if len(self.shape) != 2:
            raise UserError(
                f"activations of shape {shape_text(self.shape)} cannot be stitched; choose a layer with "
                "a feature map (C, H, W), tokens (T, D) or a vector (D)"
            )
        if self.tokens.grid is None:
            return SEQUENCE
        return GRID

    @property
    def width(self) -> int:
        """The number of channels: of a map, of each token or of a vector."""
        if len(self.shape) == 3:
            return self.shape[0]
        return self.shape[-1]

    @property
    def n_patches(self) -> int:
        """The number of tokens without the prefix tokens."""
        return self.shape[0] - self.tokens.n_prefix

    def map_size(self, kind: str) -> MapSize:
        """Return the size of the map that the positions form; of a grid, without prefix tokens.

        Args:
            kind: MAP, GRID or SEQUENCE; a grid may be read as a sequence.
        """
        if kind == MAP:
            return self.shape[1], self.shape[2]
        if kind == SEQUENCE or self.tokens.grid is None:
            return 1, self.shape[0]
        return self.tokens.grid

    def __str__(self) -> str:
        return shape_text(self.shape)


def type_for(source: StitchSide, target: StitchSide) -> str:
    """Return the stitching type that AUTO stands for between two layers.

    Equally many tokens of any kind are stitched by `t2t`, token by token. Otherwise
    `TYPES_OF_KINDS` decides.

    Raises:
        UserError: a shape is of no kind.
    """
    if len(source.shape) == len(target.shape) == 2 and source.shape[0] == target.shape[0]:
        return "t2t"
    return TYPES_OF_KINDS[source.kind][target.kind]


class Plan(NamedTuple):
    """The steps of a stitching layer from source to target, in the order of the fields."""

    # The source becomes a single position: its CLS token, or the mean over its positions
    is_averaged: bool = False
    tokens: TokenLayout = TokenLayout()  # of a source that is a grid
    n_kept: int = 0  # prefix tokens of the source that are mapped like the patches
    used_cls: str | None = None  # what becomes of a CLS token otherwise: see `StitchingLayer`
    # The positions of the source are laid out as a map of this size; None: it is used unchanged
    laid_out: MapSize | None = None
    token_size: MapSize | None = (
        None  # the laid-out patches are resized to it, and are tokens again
    )
    size: MapSize | None = None  # the laid-out map is resized to it beside the affine map
    convolves_first: bool = False  # the affine map precedes that resize
    # The affine map is a 1×1 convolution of a map, otherwise a linear map of tokens or vectors
    is_convolution: bool = True
    # The map whose positions are those of the target; None: the affine map makes the target
    target_map: MapSize | None = None
    n_made: int = 0  # prefix tokens that are made, behind those that are kept
    made_cls: str | None = None  # how they are made: see `StitchingLayer`; None: there are none

    def resizing(self, size_in: MapSize, size_out: MapSize) -> "Plan":
        """Return this plan with a resize of the map between two sizes.

        Resizing weighs positions with weights that sum to 1, and the convolution weighs channels.
        The two commute, bias included. Enlarging comes behind the convolution, and all else in
        front of it, as that is less to compute.
        """
        size = None if size_in == size_out else size_out
        enlarges = math.prod(size_out) > math.prod(size_in)
        return self._replace(size=size, convolves_first=enlarges)

    @property
    def of_source(self) -> "Plan":
        """The steps in front of the affine map.

        Two pairs with one front layer map the same source if these steps are equal: matching then
        computes its moments once.
        """
        return self._replace(convolves_first=False, target_map=None, n_made=0, made_cls=None)

    @property
    def made(self) -> slice:
        """The places of the made prefix tokens among the tokens of the target."""
        return slice(self.n_kept, self.n_kept + self.n_made)


def plan_of(
    stitching_type: str,
    source: StitchSide,
    target: StitchSide,
    made_cls: str | None = None,
    used_cls: str | None = None,
) -> Plan:
    """Return the plan of a stitching type between two sides that fit it.

    Args:
        made_cls, used_cls: as for `StitchingLayer`; without effect where they do not apply.
    """
    source_kind, target_kind = STITCHING_TYPES[stitching_type]
    if stitching_type == "t2t":
        return _between_tokens(source, target, made_cls, used_cls)
    if target_kind == VECTOR:
        return Plan(is_averaged=True, tokens=_tokens_of(source, source_kind), target_map=(1, 1))
    if source_kind == VECTOR:
        return _from_vector(target)
    if source_kind == MAP and target_kind == MAP:
        return Plan().resizing(source.map_size(MAP), target.map_size(MAP))
    if source_kind != GRID:
        used_cls = None
    return _between_positions(stitching_type, source, target, made_cls, used_cls)


def _tokens_of(side: StitchSide, kind: str) -> TokenLayout:
    """Return the layout of the tokens of a grid; a map, or a grid read as a sequence, has none."""
    return side.tokens if kind == GRID else TokenLayout()


def _between_tokens(
    source: StitchSide, target: StitchSide, made_cls: str | None, used_cls: str | None
) -> Plan:
    """Return the plan of `t2t`, which resizes patch tokens where the numbers of tokens differ.

    As many prefix tokens are kept as both sides have. The target's further ones are made.
    """
    if source.shape[:-1] == target.shape[:-1]:  # equally many tokens, or two vectors
        return Plan(is_convolution=False)
    n_kept = _n_shared_prefix(source, target)
    n_made = target.tokens.n_prefix - n_kept
    if n_made == 0:
        made_cls = None
    if target.tokens.n_prefix:
        used_cls = None
    return Plan(
        is_convolution=False,
        laid_out=source.map_size(GRID),
        tokens=source.tokens,
        n_kept=n_kept,
        used_cls=used_cls,
        token_size=target.map_size(GRID),
        n_made=n_made,
        made_cls=made_cls,
    )


def _n_shared_prefix(source: StitchSide, target: StitchSide) -> int:
    """Count the prefix tokens that both sides have; 0 if one has a CLS token and one has none."""
    if source.tokens.has_cls != target.tokens.has_cls:
        return 0
    return min(source.tokens.n_prefix, target.tokens.n_prefix)


def _from_vector(target: StitchSide) -> Plan:
    """Return the plan from a vector to a map, or to tokens, which include prefix tokens.

    The vector is a map of one position, which is resized to all positions.
    """
    kind = MAP if len(target.shape) == 3 else SEQUENCE
    size = target.map_size(kind)
    return Plan(laid_out=(1, 1), target_map=size).resizing((1, 1), size)


def _between_positions(
    stitching_type: str,
    source: StitchSide,
    target: StitchSide,
    made_cls: str | None,
    used_cls: str | None,
) -> Plan:
    """Return the plan between maps, grids and sequences, where one side is no map."""
    source_kind, target_kind = STITCHING_TYPES[stitching_type]
    n_made = _tokens_of(target, target_kind).n_prefix
    if n_made == 0:
        made_cls = None

    # The positions of both sides without prefix tokens, as maps
    size_in = source.map_size(source_kind)
    size_out = target.map_size(target_kind)
    if stitching_type == "c2t" and math.prod(size_in) == target.n_patches:
        size_out = size_in

    # If a side is a sequence, positions of both sides are a row
    if SEQUENCE in (source_kind, target_kind):
        size_in = (1, math.prod(size_in))
        size_out = (1, math.prod(size_out))

    # A map is taken, and given, as it is, unless the other side is a sequence
    laid_out = None
    if source_kind != MAP or target_kind == SEQUENCE:
        laid_out = size_in
    target_map = None
    if target_kind != MAP or source_kind == SEQUENCE:
        target_map = size_out
    plan = Plan(
        tokens=_tokens_of(source, source_kind),
        used_cls=used_cls,
        laid_out=laid_out,
        target_map=target_map,
        n_made=n_made,
        made_cls=made_cls,
    )
    return plan.resizing(size_in, size_out)


class StitchingLayer(nn.Module):
    """Lays out the source as a map or as tokens, resizes a map, and maps each position affinely.

    Between a sequence and a map (or a grid of patch tokens), the map is read or written row by row,
    and resized along the row. For a vector as target, the source is replaced by its CLS token, or
    by the mean over its positions if it has none. A vector as source gives the same values to all
    positions of the target, prefix tokens included.

    Prefix tokens, in front of the patches, are a CLS token and further ones, such as registers.

    `build_stitching_layer` checks that shapes and type fit; this class does not.

    Args:
        source, target: shapes (C, H, W), (T, D) or (D,).
        stitching_type: a name in `STITCHING_TYPES`; None: the type that `type_for` returns.
        layouts: of the tokens of source and target; None: guessed from their number.
        made_cls: the prefix tokens that are put in front of stitched patches: `pool` (the mean of
            the patches), `learn` (parameters) or None. Between tokens, those are made that the
            target has and the source has not.
        used_cls: what becomes of the CLS token of a source if the target has no prefix tokens:
            dropped (`drop` or None), added to each patch token with a learned weight (`add`), or
            put in the place of all patch tokens (`only`). Prefix tokens that both have are mapped
            like the patch tokens; further ones of the source are dropped.
        upsample_mode: `bilinear` or `nearest`.
    """

    def __init__(
        self,
        source: Sequence[int],
        target: Sequence[int],
        *,
        stitching_type: str | None = None,
        layouts: Layouts = (None, None),
        made_cls: str | None = None,
        used_cls: str | None = None,
        upsample_mode: str = "bilinear",
    ):
        super().__init__()
        source_side = StitchSide.of(source, layouts[0])
        target_side = StitchSide.of(target, layouts[1])
        self.stitching_type = stitching_type or type_for(source_side, target_side)
        self.target_shape = target_side.shape
        self.plan = plan_of(self.stitching_type, source_side, target_side, made_cls, used_cls)
        self.upsample_mode = upsample_mode
        width_in = source_side.width
        width_out = target_side.width
        self.transform: nn.Conv2d | nn.Linear
        if self.plan.is_convolution:
            self.transform = nn.Conv2d(width_in, width_out, 1)
        else:
            self.transform = nn.Linear(width_in, width_out)
        if self.plan.made_cls == "learn":
            self.cls_token = nn.Parameter(torch.randn(1, self.plan.n_made, width_out) * 1e-6)
        if self.plan.used_cls == "add":
            self.cls_token_weight = nn.Parameter(torch.tensor([0.1]))

    @property
    def widths(self) -> tuple[int, int]:
        """The numbers of channels of source and target."""
        width_out, width_in = self.transform.weight.shape[:2]
        return width_in, width_out

    def layout(self, source: Tensor) -> Tensor:
        """Return the source as a map (B, C, H, W), as tokens (B, T, D) or as a vector (B, D).

        A map may still have to be resized, to `plan.size`; tokens are resized already.

        Args:
            source: (B, C, H, W), (B, T, D) or (B, D).
        """
        plan = self.plan
        if plan.is_averaged:
            return pool(source, plan.tokens)[:, :, None, None]
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
        return torch.cat([source[:, : plan.n_kept], tokens], dim=1)

    def _patches(self, source: Tensor) -> Tensor:
        """Return the patch tokens of a source (B, T, D).

        The CLS token is added to each patch token, or stands in its place, if `used_cls` says so.
        """
        patches = source[:, self.plan.tokens.n_prefix :]
        if not self.plan.tokens.has_cls:
            return patches
        cls_token = source[:, :1]
        if self.plan.used_cls == "add":
            return patches + self.cls_token_weight * cls_token
        if self.plan.used_cls == "only":
            return cls_token.expand_as(patches)
        return patches

    def targets(self, target: Tensor) -> Tensor:
        """Return the part of a target activation (B, …) that the affine map is matched to.

        It has as many positions as the source that is laid out and resized, in the same order. Left
        out are prefix tokens that this layer makes.
        """
        if self.plan.made_cls is not None:
            made = self.plan.made
            target = torch.cat([target[:, : made.start], target[:, made.stop :]], dim=1)
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
        n_kept = self.plan.n_kept
        if self.plan.made_cls == "pool":
            mean = stitched[:, n_kept:].mean(1, keepdim=True)
            made = mean.expand(-1, self.plan.n_made, -1)
        else:
            made = self.cls_token.expand(len(stitched), -1, -1)
        return torch.cat([stitched[:, :n_kept], made, stitched[:, n_kept:]], dim=1)

    def _transformed(self, source: Tensor) -> Tensor:
        """Resize a laid-out source to `plan.size`, if any, and map each position affinely."""
        size = self.plan.size
        if size is None:
            return self.transform(source)
        if self.plan.convolves_first:
            return resize(self.transform(source), size, self.upsample_mode)
        return self.transform(resize(source, size, self.upsample_mode))

    def _written_back(self, stitched: Tensor) -> Tensor:
        """Return a stitched map (B, D, H, W) in the shape of a target without made prefix tokens.

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
    source: Sequence[int],
    target: Sequence[int],
    *,
    layouts: Layouts = (None, None),
    init: str = "rand",
    c2t_cls_token: str | None = None,
    t2c_cls_token: str | None = None,
    upsample_mode: str = "bilinear",
) -> StitchingLayer:
    """Build the stitching layer of a type between activations of two shapes.

    Args:
        stitching_type: a name in `STITCHING_TYPES`, or `auto`. `auto` takes the type that
            `type_for` returns. Prefix tokens that the source lacks are then the mean of the patch
            tokens, unless `c2t_cls_token` says otherwise.
        source, target: shapes of the front and the end activation of an image: (C, H, W), (T, D) or
            (D,).
        layouts: of the tokens of source and target, as `Network.token_layout` returns them; None:
            guessed from their number.
        init: `eye` starts as the identity. All further names start from torch's random weights,
            drawn from the global generator; nothing is matched here.
        c2t_cls_token, t2c_cls_token, upsample_mode: `made_cls`, `used_cls` and the mode of
            `StitchingLayer`.
    Raises:
        UserError: the shapes do not fit the type, or there is no identity between them for `eye`.
    """
    source_side = StitchSide.of(source, layouts[0])
    target_side = StitchSide.of(target, layouts[1])
    if stitching_type == AUTO:
        stitching_type = type_for(source_side, target_side)
        c2t_cls_token = _chosen_cls(stitching_type, target_side, c2t_cls_token)
    _check_kinds(stitching_type, source_side, target_side)
    _check_shapes(stitching_type, source_side, target_side, c2t_cls_token)
    layer = StitchingLayer(
        source,
        target,
        stitching_type=stitching_type,
        layouts=(source_side.tokens, target_side.tokens),
        made_cls=c2t_cls_token,
        used_cls=t2c_cls_token,
        upsample_mode=upsample_mode,
    )
    if init == "eye":
        _set_identity(layer)
    return layer


def _chosen_cls(stitching_type: str, target: StitchSide, option: str | None) -> str | None:
    """Return how `auto` makes the prefix tokens of a grid: as the option says, by default `pool`.

    None for a target without prefix tokens.
    """
    if stitching_type not in ("c2t", "s2t", "t2t") or target.tokens.n_prefix == 0:
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


def _check_kinds(stitching_type: str, source: StitchSide, target: StitchSide) -> None:
    """Raise a UserError if two activations are not of the kinds of a stitching type."""
    fitting = type_for(source, target)
    kinds = STITCHING_TYPES[stitching_type]
    n_axes = {MAP: 3, GRID: 2, SEQUENCE: 2, VECTOR: 1}
    fits = [len(source.shape), len(target.shape)] == [n_axes[kind] for kind in kinds]
    are_vectors = len(source.shape) == len(target.shape) == 1
    if not fits and not (are_vectors and stitching_type == "t2t"):
        raise UserError(
            f"{stitching_type} stitches from a {kinds[0]} to a {kinds[1]}, not from shape "
            f"{source} to {target}; use {fitting}"
        )


def _check_shapes(
    stitching_type: str, source: StitchSide, target: StitchSide, made_cls: str | None
) -> None:
    """Raise a UserError if two shapes of the right kinds do not fit a stitching type."""
    if stitching_type == "c2c" and source.shape[1:] != target.shape[1:]:
        raise UserError(f"c2c needs maps of equal size, not {source} and {target}; use rc2c_pre")
    if stitching_type == "t2t" and source.shape[:-1] != target.shape[:-1]:
        _check_grids(source, target)
        if target.tokens.n_prefix > _n_shared_prefix(source, target):
            _check_made(stitching_type, target, made_cls)
    if stitching_type == "c2t":
        _check_patches(math.prod(source.shape[1:]), target, made_cls)
        _check_made(stitching_type, target, made_cls)
    if stitching_type in ("t2c", "t2s", "t2v"):
        _check_grid(stitching_type, source, stitching_type.replace("t", "s"))
    if stitching_type == "s2t":
        _check_grid(stitching_type, target, "s2s")
        _check_made(stitching_type, target, made_cls)


def _check_grid(stitching_type: str, side: StitchSide, remedy: str) -> None:
    """Raise a UserError if tokens form no grid; the remedy is the type that takes any number."""
    if side.kind != GRID:
        raise UserError(
            f"{stitching_type} needs patch tokens that form a grid, not the {side.shape[0]} tokens "
            f"of a sequence; use {remedy}"
        )


def _check_grids(source: StitchSide, target: StitchSide) -> None:
    """Raise a UserError if tokens cannot be resized to another number of tokens."""
    if not source.kind == target.kind == GRID:
        raise UserError(
            "t2t needs equal token counts, or patch tokens that form grids, not "
            f"{source.shape[0]} and {target.shape[0]}; use {type_for(source, target)}"
        )


def _check_made(stitching_type: str, target: StitchSide, made_cls: str | None) -> None:
    """Raise a UserError if nothing says how the prefix tokens of a target are made."""
    if target.tokens.n_prefix and made_cls is None:
        raise UserError(
            f"{stitching_type} to {target.shape[0]} tokens, {target.tokens}: what stands in front has "
            "to be made; use c2t_cls_token pool or learn"
        )


def _check_patches(n_positions: int, target: StitchSide, made_cls: str | None) -> None:
    """Raise a UserError if a map of `n_positions` cannot become the patches of a target."""
    if target.tokens.n_prefix == 0 and made_cls is not None:
        raise UserError(
            f"c2t_cls_token {made_cls}: no token stands in front of the patches of the end layer, "
            f"which has {target.shape[0]} tokens; leave it out"
        )
    if target.kind != GRID and n_positions != target.n_patches:
        raise UserError(f"c2t makes {target.n_patches} patch tokens, which form no grid; use c2s")
