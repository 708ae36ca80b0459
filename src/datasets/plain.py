"""Inputs that are no images: tokens or vectors, which networks get unchanged."""

from collections.abc import Iterable

import torch
from torch import Tensor

from src.core.inputs import InputSpec
from src.core.seeds import generator
from src.datasets.base import UNLABELLED, Device, InputSet, Pass

N_EXAMPLES = 3
N_RANDOM = 256  # different images
N_LOOKED_AT = 1000  # inputs among which examples are chosen


class PlainInputs(InputSet):
    """Tokens or vectors with labels, without normalisation and augmentation.

    Args:
        inputs: tokens int64 (N, T), or vectors float32 (N, D); fewer than labels are repeated.
        labels: as in InputSet; None: the set is unlabelled, all labels are -1.
        device: of the inputs and the batches.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        *,
        n_classes: int = 0,
        device: Device = "cpu",
    ):
        if labels is None:
            labels = torch.full((len(inputs),), UNLABELLED)
        shape = tuple(inputs.shape[1:])
        super().__init__(labels, n_classes=n_classes, image_shape=shape, device=device)
        self._inputs = inputs.to(self.device)

    def levels_of(self, indices: Tensor) -> Tensor:
        return self._inputs[indices.to(self.device) % len(self._inputs)]

    def _make(self, plan: Pass) -> Iterable[Tensor]:
        return self.levels(plan)


def random_images(n: int, spec: InputSpec, *, seed: int, device: Device) -> PlainInputs:
    """Return n images of noise with random labels, to measure speed; only 256 images differ."""
    draws = generator(seed)
    labels = torch.randint(spec.n_classes, (n,), generator=draws)
    images = torch.randn(min(n, N_RANDOM), *spec.shape, generator=draws)
    return PlainInputs(images, labels, n_classes=spec.n_classes, device=device)


def examples(inputs: Tensor) -> tuple:
    """Choose three of the first inputs (N, D) that differ from one another in many places.

    By these a network is looked at, as by `InputSpec.inputs`.
    """
    first = inputs[:N_LOOKED_AT]
    chosen = [0]
    while len(chosen) < N_EXAMPLES:
        n_different = [(first != first[place]).sum(1) for place in chosen]
        chosen.append(int(torch.stack(n_different).amin(0).argmax()))
    return tuple(tuple(first[place].tolist()) for place in chosen)
