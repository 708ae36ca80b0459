"""One epoch driver for everything that is trained: one network, or many heads on shared activations.

A task names its heads (the modules whose parameters are trained) and yields their losses batch by batch, in parts,
so that what one part keeps for its gradients is freed before the next is computed. All heads share one optimiser:
Adam and SGD work elementwise, so that equals one optimiser for each; gradients are clipped for each head.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.datasets.base import BaseImageSet
from src.distributed import add_up
from src.report import progress, result
from src.runtime import seed_of, seeded


class Part(NamedTuple):
    """What some of the heads make of one batch; all but the first are tensors on the device."""

    heads: Sequence[int]
    losses: Tensor  # (len(heads),): what is minimised
    cross_entropies: Tensor  # (len(heads),): means over the labelled samples
    n_correct: Tensor  # (len(heads),)
    n_samples: Tensor  # (): labelled samples


class Task(Protocol):
    """What can be trained."""

    heads: Sequence[nn.Module]

    def train(self, mode: bool) -> None:
        """Switch what is trained between training and evaluation mode."""

    def parts(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[Part]:
        """The losses of all heads on images (B, C, H, W) with labels (B,); with penalties only in training."""


class Settings(NamedTuple):
    """How to train; the names are those of the options."""

    n_epochs: int
    batch_size: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    scheduler: str = "none"
    reduce_lr_epochs: Sequence[int] = ()
    grad_clip: float | None = None
    seed: int = 0
    momentum: float = 0.0  # of sgd
    reduce_lr_each: str = "epochs"  # what `reduce_lr_epochs` counts: `epochs` or `updates`


class Score(NamedTuple):
    """What one head reaches over a dataset: accuracy in [0, 1], means over labelled samples of the losses."""

    accuracy: float
    loss: float  # what is minimised
    cross_entropy: float


class EpochLog(NamedTuple):
    """What one head reaches in an epoch, while training and afterwards on the validation images."""

    train: Score
    val: Score


class Classification:
    """The task of training one network, from images to labels."""

    def __init__(self, model: nn.Module):
        self.heads = [model]

    def train(self, mode: bool) -> None:
        self.heads[0].train(mode)

    def parts(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[Part]:
        yield part_of([0], self.heads[0](images)[None], labels)


def part_of(heads: Sequence[int], logits: Tensor, labels: Tensor) -> Part:
    """Cross-entropy and hits of logits (len(heads), B, n_classes) for labels (B,), of which -1 means unlabelled."""
    n_samples = (labels >= 0).sum()
    losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(heads)), reduction="none", ignore_index=-1)
    means = losses.view(len(heads), -1).sum(1) / n_samples.clamp(min=1)
    return Part(heads, means, means, (logits.argmax(-1) == labels).sum(1), n_samples)


def train(
    task: Task, train_set: BaseImageSet, val_set: BaseImageSet, settings: Settings
) -> Iterator[tuple[int, list[EpochLog]]]:
    """Train, and yield each finished epoch (from 1 on) with one log for each head.

    Shuffling, augmentation and what the networks draw come from (seed, epoch) alone.
    """
    optimizer = _optimizer([parameter for head in task.heads for parameter in head.parameters()], settings)
    scheduler = _scheduler(optimizer, settings)
    for epoch in range(1, settings.n_epochs + 1):
        with seeded(seed_of(settings.seed, epoch, 1)):  # for what draws in the forward pass, such as dropout
            trained = _train_epoch(task, train_set, epoch, settings, optimizer, scheduler)
        validated = evaluate(task, val_set.batches(settings.batch_size), device=val_set.device)
        yield epoch, [EpochLog(*scores) for scores in zip(trained, validated, strict=True)]


def _train_epoch(
    task: Task,
    train_set: BaseImageSet,
    epoch: int,
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> list[Score]:
    task.train(True)
    sums = _Sums(len(task.heads), train_set.device)
    batches = train_set.epoch(settings.batch_size, seed=settings.seed, epoch=epoch)
    title = f"epoch {epoch}/{settings.n_epochs}"
    for images, labels in progress(batches, title, train_set.n_batches(settings.batch_size)):
        optimizer.zero_grad(set_to_none=True)
        for part in task.parts(images, labels, training=True):
            part.losses.sum().backward()
            sums.add(part)
        if settings.grad_clip is not None:
            for head in task.heads:
                nn.utils.clip_grad_norm_(head.parameters(), settings.grad_clip)
        optimizer.step()
        if settings.reduce_lr_each == "updates":
            scheduler.step()
    if settings.reduce_lr_each == "epochs":
        scheduler.step()
    return sums.scores()


def report_epoch(epoch: int, log: EpochLog) -> None:
    """Print an epoch the way the public code does."""
    result(f"Epoch #{epoch} train loss: {log.train.loss}, accuracy: {log.train.accuracy}")
    result(f"Epoch #{epoch} val loss: {log.val.loss}, accuracy: {log.val.accuracy}")


@torch.no_grad()
def evaluate(task: Task, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device) -> list[Score]:
    """Accuracy and loss of each head over the batches, in evaluation mode."""
    task.train(False)
    sums = _Sums(len(task.heads), device)
    for images, labels in batches:
        for part in task.parts(images, labels, training=False):
            sums.add(part)
    return sums.scores()


def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device) -> float:
    """The share of images that a network classifies correctly, in [0, 1]."""
    (score,) = evaluate(Classification(network), batches, device=device)
    return score.accuracy


class _Sums:
    """Running sums over batches for each head, kept on the device so that nothing waits for it.

    Scores count what all processes saw that train together.
    """

    def __init__(self, n_heads: int, device: torch.device):
        self.sums = torch.zeros(4, n_heads, dtype=torch.float64, device=device)

    def add(self, part: Part) -> None:
        values = (part.n_correct, part.losses * part.n_samples, part.cross_entropies * part.n_samples)
        rows = [value.detach().double() for value in values]
        self.sums[:, list(part.heads)] += torch.stack([*rows, part.n_samples.double().expand_as(rows[0])])

    def scores(self) -> list[Score]:
        *totals, n_samples = add_up(self.sums.clone()).tolist()
        return [Score(*(total / n for total in row)) for *row, n in zip(*totals, n_samples, strict=True)]


def _optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimizer]
    momentum = {"momentum": settings.momentum} if settings.optimizer == "sgd" else {}
    return optimizer(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, **momentum)


def _scheduler(optimizer: torch.optim.Optimizer, settings: Settings) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.n_epochs))
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, sorted(settings.reduce_lr_epochs), gamma=0.1)
