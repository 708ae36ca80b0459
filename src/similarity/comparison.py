"""Compare layers of two networks at many ranks, from the statistics of their layers."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, product
from typing import NamedTuple

import torch
from torch import Tensor

from src.choices.similarity import GRAMS, SAMPLES
from src.ground.console import progress
from src.similarity import measures
from src.similarity.features import LayerFeatures
from src.similarity.passes import LayerPair, Statistics
from src.similarity.permutations import (
    LargestPermuted,
    null_of,
    permutations,
    permuted_cosines,
)
from src.similarity.samples import SamplesPair, Undefined
from src.similarity.user_measures import warn_of_cost
from src.values import (
    ALL_IMAGES,
    BY_POSITION,
    LARGEST,
    NO_ALIGNMENT,
    WITHIN_CLASSES,
    ComparedLayers,
    Rank,
    Similarity,
)


class Advice(NamedTuple):
    """Remedies in the warnings of a comparison: by default the options of the script."""

    unbiased: str = "--permutations 200, or --metrics cka_debiased"
    n_images: str = "more images (-n), or --permutations 200"
    pooled: str = "--alignment pool"


class BothWays(NamedTuple):
    """Values (1 + N, R1, R2) of measures of two layers, see `Comparison`."""

    forth: dict[str, Tensor]  # by measure
    back: dict[str, Tensor]  # of the second layer to the first


class BothWaysLargest(NamedTuple):
    """The largest values over pairs of layers, of the first layer to the second and back."""

    forth: LargestPermuted
    back: LargestPermuted

    def add(self, values: BothWays) -> None:
        """Add the values of a pair of layers."""
        for name, of_measure in values.forth.items():
            self.forth.add(name, of_measure)
        for name, of_measure in values.back.items():
            self.back.add(name, of_measure)


class Comparison:
    """Layers of one network against layers of another, at all ranks.

    Values of a measure are an array (1 + N, R1, R2). The first entry is of the images in their
    order. The further N are under permutations of the images of the first network: N is
    `n_permutations`, or twice that if images are permuted within classes too.

    Args:
        statistics: of both networks, from `passes.take_statistics`.
        n_permutations: how often the images of the first network are permuted: 0, or at least 19,
            which is not checked. Each value then has a null beside it.
        labels: (n_images,), integers: images are then permuted within their classes too, as often.
        both_ways: compare the second layer to the first as well if a measure is not symmetric.
        advice: remedies in the warnings.

    Attributes:
        undefined: the measures that have no value somewhere, by reason. It grows while `results`
            runs.
    """

    def __init__(
        self,
        statistics: Statistics,
        *,
        n_permutations: int = 0,
        labels: Tensor | None = None,
        both_ways: bool = False,
        advice: Advice = Advice(),  # noqa: B008 - immutable
    ):
        self.statistics = statistics
        self.n_permutations = n_permutations
        self.advice = advice
        self._sort_metrics(both_ways=both_ways)

        # (N, n) orders of the images, by the images that trade places
        self.orders: dict[str, Tensor] = {}
        self.n_alone = 0  # images that are the only ones of their class
        if n_permutations:
            self._draw_orders(labels)
            warn_of_cost(self.user_metrics, n_permutations, n_kinds=len(self.orders))

        self.undefined: dict[str, list[str]] = {}
        for layer in (*self.statistics.layers1.values(), *self.statistics.layers2.values()):
            for reason, metrics in layer.flaws.items():
                self._note_undefined(metrics, reason)

    def _sort_metrics(self, *, both_ways: bool) -> None:
        """Sort the measures by their inputs, and by whether they are compared both ways."""
        measures_of_names = self.statistics.metrics.items()
        self.gram_metrics = [name for name, measure in measures_of_names if measure.of == GRAMS]
        self.sample_metrics = [name for name, measure in measures_of_names if measure.of == SAMPLES]
        self.user_metrics = list(self.statistics.user_measures)
        self.reversed_metrics: list[str] = []
        if both_ways:
            self.reversed_metrics = [
                name for name, measure in measures_of_names if not measure.is_symmetric
            ]

    def _draw_orders(self, labels: Tensor | None) -> None:
        """Draw the permutations of all images, and permutations within classes if a class has two."""
        n_images = self.statistics.n_images
        self.orders[ALL_IMAGES] = permutations(self.n_permutations, torch.zeros(n_images))
        if labels is None:
            return
        _, n_of_classes = labels.unique(return_counts=True)
        self.n_alone = int((n_of_classes == 1).sum())
        if self.n_alone < n_images:
            self.orders[WITHIN_CLASSES] = permutations(self.n_permutations, labels.cpu())

    def results(self) -> Iterator[list[ComparedLayers]]:
        """Yield the values of each pair of layers, at all ranks of layer 1 times all of layer 2.

        For each layer of the first network, all layers of the second one follow. A value that is
        not defined is NaN, and `undefined` says why. With permutations, values of several pairs are
        set against the largest ones over pairs as well, and so come when all pairs are measured.
        """
        if self.orders and len(self.statistics.alignments) > 1:
            yield from self._results_against_largest()
            return
        for pair, values in self._values_of_pairs():
            yield self._results_of_pair(pair, values)

    def _results_against_largest(self) -> Iterator[list[ComparedLayers]]:
        """Yield the values of each pair of layers, set against the largest ones over pairs."""
        metrics = self.statistics.metrics
        largest = BothWaysLargest(LargestPermuted(metrics), LargestPermuted(metrics))
        results = []
        for pair, values in self._values_of_pairs():
            largest.add(values)
            results.append(self._results_of_pair(pair, values))
        for result in results:
            yield [
                self._set_against(compared, largest, i, j)
                for compared, ((i, _), (j, _)) in zip(result, self._at_ranks(), strict=True)
            ]

    def _values_of_pairs(self) -> Iterator[tuple[LayerPair, BothWays]]:
        """Yield the names of two layers and their values, for each pair of layers."""
        layers1 = self.statistics.layers1
        for name1, first in progress(layers1.items(), "layers", len(layers1), delay=1):
            gram_values = {metric: self._of_grams(metric, first) for metric in self.gram_metrics}
            for name2, second in self.statistics.layers2.items():
                of_samples = self._of_samples((name1, name2))
                of_users = self._of_user_measures(first, second)
                of_grams = {metric: by_layer[name2] for metric, by_layer in gram_values.items()}
                values = BothWays(
                    of_grams | of_samples.forth | of_users.forth, of_samples.back | of_users.back
                )
                yield (name1, name2), values

    def _results_of_pair(self, pair: LayerPair, values: BothWays) -> list[ComparedLayers]:
        """Return the values of a pair of layers at each pair of ranks."""
        alignment = self.statistics.alignments[pair]
        results = []
        for (i, rank1), (j, rank2) in self._at_ranks():
            forth = {}
            for name in self.statistics.metrics:
                forth[name] = self._similarity(name, values.forth[name][:, i, j])
            back = {}
            for name in self.reversed_metrics:
                back[name] = self._similarity(name, values.back[name][:, i, j])
            results.append(ComparedLayers(*pair, rank1, rank2, alignment, forth, back))
        return results

    def _set_against(
        self, compared: ComparedLayers, largest: BothWaysLargest, i: int, j: int
    ) -> ComparedLayers:
        """Return the values of two layers with the nulls of the largest values over layers.

        Args:
            i, j: the places of the ranks.
        """
        values = {}
        for name, similarity in compared.values.items():
            values[name] = self._with_largest(name, similarity, largest.forth.of(name), i, j)
        reversed_values = {}
        for name, similarity in compared.reversed_values.items():
            reversed_values[name] = self._with_largest(
                name, similarity, largest.back.of(name), i, j
            )
        return compared._replace(values=values, reversed_values=reversed_values)

    def _with_largest(
        self, metric: str, similarity: Similarity, largest: Tensor | None, i: int, j: int
    ) -> Similarity:
        """Return a value with the nulls of the largest values (N, R1, R2), if there are any."""
        if largest is None or math.isnan(similarity.value):
            return similarity
        nulls = dict(similarity.nulls)
        of_orders = largest[:, i, j].split(self.n_permutations)
        for images, permuted in zip(self.orders, of_orders, strict=True):
            measure = self.statistics.metrics[metric]
            nulls[LARGEST[images]] = null_of(measure, similarity.value, permuted)
        return similarity._replace(nulls=nulls)

    def _at_ranks(self) -> Iterator[tuple[tuple[int, Rank], tuple[int, Rank]]]:
        return product(enumerate(self.statistics.ranks1), enumerate(self.statistics.ranks2))

    def _note_undefined(self, metrics: Iterable[str], reason: str) -> None:
        """Note why measures have no value."""
        metrics_of_reason = self.undefined.setdefault(reason, [])
        metrics_of_reason += [name for name in metrics if name not in metrics_of_reason]

    def _of_grams(self, metric: str, first: LayerFeatures) -> dict[str, Tensor]:
        """Return the values (1 + N, R1, R2) of a measure of Gram matrices, by second layer.

        Args:
            first: a layer of the first network.
        """
        matrices1 = first.matrices[metric]
        matrices2 = [second.matrices[metric] for second in self.statistics.layers2.values()]
        vectors1 = matrices1.flatten(1)
        values = [(vectors1 @ of_layer.flatten(1).T).cpu()[None] for of_layer in matrices2]
        if self.orders:
            orders = torch.cat([*self.orders.values()])
            permuted = permuted_cosines(matrices1, matrices2, orders)
            values = [torch.cat(parts) for parts in zip(values, permuted, strict=True)]
        rows1 = first.gram_rows(self.statistics.ranks1)
        by_layer = {}
        for (name, second), of_layer in zip(self.statistics.layers2.items(), values, strict=True):
            rows2 = second.gram_rows(self.statistics.ranks2)
            by_layer[name] = of_layer[:, rows1][:, :, rows2]
        return by_layer

    def _of_samples(self, pair: LayerPair) -> BothWays:
        """Return the values (1 + N, R1, R2) of measures of samples.

        They are (1, R1, R2) where positions are the samples.
        """
        first = self.statistics.layers1[pair[0]]
        second = self.statistics.layers2[pair[1]]
        cross = self.statistics.products.get(pair)  # of the positions, if they are the samples
        n_orders = 0
        if not cross:
            n_orders = sum(map(len, self.orders.values()))
        values = self._no_values(self.sample_metrics, n_orders)
        if not values.forth:
            return values
        if self.statistics.alignments[pair] == NO_ALIGNMENT:
            self._note_undefined(
                self.sample_metrics,
                f"positions of {first.name} and {second.name} do not correspond; "
                f"{self.advice.pooled} compares averages",
            )
            return values

        widths1 = [first.width(rank) for rank in self.statistics.ranks1]
        widths2 = [second.width(rank) for rank in self.statistics.ranks2]

        # The products of the samples of both layers, in the order of the images and permuted
        products: Iterable[Tensor]
        if cross:
            samples1 = first.positions
            samples2 = second.positions
            products = [samples1.axes.T @ cross.scatter.cpu() @ samples2.axes]
        else:
            samples1 = first.images
            samples2 = second.images
            orders = chain([slice(None)], *self.orders.values())
            products = (first.pooled[order].T @ second.pooled for order in orders)

        for place, between in enumerate(products):
            for (i, width1), (j, width2) in product(enumerate(widths1), enumerate(widths2)):
                try:
                    basis1 = samples1.basis(width1)
                    basis2 = samples2.basis(width2)
                except Undefined as reason:
                    self._note_undefined(self.sample_metrics, str(reason))
                    continue
                samples = SamplesPair(basis1, basis2, between)
                for name in self.sample_metrics:
                    measure = measures.SAMPLE_MEASURES[name]
                    values.forth[name][place, i, j] = measure(samples)
                    if name in values.back:
                        values.back[name][place, i, j] = measure(samples.reversed)
        return values

    def _no_values(self, metrics: Iterable[str], n_orders: int) -> BothWays:
        """Return NaN (1 + n_orders, R1, R2) for each measure, and back for the reversed measures."""
        shape = (1 + n_orders, len(self.statistics.ranks1), len(self.statistics.ranks2))
        values = BothWays({}, {})
        for name in metrics:
            values.forth[name] = torch.full(shape, math.nan, dtype=torch.float64)
            if name in self.reversed_metrics:
                values.back[name] = values.forth[name].clone()
        return values

    def _of_user_measures(self, first: LayerFeatures, second: LayerFeatures) -> BothWays:
        """Return the values (1 + N, R1, R2) of a user's functions.

        They are NaN below full rank.
        """
        n_orders = sum(map(len, self.orders.values()))
        values = self._no_values(self.user_metrics, n_orders)
        if not values.forth:
            return values
        is_full1 = torch.tensor([first.is_full(rank) for rank in self.statistics.ranks1])
        is_full2 = torch.tensor([second.is_full(rank) for rank in self.statistics.ranks2])
        is_full = is_full1[:, None] & is_full2  # (R1, R2)
        if not is_full.all():
            self._note_undefined(
                self.user_metrics, "functions of yours are measured at full rank only"
            )
        if not is_full.any():
            return values

        # Both on one device: activations that the GPU has no room for are on the CPU
        x = first.whole
        y = second.whole
        if x.device != y.device:
            x = x.cpu()
            y = y.cpu()
        orders = chain([slice(None)], *self.orders.values())
        for place, order in enumerate(orders):
            for metric, measure in self.statistics.user_measures.items():
                values.forth[metric][place, is_full] = measure.value(x[order], y)
                if metric in values.back:
                    values.back[metric][place, is_full] = measure.value(y, x[order])
        for metric in self.user_metrics:
            if values.forth[metric][:, is_full].isnan().any():
                reason = f"it is what the function gives for {first.name} and {second.name}"
                self._note_undefined([metric], reason)
        return values

    def _similarity(self, metric: str, values: Tensor) -> Similarity:
        """Return a value with its nulls.

        Args:
            values: (1 + N,), or (1,) where there is no null.
        """
        value = float(values[0])
        nulls = {}
        if len(values) > 1 and not math.isnan(value):
            of_orders = values[1:].split(self.n_permutations)
            for images, permuted in zip(self.orders, of_orders, strict=True):
                nulls[images] = null_of(self.statistics.metrics[metric], value, permuted)
        return Similarity(value, nulls)

    def warnings(self) -> list[str]:
        """Return warnings of biased and undefined values. Call this after `results` has ended."""
        lines = []
        sample_metrics = ", ".join(self.sample_metrics)
        layers = {*self.statistics.layers1.values(), *self.statistics.layers2.values()}
        n_wide = sum(math.prod(layer.shape) > layer.n_images for layer in layers)
        if n_wide and not self.orders and "cka" in self.statistics.metrics:
            lines.append(
                f"CKA of {n_wide} layers is biased upwards: they have more features than there are "
                f"images; give {self.advice.unbiased}"
            )
        n_few = sum(map(self._has_few_samples, self.statistics.alignments))
        if n_few and sample_metrics:
            lines.append(
                f"{sample_metrics} of {n_few} pairs are biased downwards: their layers have more "
                f"features together than there are samples; give {self.advice.n_images}"
            )
        for reason, metrics in self.undefined.items():
            lines.append(f"{', '.join(metrics)} nan: {reason}")
        alignments = self.statistics.alignments.values()
        n_by_position = sum(alignment in BY_POSITION for alignment in alignments)
        if n_by_position and sample_metrics and self.orders:
            lines.append(
                f"{sample_metrics} of {n_by_position} pairs have no p-values: their samples are "
                f"positions, which are not independent; {self.advice.pooled} makes images the samples"
            )
        if self.n_alone:
            lines.append(
                f"{self.n_alone} of {self.statistics.n_images} images are the only ones of their "
                "class, which permutations within classes do not move; give more images (-n)"
            )
        return lines

    def _has_few_samples(self, pair: LayerPair) -> bool:
        """Return whether two layers without a null have more features together than samples."""
        first = self.statistics.layers1[pair[0]]
        second = self.statistics.layers2[pair[1]]
        alignment = self.statistics.alignments[pair]
        is_by_position = alignment in BY_POSITION
        if alignment == NO_ALIGNMENT or (self.orders and not is_by_position):
            return False
        n_samples = self.statistics.n_images
        if is_by_position:
            n_samples *= first.n_positions
        width1 = max(map(first.width, self.statistics.ranks1))
        width2 = max(map(second.width, self.statistics.ranks2))
        return width1 + width2 > n_samples
