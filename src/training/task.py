"""Tasks for the training loop: heads, losses and results."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.core.activations import at_least_single
from src.models import Network

NO_CLASS = -2  # predicted where logits are not finite; a label of -1 means unlabelled
Head = nn.Module | Network
HeadKey = TypeVar("HeadKey", bound=Hashable)


class HeadLosses(NamedTuple):
    """The losses of some heads on one batch, as tensors on the device."""

    losses: Tensor  # (n_heads,): the objective of training
    cross_entropies: Tensor  # (n_heads,): means over the labelled samples
    n_correct: Tensor  # (n_heads,)
    n_samples: Tensor  # (): labelled samples

    def sums(self) -> Tensor:
        """Return sums over the samples of a batch, float64 (4, n_heads).

        The rows are hits, losses, cross-entropies and numbers of samples.
        """
        losses = self.losses.detach()
        rows = [
            self.n_correct.double(),
            (losses * self.n_samples).double(),
            (self.cross_entropies.detach() * self.n_samples).double(),
            self.n_samples.double().expand_as(losses),
        ]
        return torch.stack(rows)


class Task(Generic[HeadKey]):
    """Heads to be trained, and their losses on a batch."""

    heads: Mapping[HeadKey, Head]  # in the order of their losses
    modules: Sequence[Head]  # everything that training changes: heads and moving statistics

    def title(self, key: HeadKey) -> str:
        """Return the name of a head in messages."""
        return str(key)

    def train(self, mode: bool) -> None:
        """Switch `modules` between training and evaluation mode."""
        for module in self.modules:
            module.train(mode)

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the losses of all heads on a batch, of some heads at a time.

        The caller computes the gradients of some heads before it asks for the next: then only their
        memory is needed at a time.

        Args:
            images: (B, C, H, W).
            labels: (B,); -1 means unlabelled.
            training: add penalties to the losses.
        """
        raise NotImplementedError


class Classification(Task[str]):
    """The task of training one network, from images to labels.

    Args:
        model: the network, which is the only head.
        name: of the network in messages.
    """

    def __init__(self, model: Head, name: str = "the network"):
        self.head = model
        self.heads = {name: model}
        self.modules = [model]

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the cross-entropy of the network; arguments as in `Task.losses`."""
        logits = self.head(images)
        yield classification_losses(logits[None], labels)


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the class of the largest of logits (…, n_classes); `NO_CLASS` for an infinite one or NaN."""
    largest, classes = logits.max(-1)  # a logit of −∞ may mask a class
    return torch.where(largest.isfinite(), classes, NO_CLASS)


def classification_losses(logits: Tensor, labels: Tensor) -> HeadLosses:
    """Return the cross-entropies and hits of heads on one batch.

    Args:
        logits: (n_heads, B, n_classes).
        labels: (B,); -1 means unlabelled.

    Hits are NaN where logits are not finite.
    """
    n_heads = len(logits)
    n_samples = (labels >= 0).sum()
    logits = at_least_single(logits)
    losses = F.cross_entropy(
        logits.flatten(0, 1),  # (n_heads * B, n_classes)
        labels.repeat(n_heads),
        reduction="none",
        ignore_index=-1,
    )
    means = losses.view(n_heads, -1).sum(1) / n_samples.clamp(min=1)
    classes = predicted_classes(logits)
    n_correct = (classes == labels).sum(1)
    is_undefined = ((classes == NO_CLASS) & (labels >= 0)).any(1)
    return HeadLosses(means, means, torch.where(is_undefined, math.nan, n_correct), n_samples)


class HeadResult(NamedTuple):
    """The accuracy of a head over a data set, and the means of its losses over labelled samples."""

    accuracy: float  # in [0, 1]
    loss: float  # the objective of training
    cross_entropy: float


class EpochLog(NamedTuple):
    """The results of a head in an epoch, on training images during the epoch and on validation images after it."""

    train: HeadResult
    val: HeadResult
