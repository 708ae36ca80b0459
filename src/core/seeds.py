"""Seeds and generators of random numbers."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators while the block runs, and restore the CPU's at its end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def generator(*key: int) -> torch.Generator:
    """Return a generator on the CPU, seeded by a key such as (seed, epoch)."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """Derive a seed in [0, 2⁶³) from a key of integers, such as (seed, epoch)."""
    # The length is a part of the key, as numpy drops zeros at the end
    sequence = np.random.SeedSequence((len(key), *key))
    state = sequence.generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
