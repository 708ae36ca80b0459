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

from src.datasets.in_memory import ImageSet
from src.report import progress, result


class Part(NamedTuple):
    """What some of the heads make of one batch."""

    heads: Sequence[int]
    losses: Tensor  # (len(heads),), means over the batch
    n_correct: Tensor  # (len(heads),)


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


class EpochLog(NamedTuple):
    """One row of `training_logs.csv`: accuracies in [0, 1], losses as means over samples."""

    train_acc: float
    train_loss: float
    val_acc: float
    val_loss: float


class Score(NamedTuple):
    """Accuracy in [0, 1] and loss of one head over a dataset."""

    accuracy: float
    loss: float


class Classification:
    """The task of training one network, from images to labels."""

    def __init__(self, model: nn.Module):
        self.heads = [model]

    def train(self, mode: bool) -> None:
        self.heads[0].train(mode)

    def parts(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[Part]:
        yield part_of([0], self.heads[0](images)[None], labels)


def part_of(heads: Sequence[int], logits: Tensor, labels: Tensor) -> Part:
    """Cross-entropy and hits of logits (len(heads), B, n_classes) for labels (B,)."""
    losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(heads)), reduction="none")
    n_correct = (logits.argmax(-1) == labels).sum(1)
    return Part(heads, losses.view(len(heads), -1).mean(1), n_correct)


def train(
    task: Task, train_set: ImageSet, val_set: ImageSet, settings: Settings
) -> Iterator[tuple[int, list[EpochLog]]]:
    """Train, and yield each finished epoch (from 1 on) with one log for each head.

    Shuffling and augmentation come from (seed, epoch) alone.
    """
    parameters = [list(head.parameters()) for head in task.heads]
    optimizer = _optimizer([p for group in parameters for p in group], settings)
    scheduler = _scheduler(optimizer, settings)
    for epoch in range(1, settings.n_epochs + 1):
        batches = progress(
            train_set.epoch(settings.batch_size, seed=settings.seed, epoch=epoch),
            f"epoch {epoch}/{settings.n_epochs}",
            train_set.n_batches(settings.batch_size),
        )
        task.train(True)
        sums = _Sums(len(task.heads), train_set.device)
        for images, labels in batches:
            optimizer.zero_grad(set_to_none=True)
            for part in task.parts(images, labels, training=True):
                part.losses.sum().backward()
                sums.add(part, len(labels))
            if settings.grad_clip is not None:
                for group in parameters:
                    nn.utils.clip_grad_norm_(group, settings.grad_clip)
            optimizer.step()
        scheduler.step()
        trained = sums.scores()
        validated = evaluate(task, val_set.batches(settings.batch_size), device=val_set.device)
        yield epoch, [EpochLog(t.accuracy, t.loss, v.accuracy, v.loss) for t, v in zip(trained, validated, strict=True)]


def report_epoch(epoch: int, log: EpochLog) -> None:
    """Print an epoch the way the public code does."""
    result(f"Epoch #{epoch} train loss: {log.train_loss}, accuracy: {log.train_acc}")
    result(f"Epoch #{epoch} val loss: {log.val_loss}, accuracy: {log.val_acc}")


@torch.no_grad()
def evaluate(task: Task, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device) -> list[Score]:
    """Accuracy and loss of each head over the batches, in evaluation mode."""
    task.train(False)
    sums = _Sums(len(task.heads), device)
    for images, labels in batches:
        for part in task.parts(images, labels, training=False):
            sums.add(part, len(labels))
    return sums.scores()


class _Sums:
    """Running sums over batches, kept on the device so that nothing waits for it."""

    def __init__(self, n_heads: int, device: torch.device):
        self.n_samples = torch.zeros(n_heads, dtype=torch.long)
        self.loss = torch.zeros(n_heads, dtype=torch.float64, device=device)
        self.n_correct = torch.zeros(n_heads, dtype=torch.long, device=device)

    def add(self, part: Part, n_samples: int) -> None:
        heads = list(part.heads)
        self.n_samples[heads] += n_samples
        self.loss[heads] += part.losses.detach().double() * n_samples
        self.n_correct[heads] += part.n_correct

    def scores(self) -> list[Score]:
        sums = zip(self.n_correct.tolist(), self.loss.tolist(), self.n_samples.tolist(), strict=True)
        return [Score(n_correct / n, loss / n) for n_correct, loss, n in sums]


def _optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimizer]
    return optimizer(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _scheduler(optimizer: torch.optim.Optimizer, settings: Settings) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.n_epochs))
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, sorted(settings.reduce_lr_epochs), gamma=0.1)
