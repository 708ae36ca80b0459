"""Arrays of numbers in MATLAB's files of version 5, as far as sets of images need it.

scipy's reader would do, but takes as much memory as a file claims to need: for cells without content, for an array that
is said to follow, for what a few bytes inflate to.
"""

import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

MATRIX, COMPRESSED = 14, 15
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMBERS = range(6, 16)  # the classes of arrays that hold numbers
HEADER_SIZE = 128
MAX_BYTES = 2**28  # that the arrays of a file may inflate to; the house numbers for training have 215 MiB


class Element(NamedTuple):
    """A piece of a file, and where the next one begins."""

    kind: int
    content: memoryview
    end: int


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of numbers, in the types in which they are stored: MATLAB stores small whole numbers as bytes.

    Raises:
        ValueError: it is no such file, is truncated, or inflates to more than `MAX_BYTES`.
        Exception: others, as it is damaged.
    """
    content = memoryview(path.read_bytes())
    mark = bytes(content[HEADER_SIZE - 2 : HEADER_SIZE])
    if mark not in (b"IM", b"MI"):
        raise ValueError("no MATLAB file of version 5")
    order, arrays, at, room = "<" if mark == b"IM" else ">", {}, HEADER_SIZE, MAX_BYTES
    while at < len(content):
        element = _element(content, at, order)
        at = element.end
        if element.kind == COMPRESSED:
            inflated = _inflated(element.content, room)
            room -= len(inflated)
            element = _element(inflated, 0, order)
        if element.kind == MATRIX:
            arrays |= _array(element.content, order)
    return arrays


def _element(content: memoryview, at: int, order: str) -> Element:
    kind, size = struct.unpack_from(f"{order}II", content, at)
    start, end = at + 8, at + 8 + size + (-size % 8 if kind != COMPRESSED else 0)
    if kind >> 16:  # up to four bytes, which stand in place of the size
        kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    if start + size > len(content):
        raise ValueError("truncated")
    return Element(kind, content[start : start + size], end)


def _inflated(content: memoryview, room: int) -> memoryview:
    stream = zlib.decompressobj()
    inflated = stream.decompress(content, room + 1)  # 0 would be without a limit
    if not stream.eof or len(inflated) > room:
        raise ValueError(f"truncated, or arrays of more than {MAX_BYTES} bytes")
    return memoryview(inflated)


def _array(content: memoryview, order: str) -> dict[str, np.ndarray]:
    """The array of a matrix by its name; nothing for a matrix of something else than real numbers."""
    flags = _element(content, 0, order)
    shape = _element(content, flags.end, order)
    name = _element(content, shape.end, order)
    (described,) = struct.unpack_from(f"{order}I", flags.content)
    if described & 0xFF not in NUMBERS:
        return {}
    kind, values, _ = _element(content, name.end, order)
    numbers = np.frombuffer(values, np.dtype(TYPES[kind]).newbyteorder(order))
    sizes = np.frombuffer(shape.content, f"{order}i4").tolist()
    if min(sizes) < 0 or math.prod(sizes) != len(numbers):
        raise ValueError(f"{len(numbers)} numbers in an array of shape {tuple(sizes)}")
    return {bytes(name.content).decode("latin1"): numbers.reshape(sizes, order="F")}
