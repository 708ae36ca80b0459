"""Whether a similarity means anything: values when the images of one network are permuted.

Gröger et al. (ICML 2026) take the 95 % quantile of these values as the zero of the measure. Two
networks that have nothing in common but the labels of the images exceed it. Permutations within
classes keep what the labels explain, so only what is similar beyond them exceeds theirs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from src.choices.similarity import measure_of
from src.runtime import generator
from src.similarity.similarity_rows import Null

BLOCK = 4  # permutations of Gram matrices that are held at once
TIE = 1e-12  # values this near to each other count as equal


def permutations(n_permutations: int, labels: Tensor) -> Tensor:
    """Random orders (n_permutations, n) that put each image in the place of one of its class, the
    same ones each time.

    Args:
        labels: (n,), integers; all equal for permutations of all images.
    """
    by_class = labels.argsort(stable=True)  # the images, one class after the other
    orders = torch.empty(n_permutations, len(labels), dtype=torch.long)
    for i in range(n_permutations):
        order = torch.randperm(len(labels), generator=generator(i))
        orders[i, by_class] = order[
            labels[order].argsort(stable=True)
        ]  # the same classes, each of them shuffled
    return orders


def null_of(name: str, value: float, permuted: Tensor) -> Null:
    """Compare the value of a measure with those (N,) of permutations; 19 are the fewest that have a
    95 % quantile."""
    n, measure = len(permuted), measure_of(name)
    signed = measure.sign * permuted.double()
    p_value = (1 + int((signed >= measure.sign * value - TIE).sum())) / (n + 1)
    null = measure.sign * float(
        signed.sort().values[-(-95 * (n + 1) // 100) - 1]
    )  # the ceiling, counted from 1
    room = measure.equal - null
    return Null(p_value, null, max(0.0, (value - null) / room) if abs(room) > TIE else 0.0)


def permuted_cosines(
    matrices1: Tensor, others: Sequence[Tensor], orders: Tensor
) -> Sequence[Tensor]:
    """Return the cosines of Gram matrices when the images of the first layer are permuted.

    Args:
        matrices1: (R1, n, n), of norm 1.
        others: (R2, n, n) for each of several layers, of norm 1.
        orders: (N, n), as from `permutations`.
    Returns:
        (N, R1, R2) for each of them, on the CPU.
    """
    rows = torch.cat([other.flatten(1) for other in others])  # (ΣR2, n²)
    products = []
    for block in orders.to(matrices1.device).split(BLOCK):
        moved = torch.stack([matrices1[:, order][:, :, order] for order in block])  # (N', R1, n, n)
        products.append((moved.flatten(2) @ rows.T).cpu())
    return torch.cat(products).split([len(other) for other in others], dim=2)
