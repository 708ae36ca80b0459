"""Small images, indexed and augmented batch by batch: one uint8 tensor on the device of the run, or
arrays on disk."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from src.choices.datasets import DatasetInfo
from src.datasets.augmentation import KINDS, Augmentation, resize, take
from src.datasets.base import UNLABELLED, BaseImageSet, Device, Pass, apply_changes
from src.datasets.mapped import MappedImages

CACHE_BYTES = (
    2**20
)  # pixels that a CPU augments at once, so that intermediate results fit in its cache


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
        device: Device = "cpu",
        **options: Any,
    ):
        labels = torch.full((len(images),), UNLABELLED) if labels is None else labels
        channels, height, width = images.shape[1:]
        shape = (channels, size or height, size or width)
        super().__init__(labels, n_classes=n_classes, image_shape=shape, device=device, **options)
        self.size, self.augmentation = size, augmentation
        self.images = (
            images if isinstance(images, MappedImages) else images.to(self.device).contiguous()
        )

    def _make(self, plan: Pass) -> Iterator[Tensor]:
        augmentation = self.augmentation if plan.generator else None
        n = len(plan.indices)
        parameters = augmentation.draw(plan.generator, n) if augmentation else torch.empty(n, 0)
        moved = [
            numbers.to(self.device) for numbers in (plan.indices, parameters)
        ]  # once for all batches
        n_at_once = (
            max(1, CACHE_BYTES // math.prod(self.image_shape))
            if self.device.type == "cpu"
            else max(1, n)
        )
        for rows in plan.batches:
            parts = [numbers[rows].split(n_at_once) for numbers in (plan.indices, *moved)]
            batch = torch.empty((len(plan.indices[rows]), *self.image_shape), device=self.device)
            for part, indices, here, own in zip(batch.split(n_at_once), *parts, strict=True):
                is_mapped = isinstance(self.images, MappedImages)
                images = (
                    self.images[indices].to(self.device) if is_mapped else take(self.images, here)
                )
                images = apply_changes(self.changes, images, indices, epoch=plan.epoch)
                part.copy_(
                    augmentation.apply(images, own) if augmentation else resize(images, self.size)
                )
            yield self._scaled_(batch)


def split_of(
    info: DatasetInfo,
    images: Tensor | MappedImages,
    labels: Tensor | None,
    *,
    train: bool,
    device: Device,
) -> ImageSet:
    """Make the `ImageSet` of a split of a data set from its row: classes, size and, for training,
    augmentation.

    Args:
        images: uint8 (N, C, H, W).
        labels: whole numbers (N,), or None.
    """
    size = info.image_shape[-1]
    augmentation = None
    if train and info.augmentation:
        augmentation = KINDS[info.augmentation.kind](**info.augmentation.arguments)
    return ImageSet(
        images,
        labels,
        n_classes=info.n_classes,
        size=size if images.shape[-1] != size else None,
        augmentation=augmentation,
        normalisation=info.normalisation,
        epoch_size=info.epoch_size if train else None,
        device=device,
    )
