"""All measures of two layers, at any pair of ranks."""

import math
from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from src.choices.measures import GRAMS, MEASURES
from src.results.tables import Rank
from src.similarity import measures
from src.similarity.features import NO_ALIGNMENT, Layer, alignment
from src.similarity.samples import SamplesPair, Undefined


class LayerPair:
    """Two layers of the same images.

    Args:
        alignment: the option, see `features.alignment`.
        cross: Σ(x₁−μ₁)(x₂−μ₂)ᵀ (C1, C2) of the positions, needed if positions or tokens are samples.
    """

    def __init__(self, first: Layer, second: Layer, alignment_option: str, cross: Tensor | None = None):
        self.first, self.second, self.cross = first, second, cross
        self.alignment = alignment(first.shape, second.shape, alignment_option)
        self._cosines: dict[str, Tensor] = {}  # (R1, R2), by measure of Gram matrices

    def value(self, name: str, rank1: Rank, rank2: Rank) -> float:
        """Return the value of a measure at two ranks.

        Raises:
            Undefined: the measure has no value here.
        """
        first, second, measure = self.first, self.second, MEASURES[name]
        if first.n_images < measure.min_images:
            raise Undefined(f"it needs at least {measure.min_images} images, not {first.n_images}")
        if measure.of != GRAMS:
            return getattr(measures, name)(self.samples, rank1, rank2)
        rows = first.gram_row(rank1), second.gram_row(rank2)
        if name not in self._cosines:
            self._cosines[name] = (first.matrices[name].flatten(1) @ second.matrices[name].flatten(1).T).cpu()
        value = float(self._cosines[name][rows])
        if math.isnan(value):
            raise Undefined(f"{first.name} or {second.name} has a Gram matrix of zeros")
        return value

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
        if self.alignment.by_position:
            one, other = first.positions, second.positions
            return SamplesPair(one, other, one.axes.T @ self.cross.cpu() @ other.axes)
        return SamplesPair(first.images, second.images, first.pooled.T @ second.pooled)

    def permuted_samples(self, order: Tensor) -> SamplesPair:
        """Return both layers pooled, with the images of the first one in another order."""
        first, second = self.first, self.second
        return SamplesPair(first.images, second.images, first.pooled[order].T @ second.pooled)

    @property
    def has_images_as_samples(self) -> bool:
        """Whether images are the samples of CCA and Procrustes."""
        return not self.alignment.by_position and self.alignment != NO_ALIGNMENT

    def has_few_samples(self, ranks1: Sequence[Rank], ranks2: Sequence[Rank]) -> bool:
        """Return whether both layers together have more features than there are samples."""
        n_samples = self.first.n_images * (self.first.n_positions if self.alignment.by_position else 1)
        widths = max(map(self.first.width, ranks1)), max(map(self.second.width, ranks2))
        return self.alignment != NO_ALIGNMENT and sum(widths) > n_samples
