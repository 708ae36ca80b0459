"""Stitching layers: affine maps from activations of a front network to the shape of activations of
an end network.

Their state dicts are those of the public code: `transform.weight`, `transform.bias`, and for some
layers a `cls_token` or `cls_token_weight`.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from src.core.activations import (
    ActivationShape,
    MapSize,
    TokenLayout,
    channels_first,
    pool,
    positions_of,
)
from src.core.choices import AUTO, GRID, LETTERS, MAP, OF_MAPS, SEQUENCE, STITCHING_TYPES, VECTOR
from src.core.console import warn
from src.core.errors import UserError
from src.core.values import Pair

THRESHOLDS = ("0", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1")  # of sparsity


def resize_maps(maps: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Resize feature maps (B, C, H, W) to (B, C, *size).

    Args:
        mode: `bilinear`, without aligned corners, or `nearest`.
    """
    return F.interpolate(maps, size=tuple(size), mode=mode)


Layouts = tuple[
    TokenLayout | None, TokenLayout | None
]  # of source and target; see `ActivationShape.of`


def type_for(source: ActivationShape, target: ActivationShape) -> str:
    """Return the stitching type that AUTO stands for between two layers.

    Equally many tokens of any kind are stitched by `t2t`, token by token. Otherwise the kinds
    decide.
    """
    if source.is_tokens and source.sizes == target.sizes:
        return "t2t"
    return _type_of_kinds(source, target)


def _type_of_kinds(source: ActivationShape, target: ActivationShape) -> str:
    """Return the stitching type with the letters of two kinds; maps may have two sizes."""
    if source.kind == target.kind == MAP:
        return OF_MAPS[0]
    return f"{LETTERS[source.kind]}2{LETTERS[target.kind]}"


class Plan(NamedTuple):
    """The steps of a stitching layer: layout of the source, resize, affine map of each position, layout of
    the target."""

    source: ActivationShape  # as the stitching type reads it
    used_cls: str | None = None  # what becomes of its CLS token: see `plan_of`
    # The source becomes a single position: its CLS token, or the mean over its positions
    is_pooled: bool = False
    # The patches of the source form a map of the first size, which is resized to the second. None: all
    # positions are mapped as they are
    map_sizes: tuple[MapSize, MapSize] | None = None
    # The affine map is a 1×1 convolution of the map; otherwise a linear map of tokens or vectors
    is_convolution: bool = True
    n_kept: int = 0  # prefix tokens of the source that are mapped like the patches
    n_made: int = 0  # prefix tokens that are made, behind those that are kept
    made_cls: str | None = None  # how they are made: see `plan_of`; None: there are none

    @property
    def resized_to(self) -> MapSize | None:
        """The size that the laid-out map is still to be resized to; None: it has its size."""
        sizes = self.map_sizes
        if sizes is None or sizes[0] == sizes[1] or not self.is_convolution:
            return None
        return sizes[1]

    @property
    def made(self) -> slice:
        """The places of the made prefix tokens among the tokens of the target."""
        return slice(self.n_kept, self.n_kept + self.n_made)


def plan_of(
    stitching_type: str,
    source: ActivationShape,
    target: ActivationShape,
    made_cls: str | None = None,
    used_cls: str | None = None,
) -> Plan:
    """Return the plan of a stitching type between two shapes that fit it.

    Prefix tokens that both sides have are mapped like the patch tokens; further ones of the source
    are dropped.

    Args:
        made_cls: the prefix tokens that are put in front of stitched patches: `pool` (the mean of
            the patches), `learn` (parameters) or None. Between tokens, those are made that the
            target has and the source has not.
        used_cls: what becomes of the CLS token of a source if the target has no prefix tokens:
            dropped (`drop` or None), added to each patch token with a learned weight (`add`), or
            put in the place of all patch tokens (`only`).
    """
    source_kind, target_kind = STITCHING_TYPES[stitching_type]
    if source_kind == VECTOR and target_kind == GRID:
        target_kind = SEQUENCE  # a vector is given to prefix tokens as well
    source = _read_as(source_kind, source)
    target = _read_as(target_kind, target)
    is_between_tokens = stitching_type == "t2t"
    are_vectors = source_kind == target_kind == VECTOR
    if are_vectors or (is_between_tokens and source.sizes == target.sizes):
        return Plan(source, is_convolution=False)

    # The positions of both sides without prefix tokens, as maps. If a side is a sequence, both are rows
    size_in = source.map_size
    size_out = target.map_size
    if stitching_type == "c2t" and math.prod(size_in) == target.n_patches:
        size_out = size_in  # one position a patch, whatever grid the patches form
    if SEQUENCE in (source_kind, target_kind):
        size_in = (1, math.prod(size_in))
        size_out = (1, math.prod(size_out))
    if target_kind == VECTOR:
        size_in = (1, 1)

    # Prefix tokens
    n_prefix = target.layout.n_prefix
    n_kept = 0
    if is_between_tokens and source.layout.has_cls == target.layout.has_cls:
        n_kept = min(source.layout.n_prefix, n_prefix)
    if n_prefix == n_kept:
        made_cls = None
    if stitching_type not in ("t2c", "t2s", "t2t") or n_prefix:
        used_cls = None
    return Plan(
        source,
        used_cls,
        is_pooled=target_kind == VECTOR,
        map_sizes=(size_in, size_out),
        is_convolution=not is_between_tokens,
        n_kept=n_kept,
        n_made=n_prefix - n_kept,
        made_cls=made_cls,
    )


def _read_as(kind: str, shape: ActivationShape) -> ActivationShape:
    """Return the shape as a kind reads it: all tokens of a sequence are its steps."""
    layout = shape.layout
    if kind == SEQUENCE:
        layout = TokenLayout()
    return shape._replace(known_layout=layout)


class StitchingLayer(nn.Module):
    """A stitching layer: lays out the source as a map or as tokens, resizes a map, and maps each position affinely.

    Between a sequence and a map (or a grid of patch tokens), the map is read or written row by row,
    and resized along the row. For a vector as target, the source is replaced by its CLS token, or
    by the mean over its positions if it has none. A vector as source gives the same values to all
    positions of the target, prefix tokens included.

    Prefix tokens, in front of the patches, are a CLS token and further ones, such as registers.

    Args:
        stitching_type: a name in `STITCHING_TYPES`.
        plan: the steps.
        target: the shape of the target.
        upsample_mode: `bilinear` or `nearest`.
    """

    def __init__(
        self,
        stitching_type: str,
        plan: Plan,
        target: ActivationShape,
        *,
        upsample_mode: str = "bilinear",
    ):
        super().__init__()
        self.stitching_type = stitching_type
        self.plan = plan
        self.target = target
        self.upsample_mode = upsample_mode
        self.transform: nn.Conv2d | nn.Linear
        if plan.is_convolution:
            self.transform = nn.Conv2d(plan.source.n_channels, target.n_channels, 1)
        else:
            self.transform = nn.Linear(plan.source.n_channels, target.n_channels)
        if plan.made_cls == "learn":
            self.cls_token = nn.Parameter(torch.randn(1, plan.n_made, target.n_channels) * 1e-6)
        if plan.used_cls == "add":
            self.cls_token_weight = nn.Parameter(torch.tensor([0.1]))

    def lay_out(self, source: Tensor) -> Tensor:
        """Return the source as a map (B, C, H, W), as tokens (B, T, D) or as a vector (B, D).

        A map may still have to be resized, to `plan.resized_to`; tokens are resized already.

        Args:
            source: (B, C, H, W), (B, T, D) or (B, D).
        """
        plan = self.plan
        if plan.map_sizes is None:
            return source
        size_in, size_out = plan.map_sizes
        maps = channels_first(self._patches(source), size_in)
        if plan.is_convolution:
            return maps
        resized = resize_maps(maps, size_out, self.upsample_mode)
        return torch.cat([source[:, : plan.n_kept], positions_of(resized)], dim=1)

    def _patches(self, source: Tensor) -> Tensor:
        """Return the patches of a source, or a vector in their place.

        The CLS token is added to each patch, or stands in its place, if `used_cls` says so.
        """
        layout = self.plan.source.layout
        if self.plan.is_pooled:
            return pool(source, layout)
        patches = source[:, layout.n_prefix :]  # only tokens have any in front
        if not layout.has_cls:
            return patches
        cls_token = source[:, :1]
        if self.plan.used_cls == "add":
            return patches + self.cls_token_weight * cls_token
        if self.plan.used_cls == "only":
            return cls_token.expand_as(patches)
        return patches

    def targets(self, target: Tensor) -> Tensor:
        """Return the positions (B, P, C) of a target (B, …) that the affine map is matched to.

        They are as many as those of the source that is laid out and resized, in the same order. Left
        out are prefix tokens that this layer makes.
        """
        positions = positions_of(target)
        if self.plan.made_cls is None:
            return positions
        made = self.plan.made
        return torch.cat([positions[:, : made.start], positions[:, made.stop :]], dim=1)

    def forward(self, source: Tensor) -> Tensor:
        """Map source activations (B, …) to the shape of target activations (B, …)."""
        stitched = self._transformed(self.lay_out(source))
        if self.plan.made_cls is not None:
            stitched = self._with_made(positions_of(stitched))
        return self.target.native(stitched)

    def _with_made(self, tokens: Tensor) -> Tensor:
        """Return stitched tokens (B, T, D) with the prefix tokens that this layer makes."""
        kept = tokens[:, : self.plan.n_kept]
        patches = tokens[:, self.plan.n_kept :]
        if self.plan.made_cls == "pool":
            made = patches.mean(1, keepdim=True).expand(-1, self.plan.n_made, -1)
        else:
            made = self.cls_token.expand(len(tokens), -1, -1)
        return torch.cat([kept, made, patches], dim=1)

    def _transformed(self, source: Tensor) -> Tensor:
        """Resize a laid-out source to `plan.resized_to`, if any, and map each position affinely.

        Resizing weighs positions with weights that sum to 1, and the convolution weighs channels.
        The two commute, bias included. Enlarging comes behind the convolution, and all else in
        front of it, as that is less to compute.
        """
        size = self.plan.resized_to
        if size is None:
            return self.transform(source)
        if math.prod(size) > math.prod(source.shape[2:]):
            return resize_maps(self.transform(source), size, self.upsample_mode)
        return self.transform(resize_maps(source, size, self.upsample_mode))

    def set_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Set the affine map to a weight (C2, C1) and a bias (C2,)."""
        weight = weight.reshape(self.transform.weight.shape)
        self.transform.load_state_dict({"weight": weight, "bias": bias})

    @torch.no_grad()
    def sparsity(self) -> dict[str, float]:
        """Return the share of weights and biases with at most a magnitude, by `THRESHOLDS`."""
        sizes = parameters_to_vector(self.transform.parameters()).abs()
        shares = torch.stack(
            [(sizes <= float(threshold)).double().mean() for threshold in THRESHOLDS]
        )
        return dict(zip(THRESHOLDS, shares.tolist(), strict=True))

    def l1_norm(self) -> Tensor:
        """Return the sum of the magnitudes of weights and biases of the affine map."""
        norms = [parameter.abs().sum() for parameter in self.transform.parameters()]
        return torch.stack(norms).sum()


def source_key(pair: Pair, layer: StitchingLayer) -> Hashable:
    """Return a key of what the layer of a pair maps, for pairs that map the same source: the front layer,
    and the steps in front of the affine map."""
    steps = layer.plan._replace(n_made=0, made_cls=None)
    return pair.front_layer, steps, layer.upsample_mode


def build_stitching_layer(
    stitching_type: str,
    source: Sequence[int],
    target: Sequence[int],
    *,
    layouts: Layouts = (None, None),
    is_identity: bool = False,
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
        is_identity: start as the identity; otherwise from torch's random weights, drawn from the global
            generator.
        c2t_cls_token, t2c_cls_token: `made_cls` and `used_cls` of `plan_of`.
        upsample_mode: `bilinear` or `nearest`.
    Raises:
        UserError: the shapes do not fit the type, or have no identity.
    """
    source_shape = ActivationShape.of(source, layouts[0])
    target_shape = ActivationShape.of(target, layouts[1])
    if stitching_type == AUTO:
        stitching_type = type_for(source_shape, target_shape)
        c2t_cls_token = c2t_cls_token or "pool"
        if target_shape.layout.n_prefix == 0:
            c2t_cls_token = None
    if stitching_type == "t2t" and source_shape.kind == target_shape.kind == VECTOR:
        stitching_type = "v2v"  # the paper's code maps the last axis of whatever it is given
    _check_kinds(stitching_type, source_shape, target_shape)
    plan = plan_of(stitching_type, source_shape, target_shape, c2t_cls_token, t2c_cls_token)
    _check_plan(stitching_type, source_shape, target_shape, plan, c2t_cls_token)
    layer = StitchingLayer(stitching_type, plan, target_shape, upsample_mode=upsample_mode)
    if is_identity:
        _set_identity(layer)
    return layer


def _set_identity(layer: StitchingLayer) -> None:
    """Make the affine map of a stitching layer the identity.

    Raises:
        UserError: the two sides differ in kind, or a type other than `t2t` has unequal widths.
    """
    stitching_type = layer.stitching_type
    width_in = layer.plan.source.n_channels
    width_out = layer.target.n_channels
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


def _check_kinds(stitching_type: str, source: ActivationShape, target: ActivationShape) -> None:
    """Raise a UserError if two activations are not of the kinds of a stitching type."""
    kinds = STITCHING_TYPES[stitching_type]
    fits = all(
        shape.kind == kind or {shape.kind, kind} == {GRID, SEQUENCE}
        for shape, kind in zip((source, target), kinds, strict=True)
    )
    if not fits:
        raise UserError(
            f"{stitching_type} stitches from a {kinds.source} to a {kinds.target}, not from shape "
            f"{source} to {target}; use {type_for(source, target)}"
        )


def _check_plan(
    stitching_type: str,
    source: ActivationShape,
    target: ActivationShape,
    plan: Plan,
    made_cls: str | None,
) -> None:
    """Raise a UserError if two activations of the right kinds do not fit a stitching type."""
    if stitching_type == "c2c" and plan.resized_to is not None:
        raise UserError(f"c2c needs maps of equal size, not {source} and {target}; use rc2c_pre")
    if stitching_type == "c2t" and target.layout.n_prefix == 0 and made_cls is not None:
        raise UserError(
            f"c2t_cls_token {made_cls}: no token stands in front of the patches of the end layer, "
            f"which has {target.n_positions} tokens; leave it out"
        )
    is_by_number = plan.map_sizes is None or (stitching_type == "c2t" and plan.resized_to is None)
    if not is_by_number:
        _check_grids(stitching_type, source, target)
    if plan.n_made and plan.made_cls is None:
        raise UserError(
            f"{stitching_type} to {target.n_positions} tokens, {target.layout}: what stands in front has "
            "to be made; use c2t_cls_token pool or learn"
        )


def _check_grids(stitching_type: str, source: ActivationShape, target: ActivationShape) -> None:
    """Raise a UserError if tokens form no grid; the remedy is the type that takes any number."""
    kinds = STITCHING_TYPES[stitching_type]
    source = _read_as(kinds.source, source)
    target = _read_as(kinds.target, target)
    for shape, kind in ((source, kinds.source), (target, kinds.target)):
        if shape.kind != kind and kinds.source != VECTOR:
            raise UserError(
                f"{stitching_type} needs patch tokens that form a grid, not the {shape.n_positions} "
                f"tokens of a sequence; use {_type_of_kinds(source, target)}"
            )
