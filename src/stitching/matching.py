"""Direct matching of two activations, and of all pairs of a grid on shared passes; the solutions
are in `closed_forms`."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from src.choices.stitching import FORMS
from src.datasets.base import BaseImageSet, Batches, batches_in
from src.ground.activations import form_of
from src.ground.console import note_once, progress, warn_once
from src.ground.errors import UserError
from src.ground.user_code import is_user_code
from src.models import Network, activations_of_both
from src.statistics.moments import Moments, Rows
from src.stitching.closed_forms import (
    ClosedForm,
    Cutoff,
    Matching,
    Roots,
    closed_form,
    solver_of,
)
from src.stitching.layers import Plan, StitchingLayer
from src.stitching.moments import SourceMoments, UpsampledRows, source_rows
from src.values import Metrics, Pair

FIRST = 100  # images
GAP = 0.03  # between R² on matched and on as many held-out images, at most
SETTLED = 2  # successive sizes at which the gap is that small
ROWS_PER_CHANNEL = 10  # of the source, at least
AT_ONCE = 2**25  # float64 numbers of activations

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
        form: `pinv` (least squares), `repair`, `covariance`, `ortho` or `ridge`, whose penalty the last fifth of the
            samples judges; or a `UserForm`.
        cutoff: of the singular values of [X 1] for `pinv` and `repair`: `paper`, `exact`, or a number relative to the
            largest one; see `relative_cutoff`.
    Raises:
        UserError: an activation has other axes.
        ValueError: the samples or positions differ, an activation is not finite, or there is no such
            form or cutoff.
    """
    source = torch.as_tensor(source)
    target = torch.as_tensor(target)
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
        raise ValueError(f"there is no form {form}; choose one of {', '.join(FORMS)}")
    parts = _parts(torch.arange(len(source)), form)
    moments = [
        moments_of(Rows.of(source[part]), Rows.of(target[part]), len(part), form=form)
        for part in parts
    ]
    matching = closed_form(form, moments, cutoff=cutoff)["target"]
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


def _parts(samples: Tensor, form: ClosedForm) -> list[Tensor]:
    """Split samples (n,) into the parts that a form needs.

    For ridge these are the samples to be fitted, and the last fifth, which judges the penalties.
    Otherwise there is one part with all samples.
    """
    if not solver_of(form).held_out:
        return [samples]
    if len(samples) < 2:
        raise UserError(f"{form} needs at least two samples, not {len(samples)}; give more")
    last_fifth = max(1, len(samples) // 5)
    return [samples[:-last_fifth], samples[-last_fifth:]]


def matching_batches(
    train_set: BaseImageSet, n: int, batch_size: int, *, seed: int, form: ClosedForm = "pinv"
) -> list[Batches]:
    """Return batches of the first n training images in shuffled order, not augmented, for each part
    of `_parts`.

    A set that is read in order only gives the images of a part in its own order.
    """
    samples = train_set.permutation(seed)[:n]
    if len(samples) < n:
        warn_once(f"there are only {len(samples)} training inputs to match on, not {n}")
    parts = [train_set.in_cheapest_order(part) for part in _parts(samples, form)]
    return [train_set.batches(batch_size, indices=part) for part in parts]


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
        further: moments over further samples; only the sources and targets that it has are kept.
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
    held_out: Batches | None = None,
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
        held_out: more images, on which ridge judges its penalties.
        form: one of `FORMS`, or a `UserForm`.
        rank: retained rank of the resized front activations; None keeps all.
        cutoff: see `closed_form`.
    Returns:
        The `Matching` of each pair.
    Raises:
        UserError: the activations of a pair have no closed form, such as NaN.
        ValueError: the batches are no pairs of images and labels.
    """
    parts = [batches]
    if held_out is not None:
        parts.append(held_out)
    keys = GridKeys.of(layers)
    moments = [
        grid_moments(front, end, keys, progress(part, "matching"), form=form) for part in parts
    ]
    return _matched(keys, moments, form=form, rank=rank, cutoff=cutoff)


@torch.no_grad()
def _matched(
    keys: GridKeys,
    moments: Sequence[GridMoments],
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
        parts = [part[source] for part in moments]
        try:
            matchings = closed_form(form, parts, rank=rank, cutoff=cutoff, roots=roots)
        except ValueError as error:
            raise UserError(f"{pairs[0]}: {error}; check the models and the images") from error
        for pair in pairs:
            layer = keys.layers[pair]
            matching = matchings[keys.of_pair[pair].target]
            layer.set_affine(matching.weight, matching.bias)
            for i, key in enumerate(keys.of_pair[pair].cls_keys):
                cls_moments = reduce(Moments.pooled, [part.targets[key] for part in parts])
                layer.cls_token[:, i] = cls_moments.mean
            matched[pair] = matching
    return {pair: matched[pair] for pair in keys.layers}


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
        n_samples: the number of images; None: as many as each pair needs, see `match_until_settled`.
        solution: further arguments of `match_layers`, whose result it has.
    """
    if n_samples is None:
        return match_until_settled(
            front, end, layers, train_set, batch_size, seed=seed, form=form, **solution
        )
    batches = matching_batches(train_set, n_samples, batch_size, seed=seed, form=form)
    return match_layers(front, end, layers, *batches, form=form, **solution)


def with_matching(metrics: Metrics, matching: Matching) -> Metrics:
    """Return the metrics of a stitch, with the metrics of its matching added."""
    return replace(
        metrics,
        matching_error=matching.error,
        r2_matched=matching.r2,
        n_matched=matching.n_samples,
        matching_rank=matching.rank,
        truncated=matching.truncated,
    )


class _TrainingImages(NamedTuple):
    """Training images in a shuffled order, and the two networks that see the images."""

    front: Network
    end: Network
    train_set: BaseImageSet
    order: Tensor  # (N,): indices of the images
    batch_size: int
    form: ClosedForm

    def moments(self, keys: GridKeys, first: int, last: int) -> list[GridMoments]:
        """Return the moments of the images from `first` to `last`, for each part of `_parts` of all
        images up to there.

        The last fifth that judges the penalties of ridge begins at four fifths of `last`, whatever
        `first` is."""
        moments = []
        for part in _parts(torch.arange(last), self.form):
            indices = self.train_set.in_cheapest_order(self.order[part[part >= first]])
            batches = progress(
                self.train_set.batches(self.batch_size, indices=indices),
                f"matching on {last} inputs",
                math.ceil(len(indices) / self.batch_size),
            )
            moments.append(grid_moments(self.front, self.end, keys, batches, form=self.form))
        return moments


def match_until_settled(
    front: Network,
    end: Network,
    layers: StitchingLayers,
    train_set: BaseImageSet,
    batch_size: int,
    *,
    seed: int,
    form: ClosedForm = "pinv",
    rank: int | None = None,
    cutoff: Cutoff = "paper",
) -> dict[Pair, Matching]:
    """Set stitching layers by direct matching on more and more images, until each pair is settled.

    The number of training images doubles.

    A pair is settled on n images where R² on them and on the next n differ by at most `GAP`, there
    and at n/2, and there are `ROWS_PER_CHANNEL` rows for each channel of the source. A pair that
    never is gets all images, and a note says so. The result of a pair does not depend on the other
    pairs, and is that of `match_layers` on the first `n_samples` of the `matching_batches`. The
    held-out images of one size are matched on in the next.

    Args and errors: as for `match_layers`.
    """
    images = _TrainingImages(front, end, train_set, train_set.permutation(seed), batch_size, form)
    total = len(train_set)
    n = min(FIRST, total)
    unsettled = GridKeys.of(layers)
    n_small_gaps: Counter[Pair] = Counter()  # successive ones
    matched: dict[Pair, Matching] = {}
    fitted = images.moments(unsettled, 0, n)
    while unsettled.layers and 2 * n <= total:
        # Match on n images, and compare with the next n
        held_out = images.moments(unsettled, n, 2 * n)
        seen = reduce(pooled, fitted)
        matchings = _matched(unsettled, fitted, form=form, rank=rank, cutoff=cutoff)
        settled = _settled(
            unsettled, matchings, seen, reduce(pooled, held_out), n_small_gaps, rank=rank
        )

        # Go on with the unsettled pairs on 2n images
        matched |= {pair: matchings[pair] for pair in settled}
        unsettled = GridKeys.of(
            {pair: layer for pair, layer in unsettled.layers.items() if pair not in matched}
        )
        fitted = [pooled(seen, held_out[0]), *held_out[1:]]
        n *= 2
    if unsettled.layers:
        fitted = _extended_to_all(fitted, images, unsettled, n, total)
        matched |= _matched(unsettled, fitted, form=form, rank=rank, cutoff=cutoff)
        pairs = ""
        n_pairs = len(unsettled.layers)
        if n_pairs < len(layers):
            pairs = f", {n_pairs} of {len(layers)} pairs"
        note_once(f"matched on all {total} training inputs{pairs}: more might still change the fit")
    return {pair: matched[pair] for pair in layers}


def _settled(
    keys: GridKeys,
    matchings: Mapping[Pair, Matching],
    seen: GridMoments,
    held_out: GridMoments,
    n_small_gaps: Counter[Pair],
    *,
    rank: int | None,
) -> list[Pair]:
    """Count the successive small gaps of each pair in `n_small_gaps`; return the pairs that are
    settled."""
    settled = []
    for pair, matching in matchings.items():
        source, target, _ = keys.of_pair[pair]
        if _gap(matching, seen[source], held_out[source], target, rank) <= GAP:
            n_small_gaps[pair] += 1
        else:
            n_small_gaps[pair] = 0
        n_rows, source_mean, _ = seen[source].source
        if n_rows >= ROWS_PER_CHANNEL * len(source_mean) and n_small_gaps[pair] >= SETTLED:
            settled.append(pair)
    return settled


def _extended_to_all(
    fitted: list[GridMoments], images: _TrainingImages, keys: GridKeys, n: int, total: int
) -> list[GridMoments]:
    """Return the moments of all images, from the moments of the first n."""
    if solver_of(images.form).held_out:  # the last fifth of all may begin among the first n
        return images.moments(keys, 0, total)
    if n == total:
        return fitted
    return [pooled(fitted[0], *images.moments(keys, n, total))]


def _gap(
    matching: Matching,
    seen: SourceMoments,
    held_out: SourceMoments,
    target: TargetKey,
    rank: int | None,
) -> float:
    """Return by how much R² differs between matched and held-out rows; NaN where it is defined for
    one side only."""
    if rank is not None:
        held_out = held_out.truncated(seen.components(rank))
    residual = held_out.squared_residual(target, matching.weight, matching.bias)
    r2 = held_out.targets[target].r2(residual)
    if math.isnan(r2) and math.isnan(matching.r2):
        return 0.0
    return abs(matching.r2 - r2)
