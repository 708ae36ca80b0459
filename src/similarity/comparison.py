"""Compare layers of two networks at many ranks: one pass for each network, one decomposition for each layer."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from src.results.rows import Rank, SimilarityRow
from src.similarity.pairs import LayerPair
from src.similarity.permutations import null_of, permutations, permuted_cosines
from src.similarity.registry import CANONICAL, GRAMS, MEASURES, PAPER, SAMPLES, take_any, with_companions
from src.similarity.samples import Undefined
from src.similarity.statistics import Layer, alignment

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
        one_network: both are the same network, so a layer that is named twice is kept once.
        describe: keep what `summary` needs to tell numerical ranks.
        source: the fields of `SimilarityRow` that name the networks and the data set.
    Raises:
        UserError: a measure is unknown.
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
        one_network: bool = False,
        describe: bool = False,
        source: Mapping[str, Any] = UNNAMED,
    ):
        self.metrics = with_companions(metrics)
        self.ranks1, self.ranks2, self.alignment, self.source = ranks1, ranks2, alignment, source
        self.gram_metrics = [name for name in self.metrics if MEASURES[name].of == GRAMS]
        by_samples = take_any(self.metrics, SAMPLES, CANONICAL)
        keep = {
            "keep_activations": bool(self.gram_metrics),
            "keep_sums": by_samples or describe or {*ranks1, *ranks2} != {None},
        }
        self.layers1 = {name: Layer(f"{name} of model 1", n_images, **keep) for name in layers1}
        shared = self.layers1 if one_network else {}
        self.layers2 = {name: shared.get(name) or Layer(f"{name} of model 2", n_images, **keep) for name in layers2}
        self.products: dict[tuple[str, str], Tensor] | None = {} if by_samples else None
        self.orders = permutations(n_permutations, n_images)  # (N, n)
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

    @property
    def _n_biased(self) -> int:
        """The number of layers with more features than images, if a measure that such layers bias is asked for."""
        layers = {*self.layers1.values(), *self.layers2.values()}
        is_asked_for = any(MEASURES[name].is_biased for name in self.metrics)
        return sum(layer.n_features > layer.n_seen for layer in layers) if is_asked_for else 0

    def warnings(self) -> Iterator[str]:
        """List what may surprise in the values, once all rows are made."""
        if self._n_biased and not len(self.orders):
            yield (
                f"CKA of {self._n_biased} layers is biased upwards: they have more features than there are images; "
                "give --permutations 200, or --metrics cka_debiased"
            )
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

    def _prepare(self, layer: Layer, ranks: Iterable[Rank], device: torch.device | str) -> None:
        if self.gram_metrics:
            metrics = [name for name in self.gram_metrics if MEASURES[name].min_images <= layer.n_seen]
            layer.compute_grams(ranks, metrics, device=device)

    def _count(self, pair: LayerPair) -> None:
        with contextlib.suppress(Undefined):
            self.n_saturated += take_any(self.metrics, CANONICAL) and pair.is_saturated
        by_samples = take_any(self.metrics, SAMPLES, CANONICAL)
        self.n_unpermuted += bool(by_samples and len(self.orders) and pair.alignment.by_position)

    def _permuted_cosines(self, first: Layer) -> dict[str, dict[str, Tensor]]:
        """Return the values (N, R1, R2) of permutations of a layer, by measure of Gram matrices and other layer."""
        if not len(self.orders):
            return {}
        nulls = {}
        for metric in first.matrices:
            others = [layer.matrices[metric] for layer in self.layers2.values()]
            permuted = permuted_cosines(first.matrices[metric], others, self.orders)
            nulls[metric] = dict(zip(self.layers2, permuted, strict=True))
        return nulls

    def _row(
        self, pair: LayerPair, names: tuple[str, str], ranks: tuple[Rank, Rank], permuted: Mapping[str, Tensor]
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
            if metric in permuted:
                row1, row2 = pair.first.gram_row(ranks[0]), pair.second.gram_row(ranks[1])
                nulls[metric] = null_of(metric, values[metric], permuted[metric][:, row1, row2])
            elif len(self.orders) and not pair.alignment.by_position:
                others = [pair.permuted(metric, *ranks, order) for order in self.orders]
                nulls[metric] = null_of(metric, values[metric], torch.tensor(others, dtype=torch.float64))
        return SimilarityRow(
            **self.source, layer1=names[0], layer2=names[1], rank1=ranks[0], rank2=ranks[1],
            alignment=pair.alignment.name, n_samples=pair.first.n_seen, values=values, nulls=nulls,
            alignment_option=self.alignment, n_permutations=len(self.orders),
        )  # fmt: skip


def compare(activations1, activations2, metrics: Sequence[str] = PAPER, *, alignment: str = "auto") -> dict[str, float]:
    """Return the similarity of two activations for the same n inputs.

    Measures of Gram matrices take each flattened. For the others, positions of feature maps of equal shape and tokens
    in equal number are the samples, and otherwise averages over positions or tokens are the features, as in the
    paper's code.

    Args:
        activations1, activations2: (n, C, H, W), (n, T, D) or (n, D), array or tensor.
        metrics: names in `MEASURES`.
        alignment: `auto`, `pool` or `positions`, see `statistics.alignment`.
    Returns:
        By name, also of what costs nothing beside them: `cka`, `cka_debiased` and `mutual_knn` up to 1, higher for
        more similar; `pwcca` and `pwcca_morcos` in [0, 1] and `procrustes` in [0, 2], lower for more similar.
    Raises:
        UserError: a measure is unknown.
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: one is constant or not finite.
    """
    both = [torch.as_tensor(activations).detach() for activations in (activations1, activations2)]
    both = [activations if activations.is_floating_point() else activations.double() for activations in both]
    shapes = " and ".join(str(tuple(activations.shape)) for activations in both)
    if len(both[0]) != len(both[1]) or len(both[0]) < 2 or not all(2 <= x.ndim <= 4 for x in both):
        raise ValueError(f"shapes {shapes}: give (n, C, H, W), (n, T, D) or (n, D), with the same n of at least 2")
    comparison = Comparison(["it"], ["it"], n_images=len(both[0]), metrics=metrics, alignment=alignment)
    for batch1, batch2 in zip(*(activations.split(64) for activations in both), strict=True):
        comparison.add({"it": batch1}, {"it": batch2})
    ((row,),) = comparison.rows(device=both[0].device)
    for reason, lacking in comparison.undefined.items():
        raise Undefined(f"no {', '.join(lacking)}: {reason}")
    return row.values
