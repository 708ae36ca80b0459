"""Compare layers of two networks at many ranks, from the features of each network."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from src.choices.measures import GRAMS, MEASURES, PAPER, with_companions
from src.console import progress
from src.results.tables import Rank
from src.similarity import measures
from src.similarity.features import CrossProducts, Layer, NetworkFeatures
from src.similarity.pairs import LayerPair
from src.similarity.permutations import n_alone, null_of, orders_of, permuted_cosines
from src.similarity.rows import SimilarityRow
from src.similarity.samples import Undefined

UNNAMED = {**dict.fromkeys(("model1", "model2", "model1_type", "model2_type", "dataset"), ""), "seed": None}


class Comparison:
    """Layers of one network against layers of another.

    Args:
        first, second: finished features of the same images; those of one network may be given twice.
        cross: their products; see `passes.take_features`.
        layers1, layers2: the layers that are compared; None: all.
        metrics: names in `MEASURES`.
        ranks1, ranks2: how many principal components of the layers are kept, all of them among those of the features.
        n_permutations: how often the images of the first network are permuted; 0, or at least 19.
        labels: (n_images,), integers: images are then permuted within their classes as well.
        source: the fields of `SimilarityRow` that name the networks and the data set.
    Raises:
        UserError: a measure is unknown.
    """

    def __init__(
        self,
        first: NetworkFeatures,
        second: NetworkFeatures,
        cross: CrossProducts,
        *,
        layers1: Sequence[str] | None = None,
        layers2: Sequence[str] | None = None,
        metrics: Sequence[str] = PAPER,
        ranks1: Sequence[Rank] = (None,),
        ranks2: Sequence[Rank] = (None,),
        n_permutations: int = 0,
        labels: Tensor | None = None,
        source: Mapping[str, Any] = UNNAMED,
    ):
        self.metrics, self.ranks1, self.ranks2 = with_companions(metrics), ranks1, ranks2
        self.sample_metrics = [name for name in self.metrics if MEASURES[name].of != GRAMS]
        self.layers1 = {name: first.layers[name] for name in layers1 or first.layers}
        self.layers2 = {name: second.layers[name] for name in layers2 or second.layers}
        self.cross, self.source = cross, source
        self.n_permutations, self.labels = n_permutations, None if labels is None else labels.cpu()
        self.orders = orders_of(n_permutations, first.n_images, self.labels)  # (N, n) by the end of columns
        self.undefined: dict[str, list[str]] = {}  # reason: measures that have no value somewhere because of it

    def rows(self) -> Iterator[list[SimilarityRow]]:
        """Yield the rows of each pair of layers, all ranks of layer 1 times all ranks of layer 2.

        A value that is not defined is NaN, and `undefined` says why.
        """
        for name1, first in progress(self.layers1.items(), "layers", len(self.layers1), delay=1):
            cosines = self._permuted_cosines(first)
            for name2 in self.layers2:
                pair = self._pair(name1, name2)
                permuted = cosines[name2] | self._permuted_samples(pair)
                yield [
                    self._row(pair, (name1, name2), ranks, {key: values[at] for key, values in permuted.items()})
                    for at, ranks in self._at_ranks()
                ]

    def _at_ranks(self) -> Iterator[tuple[tuple, tuple[Rank, Rank]]]:
        """Yield each pair of ranks behind its index into arrays (N, R1, R2)."""
        for (i, rank1), (j, rank2) in product(enumerate(self.ranks1), enumerate(self.ranks2)):
            yield (slice(None), i, j), (rank1, rank2)

    def _pair(self, name1: str, name2: str) -> LayerPair:
        cross = self.cross.moments.get((name1, name2))
        layers = self.layers1[name1], self.layers2[name2]
        return LayerPair(*layers, self.cross.alignment, None if cross is None else cross.scatter)

    def _permuted_cosines(self, first: Layer) -> dict[str, dict[tuple[str, str], Tensor]]:
        """Return the permuted values of a layer for measures of Gram matrices, by other layer."""
        found: dict[str, dict[tuple[str, str], Tensor]] = {name: {} for name in self.layers2}
        for metric in first.matrices if self.orders else ():
            others = {name: layer for name, layer in self.layers2.items() if metric in layer.matrices}
            matrices = [layer.matrices[metric] for layer in others.values()]
            values = permuted_cosines(first.matrices[metric], matrices, torch.cat([*self.orders.values()]))
            for (name, second), of_pair in zip(others.items(), values, strict=True):
                rows = [_rows(layer, ranks) for layer, ranks in ((first, self.ranks1), (second, self.ranks2))]
                blocks = of_pair[:, rows[0]][:, :, rows[1]].split(self.n_permutations)
                found[name] |= {(which, metric): block for which, block in zip(self.orders, blocks, strict=True)}
        return found

    def _permuted_samples(self, pair: LayerPair) -> dict[tuple[str, str], Tensor]:
        """Return the permuted values for measures of samples; none where samples are positions."""
        found: dict[tuple[str, str], Tensor] = {}
        if not (self.sample_metrics and pair.has_images_as_samples):
            return found
        for which, orders in self.orders.items():
            shape = (len(orders), len(self.ranks1), len(self.ranks2))
            found |= {(which, metric): torch.full(shape, math.nan).double() for metric in self.sample_metrics}
            for n, order in enumerate(orders):
                samples = pair.permuted_samples(order)
                for metric, (at, ranks) in product(self.sample_metrics, self._at_ranks()):
                    with contextlib.suppress(Undefined):  # as it is without permutations
                        found[which, metric][at][n] = getattr(measures, metric)(samples, *ranks)
        return found

    def _row(
        self, pair: LayerPair, layers: tuple[str, str], ranks: tuple[Rank, Rank], permuted: Mapping[tuple, Tensor]
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
            for which in self.orders:
                if (which, metric) in permuted:
                    nulls |= null_of(metric, values[metric], permuted[which, metric]).columns(metric, which)
        return SimilarityRow(
            **self.source, layer1=layers[0], layer2=layers[1], rank1=ranks[0], rank2=ranks[1],
            alignment=pair.alignment.name, n_samples=pair.first.n_images, values=values | nulls,
            alignment_option=self.cross.alignment, n_permutations=self.n_permutations,
        )  # fmt: skip

    def warnings(self) -> Iterator[str]:
        """List what may surprise in the values, once all rows are made."""
        pairs = [self._pair(*names) for names in product(self.layers1, self.layers2)]
        yield from self._biases(pairs)
        for reason, lacking in self.undefined.items():
            yield f"{', '.join(lacking)} nan: {reason}"
        n = sum(pair.alignment.by_position for pair in pairs)
        if n and self.sample_metrics and self.orders:
            yield (
                f"{', '.join(self.sample_metrics)} of {n} pairs have no p-values: their samples are positions, which "
                "are not independent; --alignment pool makes images the samples"
            )
        n = 0 if self.labels is None or not self.orders else n_alone(self.labels)
        if n:
            yield (
                f"{n} of {len(self.labels)} images are the only ones of their class, which permutations within classes "
                "do not move; give more images (-n)"
            )

    def _biases(self, pairs: Sequence[LayerPair]) -> Iterator[str]:
        """Name the biased measures, and count where features outnumber samples, unless there is a null beside them."""
        layers = {*self.layers1.values(), *self.layers2.values()}
        n = sum(math.prod(layer.shape) > layer.n_images for layer in layers)
        if n and not self.orders and "cka" in self.metrics:
            yield (
                f"CKA of {n} layers is biased upwards: they have more features than there are images; "
                "give --permutations 200, or --metrics cka_debiased"
            )
        without_null = [pair for pair in pairs if pair.alignment.by_position or not self.orders]
        n = sum(pair.has_few_samples(self.ranks1, self.ranks2) for pair in without_null)
        if n and self.sample_metrics:
            yield (
                f"{', '.join(self.sample_metrics)} of {n} pairs are biased downwards: their layers have more features "
                "together than there are samples; give more images (-n), or --permutations 200"
            )


def _rows(layer: Layer, ranks: Sequence[Rank]) -> list[int]:
    """Return the places of ranks in the Gram matrices of a layer, also of ranks that have no value."""
    return [layer.gram_widths.index(layer.width(rank)) for rank in ranks]
