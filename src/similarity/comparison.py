"""Compare layers of two networks at many ranks: one pass for each network, one decomposition for each layer."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from src.console import progress
from src.results.tables import Rank
from src.similarity.features import Features
from src.similarity.pairs import LayerPair
from src.similarity.permutations import n_alone, null_of, orders_of, permuted_cosines
from src.similarity.registry import CANONICAL, GRAMS, MEASURES, PAPER, SAMPLES, take_any, with_companions
from src.similarity.rows import SimilarityRow
from src.similarity.samples import Undefined
from src.similarity.statistics import NO_ALIGNMENT, Layer, alignment

UNNAMED = {**dict.fromkeys(("model1", "model2", "model1_type", "model2_type", "dataset"), ""), "seed": None}


class Comparison:
    """Layers of one network against layers of another.

    Args:
        layers1, layers2: their names.
        n_images: how many will be added.
        metrics: names in `MEASURES`.
        ranks1, ranks2: how many principal components of the layers are kept; None: all of them.
        alignment: `auto`, `pool` or `positions`, see `statistics.alignment`.
        n_permutations: how often the images of the first network are permuted; 0, or at least 19.
        labels: (n_images,), integers: images are then permuted within their classes as well.
        one_network: both are the same network, so a layer that is named twice is kept once.
        describe: keep what `summary` needs to tell numerical ranks.
        source: the fields of `SimilarityRow` that name the networks and the data set.
        stored: layers of each network whose features are in a store; where all are, batches need to be added only if
            positions are samples.
    Raises:
        UserError: a measure is unknown.
        ValueError: there is another number of labels than of images.
    """

    def __init__(
        self,
        layers1: Sequence[str],
        layers2: Sequence[str],
        *,
        n_images: int,
        metrics: Sequence[str] = PAPER,
        ranks1: Sequence[Rank] = (None,),
        ranks2: Sequence[Rank] = (None,),
        alignment: str = "auto",
        n_permutations: int = 0,
        labels: Tensor | None = None,
        one_network: bool = False,
        describe: bool = False,
        source: Mapping[str, Any] = UNNAMED,
        stored: tuple[Mapping[str, Features], Mapping[str, Features]] = ({}, {}),  # noqa: B006 - not changed
    ):
        self.metrics = with_companions(metrics)
        self.ranks1, self.ranks2, self.alignment, self.source = ranks1, ranks2, alignment, source
        self.gram_metrics = [name for name in self.metrics if MEASURES[name].of == GRAMS]
        by_samples = take_any(self.metrics, SAMPLES, CANONICAL)
        keep = {
            "keep_activations": bool(self.gram_metrics),
            "keep_sums": by_samples or describe or {*ranks1, *ranks2} != {None},
        }
        self.layers1: dict[str, Features] = {
            name: stored[0].get(name) or Layer(f"{name} of model 1", n_images, **keep) for name in layers1
        }
        others = {**stored[1], **(self.layers1 if one_network else {})}
        self.layers2: dict[str, Features] = {
            name: others.get(name) or Layer(f"{name} of model 2", n_images, **keep) for name in layers2
        }
        self.products: dict[tuple[str, str], Tensor] | None = {} if by_samples else None
        self.n_permutations, self.labels = n_permutations, None if labels is None else labels.cpu()
        self.orders = orders_of(n_permutations, n_images, self.labels)  # (N, n) by the end of columns
        self.n_saturated = 0  # pairs of layers whose PWCCA at full rank is 0 for want of images
        self.n_unpermuted = 0  # pairs of layers whose samples are positions, which no permutation is made of
        self.undefined: dict[str, list[str]] = {}  # reason: measures that have no value somewhere because of it

    def add(self, activations1: Mapping[str, Tensor], activations2: Mapping[str, Tensor]) -> None:
        """Add a batch: the activations (B, C, H, W), (B, T, D) or (B, D) of all layers for the same images."""
        rows1 = {name: layer.add(activations1[name]) for name, layer in self.layers1.items()}
        rows2 = {
            name: rows1[name] if layer is self.layers1.get(name) else layer.add(activations2[name])
            for name, layer in self.layers2.items()
        }
        if self.products is None:
            return
        for name1, first in self.layers1.items():
            for name2, second in self.layers2.items():
                if alignment(first.shape, second.shape, self.alignment).by_position:
                    product = rows1[name1].T @ rows2[name2]
                    total = self.products.setdefault((name1, name2), torch.zeros_like(product))
                    total += product

    def rows(self, *, device: torch.device | str = "cpu") -> Iterator[list[SimilarityRow]]:
        """Yield the rows of each pair of layers, all ranks of layer 1 times all ranks of layer 2; once only.

        A value that is not defined is NaN, and `undefined` says why.

        Args:
            device: where Gram matrices are computed.
        """
        yield from progress(self._pairs(device), "pairs", len(self.layers1) * len(self.layers2), delay=1)

    def _pairs(self, device: torch.device | str) -> Iterator[list[SimilarityRow]]:
        for second in self.layers2.values():
            shared = second in self.layers1.values()
            self._prepare(second, {*self.ranks1, *self.ranks2} if shared else self.ranks2, device)
        for name1, first in self.layers1.items():
            shared = first in self.layers2.values()
            if not shared:
                self._prepare(first, self.ranks1, device)
            cosines = self._permuted_cosines(first)
            for name2, second in self.layers2.items():
                products = (self.products or {}).pop((name1, name2), None)
                pair = LayerPair(first, second, alignment(first.shape, second.shape, self.alignment), products)
                self._count(pair)
                permuted = {metric: by_layer[name2] for metric, by_layer in cosines.items()}
                yield [
                    self._row(pair, (name1, name2), (rank1, rank2), permuted)
                    for rank1 in self.ranks1
                    for rank2 in self.ranks2
                ]
            if not shared:
                first.matrices.clear()

    def summary(self) -> str:
        """Return the layers with their shapes and numerical ranks, one a line."""
        layers = dict.fromkeys([*self.layers1.values(), *self.layers2.values()])
        return "\n".join(layer.describe() for layer in layers)

    def warnings(self) -> Iterator[str]:
        """List what may surprise in the values, once all rows are made."""
        yield from self._biases()
        for reason, lacking in self.undefined.items():
            yield f"{', '.join(lacking)} nan: {reason}"
        if self.n_saturated:
            yield (
                f"PWCCA of {self.n_saturated} pairs is 0 for want of images: fewer than pooled features; give more "
                "images (-n)"
            )
        if self.n_unpermuted:
            names = [name for name in self.metrics if MEASURES[name].of != GRAMS]
            yield (
                f"{', '.join(names)} of {self.n_unpermuted} pairs have no p-values: their samples are positions, which "
                "are not independent; --alignment pool makes images the samples"
            )
        n = 0 if self.labels is None or not self.orders else n_alone(self.labels)
        if n:
            yield (
                f"{n} of {len(self.labels)} images are the only ones of their class, which permutations within classes "
                "do not move; give more images (-n)"
            )

    def _biases(self) -> Iterator[str]:
        """Name the biased measures, and count where features outnumber samples, unless there is a null beside them."""
        layers = {*self.layers1.values(), *self.layers2.values()}
        n = sum(layer.n_features > layer.n_seen for layer in layers)
        if n and not self.orders and any(MEASURES[name].is_biased for name in self.gram_metrics):
            yield (
                f"CKA of {n} layers is biased upwards: they have more features than there are images; "
                "give --permutations 200, or --metrics cka_debiased"
            )
        names = [name for name in self.metrics if MEASURES[name].is_biased and name not in self.gram_metrics]
        n = sum(self._has_few_samples(*pair) for pair in product(self.layers1.values(), self.layers2.values()))
        if n and names:
            yield (
                f"{', '.join(names)} of {n} pairs are biased downwards: their layers have more features together than "
                "there are samples; give more images (-n), or --permutations 200"
            )

    def _has_few_samples(self, first: Features, second: Features) -> bool:
        """Return whether two layers have no more samples than features, and no permutations that show what follows."""
        name, by_position = alignment(first.shape, second.shape, self.alignment)
        widths = (max(map(layer.width, ranks)) for layer, ranks in ((first, self.ranks1), (second, self.ranks2)))
        is_shown = name == NO_ALIGNMENT.name or (self.orders and not by_position)
        return not is_shown and sum(widths) > (first.n_rows if by_position else first.n_seen)

    def _prepare(self, layer: Features, ranks: Iterable[Rank], device: torch.device | str) -> None:
        if self.gram_metrics:
            metrics = [name for name in self.gram_metrics if MEASURES[name].min_images <= layer.n_seen]
            layer.compute_grams(ranks, metrics, device=device)

    def _count(self, pair: LayerPair) -> None:
        with contextlib.suppress(Undefined):
            self.n_saturated += take_any(self.metrics, CANONICAL) and pair.is_saturated
        by_samples = take_any(self.metrics, SAMPLES, CANONICAL)
        self.n_unpermuted += bool(by_samples and self.orders and pair.alignment.by_position)

    def _permuted_cosines(self, first: Features) -> dict[str, dict[str, Tensor]]:
        """Return the permuted values (ΣN, R1, R2) of a layer, by measure of Gram matrices and other layer."""
        if not self.orders:
            return {}
        nulls, orders = {}, torch.cat([*self.orders.values()])
        for metric in first.matrices:
            others = [layer.matrices[metric] for layer in self.layers2.values()]
            permuted = permuted_cosines(first.matrices[metric], others, orders)
            nulls[metric] = dict(zip(self.layers2, permuted, strict=True))
        return nulls

    def _row(
        self, pair: LayerPair, names: tuple[str, str], ranks: tuple[Rank, Rank], cosines: Mapping[str, Tensor]
    ) -> SimilarityRow:
        values, nulls = {}, {}
        for metric in self.metrics:
            try:
                values[metric] = pair.value(metric, *ranks)
            except Undefined as reason:
                values[metric] = math.nan
                metrics = self.undefined.setdefault(str(reason), [])
                metrics += [metric] * (metric not in metrics)
                continue
            for which, permuted in self._permuted(pair, metric, ranks, cosines).items():
                nulls |= null_of(metric, values[metric], permuted).columns(metric, which)
        return SimilarityRow(
            **self.source, layer1=names[0], layer2=names[1], rank1=ranks[0], rank2=ranks[1],
            alignment=pair.alignment.name, n_samples=pair.first.n_seen, values=values | nulls,
            alignment_option=self.alignment, n_permutations=self.n_permutations,
        )  # fmt: skip

    def _permuted(
        self, pair: LayerPair, metric: str, ranks: tuple[Rank, Rank], cosines: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the permuted values (N,) of a measure, by the end of columns; none where samples are positions."""
        if metric in cosines:
            row1, row2 = pair.first.gram_row(ranks[0]), pair.second.gram_row(ranks[1])
            blocks = cosines[metric][:, row1, row2].split(self.n_permutations)
            return dict(zip(self.orders, blocks, strict=True))
        if MEASURES[metric].of == GRAMS or pair.alignment.by_position:
            return {}
        return {
            which: torch.tensor([pair.permuted(metric, *ranks, order) for order in orders], dtype=torch.float64)
            for which, orders in self.orders.items()
        }
