"""Memory-mapped arrays of images, of which batches are read when they are needed.

A file is an `.npy`, or an array in an `.npz` archive. An uncompressed array is memory-mapped in the
archive. A compressed array is unpacked once, beside the archive.
"""

import glob
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from src.core import console, files


class MappedImages:
    """Several arrays of images on disk, indexed as one array.

    Args:
        parts: memory-mapped uint8 (N_i, H, W, C).
    """

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts = tuple(parts)
        height, width, channels = parts[0].shape[1:]
        self.shape = (sum(map(len, parts)), channels, height, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Read the images at `indices` (B,), on the CPU: uint8 (B, C, H, W), channels last."""
        positions = indices.numpy()
        images = np.empty((len(positions), *self.parts[0].shape[1:]), dtype=np.uint8)
        first = 0  # position of the first image of a part
        for part in self.parts:
            is_inside = (first <= positions) & (positions < first + len(part))
            images[is_inside] = np.asarray(part)[positions[is_inside] - first]
            first += len(part)
        return torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)


def check_archive(path: Path) -> None:
    """Raise a ValueError if a file is no `.npz` archive."""
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError("it is no .npz archive")


def map_member(archive: Path, name: str, *, unpack: bool = True) -> np.ndarray:
    """Memory-map an array of an `.npz` archive.

    Args:
        unpack: a compressed array is unpacked beside the archive first; otherwise it is read.
    Raises:
        ValueError: the array holds Python objects; zipfile's and numpy's errors of damaged files.
    """
    check_archive(archive)
    with open(archive, "rb") as file, zipfile.ZipFile(file) as content:
        if f"{name}.npy" not in content.namelist():
            held = [member.removesuffix(".npy") for member in content.namelist()]
            raise ValueError(f"no array {name} (it has {console.listed(held)})")
        info = content.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            if unpack:
                return map_file(_unpacked(content, info, beside=archive))
            with content.open(info) as member:
                return npy.read_array(member, allow_pickle=False)

        # The array lies in the archive as it would lie in an .npy file
        content.open(info).close()  # leaves `file` at the first byte of the array
        npy.read_magic(file)
        shape, is_fortran, dtype = npy.read_array_header_1_0(file)
        if dtype.hasobject:  # numpy would take the bytes for pointers
            raise ValueError("it holds Python objects, not numbers")
        order: Literal["C", "F"] = "F" if is_fortran else "C"
        return np.memmap(archive, dtype, "r", file.tell(), shape, order)


def map_file(path: Path) -> np.ndarray:
    """Memory-map the array of an `.npy` file; a ValueError if it holds Python objects."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _unpacked(content: zipfile.ZipFile, info: zipfile.ZipInfo, *, beside: Path) -> Path:
    """Unpack a compressed array beside its archive, once; the name has the checksum of the array."""
    name = f"{beside.stem}_{Path(info.filename).stem}"
    target = beside.with_name(f"{name}.{info.CRC:08x}.npy")
    if not target.is_file():
        console.note(f"unpacking {info.file_size / 2**20:.1f} MiB of {beside} to {target}, once")
        of_earlier_contents = beside.parent.glob(f"{glob.escape(name)}.{'[0-9a-f]' * 8}.npy")
        for earlier in of_earlier_contents:
            earlier.unlink(missing_ok=True)
        with content.open(info) as member, files.new_file(target) as file:
            shutil.copyfileobj(member, file)
    return target
