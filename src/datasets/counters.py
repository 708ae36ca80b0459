"""Random numbers that depend on a key and an index alone: not on the order, the batches, the workers or the device.

Each index has a stream of its own, of the generator SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators", OOPSLA), whose n-th number is a function of the state and n. So whole batches are
drawn at once, on the device.
"""

import math

import torch
from torch import Tensor

STEP = 0x9E3779B97F4A7C15 - 2**64  # as int64; products and sums wrap around modulo 2⁶⁴
FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def uniforms(key: int, indices: Tensor, n: int) -> Tensor:
    """Draw numbers in [0, 1) for each index: float64 (B, n), on the device of `indices`.

    Args:
        key: an int64, such as `runtime.seed_of` gives.
        indices: whole numbers (B,).
    """
    return _shifted(words(key, indices, n), 11).double() * 2.0**-53


def normals(key: int, indices: Tensor, n: int) -> Tensor:
    """Draw standard normal numbers for each index: float32 (B, n), on the device of `indices`.

    Box and Muller's two numbers are made of the two halves of a word. Devices may differ in the last bit.

    Args:
        key, indices: as for `uniforms`.
    """
    drawn = words(key, indices, -(-n // 2))
    high, low = _shifted(drawn, 32), drawn & (2**32 - 1)
    radius = high.add(0.5).mul_(2.0**-32).log_().mul_(-2).clamp_(min=0).sqrt_()  # 0.5: the logarithm of 0 is infinite
    angle = low.float().mul_(2 * math.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :n]


def words(key: int, indices: Tensor, n: int) -> Tensor:
    """Draw words of 64 bits for each index: int64 (B, n), on the device of `indices`."""
    states = _mixed(key + indices.long() * STEP)
    places = torch.arange(1, n + 1, device=indices.device)
    return _mixed(states[:, None] + places * STEP)


def _mixed(state: Tensor) -> Tensor:
    """Apply the finaliser of SplitMix64 (variant 13 of Stafford) to int64 states of any shape."""
    for bits, factor in zip((30, 27), FACTORS, strict=True):
        state = (state ^ _shifted(state, bits)) * factor
    return state ^ _shifted(state, 31)


def _shifted(word: Tensor, bits: int) -> Tensor:
    """Shift int64 words right and fill with zeros; torch fills with the sign."""
    return (word >> bits) & (2 ** (64 - bits) - 1)
