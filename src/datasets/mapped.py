"""Images too many for the memory: they stay in their files, and each batch reads its own."""

import mmap
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.datasets.in_memory import ImageSet


class MappedImages:
    """Images in several arrays on disk, as if they were one.

    Args:
        parts: memory-mapped uint8 (N_i, H, W, C), in C order.
    """

    def __init__(self, parts: Sequence[np.memmap]):
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])  # of each part, and the end
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
    """An `ImageSet` whose images stay on disk: `images` are `MappedImages`; all else is as there."""

    def _keep(self, images: MappedImages) -> MappedImages:
        return images

    def _source(self, indices: Tensor, *, margin: int) -> tuple[Tensor, Tensor]:
        near = F.pad(self.images[indices].to(self.device), (margin,) * 4)
        return near, torch.arange(len(indices))


def _announce(part: np.memmap, rows: np.ndarray) -> None:
    """Ask the system to read these rows all at once, before they are looked at.

    Single images from all over a file that is not in the page cache come 17 times faster than by page faults, which
    wait for one another and read 128 KiB for the 3 KiB of an image.
    """
    n_bytes = part[0].nbytes
    first = part.offset % mmap.ALLOCATIONGRANULARITY  # of the array, within what is mapped
    for start in (first + rows * n_bytes).tolist():
        page = start - start % mmap.PAGESIZE
        part.base.madvise(mmap.MADV_WILLNEED, page, start + n_bytes - page)
