"""Compare layers of two networks at many ranks: one pass for each network, one decomposition for each layer."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.errors import unknown_name
from src.options import SIMILARITIES
from src.similarity.layers import Layer, alignment
from src.similarity.pairs import LayerPair, Rank
from src.similarity.samples import Undefined


class Row(NamedTuple):
    """The similarity of two layers at two ranks."""

    layer1: str
    layer2: str
    rank1: Rank
    rank2: Rank
    alignment: str
    values: dict[str, float]  # by measure; NaN where there is none


class Comparison:
    """Layers of one network against layers of another.

    Args:
        layers1, layers2: their names.
        n_images: how many will be added.
        metrics: names in `SIMILARITIES`.
        one_network: both are the same network, so a layer that is named twice is kept once.
    Raises:
        UserError: a measure is unknown.
    """

    def __init__(
        self,
        layers1: Sequence[str],
        layers2: Sequence[str],
        *,
        n_images: int,
        metrics: Sequence[str] = tuple(SIMILARITIES),
        one_network: bool = False,
    ):
        for metric in metrics:
            if metric not in SIMILARITIES:
                raise unknown_name("measure", metric, SIMILARITIES)
        self.metrics = list(metrics)
        keep = {"keep_activations": "cka" in metrics}
        self.layers1 = {name: Layer(f"{name} of model 1", n_images, **keep) for name in layers1}
        known = self.layers1 if one_network else {}
        self.layers2 = {name: known.get(name) or Layer(f"{name} of model 2", n_images, **keep) for name in layers2}
        self.products: dict[tuple[str, str], Tensor] = {}
        self.n_saturated = 0  # pairs of layers whose PWCCA at full rank is 0 for want of images
        self.undefined: dict[str, list[str]] = {}  # reason: measures that have no value somewhere because of it

    def add(self, activations1: Mapping[str, Tensor], activations2: Mapping[str, Tensor]) -> None:
        """Add a batch: the activations (B, C, H, W), (B, T, D) or (B, D) of all layers for the same images."""
        rows1 = {name: layer.add(activations1[name]) for name, layer in self.layers1.items()}
        rows2 = {
            name: rows1[name] if layer is self.layers1.get(name) else layer.add(activations2[name])
            for name, layer in self.layers2.items()
        }
        if self.metrics == ["cka"]:
            return
        for name1, first in self.layers1.items():
            for name2, second in self.layers2.items():
                if alignment(first.shape, second.shape)[1]:
                    product = rows1[name1].T @ rows2[name2]
                    known = self.products.setdefault((name1, name2), torch.zeros_like(product))
                    known += product

    def rows(
        self,
        ranks1: Sequence[Rank] = (None,),
        ranks2: Sequence[Rank] = (None,),
        *,
        device: torch.device | str = "cpu",
    ) -> Iterator[list[Row]]:
        """The rows of each pair of layers, all ranks of layer 1 times all ranks of layer 2; once only.

        What has no value is NaN, and `undefined` says why.

        Args:
            device: where Gram matrices are computed.
        """
        for second in self.layers2.values():
            self._prepare(second, {*ranks1, *ranks2} if second in self.layers1.values() else ranks2, device)
        for name1, first in self.layers1.items():
            shared = first in self.layers2.values()
            if not shared:
                self._prepare(first, ranks1, device)
            for name2, second in self.layers2.items():
                pair = LayerPair(first, second, self.products.pop((name1, name2), None))
                self._count_saturated(pair)
                yield [
                    Row(name1, name2, rank1, rank2, pair.alignment, self._values(pair, rank1, rank2))
                    for rank1 in ranks1
                    for rank2 in ranks2
                ]
            if not shared and "cka" in self.metrics:
                del first.grams

    def summary(self) -> str:
        """The layers with their shapes and numerical ranks, one a line."""
        layers = dict.fromkeys([*self.layers1.values(), *self.layers2.values()])
        return "\n".join(layer.describe() for layer in layers)

    def _prepare(self, layer: Layer, ranks: Sequence[Rank], device: torch.device | str) -> None:
        if "cka" in self.metrics and layer.is_finite:
            layer.compute_grams(ranks, device=device)

    def _count_saturated(self, pair: LayerPair) -> None:
        if {"pwcca", "pwcca_morcos"} & set(self.metrics):
            with contextlib.suppress(Undefined):
                self.n_saturated += pair.is_saturated

    def _values(self, pair: LayerPair, rank1: Rank, rank2: Rank) -> dict[str, float]:
        values = {}
        for metric in self.metrics:
            try:
                values[metric] = getattr(pair, metric)(rank1, rank2)
            except Undefined as reason:
                values[metric] = math.nan
                metrics = self.undefined.setdefault(str(reason), [])
                metrics += [metric] * (metric not in metrics)
        return values


def compare(activations1, activations2, metrics: Sequence[str] = tuple(SIMILARITIES)) -> dict[str, float]:
    """The similarity of two activations for the same n inputs.

    CKA takes each flattened. For the others, positions of feature maps of equal shape and tokens in equal number are
    the samples, and otherwise averages over positions or tokens are the features, as in the paper's code.

    Args:
        activations1, activations2: (n, C, H, W), (n, T, D) or (n, D), array or tensor.
        metrics: names in `SIMILARITIES`.
    Returns:
        By name: `cka` in [0, 1], higher for more similar; `pwcca` and `pwcca_morcos` in [0, 1] and `procrustes` in
        [0, 2], lower for more similar.
    Raises:
        UserError: a measure is unknown.
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: one is constant or not finite.
    """
    both = [torch.as_tensor(activations).detach() for activations in (activations1, activations2)]
    both = [activations if activations.is_floating_point() else activations.double() for activations in both]
    shapes = " and ".join(str(tuple(activations.shape)) for activations in both)
    if len(both[0]) != len(both[1]) or len(both[0]) < 2 or not all(2 <= x.ndim <= 4 for x in both):
        raise ValueError(f"shapes {shapes}: give (n, C, H, W), (n, T, D) or (n, D), with the same n of at least 2")
    comparison = Comparison(["it"], ["it"], n_images=len(both[0]), metrics=metrics)
    for batch1, batch2 in zip(*(activations.split(64) for activations in both), strict=True):
        comparison.add({"it": batch1}, {"it": batch2})
    ((row,),) = comparison.rows(device=both[0].device)
    for reason, lacking in comparison.undefined.items():
        raise Undefined(f"no {', '.join(lacking)}: {reason}")
    return row.values
