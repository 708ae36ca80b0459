"""Passes of networks over the images, each of which gives what its layers are compared by."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from src.choices.similarity import PAPER, SAMPLES, measure_of, with_companions
from src.models import Network
from src.moments import CrossMoments
from src.results.tables import Rank
from src.similarity.features import LayerFeatures, alignment_of
from src.similarity.similarity_rows import BY_POSITION
from src.similarity.stored import StoredActivations
from src.similarity.user_measures import UserMeasure, load_measures

Features = Mapping[str, LayerFeatures]  # the layers of one network, finished, by name


class Side(NamedTuple):
    """A network whose layers are compared."""

    network: Network | StoredActivations  # only its `activations` are used
    layers: Sequence[str]
    ranks: Sequence[Rank] = (None,)  # numbers of principal components that are kept
    title: str = ""  # in messages
    # what its features depend on beside layers, ranks and measures: weights, images, precision
    key: Hashable = None


class Statistics(NamedTuple):
    """The layers of two networks on the same images: all that their comparison needs."""

    layers1: Features
    layers2: Features
    ranks1: Sequence[Rank]
    ranks2: Sequence[Rank]
    products: dict[
        tuple[str, str], CrossMoments
    ]  # of positions, of layers whose positions are samples
    metrics: list[str]  # columns of measures
    user_measures: dict[str, UserMeasure]  # by column
    alignment: str  # the option: auto, pool or positions; see `features.alignment_of`
    n_images: int


class KeptFeatures(dict[Hashable, Features]):
    """Features of networks that are compared again, by key, the least recently used ones first.

    Args:
        max_bytes: how much memory they may take together; when it is short, the first ones go.
    """

    def __init__(self, max_bytes: int):
        super().__init__()
        self.max_bytes = max_bytes

    def keep(self, key: Hashable, features: Features) -> None:
        """Keep finished features, as far as memory allows."""
        self[key] = features
        while (
            sum(layer.n_bytes for each in self.values() for layer in each.values()) > self.max_bytes
        ):
            self.pop(next(iter(self)))


def take_statistics(
    first: Side,
    second: Side,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    n_images: int,
    metrics: Sequence[str] = PAPER,
    alignment: str = "auto",
    device: torch.device | str = "cpu",
    kept: KeptFeatures | None = None,
) -> Statistics:
    """Take what a comparison of two networks needs, in one pass over the images; one network runs
    once.

    Args:
        batches: of the images, as `BaseImageSet.batches` yields them; left alone where all features are kept.
        n_images: how many images they have.
        metrics: names in `MEASURES`, or FILE.py:FUNCTION of a user's code.
        alignment: `auto`, `pool` or `positions`; where positions may be samples, networks of kept features run again.
        device: where Gram matrices are computed.
        kept: takes over what is made here, and gives what it has.
    Raises:
        UserError: a measure is unknown, or a user's code fails.
    """
    user_measures = load_measures(metrics)
    metrics, sides = with_companions(metrics), [first, second]
    if first.network is second.network:
        layers = list(dict.fromkeys([*first.layers, *second.layers]))
        sides = [
            second._replace(layers=layers, ranks=list(dict.fromkeys([*first.ranks, *second.ranks])))
        ]
    keys = [(side.key, *map(tuple, (side.layers, side.ranks, metrics))) for side in sides]
    kept = KeptFeatures(0) if kept is None else kept
    features = [
        kept.pop(key, None) or _unseen(side, n_images, metrics)
        for side, key in zip(sides, keys, strict=True)
    ]
    takes_samples = any(measure_of(name).of == SAMPLES for name in metrics)
    products = _pass_over(sides, features, batches, alignment if takes_samples else "pool")
    for each, key in zip(features, keys, strict=True):
        for layer in each.values():
            layer.finish(device=device)
        kept.keep(key, each)
    layers1, layers2 = (
        {name: features[i][name] for name in side.layers} for i, side in ((0, first), (-1, second))
    )
    return Statistics(
        layers1,
        layers2,
        first.ranks,
        second.ranks,
        products,
        metrics,
        user_measures,
        alignment,
        n_images,
    )


def _unseen(side: Side, n_images: int, metrics: Sequence[str]) -> Features:
    titles = {name: f"{name} of {side.title}" if side.title else name for name in side.layers}
    return {
        name: LayerFeatures(title, n_images, metrics=metrics, ranks=side.ranks)
        for name, title in titles.items()
    }


def _pass_over(
    sides: Sequence[Side],
    features: Sequence[Features],
    batches: Iterable[tuple[Tensor, Tensor]],
    alignment: str,
) -> dict[tuple[str, str], CrossMoments]:
    """Run the networks whose features are not there yet, or all where products may be needed;
    return the products."""
    products: dict[tuple[str, str], CrossMoments] = {}
    may_need_products = alignment != "pool"
    runs = [
        may_need_products or not all(layer.is_finished for layer in each.values())
        for each in features
    ]
    n_seen = 0
    for images, _ in batches if any(runs) else ():
        rows = []
        places = torch.arange(n_seen, n_seen + len(images))
        n_seen += len(images)
        for side, each, is_running in zip(sides, features, runs, strict=True):
            is_stored = isinstance(side.network, StoredActivations)
            inputs = places if is_stored else images
            activations = side.network.activations(inputs, side.layers) if is_running else {}
            rows.append(
                {name: each[name].add(activation) for name, activation in activations.items()}
            )
        for name1, name2 in product(features[0], features[-1]) if may_need_products else ():
            if (
                alignment_of(features[0][name1].shape, features[-1][name2].shape, alignment)
                in BY_POSITION
            ):
                total = products.get((name1, name2), CrossMoments())
                products[name1, name2] = total.pooled(rows[0][name1].cross(rows[-1][name2]))
    return products
