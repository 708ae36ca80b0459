"""Comparisons of activations that are given whole."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.choices.similarity import PAPER
from src.runs.stored import StoredActivations
from src.similarity.comparison import Comparison
from src.similarity.passes import Side, take_statistics


def compared(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    *,
    metrics=PAPER,
    ranks1=(None,),
    ranks2=(None,),
    alignment="auto",
    **options,
) -> Comparison:
    """The comparison of activations by layer, in batches of 7 images."""
    n = len(next(iter(first.values())))
    sides = [
        Side(StoredActivations(layers), list(layers), ranks, title)
        for layers, ranks, title in ((first, ranks1, "model 1"), (second, ranks2, "model 2"))
    ]
    batches = ((places, None) for places in torch.arange(n).split(7))
    return Comparison(
        take_statistics(*sides, batches, n_images=n, metrics=metrics, alignment=alignment),
        **options,
    )
