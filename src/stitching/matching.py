"""Direct matching of two activations, and of all pairs of a grid on shared passes; the solutions
are in `closed_forms`."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from src.choices.stitching import FORMS
from src.core.activations import form_of
from src.core.arguments import real_tensor
from src.core.console import listed, progress, warn, warn_once
from src.core.errors import UserError
from src.core.grouping import grouped
from src.core.user_code import is_user_code
from src.datasets.base import BaseImageSet, Batches, batches_in
from src.models import Network, activations_of_both
from src.statistics.moments import Moments, Rows
from src.stitching.closed_forms import (
    ClosedForm,
    Cutoff,
    Matching,
    Roots,
    closed_form,
    name_of,
    solver_of,
)
from src.stitching.layers import Plan, StitchingLayer
from src.stitching.moments import SourceMoments, UpsampledRows, source_rows
from src.values import Metrics, Pair

ROWS_PER_CHANNEL = 50  # of the source, for the number of images that `auto` takes
FEWEST_MATCHED = 500  # images
MOST_FITTING_SAMPLES = 10_000
AT_ONCE = 2**25  # float64 numbers of activations
ROUNDING = 1e-12  # of a variance, relative to the square of the mean

StitchingLayers = Mapping[Pair, StitchingLayer]
Activations = Mapping[str, Tensor]  # by layer


class SourceKey(NamedTuple):
    """Identifies a source: a front layer, and how its activation is laid out and resized."""

    front_layer: str
    plan: Plan  # without the steps behind the affine map
    upsample_mode: str


class TargetKey(NamedTuple):
    """Identifies a target: the matched part of an end layer's activation."""

    end_layer: str
    left_out: tuple[int, int]  # first and last place, excluded, of the tokens that are made


class ClsKey(NamedTuple):
    """The key of a learned prefix token of an end layer: it is not matched, but its mean is needed."""

    end_layer: str
    place: int  # among the tokens


class _PairKeys(NamedTuple):
    """The source and the target of a stitching layer, and its learned prefix tokens in order."""

    source: SourceKey
    target: TargetKey
    cls_keys: list[ClsKey]

    @classmethod
    def of(cls, pair: Pair, layer: StitchingLayer) -> "_PairKeys":
        """Return the keys of the stitching layer of a pair."""
        made = layer.plan.made
        places = range(0)
        if hasattr(layer, "cls_token"):
            places = range(made.start, made.stop)
        return cls(
            SourceKey(pair.front_layer, layer.plan.of_source, layer.upsample_mode),
            TargetKey(pair.end_layer, (made.start, made.stop)),
            [ClsKey(pair.end_layer, place) for place in places],
        )


class GridKeys(NamedTuple):
    """The sources and the targets of the stitching layers of a grid."""

    layers: StitchingLayers
    of_pair: dict[Pair, _PairKeys]
    # The sources and targets, each with a stitching layer that has it
    sources: dict[SourceKey, StitchingLayer]
    targets: dict[TargetKey, StitchingLayer]
    cls_keys: dict[ClsKey, None]  # a set in order
    targets_of: dict[SourceKey, dict[TargetKey | ClsKey, None]]  # sets in order
    pairs_of: dict[SourceKey, list[Pair]]

    @classmethod
    def of(cls, layers: StitchingLayers) -> "GridKeys":
        """Collect the keys of all pairs."""
        keys = cls(layers, {}, {}, {}, {}, {}, {})
        for pair, layer in layers.items():
            keys.of_pair[pair] = _PairKeys.of(pair, layer)
            source, target, cls_keys = keys.of_pair[pair]
            keys.sources.setdefault(source, layer)
            keys.targets.setdefault(target, layer)
            keys.pairs_of.setdefault(source, []).append(pair)
            targets_of_source = keys.targets_of.setdefault(source, {})
            targets_of_source[target] = None
            for cls_key in cls_keys:
                targets_of_source[cls_key] = None
                keys.cls_keys[cls_key] = None
        return keys


GridMoments = Mapping[SourceKey, SourceMoments]


def direct_matching(
    source: ArrayLike | Tensor,
    target: ArrayLike | Tensor,
    *,
    form: ClosedForm = "pinv",
    cutoff: Cutoff = "paper",
) -> Matching:
    """Return the affine map that matches two activations of the same samples and positions, with
    its error.

    The paper's direct matching is `pinv` with the cutoff `paper` (its section 3; Csiszárik et al.
    2021, arXiv 2110.14633). A fit that the paper's cutoff truncates is warned of once.

    Args:
        source: (B, C1, H, W), (B, T, C1) or (B, C1), array or tensor.
        target: (B, C2, H, W), (B, T, C2) or (B, C2), with the positions of `source`.
        form: `pinv` (least squares), `covariance` or `ortho`; or a `UserForm`.
        cutoff: of the singular values of [X 1] for `pinv`: `paper`, `exact`, or a number relative to the largest one;
            see `relative_cutoff`.
    Raises:
        UserError: an activation has other axes.
        ValueError: the samples or positions differ, an activation has no finite real numbers, or there is
            no such form or cutoff.
    """
    source = real_tensor(source, "the source")
    target = real_tensor(target, "the target")
    n_source = form_of(source).n_positions
    n_target = form_of(target).n_positions
    if len(source) != len(target):
        raise ValueError(
            f"the source has {len(source)} samples, the target {len(target)}; give the same samples"
        )
    if n_source != n_target:
        raise ValueError(
            f"the source has {n_source} positions, the target {n_target}; resize one of them, or "
            'let src.stitching.build_layers(…, "auto") do so'
        )
    if isinstance(form, str) and form not in FORMS and not is_user_code(form):
        raise ValueError(f"unknown closed form {form!r}; choose one of {', '.join(FORMS)}")
    moments = moments_of(Rows.of(source), Rows.of(target), len(source), form=form)
    matching = closed_form(form, moments, cutoff=cutoff)["target"]
    _warn_of_misfits(form, {"source to target": matching})
    if matching.truncated:
        warn_once('the cutoff of singular values truncates a fit; give cutoff="exact"')
    return matching


def moments_of(
    source: Rows | UpsampledRows, target: Rows, n_samples: int, *, form: ClosedForm
) -> SourceMoments:
    """Return the moments of a source and a target that a form needs."""
    moments = target.moments(diagonal=not solver_of(form).target_scatter)
    targets: dict[Hashable, Moments] = {"target": moments}
    return SourceMoments(
        n_samples, source.moments(), targets, {"target": source.cross(target).scatter}
    )


def matching_batches(train_set: BaseImageSet, n: int, batch_size: int, *, seed: int) -> Batches:
    """Return batches of the first n training images in shuffled order, not augmented.

    A set that is read in order only gives these images in its own order.
    """
    samples = train_set.permutation(seed)[:n]
    if len(samples) < n:
        warn_once(f"there are only {len(samples)} training inputs for direct matching, not {n}")
    return train_set.batches(batch_size, indices=train_set.in_cheapest_order(samples))


@torch.no_grad()
def grid_moments(
    front: Network, end: Network, keys: GridKeys, batches: Batches, *, form: ClosedForm
) -> GridMoments:
    """Return the moments that a form needs of all pairs, from one pass of each network
    over the batches."""
    front_layers = list(dict.fromkeys(pair.front_layer for pair in keys.layers))
    end_layers = list(dict.fromkeys(pair.end_layer for pair in keys.layers))
    total: GridMoments = {}
    for images, _ in batches_in(batches):
        sources, targets = activations_of_both(
            front, front_layers, end, end_layers, images, keep=True
        )
        for rows in _slices(sources, targets):
            source_part = {name: activation[rows] for name, activation in sources.items()}
            target_part = {name: activation[rows] for name, activation in targets.items()}
            moments = _moments(keys, source_part, target_part, form=form)
            if total:
                total = pooled(total, moments)
            else:
                total = moments
    return total


def _slices(sources: Activations, targets: Activations) -> list[slice]:
    """Split the rows of a batch, so that not more than `AT_ONCE` numbers are copied to float64
    together."""
    activations = [*sources.values(), *targets.values()]
    n_numbers = sum(activation[0].numel() for activation in activations)
    n_rows = max(1, AT_ONCE // n_numbers)
    return [slice(first, first + n_rows) for first in range(0, len(activations[-1]), n_rows)]


def pooled(moments: GridMoments, further: GridMoments) -> GridMoments:
    """Return the moments over the samples of both.

    Args:
        further: of the same sources and targets, over further samples.
    """
    pooled_moments: dict[SourceKey, SourceMoments] = {}
    targets: dict[Hashable, Moments] = {}  # pooled once for all sources
    for source, moments_of_source in further.items():
        pooled_moments[source] = moments[source].pooled(moments_of_source, targets)
        targets |= pooled_moments[source].targets
    return pooled_moments


def _moments(
    keys: GridKeys, sources: Activations, targets: Activations, *, form: ClosedForm
) -> GridMoments:
    """Return the moments of all pairs over activations of the same images."""
    # Each source and each target is prepared once for all of its pairs
    laid_out = {
        source: layer.lay_out(sources[source.front_layer]) for source, layer in keys.sources.items()
    }
    matched: dict[TargetKey | ClsKey, Tensor] = {
        target: layer.targets(targets[target.end_layer]) for target, layer in keys.targets.items()
    }
    for cls_key in keys.cls_keys:
        matched[cls_key] = targets[cls_key.end_layer][:, cls_key.place]
    source_rows_of = {
        source: source_rows(laid_out[source], layer.plan.resized_to, layer.upsample_mode)
        for source, layer in keys.sources.items()
    }
    target_rows_of = {target: Rows.of(activation) for target, activation in matched.items()}

    # Moments of each target, of each source, and of both together
    diagonal = not solver_of(form).target_scatter
    moments_of_target = {
        target: rows.moments(diagonal=diagonal) for target, rows in target_rows_of.items()
    }
    n_samples = len(next(iter(targets.values())))
    moments = {}
    for source, targets_of_source in keys.targets_of.items():
        rows = source_rows_of[source]
        moments[source] = SourceMoments(
            n_samples,
            rows.moments(),
            {key: moments_of_target[key] for key in targets_of_source},
            {
                key: rows.cross(target_rows_of[key]).scatter
                for key in targets_of_source
                if isinstance(key, TargetKey)
            },
        )
    return moments


def match_layers(
    front: Network,
    end: Network,
    layers: StitchingLayers,
    batches: Batches,
    *,
    form: ClosedForm = "pinv",
    rank: int | None = None,
    cutoff: Cutoff = "paper",
) -> dict[Pair, Matching]:
    """Set stitching layers by direct matching on the given images; `direct_matching` has sources.

    Args:
        front, end: the networks, in evaluation mode.
        layers: of each pair of layers, as from `build_layers`; their weights are changed.
        batches: images (B, C, H, W) and labels, which are not used and may be None.
        form: one of `FORMS`, or a `UserForm`.
        rank: retained rank of the resized front activations; None keeps all.
        cutoff: see `closed_form`.
    Returns:
        The `Matching` of each pair.
    Raises:
        UserError: the activations of a pair have no closed form, such as NaN.
        UserError: the batches are no pairs of inputs and labels.
    """
    keys = GridKeys.of(layers)
    moments = grid_moments(front, end, keys, progress(batches, "matching"), form=form)
    return _matched(keys, moments, form=form, rank=rank, cutoff=cutoff)


@torch.no_grad()
def _matched(
    keys: GridKeys,
    moments: GridMoments,
    *,
    form: ClosedForm,
    rank: int | None,
    cutoff: Cutoff,
) -> dict[Pair, Matching]:
    """Set stitching layers from moments; a learned CLS token starts as the mean of the target's."""
    matched = {}
    roots: Roots = {}  # each target is decomposed once, for all sources
    groups = keys.pairs_of
    for source, pairs in progress(groups.items(), "direct matching", len(groups)):
        try:
            matchings = closed_form(form, moments[source], rank=rank, cutoff=cutoff, roots=roots)
        except ValueError as error:
            raise UserError(f"{pairs[0]}: {error}; check the models and the images") from error
        for pair in pairs:
            layer = keys.layers[pair]
            matching = matchings[keys.of_pair[pair].target]
            layer.set_affine(matching.weight, matching.bias)
            for i, key in enumerate(keys.of_pair[pair].cls_keys):
                layer.cls_token[:, i] = moments[source].targets[key].mean
            matched[pair] = matching
    _warn_of_constants(moments)
    _warn_of_misfits(form, matched)
    return {pair: matched[pair] for pair in keys.layers}


def _warn_of_constants(moments: GridMoments) -> None:
    """Warn of front layers whose activations do not vary over the fitting samples."""
    constant = []
    for source, of_source in moments.items():
        x = of_source.source
        if x.scatter.trace() <= ROUNDING * x.n_rows * x.mean.square().sum():
            constant.append(source.front_layer)
    if constant:
        warn(
            f"the activations of {listed(dict.fromkeys(constant))} of the front network are constant over the fitting "
            "samples, so that its stitches show the end network the same input each time; check that the network is "
            "trained, and its inputs"
        )


def _warn_of_misfits(form: ClosedForm, matched: Mapping[Any, Matching]) -> None:
    """Warn of maps of a user's form that are worse than the mean of the target on the fitting samples.

    Args:
        matched: by a name for the message.
    """
    if isinstance(form, str) and form in FORMS:
        return
    misfits = {name: matching.r2 for name, matching in matched.items() if matching.r2 < 0}
    if misfits:
        warn(
            f"{name_of(form)}: R² is below 0 on the fitting samples, down to {min(misfits.values()):.2f} "
            f"({listed(misfits)}): the map is worse than the mean of the target; is its weight (C2, C1), not "
            "transposed, and its bias that of activations that are not centred?"
        )


def match(
    front: Network,
    end: Network,
    layers: StitchingLayers,
    train_set: BaseImageSet,
    batch_size: int,
    *,
    n_samples: int | None,
    seed: int,
    form: ClosedForm,
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
        batches = matching_batches(train_set, n, batch_size, seed=seed)
        of_number = {pair: layers[pair] for pair in pairs}
        matched |= match_layers(front, end, of_number, batches, form=form, **solution)
    return {pair: matched[pair] for pair in layers}


def n_samples_for(plan: Plan) -> int:
    """Return the number of images for direct matching: 50 rows a channel of the source, at least 500 and at
    most 10,000 images.

    Each image has a row for each position of the source, or of the target if those are fewer: a
    resize adds none.
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
