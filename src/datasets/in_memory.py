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
from src.datasets.subsets import subset
from src.errors import UserError

UNLABELLED = -1
CACHE_BYTES = 2**20  # a CPU works on so many pixels at once: what lies between two steps stays in its cache


class ImageSet:
    """Images with labels, delivered in batches of float32 (B, C, H, W) in [0, 1] and int64 (B,).

    Args:
        images: uint8 (N, C, H, W).
        labels: whole numbers (N,) in 0..n_classes-1, kept in their type; None makes the set unlabelled: n_classes
            is 0, all labels are -1.
        size: `batches` come enlarged to (size, size), as `augmentation` has to enlarge them for `epoch`; None: as is.
        augmentation: what `epoch` does to the images; None for nothing.
        epoch_size: how many images an `epoch` has, disjoint from epoch to epoch (see `subset`); None or N and more:
            all of them. May be set later.
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
        epoch_size: int | None = None,
        device: torch.device | str = "cpu",
    ):
        self.device = torch.device(device)
        self.n_classes = n_classes
        self.size = size
        self.augmentation = augmentation
        self.epoch_size = epoch_size
        self.images = self._keep(images)
        self.labels = (torch.full((len(images),), UNLABELLED) if labels is None else labels).to(self.device)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images in a batch."""
        channels, height, width = self.images.shape[1:]
        return (channels, self.size or height, self.size or width)

    def check_shape(self, image_shape: tuple[int, int, int], *, option: str) -> None:
        """Make sure that the images have a given shape (C, H, W).

        Raises:
            UserError: they have not; names the option that chose the set.
        """
        if self.image_shape != tuple(image_shape):
            own, wanted = ("×".join(map(str, shape)) for shape in (self.image_shape, image_shape))
            raise UserError(f"images of {option} are {own}, those of -d {wanted}; choose sets that agree")

    def n_batches(self, batch_size: int) -> int:
        """How many batches an epoch has; of a set with an `epoch_size`, the last of a pass may have fewer."""
        return -(-min(len(self), self.epoch_size or len(self)) // batch_size)

    def permutation(self, seed: int) -> Tensor:
        """All indices (N,) in an order that depends on the seed alone and is that of no epoch; on the CPU."""
        return torch.randperm(len(self), generator=runtime.generator(seed))

    def batches(self, batch_size: int, *, indices: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the set in order, or through `indices` in theirs, without augmentation.

        The last batch may be smaller.
        """
        yield from self._deliver(self._indices(indices), batch_size)

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, indices: Tensor | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once through the set, or through `indices`, shuffled and augmented; the last batch may be smaller.

        With an `epoch_size` an epoch is the next subset of them, and epochs are counted from 1. With `start` the
        first so many batches are left out, at no cost; the others are those of the whole epoch, bit for bit.

        Order and augmentation depend on (seed, epoch) alone: not on the device, the batch size, the global
        generators or what else runs.
        """
        generator = runtime.generator(seed, epoch)
        order = self._indices(indices)
        if self.epoch_size is not None and self.epoch_size < len(order):
            order = order[subset(len(order), self.epoch_size, seed=seed, epoch=epoch)]
        order = order[torch.randperm(len(order), generator=generator)]
        parameters = self.augmentation.draw(generator, len(order)) if self.augmentation else None
        yield from self._deliver(order, batch_size, parameters, start=start)

    def _indices(self, indices: Tensor | None) -> Tensor:
        return torch.arange(len(self)) if indices is None else torch.as_tensor(indices, device="cpu")

    def _deliver(
        self, order: Tensor, batch_size: int, parameters: Tensor | None = None, *, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start * batch_size, len(order), batch_size):
            chosen = order[first : first + batch_size]
            drawn = None if parameters is None else parameters[first : first + batch_size]
            yield self._batch(chosen, drawn), self.labels[chosen.to(self.device)].long()

    def _batch(self, indices: Tensor, parameters: Tensor | None = None) -> Tensor:
        """The images at `indices` (B,), augmented by `parameters` if there are any; float32 (B, C, H, W)."""
        batch = torch.empty((len(indices), *self.image_shape), device=self.device)
        n = len(indices) if self.device.type != "cpu" else max(1, CACHE_BYTES // math.prod(self.image_shape))
        margin = 0 if parameters is None else self.augmentation.padding
        for start in range(0, len(indices), n):
            part = slice(start, start + n)
            images, rows = self._source(indices[part], margin=margin)
            if parameters is None:
                batch[part] = enlarge(take(images, rows), self.size)
            else:
                batch[part] = self.augmentation.apply(images, rows, parameters[part])
        return to_unit_range_(batch)

    def _keep(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as they are kept: inside of the padding that the augmentation asks for."""
        margin = self.augmentation.padding if self.augmentation else 0
        height, width = images.shape[2:]
        self._padded = F.pad(images.to(self.device), (margin,) * 4).contiguous()
        return self._padded[:, :, margin : margin + height, margin : margin + width]  # shares its memory

    def _source(self, indices: Tensor, *, margin: int) -> tuple[Tensor, Tensor]:
        """Images with `margin` zeros on every side, on the device, and where among them those at `indices` (B,) are."""
        return (self._padded if margin else self.images), indices


def named_set(
    name: str,
    images: Tensor,
    labels: Tensor | None,
    *,
    train: bool,
    device: torch.device | str,
    kind: type[ImageSet] = ImageSet,
) -> ImageSet:
    """The `ImageSet` of a data set of the registry: its classes, its size and, for training, its augmentation.

    `kind` says how the images (N, C, H, W) are kept.
    """
    info = dataset_info(name)
    return kind(
        images,
        labels,
        n_classes=info.n_classes,
        size=info.image_shape[-1] if images.shape[-1] != info.image_shape[-1] else None,
        augmentation=AUGMENTATIONS[name] if train else None,
        epoch_size=info.epoch_size if train else None,
        device=device,
    )
