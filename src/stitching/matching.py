"""Direct matching of two activations, and of all pairs of a grid on shared passes; the solutions
are in `closed_forms`."""

import functools
import math
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from src.core.activations import shape_of
from src.core.arguments import real_tensor
from src.core.choices.stitching import FORMS, ClosedForm
from src.core.console import listed, progress, warn, warn_once
from src.core.errors import UserError
from src.core.grouping import grouped
from src.core.values import Metrics, Pair
from src.datasets.base import Batches, InputSet, batches_in
from src.models import Network, activations_of_both
from src.statistics.moments import CrossMoments, Moments, Rows
from src.stitching.closed_forms import (
    AnySolver,
    Cutoff,
    Matching,
    Source,
    Target,
    solve,
    solver_name,
    solver_of,
)
from src.stitching.layers import Plan, StitchingLayer, source_key
from src.stitching.upsampling import UpsampledRows, resized_rows

ROWS_PER_CHANNEL = 50  # of the source, for the number of images that `auto` takes
FEWEST_MATCHED = 500  # images
MOST_FITTING_SAMPLES = 10_000
AT_ONCE = 2**25  # float64 numbers of activations

StitchingLayers = Mapping[Pair, StitchingLayer]
Activations = Mapping[str, Tensor]  # by layer


def direct_matching(
    source: ArrayLike | Tensor,
    target: ArrayLike | Tensor,
    *,
    form: AnySolver = "pinv",
    cutoff: Cutoff = "paper",
) -> Matching:
    """Return the affine map that matches two activations of the same samples and positions, with
    its error.

    The paper's direct matching is `pinv` with the cutoff `paper` (its section 3; Csiszárik et al.
    2021, arXiv 2110.14633). A fit that the paper's cutoff truncates is warned of once.

    Args:
        source: (B, C1, H, W), (B, T, C1) or (B, C1), array or tensor.
        target: (B, C2, H, W), (B, T, C2) or (B, C2), with the positions of `source`.
        form: `pinv` (least squares), `covariance` or `ortho`; or a `UserSolver`.
        cutoff: of the singular values of [X 1] for `pinv`: `paper`, `exact`, or a number relative to the largest one;
            see `relative_cutoff`.
    Raises:
        UserError: an activation has other axes, or there is no such form.
        ValueError: the samples or positions differ, an activation has no finite real numbers, or there is
            no such cutoff.
    """
    source = real_tensor(source, "the source")
    target = real_tensor(target, "the target")
    n_source = shape_of(source).n_positions
    n_target = shape_of(target).n_positions
    if len(source) != len(target):
        raise ValueError(
            f"the source has {len(source)} samples, the target {len(target)}; give the same samples"
        )
    if n_source != n_target:
        raise ValueError(
            f"the source has {n_source} positions, the target {n_target}; resize one of them, or "
            'let src.stitching.build_layers(…, "auto") do so'
        )
    solver = solver_of(form)
    rows1 = Rows.of(source)
    rows2 = Rows.of(target)
    matching = solve(
        solver,
        Source(rows1.moments(), len(source), cutoff=cutoff),
        Target(rows2.moments(diagonal=not solver.needs_covariance)),
        rows1.cross(rows2).scatter,
    )
    _warn_of_misfits(form, {"source to target": matching})
    if matching.truncated:
        warn_once('the cutoff of singular values truncates a fit; give cutoff="exact"')
    return matching


class GridMoments:
    """The moments of sources, targets, and both together, of the pairs of a grid, which grow batch by batch.

    The matched rows of a pair are the positions of its source, laid out and resized, and those of its target.
    Pairs share a source if their layers prepare one front activation alike, and a target if they match the
    same positions of one end activation.

    Args:
        layers: of each pair.
        needs_covariance: of the targets; otherwise their scatters have only the diagonal.
    """

    def __init__(self, layers: StitchingLayers, *, needs_covariance: bool):
        self.layers = layers
        self.needs_covariance = needs_covariance
        self.n_samples = 0
        self.sources: defaultdict[Hashable, Moments] = defaultdict(Moments)
        self.targets: defaultdict[Hashable, Moments] = defaultdict(Moments)
        self.both: defaultdict[Pair, CrossMoments] = defaultdict(CrossMoments)
        # Of the target's CLS tokens where a layer learns its own: that token is not matched, but starts as the mean
        self.cls_tokens: defaultdict[Pair, Moments] = defaultdict(Moments)

    def target_key(self, pair: Pair) -> Hashable:
        """Return the key of the target of a pair."""
        made = self.layers[pair].plan.made
        return pair.end_layer, made.start, made.stop

    def add(self, front_acts: Activations, end_acts: Activations) -> None:
        """Add the activations (B, …) of the same images, by layer."""
        # Each source and each target is prepared once for all of its pairs
        source_rows: dict[Hashable, Rows | UpsampledRows] = {}
        target_rows: dict[Hashable, Rows] = {}
        for pair, layer in self.layers.items():
            source = source_key(pair, layer)
            if source not in source_rows:
                laid_out = layer.lay_out(front_acts[pair.front_layer])
                size = layer.plan.resized_to
                source_rows[source] = resized_rows(laid_out, size, layer.upsample_mode)
                moments = source_rows[source].moments()
                self.sources[source] = self.sources[source].pooled(moments)
            target = self.target_key(pair)
            if target not in target_rows:
                target_rows[target] = Rows.of(layer.targets(end_acts[pair.end_layer]))
                moments = target_rows[target].moments(diagonal=not self.needs_covariance)
                self.targets[target] = self.targets[target].pooled(moments)
            cross = source_rows[source].cross(target_rows[target])
            self.both[pair] = self.both[pair].pooled(cross)
            if hasattr(layer, "cls_token"):
                tokens = Rows.of(end_acts[pair.end_layer][:, layer.plan.made].flatten(1))
                self.cls_tokens[pair] = self.cls_tokens[pair].pooled(tokens.moments(diagonal=True))
        self.n_samples += len(next(iter(end_acts.values())))


@torch.no_grad()
def match_layers(
    front: Network,
    end: Network,
    layers: StitchingLayers,
    batches: Batches,
    *,
    form: AnySolver = "pinv",
    rank: int | None = None,
    cutoff: Cutoff = "paper",
) -> dict[Pair, Matching]:
    """Set stitching layers by direct matching on the given images.

    Args:
        front, end: the networks, in evaluation mode.
        layers: of each pair of layers, as from `build_layers`; their weights are changed. A learned CLS
            token starts as the mean of the target's.
        batches: images (B, C, H, W) and labels, which are not used and may be None.
        form: one of `FORMS`, or a `UserSolver`.
        rank: retained rank of the resized front activations; None keeps all.
        cutoff: see `relative_cutoff`.
    Returns:
        The `Matching` of each pair.
    Raises:
        UserError: the activations of a pair have no closed form, such as NaN.
        ValueError: the batches are no pairs of images and labels.
    """
    solver = solver_of(form)

    # One pass of each network
    front_layers = list(dict.fromkeys(pair.front_layer for pair in layers))
    end_layers = list(dict.fromkeys(pair.end_layer for pair in layers))
    moments = GridMoments(layers, needs_covariance=solver.needs_covariance)
    for images, _ in batches_in(progress(batches, "matching")):
        both = activations_of_both(front, front_layers, end, end_layers, images, keep=True)
        for part in _slices(*both):  # of the images
            front_acts, end_acts = (
                {name: act[part] for name, act in acts.items()} for acts in both
            )
            moments.add(front_acts, end_acts)

    matched = _solved(moments, solver, rank=rank, cutoff=cutoff)
    for pair, layer in layers.items():
        layer.set_affine(matched[pair].weight, matched[pair].bias)
        if hasattr(layer, "cls_token"):
            layer.cls_token.copy_(moments.cls_tokens[pair].mean.view_as(layer.cls_token))
    _warn_of_misfits(form, matched)
    return {pair: matched[pair] for pair in layers}


def _solved(
    moments: GridMoments, solver: ClosedForm, *, rank: int | None, cutoff: Cutoff
) -> dict[Pair, Matching]:
    """Return the map of each pair; each source and each target is decomposed once."""
    matched: dict[Pair, Matching] = {}
    target_of = functools.cache(lambda key: Target(moments.targets[key]))
    groups = grouped(moments.layers, lambda pair: source_key(pair, moments.layers[pair]))
    for key, pairs in progress(groups.items(), "direct matching", len(groups)):
        try:
            source = Source(
                moments.sources[key],
                moments.n_samples,
                rank=rank,
                along_axes=solver.along_axes,
                cutoff=cutoff,
            )
            for pair in pairs:
                target = target_of(moments.target_key(pair))
                matched[pair] = solve(solver, source, target, moments.both[pair].scatter)
        except ValueError as error:
            raise UserError(f"{pairs[0]}: {error}; check the networks and the inputs") from error
    return matched


def _slices(front_acts: Activations, end_acts: Activations) -> list[slice]:
    """Split the images of a batch, so that not more than `AT_ONCE` numbers are copied to float64
    together."""
    activations = [*front_acts.values(), *end_acts.values()]
    n_numbers = sum(activation[0].numel() for activation in activations)
    n_images = max(1, AT_ONCE // n_numbers)
    return [slice(first, first + n_images) for first in range(0, len(activations[-1]), n_images)]


def _warn_of_misfits(form: AnySolver, matched: Mapping[Any, Matching]) -> None:
    """Warn of maps of a user's form that are worse than the mean of the target on the fitting samples.

    Args:
        matched: by a name for the message.
    """
    if isinstance(form, str) and form in FORMS:
        return
    misfits = {name: matching.r2 for name, matching in matched.items() if matching.r2 < 0}
    if misfits:
        warn(
            f"{solver_name(form)}: R² is below 0 on the fitting samples, down to {min(misfits.values()):.2f} "
            f"({listed(misfits)}): the map is worse than the mean of the target; is its weight (C2, C1), not "
            "transposed, and its bias that of activations that are not centred?"
        )


def match(
    front: Network,
    end: Network,
    layers: StitchingLayers,
    train_set: InputSet,
    batch_size: int,
    *,
    n_samples: int | None,
    seed: int,
    form: AnySolver,
    **solution: Any,
) -> dict[Pair, Matching]:
    """Set stitching layers by direct matching on training images in shuffled order, not augmented.

    Args:
        n_samples: the number of images; None: `n_samples_for` each pair, as many as there are.
        solution: further arguments of `match_layers`, whose result it has.
    """

    def number_of(pair: Pair) -> int:
        if n_samples is not None:
            return n_samples
        return min(n_samples_for(layers[pair].plan), len(train_set))

    matched: dict[Pair, Matching] = {}
    for n, pairs in grouped(layers, number_of).items():
        samples = train_set.permutation(seed)[:n]
        if len(samples) < n:
            warn_once(f"there are only {len(samples)} training inputs for direct matching, not {n}")
        # A set that is read in order only gives these images in its own order
        batches = train_set.batches(batch_size, indices=train_set.in_cheapest_order(samples))
        of_number = {pair: layers[pair] for pair in pairs}
        matched |= match_layers(front, end, of_number, batches, form=form, **solution)
    return {pair: matched[pair] for pair in layers}


def n_samples_for(plan: Plan) -> int:
    """Return the number of images for direct matching: 50 rows a channel of the source, at least 500 and at
    most 10,000 images.

    An image counts as one row for each position of the source, or of the target if it has fewer: the
    further rows of a larger map are interpolated.
    """
    n_positions = plan.source.n_positions
    if plan.map_sizes is not None:
        n_positions = plan.n_kept + min(math.prod(size) for size in plan.map_sizes)
    n_images = math.ceil(ROWS_PER_CHANNEL * plan.source.n_channels / n_positions)
    return min(max(n_images, FEWEST_MATCHED), MOST_FITTING_SAMPLES)


def with_matching(metrics: Metrics, matching: Matching) -> Metrics:
    """Return the metrics of a stitch, with the metrics of its matching added."""
    return replace(
        metrics,
        matching_error=matching.error,
        r2_fit=matching.r2,
        n_fitting_samples=matching.n_samples,
        matching_rank=matching.rank,
        truncated=matching.truncated,
    )
