"""Arrays of images on disk: they stay in their files, and each batch is read when it is needed.

A file is an `.npy`, or a member of an `.npz` archive. A stored member is memory-mapped in the
archive; a compressed one is unpacked once, beside the archive."""

import mmap
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from src import console, files

BLOCK = 2**20  # bytes that are unpacked at once


class MappedImages:
    """Several arrays of images on disk, indexed as one.

    Args:
        parts: memory-mapped uint8 (N_i, H, W, C).
    """

    def __init__(self, parts: Sequence[np.memmap]):
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])  # of each part, and the total
        height, width, channels = parts[0].shape[1:]
        self.shape = (int(self._starts[-1]), channels, height, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Read the images at `indices` (B,), a CPU tensor: uint8 (B, C, H, W), with channels last
        in memory."""
        rows = indices.numpy()
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        images = np.empty((len(rows), *self.parts[0].shape[1:]), dtype=np.uint8)
        chosen = [(owner, np.flatnonzero(owners == owner)) for owner in np.unique(owners)]
        for owner, here in chosen:
            _announce(self.parts[owner], rows[here] - self._starts[owner])
        for owner, here in chosen:
            images[here] = np.asarray(self.parts[owner])[rows[here] - self._starts[owner]]
        return torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)


def _announce(part: np.memmap, rows: np.ndarray) -> None:
    """Ask the system to read all these rows at once.

    For single images from all over a file that is not in the page cache this is 17 times faster
    than page faults, which come one after the other and read 128 KiB for the 3 KiB of an image."""
    n_bytes = part[0].nbytes
    first = (
        part.offset % mmap.ALLOCATIONGRANULARITY
    )  # where the array begins within the mapped pages
    for start in (first + rows * n_bytes).tolist():
        page = start - start % mmap.PAGESIZE
        part._mmap.madvise(mmap.MADV_WILLNEED, page, start + n_bytes - page)


def map_member(archive: Path, name: str) -> np.ndarray:
    """Memory-map an array of an `.npz` archive; a compressed one is unpacked first.

    Raises:
        ValueError: the archive is cut short, or is none; or it holds Python objects.
    """
    with open(archive, "rb") as file, _opened(file) as content:
        info = content.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return np.load(
                _unpacked(content, info, beside=archive), mmap_mode="r", allow_pickle=False
            )
        content.open(info).close()  # leaves the file at the first byte of the array
        npy.read_magic(file)
        shape, fortran_order, dtype = npy.read_array_header_1_0(file)
        if dtype.hasobject:  # numpy would take the bytes for pointers
            raise ValueError("it holds Python objects, not numbers")
        return np.memmap(archive, dtype, "r", file.tell(), shape, "F" if fortran_order else "C")


def _opened(archive: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise ValueError("it is damaged, or no .npz file") from error


def _unpacked(content: zipfile.ZipFile, info: zipfile.ZipInfo, *, beside: Path) -> Path:
    """Unpack a compressed array beside its archive, if that is not done yet.

    With a checksum in its name the file cannot be that of another array.
    """
    target = beside.with_name(f"{beside.stem}_{Path(info.filename).stem}.{info.CRC:08x}.npy")
    if target.is_file():
        return target
    console.note(f"unpacking {info.file_size / 2**20:.1f} MiB of {beside} to {target}, once")
    with content.open(info) as member:
        files.write_blocks(target, iter(partial(member.read, BLOCK), b""))
    return target
