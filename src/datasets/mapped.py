"""Arrays of images on disk: they stay in their files, and a batch is read when it is needed.

A file is an `.npy`, or an array in an `.npz` archive. An uncompressed array is memory-mapped in the
archive. A compressed array is unpacked once, beside the archive.
"""

import mmap
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from src.ground import console, files

BLOCK = 2**20  # bytes that are unpacked at once


class MappedImages:
    """Several arrays of images on disk, indexed as one array.

    Args:
        parts: memory-mapped uint8 (N_i, H, W, C).
    """

    def __init__(self, parts: Sequence[np.memmap]):
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, parts)])  # of each part, and the total
        n_images = int(self._starts[-1])
        height, width, channels = parts[0].shape[1:]
        self.shape = (n_images, channels, height, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Read the images at `indices` (B,): uint8 (B, C, H, W), with channels last in memory.

        Args:
            indices: on the CPU.
        """
        positions = indices.numpy()
        part_of_image = np.searchsorted(self._starts, positions, side="right") - 1
        images = np.empty((len(positions), *self.parts[0].shape[1:]), dtype=np.uint8)

        # Announce all reads before the first one
        reads = []
        for i in np.unique(part_of_image):
            places = np.flatnonzero(part_of_image == i)  # in the batch
            rows = positions[places] - self._starts[i]  # in the part
            _announce(self.parts[i], rows)
            reads.append((self.parts[i], rows, places))
        for part, rows, places in reads:
            images[places] = np.asarray(part)[rows]
        return torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)


def _announce(part: np.memmap, rows: np.ndarray) -> None:
    """Ask the system to read all `rows` of a part at once.

    For single images from all over a file that is not in the page cache this is 17 times faster
    than page faults. Page faults are served in turn, and read 128 KiB for the 3 KiB of an image.
    """
    mapping: mmap.mmap = part._mmap  # type: ignore[attr-defined]  # numpy has no public name for it
    n_bytes = part[0].nbytes
    array_start = part.offset % mmap.ALLOCATIONGRANULARITY  # in the mapped pages
    for start in (array_start + rows * n_bytes).tolist():
        page_start = start - start % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, page_start, start + n_bytes - page_start)


def map_member(archive: Path, name: str) -> np.memmap:
    """Memory-map an array of an `.npz` archive; a compressed array is unpacked first.

    Raises:
        ValueError: the file is cut short, or no archive, or the array holds Python objects.
    """
    with open(archive, "rb") as file, _open_archive(file) as content:
        info = content.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return map_file(_unpacked(content, info, beside=archive))

        # The array lies in the archive as it would lie in an .npy file
        content.open(info).close()  # leaves `file` at the first byte of the array
        npy.read_magic(file)
        shape, is_fortran, dtype = npy.read_array_header_1_0(file)
        if dtype.hasobject:  # numpy would take the bytes for pointers
            raise ValueError("it holds Python objects, not numbers")
        order: Literal["C", "F"] = "F" if is_fortran else "C"
        return np.memmap(archive, dtype, "r", file.tell(), shape, order)


def open_member(archive: Path | str, name: str) -> np.ndarray:
    """Memory-map an array of an `.npz` archive; a compressed array is read.

    Raises:
        ValueError: as `map_member`.
    """
    with open(archive, "rb") as file, _open_archive(file) as content:
        info = content.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            with content.open(info) as member:
                return npy.read_array(member, allow_pickle=False)
    return map_member(Path(archive), name)


def map_file(path: Path) -> np.memmap:
    """Memory-map the array of an `.npy` file.

    Raises:
        ValueError: the file is damaged, or the array holds Python objects.
    """
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _open_archive(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ValueError("it is damaged, or no .npz file") from error


def _unpacked(content: zipfile.ZipFile, info: zipfile.ZipInfo, *, beside: Path) -> Path:
    """Unpack a compressed array beside its archive, unless that was done before.

    The name of the new file has the checksum of the array: it cannot be an older file of the same
    name.

    Returns:
        The path of the `.npy` file.
    """
    array_name = Path(info.filename).stem
    target = beside.with_name(f"{beside.stem}_{array_name}.{info.CRC:08x}.npy")
    if target.is_file():
        return target
    console.note(f"unpacking {info.file_size / 2**20:.1f} MiB of {beside} to {target}, once")
    with content.open(info) as member:
        with files.new_file(target) as file:
            shutil.copyfileobj(member, file, BLOCK)
    return target
