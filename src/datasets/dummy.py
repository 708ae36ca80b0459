"""Random images, to measure how fast a network trains."""

from collections.abc import Iterator

import torch
from torch import Tensor

from src.datasets.base import BaseImageSet, Device, Pass
from src.ground import runtime

N_DIFFERENT = 256  # images


class DummyImageSet(BaseImageSet):
    """`n` images of standard normal noise with random labels; only 256 images are different."""

    def __init__(
        self,
        n: int,
        *,
        n_classes: int,
        image_shape: tuple[int, int, int],
        seed: int,
        device: Device,
    ):
        generator = runtime.generator(seed)
        labels = torch.randint(n_classes, (n,), generator=generator)
        super().__init__(labels, n_classes=n_classes, image_shape=image_shape, device=device)
        images = torch.randn(min(n, N_DIFFERENT), *image_shape, generator=generator)
        self.images = images.to(self.device)

    def _make(self, plan: Pass) -> Iterator[Tensor]:
        indices = plan.indices.to(self.device) % len(self.images)
        for rows in plan.batches:
            yield self.images[indices[rows]]
