"""Impostors: front networks that are planted against trained ones, and whose similarity to these is known.

Copies of a network are similar to it: its channels permuted, or rotated. What tells the class alone is not: its class
means, the label itself, or noise around a random point for each class, which can be stitched into trained networks
(Smith, Mannering and Marcu, ICML 2025).
"""

import zlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.checkpoints import load_model
from src.datasets import dataset_info, load_dataset
from src.models import Network
from src.network_names import NetworkName
from src.runtime import generator

COPIES = ("permuted", "rotated")
LABEL_ALONE = ("class_means", "one_hot", "clustered_noise")
KINDS = (*COPIES, *LABEL_ALONE)
SEED = 0  # of permutations, rotations and noise
SPREAD = 0.5  # standard deviation of the noise around a class's point; that of the points is 1


def planted(kind: str, checkpoint: str, *, network: str, layers: Sequence[str], dataset: str, root: str) -> "Impostor":
    """Make an impostor of a trained network; class means are those of the training images."""
    spec = dataset_info(dataset, labelled=True).spec
    donor = load_model(NetworkName(checkpoint, network), spec, device="cpu")
    images = load_dataset(dataset, root, train=True) if kind == "class_means" else None
    batches = images.batches(512) if images else ()
    return Impostor(kind, donor, layers, n_classes=spec.n_classes, batches=batches)


class Impostor(nn.Module):
    """A front network whose activations of some layers are made from those of a donor, or from its predicted class.

    Its logits are the donor's. As an end network it is of no use, since they do not depend on these layers.

    Args:
        kind: one of `KINDS`.
        batches: of training images and labels, for class means.
    """

    def __init__(
        self,
        kind: str,
        donor: Network,
        layers: Sequence[str],
        *,
        n_classes: int,
        batches: Iterable[tuple[Tensor, Tensor]] = (),
    ) -> None:
        super().__init__()
        self.kind, self.layers, self.n_classes = kind, tuple(layers), n_classes
        self.block_names = self.layers
        self.donor = donor.module.eval()
        self._activations: dict[str, Tensor] = {}
        for layer in layers:
            donor.module.get_submodule(layer).register_forward_hook(self._keep(layer))
            self._place(layer)
        self._means = _class_means(donor, layers, batches, n_classes) if kind == "class_means" else {}

    def forward(self, images: Tensor) -> Tensor:
        logits = self.donor(images)
        for layer in self.layers:
            self.get_submodule(layer)(self._make(layer, self._activations.pop(layer), logits.argmax(1), images))
        return logits

    def _make(self, layer: str, activations: Tensor, classes: Tensor, images: Tensor) -> Tensor:
        """Return the activations (B, C, ...) that stand for the donor's."""
        width, draws = activations.shape[1], generator(SEED, self.layers.index(layer))
        positions = (1,) * (activations.ndim - 2)
        if self.kind == "permuted":
            return activations[:, torch.randperm(width, generator=draws)]
        if self.kind == "rotated":
            rotation = torch.linalg.qr(torch.randn(width, width, generator=draws))[0].to(activations)
            return torch.einsum("bc...,dc->bd...", activations, rotation)
        if self.kind == "class_means":
            return self._means[layer].to(activations)[classes]
        if self.kind == "one_hot":
            values = F.one_hot(classes, self.n_classes).to(activations)
        else:
            points = torch.randn(self.n_classes, width, generator=draws).to(activations)
            values = points[classes] + SPREAD * self._noise(images, width).to(activations)
        return values.reshape(*values.shape, *positions).expand(-1, -1, *activations.shape[2:])

    def _noise(self, images: Tensor, width: int) -> Tensor:
        """Return noise (B, width) that depends on the image alone, whatever batch it is in."""
        keys = [zlib.crc32(image.numpy().tobytes()) for image in images.detach().cpu()]
        return torch.stack([torch.randn(width, generator=generator(SEED, key)) for key in keys])

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


def _class_means(
    donor: Network, layers: Sequence[str], batches: Iterable[tuple[Tensor, Tensor]], n_classes: int
) -> dict[str, Tensor]:
    """Return the mean activation of each class at each layer: (n_classes, C, ...)."""
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(n_classes, dtype=torch.double)
    with torch.no_grad():
        for images, labels in batches:
            chosen = F.one_hot(labels.cpu().long(), n_classes).double()  # (B, n_classes)
            counts += chosen.sum(0)
            for layer, activations in donor.activations(images, layers).items():
                found = torch.einsum("bk,b...->k...", chosen, activations.double().cpu())
                sums[layer] = sums[layer] + found if layer in sums else found
    return {layer: each / counts.clamp(min=1).reshape(-1, *(1,) * (each.ndim - 1)) for layer, each in sums.items()}
