"""Direct matching: of two activations, and of all pairs of a grid on shared passes; see `closed_forms`."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from src.choices.stitching import FORMS
from src.console import note, progress, warn_once
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.models import Network
from src.moments import Moments, Rows, as_rows
from src.results.experiments import Pair, grouped
from src.stitching.closed_forms import Cutoff, Matching, closed_form
from src.stitching.layers import StitchingLayer
from src.stitching.moments import SourceMoments, UpsampledRows, r2_of, source_rows
from src.stitching.stitched_model import activations_of_both

FIRST = 100  # images
GAP = 0.03  # between R² on matched and on as many held-out images, at most
SETTLED = 2  # successive sizes at which the gap is that small
ROWS_PER_CHANNEL = 10  # of the source, at least
AT_ONCE = 2**25  # float64 numbers of activations
CLS = "CLS token"

Batches = Iterable[tuple[Tensor, Tensor]]
Layers = Mapping[Pair, StitchingLayer]
GridMoments = Mapping[Hashable, SourceMoments]  # by source, see `_source`


def direct_matching(source: Tensor, target: Tensor, *, form: str = "pinv", cutoff: Cutoff = "paper") -> Matching:
    """Match two activations of the same samples and positions.

    Args:
        source: (B, C1, H, W), (B, T, C1) or (B, C1).
        target: (B, C2, H, W), (B, T, C2) or (B, C2), with the positions of `source`.
        form: `pinv` (least squares), `repair`, `covariance`, `ortho` or `ridge`, whose penalty the last fifth of the
            samples judges.
        cutoff: of the singular values of [X 1] for `pinv` and `repair`: `paper`, `exact`, or a number relative to the
            largest one; see `relative_cutoff`.
    Raises:
        ValueError: the positions differ, an activation is not finite, or there is no such form or cutoff.
    """
    n_positions = [as_rows(activation).shape[0] for activation in (source, target)]
    if n_positions[0] != n_positions[1]:
        raise ValueError(f"the source has {n_positions[0]} positions, the target {n_positions[1]}")
    if form not in FORMS:
        raise ValueError(f"there is no form {form}; choose one of {', '.join(FORMS)}")
    parts = _parts(torch.arange(len(source)), form)
    moments = [moments_of(Rows.of(source[part]), Rows.of(target[part]), len(part), form=form) for part in parts]
    return closed_form(form, moments, cutoff=cutoff)["target"]


def moments_of(source: Rows | UpsampledRows, target: Rows, n_samples: int, *, form: str) -> SourceMoments:
    """Take the moments of a source and a target that a form needs."""
    targets = {"target": target.moments(diagonal=not FORMS[form].target_scatter)}
    return SourceMoments(n_samples, source.moments(), targets, {"target": source.cross(target).scatter})


def _parts(samples: Tensor, form: str) -> list[Tensor]:
    """Split samples (n,) as a form needs them: the last fifth judges the penalties of ridge, the others are fitted."""
    if not FORMS[form].held_out:
        return [samples]
    if len(samples) < 2:
        raise UserError(f"{form} needs at least two samples, not {len(samples)}; give more")
    last_fifth = max(1, len(samples) // 5)
    return [samples[:-last_fifth], samples[-last_fifth:]]


def matching_batches(
    train_set: BaseImageSet, n: int, batch_size: int, *, seed: int, form: str = "pinv"
) -> list[Batches]:
    """Return batches of the first n training images of one shuffled pass, not augmented; see `_parts`."""
    samples = train_set.permutation(seed)[:n]
    if len(samples) < n:
        warn_once(f"there are only {len(samples)} training images to match on, not {n}")
    return [train_set.batches(batch_size, indices=part) for part in _parts(samples, form)]


def _source(pair: Pair, layer: StitchingLayer) -> tuple:
    """What pairs of the same moments of the source share: the front layer, and how it is laid out and resized."""
    return pair.front_layer, layer.plan.size, layer.plan.grid, layer.plan.keeps_cls, layer.upsample_mode


def _target(pair: Pair, layer: StitchingLayer) -> tuple:
    return pair.end_layer, layer.plan.grid, layer.plan.made_cls is not None


@torch.no_grad()
def grid_moments(front: Network, end: Network, layers: Layers, batches: Batches, *, form: str) -> GridMoments:
    """Take the moments that a form of `FORMS` needs of all pairs, in one pass of both networks over the batches."""
    front_layers = list(dict.fromkeys(pair.front_layer for pair in layers))
    end_layers = list(dict.fromkeys(pair.end_layer for pair in layers))
    total: GridMoments = {}
    for images, _ in batches:
        sources, targets = activations_of_both(front, front_layers, end, end_layers, images)
        n_numbers = sum(act[0].numel() for acts in (sources, targets) for act in acts.values())
        n_at_once = max(1, AT_ONCE // n_numbers)
        for first in range(0, len(targets[end_layers[0]]), n_at_once):
            rows = slice(first, first + n_at_once)
            source_rows_of = {name: act[rows] for name, act in sources.items()}
            target_rows_of = {name: act[rows] for name, act in targets.items()}
            moments = _moments(layers, source_rows_of, target_rows_of, form=form)
            total = pooled(total, moments) if total else moments
    return total


def pooled(moments: GridMoments, others: GridMoments) -> GridMoments:
    """Return the moments over the samples of both, of all that the others have, which the first have too."""
    found: dict[Hashable, SourceMoments] = {}
    targets: dict[Hashable, Moments] = {}  # which sources share
    for source, each in others.items():
        found[source] = moments[source].pooled(each, targets)
        targets |= found[source].targets
    return found


def _moments(layers: Layers, sources: Mapping[str, Tensor], targets: Mapping[str, Tensor], *, form: str) -> GridMoments:
    """Take the moments of all pairs over some activations of the front network and of the end network."""
    rows, target_rows, wanted = {}, {}, {}  # each is prepared once for all of its pairs
    for pair, layer in layers.items():
        source, target = _source(pair, layer), _target(pair, layer)
        if source not in rows:
            laid_out = layer.layout(sources[pair.front_layer])
            rows[source] = source_rows(laid_out, layer.plan.size, layer.upsample_mode)
        if target not in target_rows:
            target_rows[target] = Rows.of(layer.targets(targets[pair.end_layer]))
        wanted.setdefault(source, set()).add(target)
        if hasattr(layer, "cls_token"):
            target_rows[pair.end_layer, CLS] = Rows.of(targets[pair.end_layer][:, 0])
            wanted[source].add((pair.end_layer, CLS))
    moments = {name: each.moments(diagonal=not FORMS[form].target_scatter) for name, each in target_rows.items()}
    n_samples = len(next(iter(targets.values())))
    return {
        source: SourceMoments(
            n_samples,
            rows[source].moments(),
            {name: moments[name] for name in names},
            {name: rows[source].cross(target_rows[name]).scatter for name in names if CLS not in name},
        )
        for source, names in wanted.items()
    }


def match_layers(
    front: Network,
    end: Network,
    layers: Layers,
    batches: Batches,
    held_out: Batches | None = None,
    *,
    form: str = "pinv",
    rank: int | None = None,
    cutoff: Cutoff = "paper",
) -> dict[Pair, Matching]:
    """Set stitching layers by direct matching on the given images.

    Args:
        front, end: the networks, in evaluation mode.
        held_out: more images, on which ridge judges its penalties.
        form: one of `FORMS`.
        rank: retained rank of the resized front activations; None keeps all.
        cutoff: see `closed_form`.
    """
    parts = [batches] if held_out is None else [batches, held_out]
    moments = [grid_moments(front, end, layers, part, form=form) for part in parts]
    return _matched(layers, moments, form=form, rank=rank, cutoff=cutoff)


@torch.no_grad()
def _matched(layers: Layers, moments: Sequence[GridMoments], *, form: str, **options: Any) -> dict[Pair, Matching]:
    """Set stitching layers from moments; a learned CLS token starts as the mean of the target's."""
    matched = {}
    groups = grouped(layers, lambda pair: _source(pair, layers[pair]))
    for source, pairs in progress(groups.items(), "direct matching", len(groups)):
        parts = [part[source] for part in moments]
        try:
            matchings = closed_form(form, parts, **options)
        except ValueError as error:
            raise UserError(f"{pairs[0]}: {error}; check the models") from error
        for pair in pairs:
            layer, matched[pair] = layers[pair], matchings[_target(pair, layers[pair])]
            layer.set_affine(matched[pair].weight, matched[pair].bias)
            if hasattr(layer, "cls_token"):
                cls = reduce(Moments.pooled, [part.targets[pair.end_layer, CLS] for part in parts])
                layer.cls_token.copy_(cls.mean)
    return {pair: matched[pair] for pair in layers}


def match_until_settled(
    front: Network,
    end: Network,
    layers: Layers,
    train_set: BaseImageSet,
    batch_size: int,
    *,
    seed: int,
    form: str = "pinv",
    rank: int | None = None,
    cutoff: Cutoff = "paper",
) -> dict[Pair, Matching]:
    """Set stitching layers by direct matching on training images whose number is doubled until each pair is settled.

    A pair is settled on n images where R² on them and on the next n differ by at most `GAP`, there and at n/2, and
    there are `ROWS_PER_CHANNEL` rows for each channel of the source. A pair that never is gets all images, and a note
    says so. The result of a pair does not depend on the others, and is that of `match_layers` on the first `n_samples`
    of the `matching_batches`. The held-out images of one size are matched on in the next.

    Args and errors: as for `match_layers`.
    """
    samples, total = train_set.permutation(seed), len(train_set)
    left, matched, n_small_gaps = dict(layers), {}, Counter()

    def moments_between(first: int, last: int) -> list[GridMoments]:
        """Moments of some images of the pairs that are left, apart where the last fifth of all up to there begins."""
        parts = [part[part >= first] for part in _parts(torch.arange(last), form)]
        batches = [train_set.batches(batch_size, indices=samples[part]) for part in parts]
        return [grid_moments(front, end, left, part, form=form) for part in batches]

    n = min(FIRST, total)
    fitted = moments_between(0, n)
    while left and 2 * n <= total:
        more = moments_between(n, 2 * n)
        seen, held_out = reduce(pooled, fitted), reduce(pooled, more)
        found = _matched(left, fitted, form=form, rank=rank, cutoff=cutoff)
        for pair, matching in found.items():
            source, target = _source(pair, left[pair]), _target(pair, left[pair])
            ours, theirs = seen[source], held_out[source]
            n_small_gaps[pair] = n_small_gaps[pair] + 1 if _gap(matching, ours, theirs, target, rank) <= GAP else 0
            enough = ours.source.n_rows >= ROWS_PER_CHANNEL * len(ours.source.mean)
            if enough and n_small_gaps[pair] >= SETTLED:
                matched[pair] = matching
        left = {pair: layer for pair, layer in left.items() if pair not in matched}
        fitted, n = [pooled(seen, more[0]), *more[1:]], 2 * n
    if left:
        if FORMS[form].held_out:  # the last fifth of all may begin among images that are added up already
            fitted = moments_between(0, total)
        elif n < total:
            fitted = [pooled(fitted[0], *moments_between(n, total))]
        matched |= _matched(left, fitted, form=form, rank=rank, cutoff=cutoff)
        which = "" if len(left) == len(layers) else f", {len(left)} of {len(layers)} pairs"
        note(f"matched on all {total} training images{which}: more might still change the fit")
    return {pair: matched[pair] for pair in layers}


def _gap(matching: Matching, matched: SourceMoments, held_out: SourceMoments, target: tuple, rank: int | None) -> float:
    """Return by how much R² differs between matched and held-out rows; NaN where it is defined for one side only."""
    if rank is not None:
        held_out = held_out.truncated(matched.components(rank))
    r2 = r2_of(held_out.targets[target], held_out.squared_residual(target, matching.weight, matching.bias))
    return 0.0 if math.isnan(r2) and math.isnan(matching.r2) else abs(matching.r2 - r2)
