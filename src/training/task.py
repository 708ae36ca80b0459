"""Tasks of training: their heads, their losses, and the scores that are measured."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from src.runtime import at_least_single


class HeadLosses(NamedTuple):
    """The losses of a group of heads on one batch; all fields but the first are tensors on the device."""

    heads: Sequence[int]  # their numbers
    losses: Tensor  # (len(heads),): the objective of training
    cross_entropies: Tensor  # (len(heads),): means over the labelled samples
    n_correct: Tensor  # (len(heads),)
    n_samples: Tensor  # (): labelled samples


class Task(Protocol):
    """Heads to be trained, and their losses on a batch."""

    heads: Sequence[nn.Module]
    names: Sequence[str]  # of the heads, for messages
    modules: Sequence[nn.Module]  # all that changes in training: the heads, and what has statistics that move

    def train(self, mode: bool) -> None:
        """Switch what is trained between training and evaluation mode."""

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the losses of all heads on images (B, C, H, W) with labels (B,), group by group.

        Penalties count in training only. What a group keeps for its gradients is freed before the next is computed.
        """


class Classification:
    """The task of training one network, from images to labels."""

    def __init__(self, model: nn.Module):
        self.heads = self.modules = [model]
        self.names = ["the network"]

    def train(self, mode: bool) -> None:
        self.heads[0].train(mode)

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        yield classification_losses([0], self.heads[0](images)[None], labels)


def classification_losses(heads: Sequence[int], logits: Tensor, labels: Tensor) -> HeadLosses:
    """Cross-entropy and hits of logits (len(heads), B, n_classes) for labels (B,), of which -1 means unlabelled."""
    n_samples = (labels >= 0).sum()
    logits = at_least_single(logits)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(heads)), reduction="none", ignore_index=-1)
    means = losses.view(len(heads), -1).sum(1) / n_samples.clamp(min=1)
    return HeadLosses(heads, means, means, (logits.argmax(-1) == labels).sum(1), n_samples)


class Score(NamedTuple):
    """The accuracy of one head over a data set, in [0, 1], and the means of its losses over the labelled samples."""

    accuracy: float
    loss: float  # the objective of training
    cross_entropy: float


class EpochLog(NamedTuple):
    """The scores of one head in an epoch, while training and afterwards on the validation images."""

    train: Score
    val: Score
