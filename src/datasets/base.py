"""Data sets of inputs: order, batches, and the share of a process in distributed training.

`InputSet` is the base of all sets. `ImageSet` holds small images, indexed and augmented batch by
batch: a tensor in memory, or arrays on disk. `PlainInputs` holds tokens or vectors, which networks get
unchanged.
"""

import copy
import functools
import hashlib
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.core.cache import Cache
from src.core.console import warn
from src.core.device import as_inputs
from src.core.errors import UserError
from src.core.inputs import InputSpec, Normalisation, describe_values, shape_text
from src.core.seeds import generator as seeded_generator
from src.datasets.augmentation import Augmentation, resize
from src.datasets.mapped import MappedImages

UNLABELLED = -1
N_OF_FINGERPRINT = 64  # images whose pixels count
N_HASHED = 1000  # inputs that are read at a time
N_EXAMPLES = 3
N_LOOKED_AT = 1000  # inputs among which examples are chosen
N_RANDOM = 256  # different images of noise
EXPECTED = "batches of (inputs, labels) that can be iterated several times: a DataLoader, or a list"
Device = torch.device | str
# An intervention: changes images uint8 (B, C, H, W), at indices (B,) on the CPU, before they are augmented
Change = Callable[[Tensor, Tensor], Tensor]
# Images (B, C, H, W), tokens (B, T) or vectors (B, D), and labels (B,); -1: unlabelled
Batches = Iterable[tuple[Tensor, Tensor]]


def batches_in(batches: Iterable, name: str = "batches") -> Iterator[tuple[Tensor, Any]]:
    """Yield the inputs and labels of batches that a caller in Python gives, without empty batches.

    Args:
        name: of the batches, for messages.
    Raises:
        UserError: a batch is no pair, or its inputs are no numbers.
    """
    for batch in batches:
        if not isinstance(batch, Sequence) or len(batch) != 2:
            raise UserError(f"{name} gives no pairs; give {EXPECTED}")
        try:
            inputs = torch.as_tensor(batch[0])
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{name} gives inputs that are no numbers ({error}); give {EXPECTED}"
            ) from error
        if inputs.layout != torch.strided or inputs.is_meta:
            raise UserError(
                f"{name} gives sparse tensors, or tensors without values; give dense ones"
            )
        if inputs.ndim == 0 or len(inputs):
            yield inputs, batch[1]


class Loading(NamedTuple):
    """The workers that decode images from disk; data sets that are kept in memory use none."""

    n_workers: int = 0  # worker processes; 0: the main process decodes
    prefetch_factor: int = 1  # batches that a worker prepares ahead


class Shard(NamedTuple):
    """The share of a process in a batch: the inputs rank, rank + size, rank + 2·size, …"""

    rank: int = 0
    size: int = 1


class Pass(NamedTuple):
    """The indices of the inputs of a pass over a data set, in order and in batches."""

    indices: Tensor  # (N,) of the inputs in the set, on the CPU
    batches: Sequence[slice]  # positions in `indices`
    epoch: int = 0  # counted from 1; 0: the pass is no epoch
    seed: int = 0
    generator: torch.Generator | None = None  # of the augmentation; None: no augmentation


class InputSet:
    """Inputs with labels, in batches; a subclass holds the inputs: images, tokens or vectors.

    Args:
        labels: integers (N,) in 0..n_classes-1, kept in their dtype; -1 means no label.
        n_classes: 0 for an unlabelled set.
        image_shape: (C, H, W) of an image in a batch; of tokens (T,), of vectors (D,).
        augmentation: applied by `epoch`; None: `epoch` does the same to images as `batches`.
        normalisation: of values in [0, 1]; None leaves the values as they are.
        epoch_size: number of inputs of an `epoch`, see `subset`; None, or N or more: all inputs.
            May be set later.
        device: of the batches.
    """

    # Keeps decoded images for further passes without augmentation; may be set later. Sets that are in
    # memory anyway ignore it
    cache: Cache | None = None
    size: int | None = None  # batches have images resized to (size, size); None: images keep theirs
    is_read_in_order = False  # True: images out of their order have to be collected first
    like: Tensor | None = (
        None  # batches have the type and the device of this tensor; None: their own
    )

    def __init__(
        self,
        labels: Tensor,
        *,
        n_classes: int,
        image_shape: tuple[int, ...],
        augmentation: Augmentation | None = None,
        normalisation: Normalisation | None = None,
        epoch_size: int | None = None,
        device: Device,
    ):
        self.device = torch.device(device)
        self.labels = labels.to(self.device)
        self.n_classes = n_classes
        self.image_shape = image_shape
        self.augmentation = augmentation
        self.normalisation = normalisation
        self.epoch_size = epoch_size
        self.shard = Shard()  # may be set later
        self.classes: tuple[str, ...] = ()  # names in the order of the labels; empty: not known
        self.inputs: tuple = ()  # of data that are no images: as in `InputSpec`
        self.changes: tuple[Change, ...] = ()  # interventions, in the order of application

        # Kept on the device: torchvision's normalize would move both for each batch
        self._mean_and_std: tuple[Tensor, Tensor] | None = None
        if normalisation is not None:
            mean = torch.tensor(normalisation.mean, device=self.device)
            std = torch.tensor(normalisation.std, device=self.device)
            self._mean_and_std = (mean[:, None, None], std[:, None, None])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def spec(self) -> InputSpec:
        """The classes of the set, and the shape and the values of its inputs."""
        return InputSpec(
            self.n_classes, self.image_shape, self.normalisation, self.classes, self.inputs
        )

    def copied(self, **attributes: Any) -> "InputSet":
        """Return a copy on the same inputs, with other attributes, such as `labels`, `changes` or `like`."""
        copied = copy.copy(self)
        vars(copied).pop("fingerprint", None)
        vars(copied).update(attributes)
        return copied

    def levels(self, plan: Pass) -> Iterable[Tensor]:
        """Yield the inputs of a pass in batches, as `levels_of` returns them."""
        for rows in plan.batches:
            yield self.levels_of(plan.indices[rows])

    def levels_of(self, indices: Tensor) -> Tensor:
        """Return the stored inputs at indices (B,), with interventions: of images uint8 (B, C, H, W)."""
        raise NotImplementedError

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the labels, of the number, shape and normalisation of the inputs, and of some inputs.

        By it results know the inputs that they were made with. At most `N_OF_FINGERPRINT` inputs
        count, spread evenly over the set, as they are decoded: with interventions, without
        augmentation. So it depends on no file, format or device, and a change of few inputs between
        those is not seen.
        """
        n_images = len(self.labels)
        n_places = min(n_images, N_OF_FINGERPRINT)
        places = (
            torch.arange(n_places) * (n_images - 1) // max(1, n_places - 1)
        )  # the first to the last
        digest = hashlib.sha256()
        digest.update(f"{n_images} {self.image_shape} {self.normalisation}\n".encode())
        digest.update(self.labels.cpu().int().numpy().astype("<i4", copy=False).data)
        digest.update(self.levels_of(places).cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def digests(self, indices: Tensor) -> list[Hashable]:
        """Return a value for each input at indices (n,), which equal inputs share, without interventions."""
        plain = self.copied(changes=())
        digests: list[Hashable] = []
        for some in indices.split(N_HASHED):
            levels = plain.levels_of(some).cpu().flatten(1).contiguous().numpy()
            digests += [hash(row.tobytes()) for row in levels]
        return digests

    def rough_digests(self, indices: Tensor) -> list[Hashable]:
        """Return a value for each input at indices (n,) that takes no reading; further inputs may share it as well."""
        return [0] * len(indices)

    def check_like(self, images: "InputSet", *, option: str) -> None:
        """Check that this set has the shape of the inputs of -d; warn of a different range of values.

        Args:
            images: the inputs of -d.
            option: the option that chose this set, for messages.
        Raises:
            UserError: the shapes differ.
        """
        if self.image_shape != images.image_shape:
            raise UserError(
                f"inputs of {option} are {shape_text(self.image_shape)}, inputs of -d are "
                f"{shape_text(images.image_shape)}; choose data sets with inputs of one shape"
            )
        if self.normalisation != images.normalisation:
            warn(
                f"inputs of {option} have {describe_values(self.normalisation)}, inputs of -d have "
                f"{describe_values(images.normalisation)}: a detector can separate them by this difference alone"
            )

    def n_batches(self, batch_size: int) -> int:
        """Count the batches of an epoch; the last `subset` of a pass may have fewer."""
        n_images = len(self)
        if self.epoch_size:
            n_images = min(n_images, self.epoch_size)
        return math.ceil(n_images / batch_size)

    def permutation(self, seed: int) -> Tensor:
        """Shuffle all indices by a seed: int64 (N,) on the CPU. No epoch has the same order."""
        return torch.randperm(len(self), generator=seeded_generator(seed))

    def in_cheapest_order(self, indices: Tensor) -> Tensor:
        """Return indices (n,) in the order of the set if it is read in order only, else as
        given."""
        if self.is_read_in_order:
            return indices.sort().values
        return indices

    def batches(
        self, batch_size: int, *, indices: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (B, …) and labels (B,) at indices, or all, without augmentation."""
        if indices is None:
            indices = torch.arange(len(self))
        return self._deliver(indices.cpu(), batch_size)

    def epoch(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (B, …) and labels (B,), shuffled and augmented.

        With an `epoch_size`, an epoch has the next `subset` of the inputs; epochs are then counted
        from 1. The last batch may be smaller. Order and augmentation depend on (seed, epoch) alone.
        """
        generator = seeded_generator(seed, epoch)
        order = torch.arange(len(self))
        if self.epoch_size is not None and self.epoch_size < len(self):
            order = subset(len(self), self.epoch_size, seed=seed, epoch=epoch)
        order = order[torch.randperm(len(order), generator=generator)]
        yield from self._deliver(order, batch_size, epoch=epoch, seed=seed, generator=generator)

    def _deliver(
        self,
        order: Tensor,
        batch_size: int,
        *,
        epoch: int = 0,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the inputs and labels of this process in each batch of `order`."""
        # All processes get the same number of batches, since they exchange gradients after each. A
        # process without an image gets the first one, with the label -1, which counts for nothing
        rank, n_processes = self.shard
        shares = []
        is_filler = []
        for first in range(0, len(order), batch_size):
            behind = min(first + batch_size, len(order))
            is_filler.append(first + rank >= behind)
            if is_filler[-1]:
                shares.append(slice(first, first + 1))
            else:
                shares.append(slice(first + rank, behind, n_processes))

        ordered_labels = self.labels[order.to(self.device)]  # moved once, not batch by batch
        plan = Pass(order, shares, epoch, seed, generator)
        for share, filler, images in zip(shares, is_filler, self._make(plan), strict=True):
            labels = ordered_labels[share].long()
            if filler:
                labels = torch.full_like(labels, UNLABELLED)
            yield self._as_like(images, labels)

    def _as_like(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch in the type and on the device of `like`."""
        if self.like is None:
            return inputs, labels
        return as_inputs(inputs, self.like), labels.to(self.like.device)

    def _make(self, plan: Pass) -> Iterable[Tensor]:
        """Yield the inputs of a pass in batches on the device: images as float32 (B, C, H, W)."""
        augmentation = None
        parameters = torch.empty(len(plan.indices), 0)
        if self.augmentation is not None and plan.generator is not None:
            augmentation = self.augmentation
            parameters = augmentation.draw(plan.generator, len(plan.indices))
        parameters = parameters.to(self.device)  # moved once, not batch by batch
        for rows, levels in zip(plan.batches, self.levels(plan), strict=True):
            images = levels.to(self.device, non_blocking=True)  # bytes: a quarter of the floats
            if self.size is not None:
                images = resize(images, self.size)
            if augmentation is not None:
                images = augmentation.apply(images, parameters[rows])
            yield self._scaled_(images.float().contiguous())

    def _scaled_(self, levels: Tensor) -> Tensor:
        """Scale float levels 0..255 in place, as torchvision's ToTensor and Normalize."""
        if levels.device.type == "cpu":
            levels.div_(255)
        else:  # CUDA would replace the number 255 by its reciprocal, which rounds differently
            levels.div_(torch.full((), 255.0, device=levels.device))
        if self._mean_and_std is not None:
            mean, std = self._mean_and_std
            levels.sub_(mean).div_(std)
        return levels


class ImageSet(InputSet):
    """Images with labels, delivered in batches of float32 (B, C, H, W) and int64 (B,).

    Args:
        images: uint8 (N, C, H, W); `MappedImages` stay on disk.
        labels: as in InputSet; None: the set is unlabelled, all labels are -1.
        size: images are resized to (size, size) before they are augmented; None: they keep their
            size.
        augmentation, normalisation, epoch_size: as in InputSet.
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
        super().__init__(
            labels,
            n_classes=n_classes,
            image_shape=(channels, size or height, size or width),
            augmentation=augmentation,
            normalisation=normalisation,
            epoch_size=epoch_size,
            device=device,
        )
        self.size = size
        self.images: Tensor | MappedImages = images
        if isinstance(images, Tensor):
            self.images = images.to(self.device).contiguous()

    def levels_of(self, indices: Tensor) -> Tensor:
        if isinstance(self.images, MappedImages):
            images = self.images[indices].to(self.device)
        else:
            images = self.images.index_select(0, indices.to(self.device, non_blocking=True))
        for change in self.changes:
            images = change(images, indices)
        return images


class PlainInputs(InputSet):
    """Tokens or vectors with labels, without normalisation and augmentation.

    Args:
        inputs: tokens int64 (N, T), or vectors float32 (N, D); fewer than labels are repeated.
        labels: as in InputSet; None: the set is unlabelled, all labels are -1.
        device: of the inputs and the batches.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        *,
        n_classes: int = 0,
        device: Device = "cpu",
    ):
        if labels is None:
            labels = torch.full((len(inputs),), UNLABELLED)
        shape = tuple(inputs.shape[1:])
        super().__init__(labels, n_classes=n_classes, image_shape=shape, device=device)
        self._inputs = inputs.to(self.device)

    def levels_of(self, indices: Tensor) -> Tensor:
        return self._inputs[indices.to(self.device) % len(self._inputs)]

    def _make(self, plan: Pass) -> Iterable[Tensor]:
        return self.levels(plan)


def subset(n: int, size: int, *, seed: int, epoch: int) -> Tensor:
    """Choose the inputs of an epoch: the next `size` of a shuffled pass over all n, (at most size,).

    As in the public code, the last subset of a pass may be smaller (n = 10, size = 4: 4, 4, 2), and
    each pass has a new order. Epochs count from 1.
    """
    subsets_of_pass = math.ceil(n / size)
    pass_number, place = divmod(epoch - 1, subsets_of_pass)
    # Keys of three numbers are used here only
    order = torch.randperm(n, generator=seeded_generator(seed, pass_number, 0))
    return order[place * size : (place + 1) * size]


def random_images(n: int, spec: InputSpec, *, seed: int, device: Device) -> PlainInputs:
    """Return n images of noise with random labels, to measure speed; only 256 images differ."""
    draws = seeded_generator(seed)
    labels = torch.randint(spec.n_classes, (n,), generator=draws)
    images = torch.randn(min(n, N_RANDOM), *spec.shape, generator=draws)
    return PlainInputs(images, labels, n_classes=spec.n_classes, device=device)


def examples(inputs: Tensor) -> tuple:
    """Choose three of the first inputs (N, D) that differ from one another in many places.

    By these a network is looked at, as by `InputSpec.inputs`.
    """
    first = inputs[:N_LOOKED_AT]
    chosen = [0]
    while len(chosen) < N_EXAMPLES:
        n_different = [(first != first[place]).sum(1) for place in chosen]
        chosen.append(int(torch.stack(n_different).amin(0).argmax()))
    return tuple(tuple(first[place].tolist()) for place in chosen)
