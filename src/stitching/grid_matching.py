"""Direct matching of all pairs of a grid on shared passes, with one decomposition for each source."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from src.choices.stitching import FORMS
from src.console import progress
from src.errors import UserError
from src.models import Network
from src.moments import Moments, Rows
from src.results.experiments import Pair
from src.stitching.closed_forms import Cutoff, Matching, closed_form
from src.stitching.layers import StitchingLayer
from src.stitching.moments import SourceMoments, Target
from src.stitching.stitched_model import activations_of_both

Batches = Iterable[tuple[Tensor, Tensor]]
Layers = Mapping[Pair, StitchingLayer]
Source = tuple  # a front layer, and how it is laid out and resized


class GridMoments(NamedTuple):
    """Moments of the sources of a grid over some images; those of a source do not depend on the other sources."""

    sources: dict[Source, SourceMoments]  # with targets by end layer
    cls_tokens: dict[Pair, Moments]  # of the targets whose CLS token a stitching layer learns

    def pooled(self, other: "GridMoments") -> "GridMoments":
        """Return the moments over the images of both, of the pairs of the other, which this has too."""
        return GridMoments(
            {source: self.sources[source].pooled(moments) for source, moments in other.sources.items()},
            {pair: self.cls_tokens[pair].pooled(moments) for pair, moments in other.cls_tokens.items()},
        )


def source_of(pair: Pair, layer: StitchingLayer) -> Source:
    """Return the source of a pair: equal ones have the same moments."""
    return (pair.front_layer, layer.size, layer.upsample_mode, layer.source_key)


@torch.no_grad()
def grid_moments(front: Network, end: Network, layers: Layers, batches: Batches, *, form: str) -> GridMoments:
    """Take the moments that a form of `FORMS` needs of all pairs, in one pass of both networks over the batches."""
    front_layers, end_layers = (list(dict.fromkeys(names)) for names in zip(*layers, strict=True))
    total = None
    for images, _ in batches:
        front_acts, end_acts, _ = activations_of_both(front, front_layers, end, end_layers, images)
        moments = _batch_moments(layers, front_acts, end_acts, full=FORMS[form].target_scatter)
        total = moments if total is None else total.pooled(moments)
    return total


def _batch_moments(
    layers: Layers, front_acts: Mapping[str, Tensor], end_acts: Mapping[str, Tensor], *, full: bool
) -> GridMoments:
    prepared: dict[tuple, Target] = {}  # a target is prepared once for all sources
    groups: dict[Source, tuple[StitchingLayer, dict[str, Target]]] = {}  # a layer that lays it out, and the targets
    sources, cls_tokens = {}, {}
    for pair, layer in layers.items():
        source, key = source_of(pair, layer), (pair.end_layer, layer.target_key)
        if key not in prepared:
            prepared[key] = Target.of(layer.targets(end_acts[pair.end_layer]), full=full)
        groups.setdefault(source, (layer, {}))[1][pair.end_layer] = prepared[key]
        if hasattr(layer, "cls_token"):
            cls_tokens[pair] = Rows.of(end_acts[pair.end_layer][:, 0]).moments(diagonal=True)
    for source, (layer, targets) in groups.items():
        maps = layer.layout(front_acts[source[0]])
        sources[source] = SourceMoments.of(maps, targets, size=layer.size, mode=layer.upsample_mode)
    return GridMoments(sources, cls_tokens)


@torch.no_grad()
def solve(
    layers: Layers,
    moments: GridMoments,
    held_out: GridMoments | None,
    *,
    form: str,
    rank: int | None = None,
    cutoff: Cutoff = "paper",
) -> dict[Pair, Matching]:
    """Return the matching of each pair; `held_out` is for ridge; see `closed_form`.

    Raises:
        UserError: activations are not finite; names the pair.
    """
    groups: dict[Source, list[Pair]] = {}
    for pair, layer in layers.items():
        groups.setdefault(source_of(pair, layer), []).append(pair)
    matched = {}
    for source, pairs in progress(groups.items(), "direct matching", len(groups)):
        try:
            given = moments.sources[source], held_out and held_out.sources[source]
            matchings = closed_form(form, *given, rank=rank, cutoff=cutoff)
        except ValueError as error:
            raise UserError(f"{pairs[0].front_layer} -> {pairs[0].end_layer}: {error}; check the models") from error
        matched |= {pair: matchings[pair.end_layer] for pair in pairs}
    return {pair: matched[pair] for pair in layers}


@torch.no_grad()
def set_layers(layers: Layers, matched: Mapping[Pair, Matching], moments: GridMoments) -> None:
    """Take the matched maps over into the stitching layers; a learned CLS token starts as the target's mean."""
    for pair, matching in matched.items():
        layers[pair].set_affine(matching.weight, matching.bias)
        if pair in moments.cls_tokens:
            layers[pair].cls_token.copy_(moments.cls_tokens[pair].mean)


def match_layers(
    front: Network,
    end: Network,
    layers: Layers,
    batches: Batches,
    held_out: Batches = (),
    *,
    form: str = "pinv",
    rank: int | None = None,
    cutoff: Cutoff = "paper",
) -> dict[Pair, Matching]:
    """Set stitching layers by direct matching on the given images.

    Args:
        front, end: the networks, in evaluation mode.
        layers: the stitching layer of each pair.
        held_out: more images, on which ridge judges its penalties.
        form: one of `FORMS`.
        rank: retained rank of the resized front activations; None keeps all.
        cutoff: see `closed_form`.
    Raises:
        UserError: activations are not finite; names the pair.
    """
    parts = [batches, held_out] if FORMS[form].held_out else [batches]
    moments = [grid_moments(front, end, layers, part, form=form) for part in parts]
    fitted, judges = moments[0], moments[1] if FORMS[form].held_out else None
    matched = solve(layers, fitted, judges, form=form, rank=rank, cutoff=cutoff)
    set_layers(layers, matched, fitted if judges is None else fitted.pooled(judges))
    return matched
