"""Data sets made of an iterable of batches, such as a `DataLoader`, that can be iterated several times.

Labels are kept, and the inputs as well if they are few; both are copies, as a loader may reuse its
memory. Otherwise each pass iterates over the batches again, up to the last image that it needs.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint

import torch
from torch import Tensor

from src.core.device import as_inputs
from src.core.errors import UserError
from src.core.tensors import content_of_state
from src.datasets.base import EXPECTED, UNLABELLED, InputSet, Pass, batches_in
from src.datasets.plain import N_LOOKED_AT, examples

N_OF_FINGERPRINT = 16  # inputs, the first ones


class IteratedInputs(InputSet):
    """A data set made of an iterable of batches, which is iterated once to read the labels.

    Its batches have as many inputs as the first batch of the iterable. Inputs that are asked for
    out of their order are collected in memory first.

    Attributes:
        batch_size: of the first batch.

    Args:
        batches: pairs of images (B, C, H, W), tokens (B, T) or vectors (B, D), and labels (B,),
            tensors or arrays. Labels may be None: unlabelled.
        name: of the inputs, for messages.
        like: a tensor of the type and on the device of the inputs to give.
        at_most: take the first inputs only; None: take all.
        in_one_order: later passes have to give the inputs in the order of the first.
        most_kept: bytes; the inputs are kept in memory if they take no more.
    Raises:
        UserError: the iterable can be passed over only once, is empty, gives no such batches, or
            values that are not finite.
    """

    is_read_in_order = True

    def __init__(
        self,
        batches: Iterable,
        *,
        name: str,
        like: Tensor,
        at_most: int | None = None,
        in_one_order: bool = False,
        most_kept: int = 0,
    ):
        if not isinstance(batches, Iterable):
            raise UserError(f"{name} is a {type(batches).__name__}; give {EXPECTED}")
        if iter(batches) is batches:
            raise UserError(f"{name} can be iterated only once; give {EXPECTED}")
        labels: list[Tensor] = []
        prints: list[Tensor] = []
        kept: list[tuple[Tensor, Tensor]] = []
        numbers: list[Tensor] = []  # the first inputs that are no images
        n_bytes = 0
        for inputs, labels_of_batch in _first_batches(batches, name, at_most):
            labels.append(labels_of_batch)
            if inputs.ndim == 2 and sum(map(len, numbers)) < N_LOOKED_AT:
                numbers.append(inputs.clone())
            if in_one_order:
                prints.append(_prints(inputs))
            n_bytes += inputs.nbytes
            if n_bytes <= most_kept:
                kept.append((inputs.clone(), labels_of_batch))
        if not sum(map(len, labels)):
            raise UserError(f"{name} is empty; give {EXPECTED}")
        all_labels = torch.cat(labels)[:at_most]
        n_classes = int(all_labels.max()) + 1
        input_shape = tuple(inputs.shape[1:])
        super().__init__(
            all_labels, n_classes=n_classes, image_shape=input_shape, device=like.device
        )
        self.name = name
        self.batch_size = len(labels[0])
        if numbers:
            self.inputs = examples(torch.cat(numbers))
        self._source = batches
        if len(kept) == len(labels):
            self._source = kept
        self._prints: Tensor | None = None
        if in_one_order:
            self._prints = torch.cat(prints)[:at_most]
        self._like = like

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the labels and of the first inputs."""
        first = torch.arange(min(len(self), N_OF_FINGERPRINT))
        (inputs, _), *_ = self.batches(N_OF_FINGERPRINT, indices=first)
        return content_of_state({"labels": self.labels.cpu(), "images": inputs.cpu()})

    def _make(self, plan: Pass) -> Iterator[Tensor]:
        if (plan.indices.diff() > 0).all():
            sizes = [plan.indices[batch].numel() for batch in plan.batches]
            yield from _rebatched(self._in_order(plan.indices), sizes)
            return
        distinct, places = plan.indices.unique(return_inverse=True)
        collected = torch.cat(list(self._in_order(distinct)))
        for batch in plan.batches:
            yield collected[places[batch]]

    def _in_order(self, indices: Tensor) -> Iterator[Tensor]:
        """Yield the inputs at rising indices (n,), in parts; a UserError if they changed."""
        n_missing = len(indices)
        first = 0
        for inputs, _ in _batches(self._source, self.name):
            behind = first + len(inputs)
            if self._prints is not None:
                prints = _prints(inputs)[: len(self) - first]
                if not torch.equal(prints, self._prints[first:behind]):
                    raise UserError(
                        f"{self.name} gives its inputs in another order, or other inputs, at a second pass; "
                        "give them without shuffling and augmentation"
                    )
            in_batch = indices[(indices >= first) & (indices < behind)] - first
            if len(in_batch):
                yield as_inputs(inputs[in_batch], self._like)
            n_missing -= len(in_batch)
            if not n_missing:
                return
            first = behind
        raise UserError(
            f"{self.name} gives {first} inputs at a second pass, and gave more at the first; "
            "give the same inputs at each pass"
        )


class IteratedEpochs:
    """Epochs of training: each is a pass over an iterable, in its batches and whatever its order.

    Args:
        batches: pairs of images (B, C, H, W), tokens (B, T) or vectors (B, D), and labels (B,),
            tensors or arrays.
        name: of the inputs, for messages.
        like: a tensor of the type and on the device of the inputs to give.

    Attributes:
        n_classes: labels have to be below, and 0 or more, or -1: unlabelled; None: it is not checked.
    """

    def __init__(self, batches: Iterable, *, name: str, like: Tensor):
        self.name = name
        self.n_classes: int | None = None
        self._source = batches
        self._like = like

    def n_batches(self, batch_size: int) -> int:
        """Return the number of batches of a pass, or 0 if it is not known."""
        return length_hint(self._source)

    def epoch(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels of one pass, in batches and an order of its own."""
        for inputs, labels in _batches(self._source, self.name):
            if self.n_classes is not None:
                check_classes(self.name, labels[labels != UNLABELLED], self.n_classes)
            yield as_inputs(inputs, self._like), labels.to(self._like.device)


def check_classes(name: str, labels: Tensor, n_classes: int) -> None:
    """Raise a UserError unless labels (N,) are classes from 0 to below `n_classes`.

    Args:
        name: of the inputs, for the message.
    """
    if len(labels) and (labels.min() < 0 or labels.max() >= n_classes):
        raise UserError(
            f"{name} has labels from {labels.min()} to {labels.max()}, and the end network has {n_classes} classes; "
            f"give labels from 0 to {n_classes - 1}"
        )


def _batches(batches: Iterable, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images, tokens or vectors, and labels (B,) on the CPU; a UserError if a batch has others."""
    for inputs, labels in batches_in(batches, name):
        are_numbers = inputs.ndim == 2 and inputs.dtype != torch.bool
        are_images = inputs.ndim == 4 and inputs.is_floating_point()
        if not are_numbers and not are_images:
            raise UserError(
                f"{name} gives inputs of shape {tuple(inputs.shape)} and type {inputs.dtype}; give batches "
                "(B, C, H, W) of floating-point numbers, as the networks take them, vectors (B, D), or tokens (B, T), "
                "which are integers"
            )
        yield inputs, _labels(labels, len(inputs), name)


def _first_batches(
    batches: Iterable, name: str, at_most: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches that have the first inputs; a UserError if they do not fit together."""
    shapes = set()
    n_inputs = 0
    for inputs, labels in _batches(batches, name):
        _check_finite(inputs, name, first=n_inputs)
        shapes.add(tuple(inputs.shape[1:]))
        if len(shapes) > 1:
            raise UserError(
                f"{name} gives inputs of several shapes, {shapes}; resize images, or pad tokens"
            )
        yield inputs, labels
        n_inputs += len(inputs)
        if at_most is not None and n_inputs >= at_most:
            return


def _check_finite(inputs: Tensor, name: str, *, first: int) -> None:
    """Raise a UserError if inputs (B, …), counted from `first` on, are not finite."""
    is_finite = inputs.flatten(1).isfinite().all(1)
    if not is_finite.all():
        place = first + int(is_finite.long().argmin())
        raise UserError(
            f"{name}: input {place} (from 0 on) has values that are not finite; remove or correct it"
        )


def _labels(labels: object, n_inputs: int, name: str) -> Tensor:
    """Return labels (B,) on the CPU; None becomes -1 for all."""
    if labels is None:
        return torch.full((n_inputs,), UNLABELLED)
    try:
        labels = torch.as_tensor(labels).cpu().clone()  # a loader may reuse its memory
    except (TypeError, ValueError) as error:  # names of classes
        raise UserError(
            f"{name} gives labels that are no integers ({error}); give the place of each class"
        ) from error
    if labels.shape != (n_inputs,) or labels.is_floating_point():
        raise UserError(
            f"{name} gives labels of shape {tuple(labels.shape)} and type {labels.dtype} for {n_inputs} "
            "inputs; give an integer for each input"
        )
    return labels.long()


def _prints(inputs: Tensor) -> Tensor:
    """Return a sum (B,) weighted by place of each image, by which a second pass is compared."""
    pixels = inputs.flatten(1).double()
    places = torch.arange(1, pixels.shape[1] + 1, dtype=torch.float64, device=pixels.device)
    return (pixels * places).sum(1).cpu()


def _rebatched(parts: Iterable[Tensor], sizes: Sequence[int]) -> Iterator[Tensor]:
    """Yield the inputs of parts in batches of given sizes."""
    parts = iter(parts)
    waiting = next(parts)
    for size in sizes:
        missing = [waiting]
        while sum(map(len, missing)) < size:
            missing.append(next(parts))
        if len(missing) > 1:
            waiting = torch.cat(missing)
        yield waiting[:size]
        waiting = waiting[size:]
