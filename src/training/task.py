"""Tasks of training: their heads, their losses, and the results that are measured."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.runtime import at_least_single


class HeadLosses(NamedTuple):
    """The losses of some heads on one batch, as tensors on the device."""

    losses: Tensor  # (n_heads,): the objective of training
    cross_entropies: Tensor  # (n_heads,): means over the labelled samples
    n_correct: Tensor  # (n_heads,)
    n_samples: Tensor  # (): labelled samples

    def sums(self) -> Tensor:
        """Return float64 (4, n_heads) to be added up over batches: hits, sums of both losses, and
        samples."""
        losses, cross_entropies = self.losses.detach(), self.cross_entropies.detach()
        rows = (self.n_correct, losses * self.n_samples, cross_entropies * self.n_samples)
        return torch.stack(
            [*(row.double() for row in rows), self.n_samples.double().expand_as(losses)]
        )


class Task:
    """Heads to be trained, and their losses on a batch."""

    heads: Sequence[nn.Module]  # in the order of their losses
    names: Sequence[str]  # of the heads, for messages
    modules: Sequence[
        nn.Module
    ]  # all that changes in training: the heads, and what has statistics that move

    def train(self, mode: bool) -> None:
        """Switch what changes between training and evaluation mode."""
        for module in self.modules:
            module.train(mode)

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the losses of all heads on images (B, C, H, W) with labels (B,), some heads at a
        time.

        Penalties count in training only. What some heads keep for their gradients is freed before
        the next run."""
        raise NotImplementedError


class Classification(Task):
    """The task of training one network, from images to labels."""

    def __init__(self, model: nn.Module):
        self.heads = self.modules = [model]
        self.names = ["the network"]

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        yield classification_losses(self.heads[0](images)[None], labels)


def classification_losses(logits: Tensor, labels: Tensor) -> HeadLosses:
    """Cross-entropy and hits of logits (n_heads, B, n_classes) for labels (B,), of which -1 means
    unlabelled."""
    n_samples = (labels >= 0).sum()
    logits = at_least_single(logits)
    losses = F.cross_entropy(
        logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none", ignore_index=-1
    )
    means = losses.view(len(logits), -1).sum(1) / n_samples.clamp(min=1)
    return HeadLosses(means, means, (logits.argmax(-1) == labels).sum(1), n_samples)


class HeadResult(NamedTuple):
    """The accuracy of one head over a data set, in [0, 1], and the means of its losses over the
    labelled samples."""

    accuracy: float
    loss: float  # the objective of training
    cross_entropy: float


class EpochLog(NamedTuple):
    """The results of one head in an epoch, while training and afterwards on the validation
    images."""

    train: HeadResult
    val: HeadResult
