"""Compare two activations in Python."""

from collections.abc import Sequence

import torch

from src.console import warn
from src.similarity.comparison import Comparison
from src.similarity.registry import PAPER
from src.similarity.samples import Undefined


def compare(activations1, activations2, metrics: Sequence[str] = PAPER, *, alignment: str = "auto") -> dict[str, float]:
    """Return the similarity of two activations for the same n inputs.

    Measures of Gram matrices take each flattened. For the others, positions of feature maps of equal shape and tokens
    in equal number are the samples, and otherwise averages over positions or tokens are the features, as in the
    paper's code. Warns as the script does, of biased values for example.

    Args:
        activations1, activations2: (n, C, H, W), (n, T, D) or (n, D), array or tensor.
        metrics: names in `MEASURES`.
        alignment: `auto`, `pool` or `positions`, see `statistics.alignment`.
    Returns:
        By name, also of what costs nothing beside them: `cka`, `cka_debiased` and `mutual_knn` up to 1, higher for
        more similar; `pwcca` and `pwcca_morcos` in [0, 1] and `procrustes` in [0, 2], lower for more similar.
    Raises:
        UserError: a measure is unknown.
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: one is constant or not finite.
    """
    both = [torch.as_tensor(activations).detach() for activations in (activations1, activations2)]
    both = [activations if activations.is_floating_point() else activations.double() for activations in both]
    shapes = " and ".join(str(tuple(activations.shape)) for activations in both)
    if len(both[0]) != len(both[1]) or len(both[0]) < 2 or not all(2 <= x.ndim <= 4 for x in both):
        raise ValueError(f"shapes {shapes}: give (n, C, H, W), (n, T, D) or (n, D), with the same n of at least 2")
    comparison = Comparison(["it"], ["it"], n_images=len(both[0]), metrics=metrics, alignment=alignment)
    for batch1, batch2 in zip(*(activations.split(64) for activations in both), strict=True):
        comparison.add({"it": batch1}, {"it": batch2})
    ((row,),) = comparison.rows(device=both[0].device)
    for reason, lacking in comparison.undefined.items():
        raise Undefined(f"no {', '.join(lacking)}: {reason}")
    for line in comparison.warnings():
        warn(line)
    return row.values
