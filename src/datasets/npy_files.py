"""Arrays in numpy's `.npy` format, mapped into memory where they lie: in a file of their own or inside of another."""

import io
import math
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

MAX_HEADER = 10_000  # bytes; that of an array without named fields has about 100


class Place(NamedTuple):
    """The bytes of a `.npy` file: `size` of them, from `offset` on in the file at `path`."""

    path: Path
    offset: int
    size: int


class Header(NamedTuple):
    """What the beginning of a `.npy` file says of the array."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int  # where the values begin, in bytes from the beginning


def file_place(path: Path) -> Place:
    """The place of a `.npy` file that lies by itself."""
    return Place(path, 0, path.stat().st_size)


def read_header(stream: BinaryIO, *, size: int) -> Header:
    """Read the header of the `.npy` file of `size` bytes at whose beginning a stream stands.

    Raises:
        ValueError: it is none, holds Python objects, is in Fortran order, or is shorter than its header says.
    """
    beginning = stream.tell()
    try:
        version = npy.read_magic(stream)
        read, length = {(1, 0): (npy.read_array_header_1_0, "<H"), (2, 0): (npy.read_array_header_2_0, "<I")}[version]
        said = stream.read(struct.calcsize(length))
        (n_bytes,) = struct.unpack(length, said)
        if n_bytes > MAX_HEADER:
            raise ValueError(f"more than {MAX_HEADER} bytes")
        shape, fortran_order, dtype = read(io.BytesIO(said + stream.read(n_bytes)))
    except Exception as error:  # a damaged header is parsed as Python, which can raise anything
        raise ValueError(f"no header of a .npy file: {error}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, not numbers")
    if fortran_order:  # the values of one image would be scattered over the whole file
        raise ValueError("it is in Fortran order; save it with np.ascontiguousarray")
    start = stream.tell() - beginning
    needed = start + math.prod(shape) * dtype.itemsize
    if size < needed:
        raise ValueError(f"truncated: {size} bytes, but its header says {needed}")
    return Header(dtype, shape, start)


def header_at(place: Place) -> Header:
    """Read the header at a place; raises what `read_header` raises."""
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        return read_header(file, size=place.size)


def map_array(place: Place) -> np.memmap:
    """Map the array at a place, read-only: memory is used only for what is looked at.

    Raises:
        ValueError: as `read_header`.
    """
    header = header_at(place)
    return np.memmap(place.path, header.dtype, mode="r", offset=place.offset + header.start, shape=header.shape)


def check_images(header: Header) -> None:
    """Refuse what is not uint8 (N, 32, 32, 3) with at least one image.

    Raises:
        ValueError: says what it is.
    """
    if header.dtype != np.uint8 or header.shape[1:] != (32, 32, 3) or header.shape[0] < 1:
        raise ValueError(f"{header.dtype} {header.shape}, expected uint8 (N, 32, 32, 3)")
