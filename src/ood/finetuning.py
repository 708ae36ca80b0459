"""Training of OOD detectors: classifiers of the activations of one layer.

A detector is trained on labels first. Then it is fine-tuned so that its energy separates in-distribution
(ID) from auxiliary out-of-distribution (OOD) data. In a batch, a label of -1 marks an OOD sample.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pkgutil import resolve_name

import torch
from torch import Tensor

from src.core.activations import at_least_single
from src.core.choices.training import PENALTIES
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.seeds import seeded
from src.datasets.base import InputSet
from src.models import Network, build_model
from src.ood.detectors import energy
from src.training import Classification, HeadLosses, Settings, classification_losses

ENERGY_WEIGHT = 0.1
OUTLIER_EXPOSURE_WEIGHT = 0.5

# (logits (B, n_classes), labels (B,) with -1 for OOD) -> penalty ()
Penalty = Callable[[Tensor, Tensor], Tensor]


def energy_penalty(logits: Tensor, labels: Tensor, *, m_in: float, m_out: float) -> Tensor:
    """Return the squared hinge loss of energies, () (Liu et al. 2020, equations 8 and 9).

    Energies of logits (B, n_classes) above `m_in` of ID and below `m_out` of OOD samples, whose
    labels (B,) are -1, are penalised by 0.1 times the sum of their means.
    """
    energies = energy(logits)
    is_ood = labels < 0
    too_high = (energies - m_in).clamp(min=0).square()
    too_low = (m_out - energies).clamp(min=0).square()
    return ENERGY_WEIGHT * (_mean_where(too_high, ~is_ood) + _mean_where(too_low, is_ood))


def outlier_exposure_penalty(logits: Tensor, labels: Tensor) -> Tensor:
    """Return half the cross-entropy of OOD samples (labels (B,) of -1) to the uniform distribution, ().

    As in the authors' code, log(n_classes) is left out (Hendrycks et al. 2019, section 3).
    """
    to_uniform = -energy(logits) - at_least_single(logits).mean(dim=-1)
    return OUTLIER_EXPOSURE_WEIGHT * _mean_where(to_uniform, labels < 0)


def make_penalty(name: str, *, m_in: float, m_out: float) -> Penalty:
    """Return the penalty of a name in `PENALTIES`, with the margins of `energy_penalty`."""
    choice = PENALTIES[name]
    penalty = resolve_name(choice.function)
    if choice.has_margins:
        return partial(penalty, m_in=m_in, m_out=m_out)
    return penalty


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values (B,) where the mask (B,) is true, ()."""
    return (values * mask).sum() / mask.sum()


class RepresentationClassification(Classification):
    """The task of classifying the activations of a frozen network at one layer.

    The network runs until this layer only.

    Attributes:
        penalty: added to the cross-entropy while training; None in pre-training.
    """

    def __init__(self, source: Network, layer: str, classifier: Network):
        super().__init__(classifier, "the detector")
        self.source = source
        self.layer = layer
        self.penalty: Penalty | None = None

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the cross-entropy of a batch; while training, the penalty is added.

        Args:
            images: (B, C, H, W).
            labels: (B,), -1 for OOD samples.
        """
        with torch.no_grad():
            activations = self.source(images, until=self.layer)
            # In channels_last, the gradients of BatchNorm are imprecise on a CPU
            activations = activations.contiguous()
        logits = self.head(activations)
        head_losses = classification_losses(logits[None], labels)
        if training and self.penalty is not None:
            head_losses = head_losses._replace(
                losses=head_losses.losses + self.penalty(logits, labels)
            )
        yield head_losses


def untrained_classifier(
    name: str, source: Network, layer: str, images: InputSpec, *, seed: int
) -> tuple[Network, tuple[int, ...]]:
    """Build a classifier, with randomly initialised weights, for the activations of a network at a layer.

    Args:
        name: the type of the classifier.
        source: the network whose activations are classified.
        images: the images that `source` takes.
    Returns:
        The classifier, and the shape of the activations, (C, H, W), (T, D) or (D,).
    """
    shape = source.activation_shapes([layer], images.shape)[layer]
    with seeded(seed):
        classifier = build_model(
            name, n_classes=images.n_classes, representation_shape=shape, image_shape=images.shape
        )
    return classifier.to(source.example.device), shape


class HalfAndHalf:
    """A training set with batches of half ID samples, with labels, and half OOD samples.

    The labels of OOD samples are -1. An epoch takes equally many samples of both sets: as many as
    the smaller set has. Epochs are disjoint until all samples of the larger set were taken (see
    `datasets.base.subset`); the last of these epochs may be shorter.

    Args:
        like: the set that the classified network was trained on.
        batch_size: of both halves together.
    Raises:
        UserError: images or classes differ from those of `like`, or a batch has no two halves.
    """

    def __init__(self, id_set: InputSet, ood_set: InputSet, *, like: InputSet, batch_size: int):
        if batch_size < 2:
            raise UserError(
                f"-b {batch_size}: half of a fine-tuning batch is ID, half OOD; give at least 2"
            )
        id_set.check_like(like, option="-ftidd")
        ood_set.check_like(like, option="-ftoodd")
        if id_set.n_classes != like.n_classes:
            raise UserError(
                f"-ftidd has {id_set.n_classes} classes, -d {like.n_classes}; "
                "choose sets with the same classes"
            )
        self.id_set = id_set
        self.ood_set = ood_set
        epoch_size = min(len(id_set), len(ood_set))
        id_set.epoch_size = epoch_size
        ood_set.epoch_size = epoch_size

    def n_batches(self, batch_size: int) -> int:
        """Return the largest number of batches of an epoch."""
        return self.id_set.n_batches(batch_size // 2)

    def epoch(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, shuffled and augmented: images (B, C, H, W), labels (B,)."""
        id_batches = self.id_set.epoch(batch_size // 2, seed=seed, epoch=epoch)
        ood_batches = self.ood_set.epoch(batch_size // 2, seed=seed, epoch=epoch)
        # The shorter of the two ends the epoch
        for (id_images, labels), (ood_images, unlabelled) in zip(
            id_batches, ood_batches, strict=False
        ):
            images = torch.cat([id_images, ood_images])
            yield images, torch.cat([labels, torch.full_like(unlabelled, -1)])


def finetuning_settings(settings: Settings, *, n_epochs: int) -> Settings:
    """Return the settings of fine-tuning: as in pre-training, but the learning rate drops to a tenth
    after n_epochs // 2 batches, as in the paper's code."""
    return settings._replace(
        n_epochs=n_epochs, reduce_lr_epochs=[n_epochs // 2], reduce_lr_unit="updates"
    )
