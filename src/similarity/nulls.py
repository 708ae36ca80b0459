"""The null of a similarity: its values when the images of one network are permuted.

Gröger et al. (ICML 2026) take the 95 % quantile of these values as the zero of the measure. Two
networks that have nothing in common but the labels of the images exceed it. Permutations within
classes keep what the labels explain: only a similarity beyond the labels exceeds their quantile."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from src.core.choices.similarity import Measure
from src.core.seeds import generator
from src.core.values import Null
from src.statistics.permutation_tests import TIE, permutation_p

BLOCK = 4  # permutations of Gram matrices that are held at once


def permuted_orders(n_permutations: int, labels: Tensor) -> Tensor:
    """Draw orders (n_permutations, n) that put each image in the place of an image of its class.

    The orders are the same in each call.

    Args:
        labels: (n,), integers; all equal for permutations of all images.
    """
    by_class = labels.argsort(stable=True)  # the images, one class after the next
    orders = torch.empty(n_permutations, len(labels), dtype=torch.long)
    for number in range(n_permutations):
        shuffled = torch.randperm(len(labels), generator=generator(number))
        # The same classes one after the next, each of them shuffled
        orders[number, by_class] = shuffled[labels[shuffled].argsort(stable=True)]
    return orders


def null_of(measure: Measure, value: float, permuted: Tensor) -> Null:
    """Compare the value of a measure with its values (N,) under permutations; N is at least 19, or
    there is no 95 % quantile."""
    n_permutations = len(permuted)
    signed = measure.sign * permuted.double().cpu()  # higher is more similar
    p_value = permutation_p(measure.sign * value, signed.numpy())
    place = math.ceil(95 * (n_permutations + 1) / 100)  # of the quantile, counted from 1
    null = measure.sign * float(signed.sort().values[place - 1])
    room = measure.equal - null
    calibrated = 0.0
    if abs(room) > TIE:
        calibrated = max(0.0, (value - null) / room)
    return Null(p_value, null, calibrated)


def largest_permuted(measure: Measure, values: Sequence[Tensor]) -> Tensor:
    """Return the largest values of a measure over pairs of layers, of a distance the smallest, for
    each permutation of the images.

    The most similar of many pairs of layers is high by chance. It is set against the most similar
    pairs under permutations, each of which is the same for all layers (Gröger et al. 2026, algorithm
    2). Likewise any other pair: the p-values hold for all pairs at once (Westfall and Young 1993).

    Args:
        values: (D, 1 + N, ...) of each pair, the first of 1 + N in the actual order of the images;
            NaN: not defined. N is 0 where images cannot be permuted.
    Returns:
        (D, N, ...); empty for one pair, and where images of a pair with values cannot be permuted.
    """
    permuted = [measure.sign * of_pair[:, 1:] for of_pair in values if of_pair.shape[1] > 1]
    is_incomplete = any(of_pair.shape[1] == 1 and not of_pair.isnan().all() for of_pair in values)
    if len(values) == 1 or is_incomplete or not permuted:
        return values[0][:, :0]
    return measure.sign * functools.reduce(torch.fmax, permuted)


def permuted_cosines(
    matrices1: Tensor, matrices2: Sequence[Tensor], orders: Tensor
) -> Sequence[Tensor]:
    """Return the cosines of Gram matrices when the images of the first layer are permuted.

    Args:
        matrices1: (R1, n, n), of norm 1.
        matrices2: (R2, n, n) for each layer of the second network, of norm 1.
        orders: (N, n), as from `permuted_orders`.
    Returns:
        (N, R1, R2) for each layer of the second network, on the CPU.
    """
    rows = torch.cat([of_layer.flatten(1) for of_layer in matrices2])  # (ΣR2, n²)
    products = []
    for block in orders.to(matrices1.device).split(BLOCK):
        moved = torch.stack([matrices1[:, order][:, :, order] for order in block])  # (N', R1, n, n)
        products.append((moved.flatten(2) @ rows.T).cpu())
    return torch.cat(products).split([len(of_layer) for of_layer in matrices2], dim=2)
