"""Data sets made of an iterable of batches, such as a `DataLoader`, that can be iterated several times.

Labels are kept, and the inputs as well if they are few; both are copies, as a loader may reuse its
memory. Otherwise each pass iterates over the batches again, up to the last input that it needs.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from operator import length_hint

import torch
from torch import Tensor

from src.core.errors import UserError
from src.core.tensors import content_of_state
from src.datasets.base import (
    EXPECTED,
    N_LOOKED_AT,
    UNLABELLED,
    InputSet,
    Pass,
    batches_in,
    examples,
)

N_OF_FINGERPRINT = 16  # inputs, the first ones


class IteratedInputs(InputSet):
    """A data set made of an iterable of batches, which is iterated once to read the labels.

    `batches` gives the inputs that were read then; those that are asked for out of their order are
    collected in memory first. `epoch` gives what the iterable gives in a pass, in its batches and
    whatever its order.

    Attributes:
        batch_size: of the first batch.

    Args:
        batches: pairs of images (B, C, H, W), tokens (B, T) or vectors (B, D), and labels (B,),
            tensors or arrays. Labels may be None: unlabelled.
        name: of the inputs, for messages.
        like: a tensor of the type and on the device of the inputs to give.
        at_most: read the first inputs only; None: read all.
        in_one_order: later passes have to give the batches of the first.
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
        kept: list[tuple[Tensor, Tensor]] = []
        self._contents: list[str] = []  # of the batches, if later passes have to give the same
        input_shape: tuple[int, ...] = ()
        n_inputs = 0
        n_bytes = 0
        for inputs, labels_of_batch in _batches(batches, name):
            input_shape = input_shape or tuple(inputs.shape[1:])
            _check_inputs(inputs, name, shape=input_shape, first=n_inputs)
            labels.append(labels_of_batch)
            if in_one_order:
                self._contents.append(content_of_state({"": inputs}))
            n_bytes += inputs.nbytes
            if n_bytes <= most_kept:
                kept.append((inputs.clone(), labels_of_batch))
            n_inputs += len(inputs)
            if at_most is not None and n_inputs >= at_most:
                break
        if not n_inputs:
            raise UserError(f"{name} is empty; give {EXPECTED}")
        all_labels = torch.cat(labels)[:at_most]
        n_classes = int(all_labels.max()) + 1
        super().__init__(
            all_labels, n_classes=n_classes, image_shape=input_shape, device=like.device
        )
        self.name = name
        self.like = like
        self.batch_size = len(labels[0])
        self._iterable = batches
        self._source = batches
        if len(kept) == len(labels):
            self._source = kept
        if len(input_shape) == 1:
            self.inputs = examples(self._first(N_LOOKED_AT))

    def _first(self, n: int) -> Tensor:
        """Return the first n inputs, or all if there are fewer."""
        ((inputs, _),) = self.batches(n, indices=torch.arange(min(n, len(self))))
        return inputs

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the labels and of the first inputs."""
        first = self._first(N_OF_FINGERPRINT)
        return content_of_state({"labels": self.labels.cpu(), "images": first.cpu()})

    def n_batches(self, batch_size: int) -> int:
        """Return the number of batches of an epoch, or 0 if it is not known."""
        return length_hint(self._iterable)

    def epoch(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels of one pass over the iterable, in batches and an order of its own."""
        for inputs, labels in _batches(self._iterable, self.name):
            check_classes(self.name, labels[labels != UNLABELLED], self.n_classes)
            yield self._as_like(inputs, labels)

    def _make(self, plan: Pass) -> Iterator[Tensor]:
        distinct, places = plan.indices.unique(return_inverse=True)
        if torch.equal(distinct, plan.indices):
            inputs = itertools.chain.from_iterable(self._in_order(distinct))
            for batch in plan.batches:
                yield torch.stack(list(itertools.islice(inputs, len(distinct[batch]))))
        else:
            collected = torch.cat(list(self._in_order(distinct)))
            for batch in plan.batches:
                yield collected[places[batch]]

    def _in_order(self, indices: Tensor) -> Iterator[Tensor]:
        """Yield the inputs at rising indices (n,), in parts; a UserError if they changed."""
        last = indices.max()
        first = 0
        for i, (inputs, _) in enumerate(_batches(self._source, self.name)):
            if self._contents and content_of_state({"": inputs}) != self._contents[i]:
                raise UserError(
                    f"{self.name} gives its inputs in another order, or other inputs, at a second pass; "
                    "give them without shuffling and augmentation"
                )
            behind = first + len(inputs)
            yield inputs[indices[(indices >= first) & (indices < behind)] - first]
            if last < behind:
                return
            first = behind
        raise UserError(
            f"{self.name} gives {first} inputs at a second pass, and gave more at the first; "
            "give the same inputs at each pass"
        )


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


def _check_inputs(inputs: Tensor, name: str, *, shape: tuple[int, ...], first: int) -> None:
    """Raise a UserError if inputs (B, …), counted from `first` on, have another shape or are not finite."""
    if inputs.shape[1:] != shape:
        raise UserError(
            f"{name} gives inputs of several shapes, {shape} and {tuple(inputs.shape[1:])}; resize images, or pad "
            "tokens"
        )
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
