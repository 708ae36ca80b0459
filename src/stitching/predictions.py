"""The classes that a stitch and its two networks predict: how far they agree, and the file that keeps them."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.files import write_bytes
from src.stitching.grid import GridScore
from src.stitching.rows import Pair


class Agreement(NamedTuple):
    """How far two networks predict the same classes."""

    agreement: float  # share of equal predictions
    kappa: float  # Cohen's: 1 for equal, 0 for no more than chance; NaN where both give one and the same class


def agreement(predictions: Tensor, others: Tensor) -> Agreement:
    """Compare two predictions (N,) of the same images; Cohen 1960 for kappa."""
    n_classes = 1 + int(torch.maximum(predictions, others).max())
    shares = [torch.bincount(classes, minlength=n_classes).double() / len(classes) for classes in (predictions, others)]
    observed, by_chance = (predictions == others).double().mean().item(), (shares[0] @ shares[1]).item()
    return Agreement(observed, float("nan") if by_chance == 1 else (observed - by_chance) / (1 - by_chance))


def write_predictions(path: Path, score: GridScore, pair: Pair) -> None:
    """Write `stitched`, `front`, `end` and `labels`, (N,) each, as a compressed npz of int16 (or int32 if need be)."""
    arrays = {
        "stitched": score.pairs[pair].predictions,
        "front": score.front_predictions,
        "end": score.end_predictions,
        "labels": score.labels,
    }
    largest = max(int(values.max()) for values in arrays.values())
    dtype = np.int16 if largest <= np.iinfo(np.int16).max else np.int32
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: values.numpy().astype(dtype) for name, values in arrays.items()})
    write_bytes(path, buffer.getvalue())
