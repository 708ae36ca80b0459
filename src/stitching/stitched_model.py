"""Pairs of layers, their stitching layers, and the stitched network: front part, stitching layer, end part."""

import copy
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from src.datasets.base import BaseImageSet, PairedImages
from src.errors import UserError
from src.low_rank import low_rank_approx
from src.models import Network
from src.models.replay import Recorded
from src.results.experiments import ControlPair, Pair
from src.runtime import seeded
from src.stitching.layers import StitchingLayer, build_stitching_layer


class StitchedModel(nn.Module):
    """A network that starts as `front` and goes on as `end` (equation 1 of the paper); for use from Python.

    The scripts stitch through Grid, which does the same for many pairs at once. The state dict is the public code's:
    the stitched layers' own entries stand in it twice, within their network and once more.

    Args:
        front: the network whose activation at the front layer is taken; nothing behind that layer is computed.
        end: the network that goes on behind the end layer; nothing in front of that layer is computed.
        layer: maps the one activation to the shape of the other.
        pair: the names of the two layers.
        front_rank: retained rank of the front activation, cut in each batch (see low_rank_approx); None keeps all.
    """

    def __init__(
        self, front: Network, end: Network, layer: StitchingLayer, pair: Pair, *, front_rank: int | None = None
    ):
        super().__init__()
        self.front, self.end, self.pair, self.front_rank = front, end, pair, front_rank
        stitched = front.get_submodule(pair.front_layer), end.get_submodule(pair.end_layer)
        self.front_model = nn.ModuleDict({"model": front.module, "stitch_from_layer": stitched[0]})
        self.end_model = nn.ModuleDict({"model": end.module, "stitch_to_layer": stitched[1]})
        self.stitching_layer = layer

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, n_classes)."""
        h = low_rank_approx(self.front(images, until=self.pair.front_layer), self.front_rank)
        return self.end(self.stitching_layer(h), after=self.pair.end_layer, images=images)


def build_layers(
    front: Network,
    end: Network,
    front_layers: Sequence[str],
    end_layers: Sequence[str],
    kind: str,
    *,
    image_shape: Sequence[int],
    seed: int,
    **options: str | None,
) -> tuple[dict[Pair, StitchingLayer], dict[Pair, str]]:
    """Build the stitching layers between all given front and end layers, each as if it were the only one.

    Args:
        image_shape: (C, H, W) of the images that the networks take.
        seed: each layer is initialised with a generator seeded by it.
        options: as for build_stitching_layer.
    Returns:
        The layers, and the reason for each pair that cannot be stitched.
    Raises:
        UserError: no pair can be stitched; names the first reason.
    """
    parameter = next(front.parameters())
    image = parameter.new_zeros(1, *image_shape)
    with torch.no_grad():
        sources = {name: act.shape[1:] for name, act in front.activations(image, front_layers).items()}
        targets = {name: act.shape[1:] for name, act in end.activations(image, end_layers).items()}
    layers, skipped = {}, {}
    for pair in (Pair(front_layer, end_layer) for front_layer in front_layers for end_layer in end_layers):
        try:
            sequences = front.is_sequence(pair.front_layer), end.is_sequence(pair.end_layer)
            shapes = sources[pair.front_layer], targets[pair.end_layer]
            with seeded(seed):
                layer = build_stitching_layer(kind, *shapes, sequences=sequences, **options)
            layers[pair] = layer.to(parameter)
        except UserError as error:
            skipped[pair] = str(error)
    if not layers:
        pair, reason = next(iter(skipped.items()))
        raise UserError(f"{pair}: {reason}")
    return layers, skipped


def activations_of_both(
    front: Network,
    front_names: Sequence[str],
    end: Network,
    end_names: Sequence[str],
    images: Tensor | PairedImages,
    *,
    after: Sequence[str] = (),
    controls: Collection[str] = ("",),
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], Recorded]:
    """Compute the activations of two networks, from one pass each, or from one for both if they are one.

    Args:
        images: (B, C, H, W); with partners, on which the front activations of controls are computed.
        controls: "" for stitches, `labels` for label-only controls.
    Returns:
        Those of the front network by control, those of the end network, and the record of its pass that goes on behind
        the layers `after`.
    """
    own, others, places = images if isinstance(images, PairedImages) else (images, None, None)
    shown = [] if others is not None and places is None and "" not in controls else front_names
    if front is end:
        both, recorded = front.record(own, list(dict.fromkeys([*shown, *end_names])), after=after)
        acts, end_acts = ({name: both[name] for name in names} for names in (shown, end_names))
    else:
        acts, (end_acts, recorded) = front.activations(own, shown), end.record(own, end_names, after=after)
    partners = acts
    if others is not None and any(controls):
        partners = front.activations(others, front_names)
        if places is not None:
            partners = {name: torch.cat([acts[name], act])[places] for name, act in partners.items()}
    return {control: partners if control else acts for control in controls}, end_acts, recorded


def with_controls(
    layers: Mapping[Pair, StitchingLayer], controls: Sequence[str]
) -> dict[Pair | ControlPair, StitchingLayer]:
    """Return for each control a copy of the stitching layer of each pair; "" is no control, but the stitch."""
    return {
        (ControlPair(*pair, control) if control else pair): copy.deepcopy(layer)
        for control in controls
        for pair, layer in layers.items()
    }


def class_partners(labels: Tensor, order: Tensor) -> Tensor:
    """Return for each image another one of its class (N,): the next in an order, and for the last the first.

    An image that is alone in its class is its own partner.

    Args:
        labels: (N,).
        order: all indices (N,), shuffled.
    """
    labels, partners = labels.cpu(), torch.empty_like(order)
    for label in labels.unique():
        of_class = order[labels[order] == label]
        partners[of_class] = of_class.roll(-1)
    return partners


def label_only(images: BaseImageSet, *, seed: int) -> BaseImageSet:
    """Return the training set of label-only controls: what one reaches on it, it reaches by the label.

    Beside each image it has another one of its class, which the front network sees: see `PairedImages`.
    """
    return images.paired(class_partners(images.labels, images.permutation(seed)))
