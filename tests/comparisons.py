"""Comparisons of activations that are given whole."""

from collections.abc import Mapping

from torch import Tensor

from src.core.choices.similarity import PAPER
from src.core.values import ALL_IMAGES, ComparedLayers, Null
from src.models.stored import StoredActivations
from src.similarity.comparison import LayerComparison
from src.similarity.measures import load_measures
from src.similarity.sides import Side, take_statistics


def compared(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    *,
    metrics=PAPER,
    ranks1=(None,),
    ranks2=(None,),
    alignment="auto",
    **options,
) -> LayerComparison:
    """The comparison of activations by layer."""
    n = len(next(iter(first.values())))
    sides = [
        Side(StoredActivations(layers), list(layers), ranks, title)
        for layers, ranks, title in ((first, ranks1, "model 1"), (second, ranks2, "model 2"))
    ]
    return LayerComparison(
        take_statistics(
            *sides, (), n_images=n, metrics=load_measures(metrics), alignment=alignment
        ),
        **options,
    )


def values_of(layers: ComparedLayers) -> dict[str, float]:
    """The values of measures by name."""
    return {name: similarity.value for name, similarity in layers.values.items()}


def nulls_of(layers: ComparedLayers, images: str = ALL_IMAGES) -> dict[str, Null]:
    """The nulls of measures by name."""
    return {
        name: similarity.nulls[images]
        for name, similarity in layers.values.items()
        if images in similarity.nulls
    }
