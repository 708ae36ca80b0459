"""Small images, indexed and augmented batch by batch: one uint8 tensor on the device of the run, or arrays on disk."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.datasets.augmentation import Augmentation, build_augmentation, resize, take
from src.datasets.base import UNLABELLED, BaseImageSet, BatchSpec, apply_changes, scaled_
from src.datasets.mapped import MappedImages
from src.datasets.registry import DatasetInfo

CACHE_BYTES = 2**20  # pixels that a CPU augments at once, so that intermediate results fit in its cache


class ImageSet(BaseImageSet):
    """Images with labels, delivered in batches of float32 (B, C, H, W) and int64 (B,).

    Args:
        images: uint8 (N, C, H, W); `MappedImages` stay on disk.
        labels: as in BaseImageSet; None: the set is unlabelled, all labels are -1 and `n_classes` is 0.
        size: `batches` resizes images to (size, size), and `augmentation` must do so too; None: nothing is resized.
        augmentation: applied by `epoch`; None: nothing is.
        options: `normalisation` and `epoch_size` of BaseImageSet.
        device: of the images and the batches.
    """

    def __init__(
        self,
        images: Tensor | MappedImages,
        labels: Tensor | None = None,
        *,
        n_classes: int = 0,
        size: int | None = None,
        augmentation: Augmentation | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ):
        labels = torch.full((len(images),), UNLABELLED) if labels is None else labels
        channels, height, width = images.shape[1:]
        shape = (channels, size or height, size or width)
        super().__init__(labels, n_classes=n_classes, image_shape=shape, device=device, **options)
        self.size, self.augmentation = size, augmentation
        self.images = images if isinstance(images, MappedImages) else self._keep(images)

    def _random_parameters(self, order: Tensor, generator: torch.Generator, *, seed: int, epoch: int) -> Tensor | None:
        return self.augmentation.draw(generator, len(order)) if self.augmentation else None

    def _make(self, batches: Sequence[BatchSpec]) -> Iterator[Tensor]:
        for batch in batches:
            yield self._batch(*batch)

    def _batch(self, indices: Tensor, parameters: Tensor | None, epoch: int) -> Tensor:
        """Return the images at `indices` (B,), augmented if `parameters` are given; float32 (B, C, H, W)."""
        batch = torch.empty((len(indices), *self.image_shape), device=self.device)
        n = len(indices) if self.device.type != "cpu" else max(1, CACHE_BYTES // math.prod(self.image_shape))
        margin = 0 if parameters is None else self.augmentation.padding
        for start in range(0, len(indices), n):
            part = slice(start, start + n)
            images, rows = self._source(indices[part], margin=margin, epoch=epoch)
            if parameters is None:
                batch[part] = resize(take(images, rows), self.size)
            else:
                batch[part] = self.augmentation.apply(images, rows, parameters[part])
        return scaled_(batch, self.normalisation)

    def _keep(self, images: Tensor) -> Tensor:
        """Move images (N, C, H, W) to the device, with padding for the augmentation; returns them without it."""
        margin = self.augmentation.padding if self.augmentation else 0
        height, width = images.shape[2:]
        self._padded = F.pad(images.to(self.device), (margin,) * 4).contiguous()
        return self._padded[:, :, margin : margin + height, margin : margin + width]  # a view

    def _source(self, indices: Tensor, *, margin: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images on the device, with `margin` zeros on every side, and where among them `indices` (B,) are."""
        is_mapped = isinstance(self.images, MappedImages)
        if not is_mapped and not self.changes:
            return (self._padded if margin else self.images), indices
        images = self.images[indices].to(self.device) if is_mapped else take(self.images, indices)
        changed = apply_changes(self.changes, images, indices, epoch=epoch)
        return F.pad(changed, (margin,) * 4), torch.arange(len(indices))


def split_of(
    info: DatasetInfo,
    images: Tensor | MappedImages,
    labels: Tensor | None,
    *,
    train: bool,
    device: torch.device | str,
) -> ImageSet:
    """Make the `ImageSet` of a split of a data set from its row: classes, size and, for training, augmentation.

    Args:
        images: uint8 (N, C, H, W).
        labels: whole numbers (N,), or None.
    """
    size = info.image_shape[-1]
    return ImageSet(
        images,
        labels,
        n_classes=info.n_classes,
        size=size if images.shape[-1] != size else None,
        augmentation=build_augmentation(info.augmentation) if train else None,
        epoch_size=info.epoch_size if train else None,
        device=device,
    )
