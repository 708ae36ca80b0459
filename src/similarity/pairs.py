"""One layer of each network: every measure, at every pair of ranks."""

from functools import cache, cached_property
from math import isnan

import torch
from torch import Tensor

from src.similarity.cca import Canonical, canonical_at
from src.similarity.cka import alignments
from src.similarity.layers import Layer, alignment
from src.similarity.procrustes import procrustes_at
from src.similarity.samples import SamplesPair, Undefined

Rank = int | None  # None: full


class LayerPair:
    """Two layers that have seen the same images.

    The measures are the methods that `SIMILARITIES` names; each takes two ranks to a value and raises `Undefined`
    where there is none.

    Args:
        products: Σ x₁x₂ᵀ (C1, C2) of the rows that `Layer.add` returned, if positions or tokens are samples.
    """

    def __init__(self, first: Layer, second: Layer, products: Tensor | None = None):
        self.first, self.second, self.products = first, second, products
        self.alignment, self.by_position = alignment(first.shape, second.shape)
        self.canonical = cache(self._canonical)  # two measures need it

    def cka(self, rank1: Rank, rank2: Rank) -> float:
        """Linear CKA of the flattened activations."""
        widths = self.first.width(rank1), self.second.width(rank2)
        grams = self.first.grams, self.second.grams
        rows = [known.widths.index(width) for known, width in zip(grams, widths, strict=True)]
        value = float(self._alignments[rows[0], rows[1]])
        if isnan(value):
            constant = [
                layer.name
                for layer, known, row in zip((self.first, self.second), grams, rows, strict=True)
                if known.matrices[row, 0, 0].isnan()
            ]
            raise Undefined(f"{' and '.join(constant)} is the same for all images")
        return value

    def pwcca(self, rank1: Rank, rank2: Rank) -> float:
        """PWCCA distance of the paper's code."""
        return self.canonical(rank1, rank2).distance

    def pwcca_morcos(self, rank1: Rank, rank2: Rank) -> float:
        """PWCCA distance of Morcos et al. 2018."""
        return self.canonical(rank1, rank2).distance_morcos

    def procrustes(self, rank1: Rank, rank2: Rank) -> float:
        """Orthogonal Procrustes distance."""
        return procrustes_at(self.samples, rank1, rank2)

    @property
    def is_saturated(self) -> bool:
        """Whether the second layer spans all that so few images can vary in: PWCCA is 0 then, whatever the first is."""
        return not self.by_position and len(self.samples.second.basis().factor) >= self.first.n_seen - 1

    @cached_property
    def samples(self) -> SamplesPair:
        """Both layers as samples × features, aligned as `alignment` says."""
        first, second = self.first, self.second
        if not self.by_position:
            return SamplesPair(first.images, second.images, first.centred_pooled.T @ second.centred_pooled)
        cross = (self.products - torch.outer(first.sum, second.sum) / first.n_rows).cpu()
        return SamplesPair(first.positions, second.positions, first.axes.T @ cross @ second.axes)

    @cached_property
    def _alignments(self) -> Tensor:
        return alignments(self.first.grams.matrices, self.second.grams.matrices).cpu()

    def _canonical(self, rank1: Rank, rank2: Rank) -> Canonical:
        return canonical_at(self.samples, rank1, rank2)
