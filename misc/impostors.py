"""Impostors: planted front networks, with a known similarity to trained networks.

* Copies of a network are similar to it: its channels are permuted or rotated.
* Impostors of the class are not similar. Their activations depend on the predicted class: its mean
  activation, its label, or noise around a random point. They can be stitched into trained networks
  (Smith, Mannering and Marcu, ICML 2025).
* Impostors of another image are not similar either. They show a training image instead: the one
  with the nearest logits or features, or a random one of the predicted class.
* Impostors that show the image beside the class, but not as a trained network does: the class beside
  an untrained network, or beside random channels.
* Impostors that show the image where no one looks: the class mean in the directions that the rest of
  the donor is sensitive to. In all further directions they keep the donor's activation, minus its
  linear prediction from the sensitive directions.
"""

import functools
import sys
import zlib
from collections.abc import Sequence
from typing import NamedTuple

if __name__ == "__main__":  # before the imports, which it would not find
    sys.exit(
        "misc/impostors.py is no script; `planted` is called from a file of your own, which"
        " misc/docs/ground_truth.md shows"
    )

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.datasets import dataset_info, load_dataset
from src.datasets.base import BaseImageSet
from src.ground.activations import as_rows, form_of, pool
from src.ground.runtime import generator
from src.models import Network
from src.results.checkpoints import load_model
from src.results.network_names import NetworkName
from src.skill.untrained import beside_class, untrained_copy

COPIES = ("permuted", "rotated")
LABEL_ALONE = ("class_means", "one_hot", "clustered_noise")
SWAPS = ("nearest_logits", "nearest_features", "random_of_class")  # activations of another image
CONTROL = "class_beside_untrained"
RANDOM = "class_beside_random"
TAIL = "class_mean_where_the_tail_looks"
KINDS = (*COPIES, *LABEL_ALONE, CONTROL, RANDOM, TAIL, *SWAPS)
SEED = 0  # of permutations, rotations, noise, random images and random channels
SPREAD = 0.5  # standard deviation of the noise around the point of a class; of the points it is 1
N_RANDOM = 256  # random channels
KERNEL = 5  # width of their convolution
N_OF_DIRECTIONS = 2_000  # training images, at most, that tell where the tail looks
TRACE = 0.99  # share of the second moments of gradients that the directions of the tail explain
BATCH = 512


class Outputs(NamedTuple):
    """The outputs of a donor for N training images."""

    keys: Tensor  # (N,): `keys_of` the images
    logits: Tensor  # (N, n_classes)
    features: Tensor  # (N, D): pooled activations of the last block, the input of the last layer


@torch.no_grad()
def outputs_of(donor: Network, images: BaseImageSet) -> Outputs:
    """Return the outputs of a donor for training images, from one pass."""
    last_block = donor.block_names[-1]
    layout = donor.token_layout(last_block)
    keys, logits, features = [], [], []
    for batch, _ in images.batches(BATCH):
        activations = donor.activations(batch, [last_block, donor.output_name])
        keys.append(keys_of(batch))
        logits.append(activations[donor.output_name].double())
        features.append(pool(activations[last_block], layout).double())
    return Outputs(torch.cat(keys), torch.cat(logits), torch.cat(features))


def planted(
    kind: str, checkpoint: str, *, network: str, layers: Sequence[str], dataset: str, root: str
) -> "Impostor":
    """Make an impostor, or a copy, of a trained network.

    Args:
        kind: one of `KINDS`.
        checkpoint, network: the donor, as on the command line.
        layers: the layers that are to be stitched or compared.
        dataset, root: whose training images give class means, and the images that swaps show.
    """
    spec = dataset_info(dataset, labelled=True).spec
    donor = load_model(NetworkName(checkpoint, network), spec, device="cpu")
    images = outputs = untrained = None
    if kind in ("class_means", TAIL, *SWAPS):
        images = _loaded(dataset, root)
    if kind in (TAIL, *SWAPS):
        outputs = _outputs(checkpoint, network, dataset, root)
    if kind == CONTROL:
        ((batch, _),) = _loaded(dataset, root).batches(BATCH, indices=torch.arange(BATCH))
        untrained = untrained_copy(donor, batch, seed=SEED).module
    return Impostor(
        kind,
        donor,
        layers,
        n_classes=spec.n_classes,
        images=images,
        outputs=outputs,
        untrained=untrained,
    )


@functools.cache
def _outputs(checkpoint: str, network: str, dataset: str, root: str) -> Outputs:
    """Return the outputs of a donor for the training images, once for all of its impostors."""
    spec = dataset_info(dataset, labelled=True).spec
    donor = load_model(NetworkName(checkpoint, network), spec, device="cpu")
    return outputs_of(donor, _loaded(dataset, root))


@functools.cache
def _loaded(dataset: str, root: str) -> BaseImageSet:
    """Load the training images once."""
    return load_dataset(dataset, root, train=True)


def keys_of(images: Tensor) -> Tensor:
    """Return a number for each image (B, C, H, W), int64 (B,); images of equal values have equal keys."""
    return torch.tensor([zlib.crc32(image.numpy().tobytes()) for image in images.detach().cpu()])


class Impostor(nn.Module):
    """A front network with made activations at some layers; its logits are the donor's.

    It cannot be an end network, since the logits do not depend on the made activations.

    Args:
        kind: one of `KINDS`.
        layers: names of the layers; the impostor has an empty module of each name, and the output
            of that module is the made activation.
        images: training images, for class means and swaps.
        outputs: of the donor for the training images, for swaps and for the tail.
        untrained: a network of the donor's type, for the class beside it.
    Raises:
        ValueError: there is no such kind.
    """

    def __init__(
        self,
        kind: str,
        donor: Network,
        layers: Sequence[str],
        *,
        n_classes: int,
        images: BaseImageSet | None = None,
        outputs: Outputs | None = None,
        untrained: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(
                f"there is no kind {kind!r} of impostor; choose one of {', '.join(KINDS)}"
            )
        self.kind = kind
        self.layers = tuple(layers)
        self.block_names = self.layers
        self.n_classes = n_classes
        self.donor = donor.module.eval()
        self.untrained = untrained
        self._images = images
        self._outputs = outputs
        self._last_block = donor.block_names[-1]
        self._layout = donor.token_layout(self._last_block)

        self._means: dict[str, Tensor] = {}
        self._told: dict[str, Tensor] = {}  # what is taken from deviations, see `told_of_seen`
        if kind in ("class_means", TAIL):
            self._means = _class_means(donor, layers, images, n_classes)
        if kind == TAIL:
            for layer in layers:
                seen = seen_by_tail(donor, layer, images)
                classes = outputs.logits.argmax(1)
                self._told[layer] = told_of_seen(
                    donor, layer, images, classes=classes, seen=seen, means=self._means[layer]
                )

        # Hooks keep the activations of a pass: of the donor, or of the untrained network
        source = donor.module if untrained is None else untrained
        self._activations: dict[str, Tensor] = {}
        for layer in dict.fromkeys([*layers, self._last_block]):
            source.get_submodule(layer).register_forward_hook(self._keep(layer))

        for layer in layers:
            self._place(layer)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.donor(images)
        if self.kind in SWAPS:
            indices = self._choose(images, logits, self._activations[self._last_block])
            self.donor(self._images_at(indices).to(images))  # its activations replace the images'
        if self.untrained is not None:
            self.untrained(images)
        for layer in self.layers:
            made = self._make(layer, logits, images)
            self.get_submodule(layer)(made)
        self._activations.clear()
        return logits

    def _choose(self, images: Tensor, logits: Tensor, last_block: Tensor) -> Tensor:
        """Choose a training image to show in the place of each image; return the indices (B,).

        An image is never shown for itself. An augmented image may show its original.
        """
        of_training = self._outputs
        keys = keys_of(images)
        if self.kind == "nearest_logits":
            distances = torch.cdist(logits.detach().double().cpu(), of_training.logits)  # (B, N)
        elif self.kind == "nearest_features":
            features = pool(last_block, self._layout).detach().double().cpu()
            distances = torch.cdist(features, of_training.features)
        else:  # a random image: distances in [0, 1) within the class, in [1, 2) outside
            is_other_class = logits.argmax(1).cpu()[:, None] != of_training.logits.argmax(1)
            distances = is_other_class + _draw(torch.rand, keys, len(of_training.keys))
        return distances.masked_fill(keys[:, None] == of_training.keys, torch.inf).argmin(1)

    def _images_at(self, indices: Tensor) -> Tensor:
        """Return the training images (B, C, H, W) at `indices` (B,)."""
        batches = self._images.batches(BATCH, indices=indices)
        return torch.cat([images for images, _ in batches])

    def _make(self, layer: str, logits: Tensor, images: Tensor) -> Tensor:
        """Return the made activations (B, C, ...) of a layer.

        Args:
            logits: (B, n_classes), the donor's.
        """
        activations = self._activations[layer]
        classes = logits.argmax(1)
        n_channels = activations.shape[1]
        draws = generator(SEED, self.layers.index(layer))

        # Activations of every position
        if self.kind in SWAPS:
            return activations
        if self.kind == "permuted":
            return activations[:, torch.randperm(n_channels, generator=draws)]
        if self.kind == "rotated":
            gaussian = torch.randn(n_channels, n_channels, generator=draws)
            rotation = torch.linalg.qr(gaussian)[0].to(activations)
            return torch.einsum("bc...,dc->bd...", activations, rotation)
        if self.kind == "class_means":
            return self._means[layer].to(activations)[classes]
        if self.kind == TAIL:
            deviations = activations - self._means[layer].to(activations)[classes]
            told = self._told[layer].to(activations)
            return activations - torch.einsum("bc...,dc->bd...", deviations, told)
        if self.kind == CONTROL:
            return beside_class([activations], logits)
        if self.kind == RANDOM:
            random = random_features(images, activations.shape[2:], draws)
            return beside_class([random], logits)

        # A vector an image, at all positions
        if self.kind == "one_hot":
            vectors = F.one_hot(classes, self.n_classes).to(activations)
        else:
            points = torch.randn(self.n_classes, n_channels, generator=draws).to(activations)
            noise = _draw(torch.randn, keys_of(images), n_channels).to(activations)
            vectors = points[classes] + SPREAD * noise
        return form_of(activations).everywhere(vectors)

    def _keep(self, layer: str):
        """Return a forward hook that keeps the activation of a layer."""

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
    """Draw n random numbers for each image, (B, n); an image has the same ones in every batch.

    Args:
        distribution: torch.rand or torch.randn.
        keys: (B,), from `keys_of`.
    """
    return torch.stack([distribution(n, generator=generator(SEED, key)) for key in keys.tolist()])


def random_features(images: Tensor, size: Sequence[int], draws: torch.Generator) -> Tensor:
    """Return random features of images (B, C, H, W): `N_RANDOM` channels at positions of this size.

    They are a convolution with random weights and ReLU, averaged over cells where there are fewer
    positions. Without positions, (B, channels), they are averaged over the image.
    """
    fan_in = images.shape[1] * KERNEL**2
    weight = torch.randn(N_RANDOM, images.shape[1], KERNEL, KERNEL, generator=draws) * 2
    bias = torch.randn(N_RANDOM, generator=draws) / 3
    weight = weight.to(images) / fan_in**0.5
    features = F.relu(F.conv2d(images, weight, bias.to(images), padding=KERNEL // 2))
    cells = F.adaptive_avg_pool2d(features, tuple(size) or 1)
    return cells if size else cells.flatten(1)


@torch.enable_grad()
def seen_by_tail(donor: Network, layer: str, images: BaseImageSet) -> Tensor:
    """Return the directions of channels that the rest of a network is sensitive to, (C, k).

    They are orthonormal: principal directions of the gradients of all logits with respect to the
    activation, at all positions of training images. There are as many as explain `TRACE` of the sum
    of squares, and at most half of the channels.
    """
    moments: Tensor | float = 0.0
    indices = torch.arange(min(N_OF_DIRECTIONS, len(images)))
    for batch, _ in images.batches(BATCH, indices=indices):
        activation = donor(batch, until=layer).detach().requires_grad_()
        logits = donor(activation, after=layer, images=batch)
        for logit in logits.sum(0):  # each image has its own gradient
            (gradient,) = torch.autograd.grad(logit, activation, retain_graph=True)
            rows = as_rows(gradient).double()
            moments = moments + rows.T @ rows
    strengths, directions = torch.linalg.eigh(torch.as_tensor(moments))
    strengths = strengths.flip(0).clamp(min=0)
    explained = strengths.cumsum(0) / strengths.sum()
    n_needed = int((explained < TRACE).sum()) + 1
    n_kept = min(n_needed, len(strengths) // 2)
    return directions.flip(1)[:, :n_kept]


@torch.no_grad()
def told_of_seen(
    donor: Network,
    layer: str,
    images: BaseImageSet,
    *,
    classes: Tensor,
    seen: Tensor,
    means: Tensor,
) -> Tensor:
    """Return the map (C, C) from a deviation d to its least-squares prediction from `seen`ᵀd.

    Deviations are those of the donor's activations from the means of the predicted class, at all
    positions of training images. Without its prediction, a deviation is 0 in the seen directions,
    and no linear map of the rest tells of them. A stitch would find such a map otherwise.

    Args:
        classes: that the donor predicts for the images, (N,).
        seen: orthonormal directions, (C, k).
        means: of the classes, (n_classes, C, ...).
    """
    moments: Tensor | float = 0.0
    for places in torch.arange(len(images)).split(BATCH):
        ((batch, _),) = images.batches(BATCH, indices=places)
        deviations = donor(batch, until=layer).double().cpu() - means[classes[places]]
        rows = as_rows(deviations)
        moments = moments + rows.T @ rows
    covariance = torch.as_tensor(moments)
    of_seen = torch.linalg.pinv(seen.T @ covariance @ seen, hermitian=True)
    return covariance @ seen @ of_seen @ seen.T


def _class_means(
    donor: Network, layers: Sequence[str], images: BaseImageSet, n_classes: int
) -> dict[str, Tensor]:
    """Return the mean activation of each class at each layer: (n_classes, C, ...)."""
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(n_classes, dtype=torch.double)
    with torch.no_grad():
        for batch, labels in images.batches(BATCH):
            is_class = F.one_hot(labels.cpu().long(), n_classes).double()  # (B, n_classes)
            counts += is_class.sum(0)
            for layer, activations in donor.activations(batch, layers).items():
                of_batch = torch.einsum("bk,b...->k...", is_class, activations.double().cpu())
                if layer in sums:
                    sums[layer] += of_batch
                else:
                    sums[layer] = of_batch
    counts = counts.clamp(min=1)[:, None]
    return {layer: (total.flatten(1) / counts).view_as(total) for layer, total in sums.items()}
