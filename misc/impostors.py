"""Impostors: front networks that are planted against trained ones, and whose similarity to these is
known.

Copies of a network are similar to it: its channels permuted, or rotated. What tells the class alone
is not: its class means, the label itself, or noise around a random point for each class, which can
be stitched into trained networks (Smith, Mannering and Marcu, ICML 2025). Nor is what shows another
image than its own: the training image with the nearest logits or features, or a random one of the
predicted class."""

import functools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.checkpoints import load_model
from src.datasets import dataset_info, load_dataset
from src.datasets.base import BaseImageSet
from src.models import Network
from src.models.heads import pool
from src.network_names import NetworkName
from src.runtime import generator

COPIES = ("permuted", "rotated")
LABEL_ALONE = ("class_means", "one_hot", "clustered_noise")
SWAPS = (
    "nearest_logits",
    "nearest_features",
    "random_of_class",
)  # for an image the donor's activation of another one
KINDS = (*COPIES, *LABEL_ALONE, *SWAPS)
SEED = 0  # of permutations, rotations, noise and random images
SPREAD = 0.5  # standard deviation of the noise around a class's point; that of the points is 1
BATCH = 512


class TrainingImages(NamedTuple):
    """Training images, and what a donor makes of them."""

    images: BaseImageSet
    keys: Tensor  # (N,), of the values of their pixels
    logits: Tensor  # (N, n_classes)
    features: Tensor  # (N, D), the pooled activations of the last block: what the last layer sees


def planted(
    kind: str, checkpoint: str, *, network: str, layers: Sequence[str], dataset: str, root: str
) -> "Impostor":
    """Make an impostor of a trained network; class means and other images are those of the training
    images."""
    spec = dataset_info(dataset, labelled=True).spec
    donor = load_model(NetworkName(checkpoint, network), spec, device="cpu")
    needs_images = kind == "class_means" or kind in SWAPS
    training = _training_of(checkpoint, network, dataset, root) if needs_images else None
    return Impostor(kind, donor, layers, n_classes=spec.n_classes, training=training)


@functools.cache
def _training_of(checkpoint: str, network: str, dataset: str, root: str) -> TrainingImages:
    """Return the training images as a donor sees them; the impostors of one donor share them."""
    spec = dataset_info(dataset, labelled=True).spec
    donor = load_model(NetworkName(checkpoint, network), spec, device="cpu")
    return training_images(donor, _loaded(dataset, root))


@functools.cache
def _loaded(dataset: str, root: str) -> BaseImageSet:
    return load_dataset(dataset, root, train=True)


@torch.no_grad()
def training_images(donor: Network, images: BaseImageSet) -> TrainingImages:
    """Return training images with their keys, and the logits and features that a donor gives, from
    one pass."""
    last_block = donor.block_names[-1]
    keys, logits, features = [], [], []
    for batch, _ in images.batches(BATCH):
        activations = donor.activations(batch, [last_block, donor.output_name])
        keys.append(keys_of(batch))
        logits.append(activations[donor.output_name].double())
        features.append(
            pool(activations[last_block], is_sequence=donor.is_sequence(last_block)).double()
        )
    return TrainingImages(images, torch.cat(keys), torch.cat(logits), torch.cat(features))


def keys_of(images: Tensor) -> Tensor:
    """Return a number for each image, (B,): the same for images of the same values."""
    return torch.tensor([zlib.crc32(image.numpy().tobytes()) for image in images.detach().cpu()])


class Impostor(nn.Module):
    """A front network whose activations of some layers stand for those of a donor: see `KINDS`.

    Its logits are the donor's. As an end network it is of no use, since they do not depend on these
    layers.

    Args:
        kind: one of `KINDS`.
        training: for class means and swaps.
    """

    def __init__(
        self,
        kind: str,
        donor: Network,
        layers: Sequence[str],
        *,
        n_classes: int,
        training: TrainingImages | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.layers, self.n_classes = kind, tuple(layers), n_classes
        self.block_names = self.layers
        self.donor = donor.module.eval()
        self._training = training
        self._last_block = donor.block_names[-1]
        self._is_sequence = donor.is_sequence(self._last_block)
        self._activations: dict[str, Tensor] = {}
        for layer in dict.fromkeys([*layers, self._last_block]):
            donor.module.get_submodule(layer).register_forward_hook(self._keep(layer))
        for layer in layers:
            self._place(layer)
        self._means = (
            _class_means(donor, layers, training, n_classes) if kind == "class_means" else {}
        )

    def forward(self, images: Tensor) -> Tensor:
        logits = self.donor(images)
        if self.kind in SWAPS:
            chosen = self._choose(images, logits, self._activations[self._last_block])
            self.donor(
                self._images_at(chosen).to(images)
            )  # which leaves the activations of these images
        for layer in self.layers:
            self.get_submodule(layer)(
                self._make(layer, self._activations[layer], logits.argmax(1), images)
            )
        self._activations.clear()
        return logits

    def _choose(self, images: Tensor, logits: Tensor, last_block: Tensor) -> Tensor:
        """Return the place (B,) of the training image that is shown for each image: never the image
        itself.

        An augmented image may show the one that it was made from.
        """
        training = self._training
        keys = keys_of(images)
        if self.kind == "nearest_logits":
            distances = torch.cdist(logits.detach().double().cpu(), training.logits)  # (B, N)
        elif self.kind == "nearest_features":
            features = pool(last_block, is_sequence=self._is_sequence).detach().double().cpu()
            distances = torch.cdist(features, training.features)
        else:
            is_other_class = logits.argmax(1).cpu()[:, None] != training.logits.argmax(1)
            distances = is_other_class + _draw(torch.rand, keys, len(training.keys))
        return distances.masked_fill(keys[:, None] == training.keys, torch.inf).argmin(1)

    def _images_at(self, indices: Tensor) -> Tensor:
        """Return training images (B, C, H, W)."""
        return torch.cat(
            [images for images, _ in self._training.images.batches(BATCH, indices=indices)]
        )

    def _make(self, layer: str, activations: Tensor, classes: Tensor, images: Tensor) -> Tensor:
        """Return the activations (B, C, ...) that stand for the donor's of the images."""
        if self.kind in SWAPS:
            return activations
        width, draws = activations.shape[1], generator(SEED, self.layers.index(layer))
        positions = (1,) * (activations.ndim - 2)
        if self.kind == "permuted":
            return activations[:, torch.randperm(width, generator=draws)]
        if self.kind == "rotated":
            rotation = torch.linalg.qr(torch.randn(width, width, generator=draws))[0].to(
                activations
            )
            return torch.einsum("bc...,dc->bd...", activations, rotation)
        if self.kind == "class_means":
            return self._means[layer].to(activations)[classes]
        if self.kind == "one_hot":
            values = F.one_hot(classes, self.n_classes).to(activations)
        else:
            points = torch.randn(self.n_classes, width, generator=draws).to(activations)
            values = points[classes] + SPREAD * _draw(torch.randn, keys_of(images), width).to(
                activations
            )
        return values.reshape(*values.shape, *positions).expand(-1, -1, *activations.shape[2:])

    def _keep(self, layer: str):
        def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            self._activations[layer] = output

        return keep

    def _place(self, layer: str) -> None:
        """Add a module under the layer's name, such as layer1.0."""
        *parents, name = layer.split(".")
        place: nn.Module = self
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = place.get_submodule(parent)
        place.add_module(name, nn.Identity())


def _draw(distribution, keys: Tensor, n: int) -> Tensor:
    """Return n random numbers for each image, (B, n), that depend on its key alone, whatever batch
    it is in."""
    return torch.stack([distribution(n, generator=generator(SEED, key)) for key in keys.tolist()])


def _class_means(
    donor: Network, layers: Sequence[str], training: TrainingImages, n_classes: int
) -> dict[str, Tensor]:
    """Return the mean activation of each class at each layer: (n_classes, C, ...)."""
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(n_classes, dtype=torch.double)
    with torch.no_grad():
        for images, labels in training.images.batches(BATCH):
            is_class = F.one_hot(labels.cpu().long(), n_classes).double()  # (B, n_classes)
            counts += is_class.sum(0)
            for layer, activations in donor.activations(images, layers).items():
                of_batch = torch.einsum("bk,b...->k...", is_class, activations.double().cpu())
                sums[layer] = sums[layer] + of_batch if layer in sums else of_batch
    return {
        layer: total / counts.clamp(min=1).reshape(-1, *(1,) * (total.ndim - 1))
        for layer, total in sums.items()
    }
