"""Comparison of layers of two networks at many ranks, from statistics of the layers."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from src.core.choices.similarity import ACTIVATIONS, SAMPLES, Measure
from src.core.console import counted, progress, warn
from src.core.values import (
    ALL_IMAGES,
    BY_POSITION,
    LARGEST,
    WITHIN_CLASSES,
    ComparedLayers,
    Null,
    Similarity,
)
from src.similarity.features import LayerFeatures
from src.similarity.nulls import (
    largest_permuted,
    null_of,
    permuted_cosines,
    permuted_orders,
)
from src.similarity.samples import SamplesPair, Undefined
from src.similarity.sides import LayerPair, Statistics

# The values of a pair of layers by measure, (2, 1 + N, R1, R2) of a measure that is not symmetric,
# else (1, 1 + N, R1, R2): from the first layer to the second and back; of the images in their order
# and under N permutations of the images of the first network; at each rank of both layers. N is 0
# where images cannot be permuted
Values = dict[str, Tensor]


class LayerComparison:
    """Layers of one network against layers of another, at all ranks.

    Args:
        statistics: of both networks, from `sides.take_statistics`.
        n_permutations: how often the images of the first network are permuted: 0, or at least 19,
            which is not checked. Each value then has a null beside it.
        labels: (n_images,), integers: images are then permuted within their classes too, as often.

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
    ):
        self.statistics = statistics
        # (N, n) orders of the images, by the images that trade places
        self.orders: dict[str, Tensor] = {}
        self.n_alone = 0  # images that are the only ones of their class
        if n_permutations:
            self._draw_orders(n_permutations, labels)
        # The actual order of the images, and then the permutations
        self._all_orders = [slice(None), *itertools.chain.from_iterable(self.orders.values())]
        user_metrics = self._measures(ACTIVATIONS)
        if self.orders and user_metrics:
            warn(
                f"--permutations {n_permutations}: {', '.join(user_metrics)} run {len(self._all_orders)} times for "
                "each pair of layers"
            )
        self.undefined: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for layer in (*statistics.layers1.values(), *statistics.layers2.values()):
            for reason, metrics in layer.flaws.items():
                self.undefined[reason] |= dict.fromkeys(metrics)

    def _draw_orders(self, n_permutations: int, labels: Tensor | None) -> None:
        """Draw the permutations of all images, and permutations within classes if a class has two."""
        n_images = self.statistics.n_images
        self.orders[ALL_IMAGES] = permuted_orders(n_permutations, torch.zeros(n_images))
        if labels is None:
            return
        _, n_of_classes = labels.unique(return_counts=True)
        self.n_alone = int((n_of_classes == 1).sum())
        if self.n_alone < n_images:
            self.orders[WITHIN_CLASSES] = permuted_orders(n_permutations, labels.cpu())

    def _measures(self, of: str) -> dict[str, Measure]:
        """Return the measures of a kind of input."""
        return {name: row for name, row in self.statistics.metrics.items() if row.of == of}

    def results(self) -> list[list[ComparedLayers]]:
        """Return the values of each pair of layers, at all ranks of layer 1 times all of layer 2.

        For each layer of the first network, all layers of the second one follow. A value that is
        not defined is NaN, and `undefined` says why. With permutations, values of several pairs are
        set against the largest ones over pairs as well.
        """
        values: dict[LayerPair, Values] = {}
        layers1 = self.statistics.layers1
        for name1, first in progress(layers1.items(), "layers", len(layers1), delay=1):
            of_grams = self._of_grams(first)
            for name2 in self.statistics.layers2:
                pair = (name1, name2)
                values[pair] = of_grams[name2] | self._of_samples(pair) | self._of_activations(pair)
        largest = {}
        for metric, measure in self.statistics.metrics.items():
            of_pairs = [of_pair[metric] for of_pair in values.values()]
            largest[metric] = largest_permuted(measure, of_pairs)
        return [list(self._rows(pair, of_pair, largest)) for pair, of_pair in values.items()]

    def _rows(self, pair: LayerPair, values: Values, largest: Values) -> Iterator[ComparedLayers]:
        """Yield the values of a pair of layers at each pair of ranks.

        Args:
            largest: as `values`, the N largest values over pairs; N is 0 where there are none.
        """
        ranks1 = enumerate(self.statistics.ranks1)
        ranks2 = enumerate(self.statistics.ranks2)
        for (i, rank1), (j, rank2) in product(ranks1, ranks2):
            directions: tuple[dict[str, Similarity], ...] = ({}, {})
            for metric, measure in self.statistics.metrics.items():
                of_ranks = values[metric][:, :, i, j]
                largest_of_ranks = largest[metric][:, :, i, j]
                for direction, *numbers in zip(directions, of_ranks, largest_of_ranks):  # noqa: B905 - or one
                    direction[metric] = self._similarity(measure, *numbers)
            yield ComparedLayers(*pair, rank1, rank2, self.statistics.alignments[pair], *directions)

    def _similarity(self, measure: Measure, values: Tensor, largest: Tensor) -> Similarity:
        """Return a value with its nulls.

        Args:
            values: (1 + N,), or (1,) where there is no null.
            largest: (N,), or empty.
        """
        value = float(values[0])
        nulls: dict[str, Null] = {}
        if math.isnan(value):
            return Similarity(value)
        n_permutations = [len(orders) for orders in self.orders.values()]
        names_of_largest = [LARGEST[images] for images in self.orders]
        for names, permuted in ((self.orders, values[1:]), (names_of_largest, largest)):
            if len(permuted):
                for name, of_images in zip(names, permuted.split(n_permutations), strict=True):
                    nulls[name] = null_of(measure, value, of_images)
        return Similarity(value, nulls)

    def _of_grams(self, first: LayerFeatures) -> dict[str, Values]:
        """Return the values of measures of Gram matrices, by second layer.

        Args:
            first: a layer of the first network.
        """
        layers2 = self.statistics.layers2
        rows1 = first.gram_rows(self.statistics.ranks1)
        by_layer: dict[str, Values] = {name: {} for name in layers2}
        for metric, matrices1 in first.matrices.items():
            matrices2 = [second.matrices[metric] for second in layers2.values()]
            vectors1 = matrices1.flatten(1)
            values = [(vectors1 @ of_layer.flatten(1).T).cpu()[None] for of_layer in matrices2]
            if self.orders:
                orders = torch.cat([*self.orders.values()])
                permuted = permuted_cosines(matrices1, matrices2, orders)
                values = [torch.cat(parts) for parts in zip(values, permuted, strict=True)]
            for (name2, second), of_layer in zip(layers2.items(), values, strict=True):
                rows2 = second.gram_rows(self.statistics.ranks2)
                by_layer[name2][metric] = of_layer[None, :, rows1][:, :, :, rows2]
        return by_layer

    def _of_samples(self, pair: LayerPair) -> Values:
        """Return the values of measures of samples of two layers; NaN where one has no value."""
        first, second = self._features(pair)
        measures = self._measures(SAMPLES)
        if not measures:
            return {}
        products: Sequence[Tensor]  # of the samples of both layers
        if pair in self.statistics.products:
            samples = (first.positions, second.positions)
            scatter = self.statistics.products[pair].scatter.cpu()
            products = [samples[0].axes.T @ scatter @ samples[1].axes]
        else:
            samples = (first.images, second.images)
            products = [first.pooled[order].T @ second.pooled for order in self._all_orders]
        values = self._undefined_values(measures, len(products))
        ranks1 = enumerate(self.statistics.ranks1)
        ranks2 = enumerate(self.statistics.ranks2)
        for (i, rank1), (j, rank2) in product(ranks1, ranks2):
            try:
                basis1 = samples[0].basis(first.width(rank1))
                basis2 = samples[1].basis(second.width(rank2))
            except Undefined as reason:
                self.undefined[str(reason)] |= dict.fromkeys(measures)
                continue
            for order, between in enumerate(products):
                both = SamplesPair(basis1, basis2, between)
                for metric, measure in measures.items():
                    values[metric][0, order, i, j] = measure.function(both)
                    if not measure.is_symmetric:
                        values[metric][1, order, i, j] = measure.function(both.reversed)
        return values

    def _of_activations(self, pair: LayerPair) -> Values:
        """Return the values of a user's measures of the activations of two layers, at full ranks; else NaN."""
        first, second = self._features(pair)
        measures = self._measures(ACTIVATIONS)
        values = self._undefined_values(measures, len(self._all_orders))
        is_full1 = torch.tensor([first.is_full(rank) for rank in self.statistics.ranks1])
        is_full2 = torch.tensor([second.is_full(rank) for rank in self.statistics.ranks2])
        is_full = is_full1[:, None] & is_full2  # (R1, R2)
        if measures and not is_full.all():
            reason = "functions of yours are measured at full rank only"
            self.undefined[reason] |= dict.fromkeys(measures)
        if not measures or not is_full.any():
            return values
        # Both on one device: activations that the GPU has no room for are on the CPU
        x = self.statistics.activations1[pair[0]]
        y = self.statistics.activations2[pair[1]]
        if x.device != y.device:
            x = x.cpu()
            y = y.cpu()
        for (number, order), (metric, measure) in product(
            enumerate(self._all_orders), measures.items()
        ):
            directions = ((x[order], y), (y, x[order]))
            for direction, activations in zip(values[metric], directions):  # noqa: B905 - or one direction
                value = measure.function(*activations)
                direction[number, is_full] = value
                if math.isnan(value):
                    reason = f"it is what the function gives for {first.name} and {second.name}"
                    self.undefined[reason] |= {metric: None}
        return values

    def _features(self, pair: LayerPair) -> tuple[LayerFeatures, LayerFeatures]:
        """Return the features of two layers."""
        return self.statistics.layers1[pair[0]], self.statistics.layers2[pair[1]]

    def _undefined_values(self, measures: Mapping[str, Measure], n_orders: int) -> Values:
        """Return values of NaN for some orders of the images."""
        shape = (n_orders, len(self.statistics.ranks1), len(self.statistics.ranks2))
        return {
            metric: torch.full((2 - measure.is_symmetric, *shape), math.nan, dtype=torch.float64)
            for metric, measure in measures.items()
        }

    def warnings(self) -> list[str]:
        """Return warnings of biased and undefined values. Call this after `results` has ended."""
        lines = []
        sample_metrics = ", ".join(self._measures(SAMPLES))
        layers = {*self.statistics.layers1.values(), *self.statistics.layers2.values()}
        n_wide = sum(layer.shape.n_values > layer.n_images for layer in layers)
        if n_wide and not self.orders and "cka" in self.statistics.metrics:
            lines.append(
                f"CKA is biased upwards where layers have more features than there are inputs ({n_wide} of "
                f"{len(layers)}); measure cka_debiased, or compare with permuted inputs "
                "(--permutations 200)"
            )
        n_few = sum(map(self._has_few_samples, self.statistics.alignments))
        if n_few and sample_metrics:
            lines.append(
                f"{sample_metrics} of {counted(n_few, 'pair', 'pairs')} are biased downwards: their layers have more "
                "features together than there are samples; give more inputs (-n), or compare with permuted inputs "
                "(--permutations 200)"
            )
        for reason, metrics in self.undefined.items():
            lines.append(f"{', '.join(metrics)} nan: {reason}")
        alignments = self.statistics.alignments.values()
        n_by_position = sum(alignment in BY_POSITION for alignment in alignments)
        if n_by_position and sample_metrics and self.orders:
            lines.append(
                f"{sample_metrics} of {n_by_position} pairs have no p-values: their samples are "
                f"positions, which are not independent; --alignment pool makes inputs the samples"
            )
        if self.n_alone:
            lines.append(
                f"{self.n_alone} of {self.statistics.n_images} inputs are the only ones of their "
                "class, which permutations within classes do not move; give more inputs (-n)"
            )
        return lines

    def _has_few_samples(self, pair: LayerPair) -> bool:
        """Return whether two layers without a null have more features together than samples."""
        first, second = self._features(pair)
        is_by_position = self.statistics.alignments[pair] in BY_POSITION
        if self.orders and not is_by_position:
            return False
        n_samples = self.statistics.n_images
        if is_by_position:
            n_samples *= first.shape.n_positions
        width1 = max(map(first.width, self.statistics.ranks1))
        width2 = max(map(second.width, self.statistics.ranks2))
        return width1 + width2 > n_samples
