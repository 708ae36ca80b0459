"""Epochs that are parts of a data set: disjoint until every image had its turn."""

import torch
from torch import Tensor

from src import runtime


def subset(n: int, size: int, *, seed: int, epoch: int) -> Tensor:
    """Which of n images epoch number `epoch` visits: the next `size` of one shuffled pass over all.

    A pass visits each image exactly once, then a new shuffle begins. The last subset of a pass is what is left and
    may be shorter (n = 10, size = 4: 4, 4, 2), as in the public code; nothing is repeated to fill it up.

    Args:
        n, size: at least 1; a `size` of n or more gives all of them.
        epoch: counted from 1, as by `training.train`.

    Returns:
        Indices int64 (size or fewer,) in shuffled order, on the CPU; they depend on the arguments alone.

    Raises:
        ValueError: `epoch` is below 1.
    """
    if epoch < 1:
        raise ValueError(f"epoch {epoch}: epochs are counted from 1")
    pass_number, place = divmod(epoch - 1, -(-n // size))
    order = torch.randperm(n, generator=runtime.generator(seed, pass_number, 0))  # three numbers: no other order's key
    return order[place * size : (place + 1) * size].clone()  # lets go of the rest of the pass
