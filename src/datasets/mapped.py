"""Images that are too many for the memory: they stay in their files, and each batch is read when it is needed.

A file is an `.npy`, or a member of an `.npz` archive. A stored member is memory-mapped in the archive; a compressed one
is unpacked once, beside the archive.
"""

import contextlib
import glob
import mmap
import shutil
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib import format as npy
from torch import Tensor

from src import console, files
from src.datasets.in_memory import ImageSet
from src.errors import UserError

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
        """Read the images at `indices` (B,), a CPU tensor: uint8 (B, C, H, W), with channels last in memory."""
        rows = indices.numpy()
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        images = np.empty((len(rows), *self.parts[0].shape[1:]), dtype=np.uint8)
        chosen = [(owner, np.flatnonzero(owners == owner)) for owner in np.unique(owners)]
        for owner, here in chosen:
            _announce(self.parts[owner], rows[here] - self._starts[owner])
        for owner, here in chosen:
            images[here] = np.asarray(self.parts[owner])[rows[here] - self._starts[owner]]
        return torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)


class MappedImageSet(ImageSet):
    """An `ImageSet` whose images are `MappedImages` and stay on disk."""

    def _keep(self, images: MappedImages) -> MappedImages:
        return images

    def _source(self, indices: Tensor, *, margin: int) -> tuple[Tensor, Tensor]:
        near = F.pad(self.images[indices].to(self.device), (margin,) * 4)
        return near, torch.arange(len(indices))


def _announce(part: np.memmap, rows: np.ndarray) -> None:
    """Ask the system to read all these rows at once.

    For single images from all over a file that is not in the page cache this is 17 times faster than page faults, which
    come one after the other and read 128 KiB for the 3 KiB of an image.
    """
    n_bytes = part[0].nbytes
    first = part.offset % mmap.ALLOCATIONGRANULARITY  # where the array begins within the mapped pages
    for start in (first + rows * n_bytes).tolist():
        page = start - start % mmap.PAGESIZE
        part._mmap.madvise(mmap.MADV_WILLNEED, page, start + n_bytes - page)


def map_member(archive: Path, name: str) -> np.memmap:
    """Memory-map an array of an `.npz` archive: in place where it is stored, or the file that `unpack` made of it."""
    with zipfile.ZipFile(archive) as content:
        info = content.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return np.load(_unpacked(archive, info), mmap_mode="r", allow_pickle=False)
        with content.open(info) as member:
            read_header = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}[npy.read_magic(member)[0]]
            shape, fortran_order, dtype = read_header(member)
            start = member.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, not numbers")
    with open(archive, "rb") as file:
        file.seek(info.header_offset + 26)  # the local header: 30 bytes, a name and an extra field of these lengths
        start += info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return np.memmap(archive, dtype, "r", start, shape, "F" if fortran_order else "C")


def unpack(archives: Sequence[Path], names: Sequence[str], *, remedy: str) -> None:
    """Unpack compressed arrays beside their archives, where that is not done yet; one process does it at a time.

    Args:
        archives: `.npz` files in one folder.
        names: of the arrays of each.
        remedy: says in errors how to mend a damaged archive.
    Raises:
        UserError: there is not enough room, the folder is not writable, or an archive is damaged.
    """
    pending = list(_compressed(archives, names, remedy=remedy))
    if not pending:
        return
    folder = archives[0].parent
    with files.locked(folder / ".unpacking.lock"):
        for left in folder.glob(".*.part"):  # by a process that was killed
            left.unlink()
        pending = list(_compressed(archives, names, remedy=remedy))
        needed, free = sum(info.file_size for _, _, info in pending), shutil.disk_usage(folder).free
        if free < needed:
            raise UserError(
                f"{folder}: {needed} bytes are needed to unpack arrays, {free} are free; free {needed - free}"
            )
        for archive, target, info in pending:
            for other in folder.glob(f"{glob.escape(target.name[:-13])}.{'[0-9a-f]' * 8}.npy"):
                other.unlink()  # from an earlier archive of this name
            with readable(archive, remedy), zipfile.ZipFile(archive) as content, content.open(info) as member:
                blocks = iter(lambda member=member: member.read(BLOCK), b"")
                size = -(-info.file_size // BLOCK)
                files.write_blocks(target, console.progress(blocks, f"unpacking {target.name}", size, unit="MiB"))


def _compressed(
    archives: Sequence[Path], names: Sequence[str], *, remedy: str
) -> Iterator[tuple[Path, Path, zipfile.ZipInfo]]:
    """Yield the compressed arrays that are not unpacked yet: archive, file for the array, entry in the archive."""
    for archive in archives:
        with readable(archive, remedy), zipfile.ZipFile(archive) as content:
            for name in names:
                info = content.getinfo(f"{name}.npy")
                target = _unpacked(archive, info)
                if info.compress_type != zipfile.ZIP_STORED and not target.is_file():
                    yield archive, target, info


def _unpacked(archive: Path, info: zipfile.ZipInfo) -> Path:
    """Return the file for an unpacked array; with a checksum in its name it cannot be that of another array."""
    return archive.with_name(f"{archive.stem}_{Path(info.filename).stem}.{info.CRC:08x}.npy")


@contextlib.contextmanager
def readable(path: Path, remedy: str) -> Iterator[None]:
    """Turn any exception about a missing or damaged file into a UserError that ends with the remedy."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); {remedy}, then run again") from error
