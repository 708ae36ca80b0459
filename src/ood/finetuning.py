"""Training of representation classifiers: on labels first, then so that their energy tells ID from
OOD data.

In a batch, a label of -1 marks an auxiliary out-of-distribution (OOD) sample.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from src.checkpoints import load_weights, save_state
from src.console import result
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.images import ImageSpec
from src.models import Network, build_model
from src.ood.detectors import energy
from src.results.run import Run
from src.results.tables import write_table
from src.runtime import at_least_single, seeded
from src.training import Classification, HeadLosses, Settings, classification_losses, train

ENERGY_WEIGHT = 0.1
OUTLIER_EXPOSURE_WEIGHT = 0.5
Penalty = Callable[
    [Tensor, Tensor], Tensor
]  # logits (B, n_classes), labels (B,) with -1 for OOD -> ()


class FinetuningRow(NamedTuple):
    """An epoch of fine-tuning a detector: a row of `ft_logs.csv`."""

    ft_loss: float
    ce_loss: float
    train_acc: float
    val_ce_loss: float
    val_acc: float


def energy_penalty(logits: Tensor, labels: Tensor, *, m_in: float, m_out: float) -> Tensor:
    """Return the squared hinge that wants ID energies below `m_in` and OOD energies above `m_out`.

    Liu et al. 2020, equations 8 and 9: the sum of the two means, times the weight 0.1 of the paper.
    """
    energies, is_ood = energy(logits), labels < 0
    too_high = (energies - m_in).clamp(min=0).square()
    too_low = (m_out - energies).clamp(min=0).square()
    return ENERGY_WEIGHT * (_mean_where(too_high, ~is_ood) + _mean_where(too_low, is_ood))


def outlier_exposure_penalty(logits: Tensor, labels: Tensor) -> Tensor:
    """Return half the cross-entropy of OOD samples to the uniform distribution (Hendrycks et al.
    2019, section 3).

    Up to a constant, as in their code: the logarithm of the number of classes is left out.
    """
    to_uniform = -energy(logits) - at_least_single(logits).mean(dim=-1)
    return OUTLIER_EXPOSURE_WEIGHT * _mean_where(to_uniform, labels < 0)


def make_penalty(name: str, *, m_in: float, m_out: float) -> Penalty:
    """Return the penalty of a name in `PENALTIES`; `m_in` and `m_out` are those of
    `energy_penalty`."""
    if name == "energy":
        return partial(energy_penalty, m_in=m_in, m_out=m_out)
    return outlier_exposure_penalty


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum()


class RepresentationClassification(Classification):
    """The task of classifying from the activation of a frozen network at one layer; no more of that
    network runs.

    Attributes:
        penalty: added to the cross-entropy in training; None in pre-training, set for fine-tuning.
    """

    def __init__(self, source: Network, layer: str, classifier: Network):
        super().__init__(classifier)
        self.names = ["the detector"]
        self.source = source
        self.layer = layer
        self.penalty: Penalty | None = None

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the cross-entropy on images (B, C, H, W) with labels (B,), in training plus the
        penalty."""
        with torch.no_grad():
            activations = self.source(images, until=self.layer)
            activations = (
                activations.contiguous()
            )  # in channels_last, BatchNorm's gradients on a CPU are imprecise
        logits = self.heads[0](activations)
        group = classification_losses(logits[None], labels)
        if training and self.penalty is not None:
            group = group._replace(losses=group.losses + self.penalty(logits, labels))
        yield group


def fresh_classifier(
    name: str,
    source: Network,
    layer: str,
    images: ImageSpec,
    *,
    seed: int,
    resume_from: str | None = None,
) -> tuple[Network, tuple[int, ...]]:
    """Build the classifier `name` for the activations of `source` at a layer; returns it and their
    shape.

    Args:
        images: that `source` takes.
        resume_from: a checkpoint whose weights it takes over.
    """
    image = next(source.parameters()).new_zeros(1, *images.shape)
    shape = tuple(source(image, until=layer).shape[1:])
    with seeded(seed):
        classifier = build_model(
            name, n_classes=images.n_classes, representation_shape=shape, image_shape=images.shape
        )
    if resume_from is not None:
        load_weights(
            classifier,
            resume_from,
            expected=f"{name} for {layer} of shape {'×'.join(map(str, shape))}",
        )
    return classifier.to(image.device), shape


class HalfAndHalf:
    """Batches whose one half is ID, with labels, and whose other half is OOD, with labels of -1.

    An epoch takes as many samples of each set as the smaller one has; they are disjoint from epoch
    to epoch until all had their turn (see datasets.base.subset), where a last, shorter rest ends
    its epoch early.

    Args:
        like: the set that the classified network was trained on; others have its images' shape, or a UserError says so.
        batch_size: of both halves together.
    """

    def __init__(
        self, id_set: BaseImageSet, ood_set: BaseImageSet, *, like: BaseImageSet, batch_size: int
    ):
        if batch_size < 2:
            raise UserError(
                f"-b {batch_size}: half of a fine-tuning batch is ID, half OOD; give at least 2"
            )
        for option, images in (("-ftidd", id_set), ("-ftoodd", ood_set)):
            images.check_like(like, option=option)
        if id_set.n_classes != like.n_classes:
            raise UserError(
                f"-ftidd has {id_set.n_classes} classes, -d {like.n_classes}; choose sets that agree"
            )
        self.id_set, self.ood_set, self.device = id_set, ood_set, id_set.device
        id_set.epoch_size = ood_set.epoch_size = min(len(id_set), len(ood_set))

    def n_batches(self, batch_size: int) -> int:
        """Return the largest number of batches of an epoch."""
        return self.id_set.n_batches(batch_size // 2)

    def epoch(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, C, H, W) and labels (B,) of an epoch, shuffled and augmented."""
        halves = [
            images.epoch(batch_size // 2, seed=seed, epoch=epoch)
            for images in (self.id_set, self.ood_set)
        ]
        for (id_images, labels), (ood_images, ood_labels) in zip(*halves, strict=False):
            yield (
                torch.cat([id_images, ood_images]),
                torch.cat([labels, torch.full_like(ood_labels, -1)]),
            )


def finetune(
    run: Run,
    task: RepresentationClassification,
    mixed: HalfAndHalf,
    val_set: BaseImageSet,
    settings: Settings,
) -> dict[str, float]:
    """Fine-tune; report and log every epoch in `ft_logs.csv`, and save each as
    `ft_model_<epoch>.pt`.

    Returns the last row of the log; empty without epochs.
    """
    rows: list[FinetuningRow] = []
    for history, state in train(task, mixed, val_set, settings, state=run.state.get("finetuning")):
        rows = [
            FinetuningRow(
                trained.loss,
                trained.cross_entropy,
                trained.accuracy,
                val.cross_entropy,
                val.accuracy,
            )
            for ((trained, val),) in history
        ]
        epoch, row = len(rows), rows[-1]
        write_table(run.folder / "ft_logs.csv", FinetuningRow, rows)
        save_state(run.folder / f"ft_model_{epoch}.pt", task.heads[0].state_dict())
        run.save(loop=None, finetuning=state)
        result(
            f"FT Epoch #{epoch} FT loss: {row.ft_loss}, CE Loss: {row.ce_loss}, accuracy: {row.train_acc}"
        )
        result(f"FT Epoch #{epoch} val loss: {row.val_ce_loss}, accuracy: {row.val_acc}")
    return rows[-1]._asdict() if rows else {}


def finetuning_settings(settings: Settings, *, n_epochs: int, decay: str) -> Settings:
    """Derive the settings of fine-tuning from those of pre-training: the learning rate drops to a
    tenth half way.

    Args:
        decay: `updates` or `epochs`, of which it drops after n_epochs // 2. The paper's code counts updates (batches);
            with one epoch, it drops before the first of them.
    """
    half = n_epochs // 2 if decay == "updates" else max(1, n_epochs // 2)
    return settings._replace(
        n_epochs=n_epochs, scheduler="none", reduce_lr_epochs=[half], reduce_lr_unit=decay
    )
