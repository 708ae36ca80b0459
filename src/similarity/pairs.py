"""All measures of two layers, at any pair of ranks."""

from functools import cache, cached_property

import torch
from torch import Tensor

from src.results.tables import Rank
from src.similarity.cca import Canonical, canonical_at
from src.similarity.features import Features
from src.similarity.registry import CANONICAL, GRAMS, MEASURES
from src.similarity.samples import SamplesPair, Undefined
from src.similarity.statistics import NO_ALIGNMENT, Alignment


class LayerPair:
    """Two layers that have seen the same images.

    Args:
        products: Σ x₁x₂ᵀ (C1, C2) of the rows that `Features.add` returns, needed if positions or tokens are samples.
    """

    def __init__(self, first: Features, second: Features, alignment: Alignment, products: Tensor | None = None):
        self.first, self.second, self.alignment, self.products = first, second, alignment, products
        self.canonical = cache(self._canonical)  # two measures need it
        self.cosines = cache(self._cosines)

    def value(self, name: str, rank1: Rank, rank2: Rank) -> float:
        """Return the value of a measure at two ranks.

        Raises:
            Undefined: the measure has no value here.
        """
        measure = MEASURES[name]
        if self.first.n_seen < measure.min_images:
            raise Undefined(f"it needs at least {measure.min_images} images, not {self.first.n_seen}")
        if measure.of == GRAMS:
            rows = self.first.gram_row(rank1), self.second.gram_row(rank2)
            return _defined(float(self.cosines(name)[rows]), self.first.name, self.second.name)
        if measure.of == CANONICAL:
            return measure.function(self.canonical(rank1, rank2))
        return measure.function(self.samples, rank1, rank2)

    def permuted(self, name: str, rank1: Rank, rank2: Rank, order: Tensor) -> float:
        """Return the value of a measure of pooled features, with the images of the first network in another order."""
        first, second, measure = self.first, self.second, MEASURES[name]
        cross = first.centred_pooled[order].T @ second.centred_pooled
        samples = SamplesPair(first.images, second.images, cross)
        if measure.of == CANONICAL:
            return measure.function(canonical_at(samples, rank1, rank2))
        return measure.function(samples, rank1, rank2)

    @property
    def is_saturated(self) -> bool:
        """Whether the second layer has as many dimensions as images can span: PWCCA is then 0 for any first layer."""
        if self.alignment.by_position or self.alignment == NO_ALIGNMENT:
            return False
        return len(self.samples.second.basis().factor) >= self.first.n_seen - 1

    @cached_property
    def samples(self) -> SamplesPair:
        """Both layers as samples × features.

        Raises:
            Undefined: their positions do not correspond, or a layer is not finite.
        """
        first, second = self.first, self.second
        if self.alignment == NO_ALIGNMENT:
            raise Undefined(
                f"positions of {first.name} and {second.name} do not correspond; --alignment pool compares averages"
            )
        if not self.alignment.by_position:
            return SamplesPair(first.images, second.images, first.centred_pooled.T @ second.centred_pooled)
        cross = (self.products - torch.outer(first.sum, second.sum) / first.n_rows).cpu()
        return SamplesPair(first.positions, second.positions, first.axes.T @ cross @ second.axes)

    def _cosines(self, name: str) -> Tensor:
        first, second = (layer.matrices[name].flatten(1) for layer in (self.first, self.second))
        return (first @ second.T).cpu()

    def _canonical(self, rank1: Rank, rank2: Rank) -> Canonical:
        return canonical_at(self.samples, rank1, rank2)


def _defined(value: float, name1: str, name2: str) -> float:
    if value != value:
        raise Undefined(f"{name1} or {name2} has a Gram matrix of zeros")
    return value
