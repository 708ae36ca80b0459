"""Arrays on disk, each with a JSON beside it that says what it is. An array without its JSON does not count."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.files import read_json, readable, write_blocks, write_json

AGAIN = "remove both files, and they are made again"


def write_array(folder: Path, name: str, array: np.ndarray, description: Mapping[str, Any]) -> None:
    """Write NAME.npy, whole or not at all, and then NAME.json with the description and the array's shape and type.

    Raises:
        UserError: the folder is not writable, or full.
    """
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    write_blocks(folder / f"{name}.npy", [header.getvalue(), memoryview(array).cast("B")])
    write_json(folder / f"{name}.json", {**description, "shape": list(array.shape), "dtype": str(array.dtype)})


def has_array(folder: Path, name: str) -> bool:
    """Return whether there is such an array with its description."""
    return (folder / f"{name}.npy").is_file() and (folder / f"{name}.json").is_file()


def read_description(folder: Path, name: str) -> dict[str, Any]:
    """Read the JSON of an array.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_json(folder / f"{name}.json")


def read_array(folder: Path, name: str) -> np.ndarray:
    """Map an array into memory; what is written to it does not reach the file.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / f"{name}.npy"
    with readable(path, AGAIN):
        return np.load(path, mmap_mode="c", allow_pickle=False)
