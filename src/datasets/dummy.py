"""Random images, to measure how fast a network trains."""

from collections.abc import Iterator

import torch
from torch import Tensor

from src.datasets.base import BaseImageSet, Device, Pass
from src.ground import runtime
from src.ground.images import ImageSpec

N_DIFFERENT = 256  # images


class DummyImageSet(BaseImageSet):
    """`n` images of standard normal noise with random labels; only 256 images are different."""

    def __init__(self, n: int, spec: ImageSpec, *, seed: int, device: Device):
        draws = runtime.generator(seed)
        labels = torch.randint(spec.n_classes, (n,), generator=draws)
        super().__init__(labels, n_classes=spec.n_classes, image_shape=spec.shape, device=device)
        images = torch.randn(min(n, N_DIFFERENT), *spec.shape, generator=draws)
        self.images = images.to(self.device)

    def _make(self, plan: Pass) -> Iterator[Tensor]:
        for rows in plan.batches:
            indices = plan.indices[rows] % len(self.images)
            yield self.images[indices.to(self.device)]
