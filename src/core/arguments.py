"""Checks of numbers, and of arrays of numbers, that a caller gives."""

import math
from numbers import Integral, Real

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from src.core.errors import UserError


def check_real(name: str, value: object, *, is_positive: bool = False) -> None:
    """Raise a UserError unless a value is a finite number from 0 on; or above 0, if it is to be positive."""
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (is_positive and value == 0):  # type: ignore[operator]
        allowed = "a finite number from 0 on"
        if is_positive:
            allowed = "a finite number above 0"
        raise UserError(f"{name} is {value!r}; give {allowed}")


def check_integer(name: str, value: object, *, at_least: int, otherwise: str = "") -> None:
    """Raise a UserError unless a value is an integer of a size.

    Args:
        otherwise: what else may be given, for the message.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < at_least:  # type: ignore[operator]
        raise UserError(f"{name} is {value!r}; give an integer from {at_least} on{otherwise}")


def real_tensor(values: ArrayLike | Tensor, name: str) -> Tensor:
    """Return an array or tensor as a tensor; a ValueError if it has no real numbers, or none at all.

    Args:
        name: of the values, for the message.
    """
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is no array of numbers ({error})") from error
    if tensor.is_complex() or not tensor.numel():
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)} and type {tensor.dtype}; give real numbers of one sample or more"
        )
    return tensor
