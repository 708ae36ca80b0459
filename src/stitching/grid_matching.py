"""Direct matching of all pairs of a grid on shared passes, with one decomposition for each source."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from src.console import progress
from src.errors import UserError
from src.models import Network
from src.results.experiments import Pair
from src.stitching.closed_forms import closed_form
from src.stitching.layers import StitchingLayer
from src.stitching.matching import LeastSquares
from src.stitching.stitched_model import activations_of_both

Batches = Iterable[tuple[Tensor, Tensor]]


class Matched(NamedTuple):
    """How a pair was matched directly."""

    error: float  # ‖XW+b−Y‖²/‖Y‖² on the images that it was matched on
    ridge_penalty: float | None  # the one that ridge chose


@torch.no_grad()
def match_layers(
    front: Network,
    end: Network,
    layers: Mapping[Pair, StitchingLayer],
    batches: Batches,
    held_out: Batches = (),
    *,
    form: str = "pinv",
    rank: int | None = None,
) -> dict[Pair, Matched]:
    """Set stitching layers by direct matching on the given images.

    Args:
        front, end: as they were given, nothing folded: matchings are then exactly those of each pair alone.
        layers: the stitching layer of each pair.
        held_out: more images, on which ridge judges its penalties.
        form: `pinv` (least squares), `ortho` or `ridge`, see `closed_forms`.
        rank: retained rank of the resized front activations; None keeps all.
    Raises:
        UserError: activations are not finite; names the pair.
    """
    front_layers, end_layers = (list(dict.fromkeys(names)) for names in zip(*layers, strict=True))
    groups: dict[tuple, list[Pair]] = {}  # pairs with the same source, laid out and resized in the same way
    for pair, layer in layers.items():
        groups.setdefault((pair.front_layer, layer.size, layer.upsample_mode, layer.source_key), []).append(pair)
    sums = {key: (LeastSquares(*key[1:3]), LeastSquares(*key[1:3])) for key in groups}
    cls_tokens: dict[Pair, list[Tensor]] = {}
    for part, images in ((i, images) for i in (0, 1) for images, _ in (batches, held_out)[i]):
        front_acts, end_acts = activations_of_both(front, front_layers, end, end_layers, images)
        end_acts = {name: act.double() for name, act in end_acts.items()}  # once for all sources
        for key, pairs in groups.items():
            source = layers[pairs[0]].layout(front_acts[key[0]])
            targets = {pair.end_layer: layers[pair].targets(end_acts[pair.end_layer]) for pair in pairs}
            sums[key][part].add(source, targets)
        for pair, layer in layers.items():
            if hasattr(layer, "cls_token"):
                cls_tokens.setdefault(pair, []).append(end_acts[pair.end_layer][:, 0])
    matched = {}
    for key, pairs in progress(groups.items(), "direct matching", len(groups)):
        try:
            fits = closed_form(form, *sums[key], rank=rank)
        except ValueError as error:
            raise UserError(f"{pairs[0].front_layer} -> {pairs[0].end_layer}: {error}; check the models") from error
        for pair in pairs:
            (weight, bias, error), penalty = fits[pair.end_layer]
            layers[pair].set_affine(weight, bias)
            matched[pair] = Matched(error, penalty)
    for pair, tokens in cls_tokens.items():
        layers[pair].cls_token.copy_(torch.cat(tokens).mean(0))
    return {pair: matched[pair] for pair in layers}
