"""`predictions.npz`: the classes that a stitch and its two networks predict for all test images, and the labels."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from src.console import warn
from src.files import write_bytes

NAMES = ("stitched", "front", "end", "labels")


def write_predictions(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays (N,) of `NAMES` as a compressed npz of int16, or int32 if need be."""
    largest = max(int(values.max()) for values in arrays.values())
    dtype = np.int16 if largest <= np.iinfo(np.int16).max else np.int32
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: arrays[name].astype(dtype) for name in NAMES})
    write_bytes(path, buffer.getvalue())


def read_predictions(path: Path) -> dict[str, np.ndarray] | None:
    """Read the arrays (N,) of `NAMES`; None where there is no file, or with a warning where it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            predictions = {name: arrays[name] for name in NAMES}
        if len({array.shape for array in predictions.values()}) > 1 or predictions["labels"].ndim != 1:
            raise ValueError("arrays of different lengths")
        if not len(predictions["labels"]) or any(array.dtype.kind not in "iu" for array in predictions.values()):
            raise ValueError("no whole numbers")
        if predictions["labels"].min() < 0:
            raise ValueError("negative labels")
    except Exception as error:  # a damaged archive can raise anything
        warn(f"{path} is damaged ({error}) and left out; stitch this pair again")
        return None
    return predictions
