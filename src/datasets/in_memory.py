"""Small images: one uint8 tensor on the device of the run; a batch is an index and a vectorised augmentation."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from src import runtime
from src.datasets.augmentation import AUGMENTATIONS, Augmentation
from src.datasets.pixels import enlarge, take, to_unit_range_
from src.datasets.registry import dataset_info

UNLABELLED = -1
CACHE_BYTES = 2**20  # a CPU works on so many pixels at once: what lies between two steps stays in its cache


class ImageSet:
    """Images with labels, delivered in batches of float32 (B, C, H, W) in [0, 1] and int64 (B,).

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,) in 0..n_classes-1; None makes the set unlabelled: n_classes is 0, all labels are -1.
        size: `batches` come enlarged to (size, size), as `augmentation` has to enlarge them for `epoch`; None: as is.
        augmentation: what `epoch` does to the images; None for nothing.
        device: where images are kept and batches are made.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        n_classes: int = 0,
        size: int | None = None,
        augmentation: Augmentation | None = None,
        device: torch.device | str = "cpu",
    ):
        self.device = torch.device(device)
        margin = augmentation.padding if augmentation else 0
        height, width = images.shape[2:]
        self._padded = F.pad(images.to(self.device), (margin,) * 4).contiguous()
        self.images = self._padded[:, :, margin : margin + height, margin : margin + width]  # shares its memory
        labels = torch.full((len(images),), UNLABELLED) if labels is None else labels
        self.labels = labels.to(self.device, torch.int64)
        self.n_classes = n_classes
        self.size = size
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images in a batch."""
        channels, height, width = self.images.shape[1:]
        return (channels, self.size or height, self.size or width)

    def n_batches(self, batch_size: int) -> int:
        """How many batches one pass over the set has."""
        return -(-len(self) // batch_size)

    def permutation(self, seed: int) -> Tensor:
        """All indices (N,) in an order that depends on the seed alone and is that of no epoch; on the CPU."""
        return torch.randperm(len(self), generator=runtime.generator(seed))

    def batches(self, batch_size: int, *, indices: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the set in order, or through `indices` in theirs, without augmentation.

        The last batch may be smaller.
        """
        yield from self._deliver(self._indices(indices), batch_size)

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, indices: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once through the set, or through `indices`, shuffled and augmented; the last batch may be smaller.

        Order and augmentation depend on (seed, epoch) alone: not on the device, the batch size, the global
        generators or what else runs.
        """
        generator = runtime.generator(seed, epoch)
        order = self._indices(indices)
        order = order[torch.randperm(len(order), generator=generator)]
        parameters = self.augmentation.draw(generator, len(order)) if self.augmentation else None
        yield from self._deliver(order, batch_size, parameters)

    def _indices(self, indices: Tensor | None) -> Tensor:
        return torch.arange(len(self)) if indices is None else torch.as_tensor(indices, device="cpu")

    def _deliver(
        self, order: Tensor, batch_size: int, parameters: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            drawn = None if parameters is None else parameters[start : start + batch_size]
            yield self._batch(chosen, drawn), self.labels[chosen.to(self.device)]

    def _batch(self, indices: Tensor, parameters: Tensor | None = None) -> Tensor:
        """The images at `indices` (B,), augmented by `parameters` if there are any; float32 (B, C, H, W)."""
        batch = torch.empty((len(indices), *self.image_shape), device=self.device)
        n = len(indices) if self.device.type != "cpu" else max(1, CACHE_BYTES // math.prod(self.image_shape))
        for start in range(0, len(indices), n):
            part = slice(start, start + n)
            if parameters is None:
                batch[part] = enlarge(take(self.images, indices[part]), self.size)
            else:
                batch[part] = self.augmentation.apply(self._padded, indices[part], parameters[part])
        return to_unit_range_(batch)


def named_set(
    name: str, images: Tensor, labels: Tensor | None, *, train: bool, device: torch.device | str
) -> ImageSet:
    """The `ImageSet` of a data set of the registry: its classes, its size and, for training, its augmentation."""
    info = dataset_info(name)
    size = info.image_shape[-1] if images.shape[-1] != info.image_shape[-1] else None
    augmentation = AUGMENTATIONS[name] if train else None
    return ImageSet(images, labels, n_classes=info.n_classes, size=size, augmentation=augmentation, device=device)
