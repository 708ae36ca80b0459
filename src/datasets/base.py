"""The base of all image sets: order of the images, batches, and the share of each of several
processes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src import runtime
from src.console import warn
from src.errors import UserError
from src.images import ImageSpec, Normalisation, describe_values

UNLABELLED = -1
Device = torch.device | str


class Loading(NamedTuple):
    """How images are decoded from disk; data sets that are kept in memory ignore it.

    A worker imports the script that asked for it: there, `if __name__ == "__main__":` stands in
    front of the work."""

    n_workers: int = 0  # worker processes; 0: the main process decodes
    prefetch_factor: int = 1  # batches that each worker prepares ahead


class Shard(NamedTuple):
    """The share of one of several processes: of each batch the images `rank`, `rank + size`, `rank
    + 2 * size`, …"""

    rank: int = 0
    size: int = 1


class Pass(NamedTuple):
    """The images of a pass over a set, in their order and in batches."""

    indices: Tensor  # (N,), on the CPU
    batches: Sequence[slice]  # of `indices`
    epoch: int = 0  # counted from 1; 0: not of an epoch
    seed: int = 0
    generator: torch.Generator | None = None  # of the augmentation; None: without one


# An intervention: from images uint8 (B, C, H, W), their indices (B,) in the set, on the CPU, and
# `epoch`, to others.
Change = Callable[..., Tensor]


class BaseImageSet:
    """Images with labels, in batches; a subclass holds the images.

    Args:
        labels: whole numbers (N,) in 0..n_classes-1, kept in their dtype; -1 is no label.
        n_classes: 0 for an unlabelled set.
        image_shape: (C, H, W) of the images in a batch.
        normalisation: of values in [0, 1]; None: they are not changed.
        epoch_size: number of images of an `epoch`, disjoint from epoch to epoch (see `subset`); None, or N or more:
            all images. May be set later.
        device: of the batches.
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        n_classes: int,
        image_shape: tuple[int, int, int],
        normalisation: Normalisation | None = None,
        epoch_size: int | None = None,
        device: Device,
    ):
        self.device = torch.device(device)
        self.labels = labels.to(self.device)
        self.n_classes = n_classes
        self.image_shape = image_shape
        self.normalisation = normalisation
        self.epoch_size = epoch_size
        self.shard = Shard()  # may be set later
        self.classes: tuple[str, ...] = ()  # names in the order of the labels, where they are known
        self.changes: tuple[
            Change, ...
        ] = ()  # of images before the augmentation, in this order: the interventions
        self._scales = [
            torch.tensor(values, device=self.device)[:, None, None]
            for values in normalisation or ()
        ]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def spec(self) -> ImageSpec:
        """Its classes, and the shape and the values of its images."""
        return ImageSpec(self.n_classes, self.image_shape, self.normalisation, self.classes)

    def _make(self, plan: Pass) -> Iterable[Tensor]:
        """Yield the images of each batch of a pass in turn: float32 (B, C, H, W) on the device."""
        raise NotImplementedError

    def check_like(self, other: "BaseImageSet", *, option: str) -> None:
        """Check that another set has images of the same shape (C, H, W); warns if their
        normalisation differs.

        Args:
            option: the option that chose this set, for messages.
        """
        if self.image_shape != other.image_shape:
            own, expected = ("×".join(map(str, images.image_shape)) for images in (self, other))
            raise UserError(
                f"images of {option} are {own}, those of -d {expected}; choose sets that agree"
            )
        if self.normalisation != other.normalisation:
            warn(
                f"images of {option} are not normalised as those of -d ({describe_values(self.normalisation)} instead "
                f"of {describe_values(other.normalisation)}): that alone tells them apart"
            )

    def n_batches(self, batch_size: int) -> int:
        """Count the batches of an epoch; with an `epoch_size`, the last epoch of a pass may have
        fewer."""
        return -(-min(len(self), self.epoch_size or len(self)) // batch_size)

    def permutation(self, seed: int) -> Tensor:
        """Shuffle all indices (N,), on the CPU; the order depends on the seed alone and differs
        from all epochs'."""
        return torch.randperm(len(self), generator=runtime.generator(seed))

    def batches(
        self, batch_size: int, *, indices: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels of the whole set, or of `indices`, in order and without
        augmentation.

        The last batch may be smaller.
        """
        order = (
            torch.arange(len(self)) if indices is None else torch.as_tensor(indices, device="cpu")
        )
        yield from self._deliver(order, batch_size)

    def epoch(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels of the whole set, shuffled and augmented.

        With an `epoch_size`, each epoch is the next `subset` of the images; epochs are then counted
        from 1. The last batch may be smaller.

        Order and augmentation depend on (seed, epoch) alone: not on the device, the batch size, the
        global generators, the number of processes or other runs."""
        generator = runtime.generator(seed, epoch)
        order = torch.arange(len(self))
        if self.epoch_size is not None and self.epoch_size < len(self):
            order = subset(len(self), self.epoch_size, seed=seed, epoch=epoch)
        order = order[torch.randperm(len(order), generator=generator)]
        yield from self._deliver(order, batch_size, epoch=epoch, seed=seed, generator=generator)

    def _deliver(
        self, order: Tensor, batch_size: int, **of_epoch: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the share of this process in each batch of `order`; for `of_epoch` see `Pass`.

        All processes get the same number of batches, since they exchange gradients after each. A
        batch may be too small for all: a process without a share gets the first image with the
        label -1, which enters no loss and no accuracy."""
        rank, n_processes = self.shard
        shares = []
        for first in range(0, len(order), batch_size):
            share = slice(first + rank, min(first + batch_size, len(order)), n_processes)
            shares.append(share if share.start < share.stop else slice(first, first + 1))
        labels = self.labels[order.to(self.device)]  # moved once, not a batch at a time
        for share, images in zip(shares, self._make(Pass(order, shares, **of_epoch)), strict=True):
            own = labels[share].long()
            yield (
                images,
                own if share.start % batch_size == rank else torch.full_like(own, UNLABELLED),
            )

    def _scaled_(self, levels: Tensor) -> Tensor:
        """Scale float levels 0..255 (B, C, H, W) to [0, 1] as torchvision's ToTensor, and normalise
        them; in place."""
        # CUDA replaces a division by a number by a product with its reciprocal, which rounds
        # differently
        levels.div_(
            255 if levels.device.type == "cpu" else torch.full((), 255.0, device=levels.device)
        )
        if self._scales:  # as TF.normalize, which would move them for each batch
            mean, std = self._scales
            levels.sub_(mean).div_(std)
        return levels


def apply_changes(
    changes: Sequence[Change], images: Tensor, indices: Tensor, *, epoch: int
) -> Tensor:
    """Apply changes, one after the other, to images uint8 (B, C, H, W); see `Change`."""
    for change in changes:
        images = change(images, indices, epoch=epoch)
    return images


def subset(n: int, size: int, *, seed: int, epoch: int) -> Tensor:
    """Choose the images of an epoch: the next `size` of a shuffled pass over all n.

    A pass visits each image exactly once; then a new pass begins in another order. The last subset
    of a pass may be smaller (n = 10, size = 4: 4, 4, 2), as in the public code.

    Args:
        n, size: at least 1; with a `size` of n or more, a pass is one subset.
        epoch: counted from 1, as by `training.train`.

    Returns:
        Indices int64 (size or fewer,) in shuffled order, on the CPU; they depend on the arguments alone.
    """
    pass_number, place = divmod(epoch - 1, -(-n // size))
    order = torch.randperm(
        n, generator=runtime.generator(seed, pass_number, 0)
    )  # only these keys have three parts
    return order[place * size : (place + 1) * size]
