"""A control for front networks: the class that a trained network predicts, beside an untrained network.

A stitch from the control has nothing of the trained network but the class. What it identifies of the
images comes for nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.calls import OUTPUT
from src.models.network import Network


class ClassControl(Network):
    """A front network with the activations of an untrained network, and the class in further channels.

    The class is the one that a trained network of the same type predicts: one channel for each
    class, which is 1 at all positions, at all tokens or in the vector. The layers, and their places,
    are those of the untrained network. The output is that of the trained network.

    Args:
        trained: gives logits (B, n_classes).
        untrained: a network of the same type; its maps are turned as those of `trained` are.
    """

    def __init__(self, trained: Network, untrained: Network):
        super().__init__(
            untrained.module, image_shape=trained.image_shape, n_classes=trained.n_classes
        )
        self.unsteadiness = trained.unsteadiness or untrained.unsteadiness
        self.trained = trained
        self._turned = trained._turned

    def train(self, mode: bool = True) -> "ClassControl":
        """Switch both networks to training mode, or to evaluation mode; return this view."""
        super().train(mode)
        self.trained.train(mode)
        return self

    def to(self, *args: Any, **options: Any) -> "ClassControl":
        """Move or cast both networks in place; return this view."""
        super().to(*args, **options)
        self.trained.to(*args, **options)
        return self

    def modules(self) -> Iterator[nn.Module]:
        """Yield all modules of both networks."""
        yield from super().modules()
        yield from self.trained.modules()

    @property
    def output_name(self) -> str:
        """`output`, the only layer of the trained network."""
        return OUTPUT

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the trained network's output for one image."""
        return self.trained.output_shape

    def __call__(
        self,
        x: Tensor,
        *,
        until: str | None = None,
        after: str | None = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Return the trained network's output, or with `until` the activation of that layer."""
        name = OUTPUT if until is None else until
        return self.activations(x, [name], after=after, images=images)[name]

    def activations(
        self,
        x: Tensor,
        names: Sequence[str],
        *,
        after: str | None = None,
        images: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the activations of layers, as `Network.activations` does.

        Raises:
            ValueError: `after` is given, and a control is no end network.
        """
        if after is not None:
            raise ValueError("a control is a front network: it does not go on behind a layer")
        logits = self.trained(x)
        of_untrained = super().activations(x, [name for name in names if name != OUTPUT])
        return {name: logits for name in names if name == OUTPUT} | with_class(of_untrained, logits)

    def activation_shapes(
        self, names: Sequence[str], image_shape: Sequence[int]
    ) -> dict[str, tuple[int, ...]]:
        """Return the shape of each activation for one image, with the channels of the class."""
        (n_classes,) = self.output_shape
        shapes = {}
        for name, shape in super().activation_shapes(names, image_shape).items():
            if name == OUTPUT:
                shapes[name] = self.output_shape
            elif len(shape) == 3:
                channels, *size = shape
                shapes[name] = (channels + n_classes, *size)
            else:
                *n_tokens, width = shape
                shapes[name] = (*n_tokens, width + n_classes)
        return shapes


def with_class(activations: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
    """Return activations with the predicted class as further channels, by layer.

    Args:
        activations: (B, C, H, W), (B, T, D) or (B, D).
        logits: (B, n_classes).
    """
    classes = F.one_hot(logits.argmax(-1), logits.shape[-1])  # (B, n_classes)
    widened = {}
    for name, values in activations.items():
        vectors = classes.to(values)
        if values.ndim == 4:
            of_positions = vectors[:, :, None, None].expand(-1, -1, *values.shape[2:])
            widened[name] = torch.cat([values, of_positions], 1)
        elif values.ndim == 3:
            of_tokens = vectors[:, None].expand(-1, values.shape[1], -1)
            widened[name] = torch.cat([values, of_tokens], 2)
        else:
            widened[name] = torch.cat([values, vectors], 1)
    return widened


@torch.no_grad()
def set_statistics(module: nn.Module, images: Tensor) -> None:
    """Set the statistics of all BatchNorms from a batch of images (B, C, H, W).

    The module is left in evaluation mode.
    """
    module.eval()
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    module(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()
