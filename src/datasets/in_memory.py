"""Small images, indexed and augmented batch by batch: a tensor in memory, or arrays on disk."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from src.choices.datasets import DatasetInfo
from src.datasets.augmentation import KINDS, Augmentation, resize
from src.datasets.base import UNLABELLED, BaseImageSet, Device, Pass
from src.datasets.mapped import MappedImages
from src.ground.images import Normalisation

CACHE_BYTES = 2**20  # of pixels that a CPU augments at once: intermediate results fit in its cache


class ImageSet(BaseImageSet):
    """Images with labels, delivered in batches of float32 (B, C, H, W) and int64 (B,).

    Args:
        images: uint8 (N, C, H, W); `MappedImages` stay on disk.
        labels: as in BaseImageSet; None: the set is unlabelled, all labels are -1.
        size: `batches` resizes images to (size, size), and `augmentation` must do so too; None:
            images keep their size.
        augmentation: applied by `epoch`; None: `epoch` does the same to images as `batches`.
        normalisation, epoch_size: as in BaseImageSet.
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
        normalisation: Normalisation | None = None,
        epoch_size: int | None = None,
        device: Device = "cpu",
    ):
        if labels is None:
            labels = torch.full((len(images),), UNLABELLED)
        channels, height, width = images.shape[1:]
        if size is not None:
            height = size
            width = size
        super().__init__(
            labels,
            n_classes=n_classes,
            image_shape=(channels, height, width),
            normalisation=normalisation,
            epoch_size=epoch_size,
            device=device,
        )
        self.size = size
        self.augmentation = augmentation
        self.images: Tensor | MappedImages
        if isinstance(images, MappedImages):
            self.images = images
        else:
            self.images = images.to(self.device).contiguous()

    def _make(self, plan: Pass) -> Iterator[Tensor]:
        n_images = len(plan.indices)
        augmentation = None
        parameters = torch.empty(n_images, 0)
        if self.augmentation is not None and plan.generator is not None:
            augmentation = self.augmentation
            parameters = augmentation.draw(plan.generator, n_images)

        # Moved once, for all batches
        indices_on_device = plan.indices.to(self.device)
        parameters = parameters.to(self.device)

        n_at_once = max(1, n_images)
        if self.device.type == "cpu":
            n_at_once = max(1, CACHE_BYTES // math.prod(self.image_shape))

        for rows in plan.batches:
            indices = plan.indices[rows]
            batch = torch.empty((len(indices), *self.image_shape), device=self.device)
            parts = zip(
                batch.split(n_at_once),
                indices.split(n_at_once),
                indices_on_device[rows].split(n_at_once),
                parameters[rows].split(n_at_once),
                strict=True,
            )
            for part, part_indices, part_on_device, part_parameters in parts:
                images = self._read(part_indices, part_on_device, epoch=plan.epoch)
                if augmentation is not None:
                    images = augmentation.apply(images, part_parameters)
                elif self.size is not None:
                    images = resize(images, self.size)
                part.copy_(images)
            yield self._scaled_(batch)

    def levels_of(self, indices: Tensor) -> Tensor:
        return self._read(indices, indices.to(self.device), epoch=0)

    def _read(self, indices: Tensor, indices_on_device: Tensor, *, epoch: int) -> Tensor:
        """Return the images uint8 (B, C, H, W) at the indices (B,), with their interventions, on the
        device.

        Args:
            indices: on the CPU.
            indices_on_device: the same numbers on the device.
            epoch: as in `Pass`.
        """
        if isinstance(self.images, MappedImages):
            images = self.images[indices].to(self.device)
        elif self.device.type == "cpu":  # numpy copies rows of bytes 3 to 5 times faster
            images = torch.from_numpy(self.images.numpy()[indices.numpy()])
        else:
            images = self.images[indices_on_device]
        for change in self.changes:
            images = change(images, indices, epoch=epoch)
        return images


def split_of(
    info: DatasetInfo,
    images: Tensor | MappedImages,
    labels: Tensor | None,
    *,
    train: bool,
    device: Device,
) -> ImageSet:
    """Make the `ImageSet` of a split from the row of its data set.

    Args:
        info: the row; it gives classes, size and, for training, augmentation and epoch size.
        images: uint8 (N, C, H, W).
        labels: whole numbers (N,), or None.
    """
    augmentation = None
    if train and info.augmentation is not None:
        make_augmentation = KINDS[info.augmentation.kind]
        augmentation = make_augmentation(**info.augmentation.arguments)
    size = info.image_shape[-1]
    needs_resizing = images.shape[-1] != size
    return ImageSet(
        images,
        labels,
        n_classes=info.n_classes,
        size=size if needs_resizing else None,
        augmentation=augmentation,
        normalisation=info.normalisation,
        epoch_size=info.epoch_size if train else None,
        device=device,
    )
