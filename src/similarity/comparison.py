"""Compare layers of two networks at many ranks, from the statistics of their layers."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.choices.similarity import GRAMS, MEASURES, REVERSED
from src.console import progress
from src.moments import CrossMoments
from src.results.tables import Rank
from src.similarity import measures
from src.similarity.features import LayerFeatures, alignment_of
from src.similarity.passes import Statistics
from src.similarity.permutations import null_of, permutations, permuted_cosines
from src.similarity.samples import SamplesPair, Undefined
from src.similarity.similarity_rows import BY_POSITION, NO_ALIGNMENT, SimilarityRow


class Advice(NamedTuple):
    """Remedies for what may surprise in the values: by default the options of the script."""

    unbiased: str = "--permutations 200, or --metrics cka_debiased"
    n_images: str = "more images (-n), or --permutations 200"
    pooled: str = "--alignment pool"


UNNAMED = {
    **dict.fromkeys(("model1", "model2", "model1_type", "model2_type", "dataset"), ""),
    "seed": None,
}


class Comparison:
    """Layers of one network against layers of another, at all ranks.

    Values of a measure are an array (1 + N, R1, R2): as the images are, and under N permutations of
    those of the first network.

    Args:
        statistics: of both, from `passes.take_statistics`.
        n_permutations: how often the images of the first network are permuted; 0, or at least 19.
        labels: (n_images,), integers: images are then permuted within their classes as well.
        source: the fields of `SimilarityRow` that name the networks and the data set.
        both_ways: measure what is not symmetric from the second layer to the first as well.
        advice: of the warnings.
    """

    def __init__(
        self,
        statistics: Statistics,
        *,
        n_permutations: int = 0,
        labels: Tensor | None = None,
        source: Mapping[str, Any] = UNNAMED,
        both_ways: bool = False,
        advice: Advice = Advice(),  # noqa: B008 - immutable
    ):
        self.of, self.n_permutations, self.source, self.advice = (
            statistics,
            n_permutations,
            source,
            advice,
        )
        self.gram_metrics = [name for name in self.of.metrics if MEASURES[name].of == GRAMS]
        self.sample_metrics = [name for name in self.of.metrics if MEASURES[name].of != GRAMS]
        self.reversed_metrics = [
            name for name in self.sample_metrics if both_ways and not MEASURES[name].is_symmetric
        ]
        self.orders: dict[str, Tensor] = {}  # (N, n), by the end of columns, see `Null.columns`
        self.n_alone = 0  # images that are the only ones of their class
        if n_permutations:
            self.orders[""] = permutations(n_permutations, torch.zeros(self.of.n_images))
        if n_permutations and labels is not None:
            self.n_alone = int((labels.unique(return_counts=True)[1] == 1).sum())
            if self.n_alone < self.of.n_images:
                self.orders["_within"] = permutations(n_permutations, labels.cpu())
        self.undefined: dict[
            str, list[str]
        ] = {}  # reason: measures that have no value somewhere because of it
        for layer in (*self.of.layers1.values(), *self.of.layers2.values()):
            for reason, metrics in layer.flaws.items():
                self._has_none(metrics, reason)

    def rows(self) -> Iterator[list[SimilarityRow]]:
        """Yield the rows of each pair of layers, all ranks of layer 1 times all ranks of layer 2.

        A value that is not defined is NaN, and `undefined` says why.
        """
        of = self.of
        names = [*of.metrics, *(f"{metric}{REVERSED}" for metric in self.reversed_metrics)]
        for name1, first in progress(of.layers1.items(), "layers", len(of.layers1), delay=1):
            of_grams = {metric: self._of_grams(metric, first) for metric in self.gram_metrics}
            for name2, second in of.layers2.items():
                of_samples = self._of_samples(first, second, of.products.get((name1, name2)))
                values = {metric: found[name2] for metric, found in of_grams.items()} | of_samples
                yield [
                    SimilarityRow(
                        **self.source, layer1=name1, layer2=name2, rank1=rank1, rank2=rank2, n_samples=of.n_images,
                        alignment=self._alignment(first, second), alignment_option=of.alignment,
                        n_permutations=self.n_permutations,
                        values=self._columns({name: values[name][:, i, j] for name in names}),
                    )
                    for (i, rank1), (j, rank2) in self._at_ranks()
                ]  # fmt: skip

    def _alignment(self, first: LayerFeatures, second: LayerFeatures) -> str:
        return alignment_of(first.shape, second.shape, self.of.alignment)

    def _at_ranks(self) -> Iterator[tuple[tuple[int, Rank], tuple[int, Rank]]]:
        return product(enumerate(self.of.ranks1), enumerate(self.of.ranks2))

    def _has_none(self, metrics: Iterable[str], reason: str) -> None:
        """Note why measures have no value."""
        known = self.undefined.setdefault(reason, [])
        known += [metric for metric in metrics if metric not in known]

    def _of_grams(self, metric: str, first: LayerFeatures) -> dict[str, Tensor]:
        """Return the values of a measure of Gram matrices, of a layer and each of the other
        network."""
        matrices, seconds = first.matrices[metric], self.of.layers2.values()
        others = [second.matrices[metric] for second in seconds]
        values = [(matrices.flatten(1) @ other.flatten(1).T).cpu()[None] for other in others]
        if self.orders:
            permuted = permuted_cosines(matrices, others, torch.cat([*self.orders.values()]))
            values = [torch.cat(each) for each in zip(values, permuted, strict=True)]
        rows = first.gram_rows(self.of.ranks1)
        return {
            name: each[:, rows][:, :, second.gram_rows(self.of.ranks2)]
            for (name, second), each in zip(self.of.layers2.items(), values, strict=True)
        }

    def _of_samples(
        self, first: LayerFeatures, second: LayerFeatures, cross: CrossMoments | None
    ) -> dict[str, Tensor]:
        """Return the values of measures of samples by measure; under no permutation where positions
        are the samples.

        Args:
            cross: of the positions, if they are the samples.
        """
        shape = (
            1 if cross else 1 + sum(map(len, self.orders.values())),
            len(self.of.ranks1),
            len(self.of.ranks2),
        )
        names = [*self.sample_metrics, *(f"{metric}{REVERSED}" for metric in self.reversed_metrics)]
        values = {name: torch.full(shape, math.nan, dtype=torch.float64) for name in names}
        if not values:
            return {}
        if self._alignment(first, second) == NO_ALIGNMENT:
            self._has_none(
                self.sample_metrics,
                f"positions of {first.name} and {second.name} do not correspond; "
                f"{self.advice.pooled} compares averages",
            )
            return values
        if cross:
            one, two = first.positions, second.positions
            products = [one.axes.T @ cross.scatter.cpu() @ two.axes]
        else:
            one, two = first.images, second.images
            products = (
                first.pooled[order].T @ second.pooled
                for order in chain([slice(None)], *self.orders.values())
            )
        for place, between in enumerate(products):
            for (i, rank1), (j, rank2) in self._at_ranks():
                try:
                    pair = SamplesPair(
                        one.basis(first.width(rank1)), two.basis(second.width(rank2)), between
                    )
                except Undefined as reason:
                    self._has_none(self.sample_metrics, str(reason))
                    continue
                for metric in self.sample_metrics:
                    values[metric][place, i, j] = measures.SAMPLE_MEASURES[metric](pair)
                for metric in self.reversed_metrics:
                    values[f"{metric}{REVERSED}"][place, i, j] = measures.SAMPLE_MEASURES[metric](
                        pair.reversed
                    )
        return values

    def _columns(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the values of a row, from those (1 + N,) of each measure, and behind them the
        columns of nulls."""
        columns = {metric: float(each[0]) for metric, each in values.items()}
        for metric, each in values.items():
            if len(each) > 1 and not math.isnan(each[0]):
                for which, permuted in zip(
                    self.orders, each[1:].split(self.n_permutations), strict=True
                ):
                    null = null_of(metric.removesuffix(REVERSED), float(each[0]), permuted)
                    columns |= null.columns(metric, which)
        return columns

    def warnings(self) -> Iterator[str]:
        """List what may surprise in the values, once all rows are made: bias where there is no null
        beside it, NaN."""
        pairs = list(product(self.of.layers1.values(), self.of.layers2.values()))
        of_samples = ", ".join(self.sample_metrics)
        n = sum(math.prod(layer.shape) > layer.n_images for layer in set(chain(*pairs)))
        if n and not self.orders and "cka" in self.of.metrics:
            yield (
                f"CKA of {n} layers is biased upwards: they have more features than there are images; "
                f"give {self.advice.unbiased}"
            )
        n = sum(self._has_few_samples(*pair) for pair in pairs)
        if n and of_samples:
            yield (
                f"{of_samples} of {n} pairs are biased downwards: their layers have more features together than there "
                f"are samples; give {self.advice.n_images}"
            )
        for reason, lacking in self.undefined.items():
            yield f"{', '.join(lacking)} nan: {reason}"
        n = sum(self._alignment(*pair) in BY_POSITION for pair in pairs)
        if n and of_samples and self.orders:
            yield (
                f"{of_samples} of {n} pairs have no p-values: their samples are positions, which are not independent; "
                f"{self.advice.pooled} makes images the samples"
            )
        if self.n_alone:
            yield (
                f"{self.n_alone} of {self.of.n_images} images are the only ones of their class, which permutations "
                "within classes do not move; give more images (-n)"
            )

    def _has_few_samples(self, first: LayerFeatures, second: LayerFeatures) -> bool:
        """Return whether two layers without a null have more features together than there are
        samples."""
        aligned = self._alignment(first, second)
        if aligned == NO_ALIGNMENT or (self.orders and aligned not in BY_POSITION):
            return False
        n_samples = self.of.n_images * (first.n_positions if aligned in BY_POSITION else 1)
        return (
            max(map(first.width, self.of.ranks1)) + max(map(second.width, self.of.ranks2))
            > n_samples
        )
