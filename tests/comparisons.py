"""Comparisons of activations that are given whole."""

from collections.abc import Mapping

from torch import Tensor

from src.choices.measures import PAPER
from src.similarity.comparison import Comparison
from src.similarity.features import CrossProducts, NetworkFeatures

Layers = Mapping[str, Tensor]


def features_of(layers: Layers, title: str, *, metrics=PAPER, ranks=(None,), batch_size: int = 7) -> NetworkFeatures:
    """The features of activations by layer, added in batches."""
    n = len(next(iter(layers.values())))
    titles = {name: f"{name} of {title}" for name in layers}
    features = NetworkFeatures(titles, n_images=n, metrics=metrics, ranks=ranks)
    for start in range(0, n, batch_size):
        features.add({name: x[start : start + batch_size] for name, x in layers.items()})
    features.finish(device="cpu")
    return features


def compared(
    first: Layers,
    second: Layers,
    *,
    metrics=PAPER,
    ranks1=(None,),
    ranks2=(None,),
    alignment="auto",
    batch_size: int = 7,
    **options,
) -> Comparison:
    """The comparison of activations by layer."""
    sides = [
        features_of(layers, f"model {number}", metrics=metrics, ranks=ranks, batch_size=batch_size)
        for number, (layers, ranks) in enumerate(((first, ranks1), (second, ranks2)), start=1)
    ]
    cross = CrossProducts(alignment, metrics)
    for start in range(0, sides[0].n_images, batch_size):
        batch = slice(start, start + batch_size)
        rows = [side.add({k: v[batch] for k, v in of.items()}) for side, of in zip(sides, (first, second), strict=True)]
        cross.add(*sides, *rows)
    return Comparison(*sides, cross, metrics=metrics, ranks1=ranks1, ranks2=ranks2, **options)
