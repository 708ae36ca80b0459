"""Linear probes at many layers and ranks together.

One pass of the network, which ends at the last layer, serves all probes. Truncation is linear, so
it may come after the pooling: pool(lowrank(X)) = (pool(X) − m)VVᵀ + m. One eigen-decomposition a
layer and batch serves all its ranks."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.images import ImageSpec
from src.low_rank import principal_components
from src.models import Network
from src.models.heads import pool
from src.runtime import seeded
from src.training import HeadLosses, Task, classification_losses

LAST_EPOCHS = 5  # that have a tenth of the learning rate


def truncated_pools(
    activations: Tensor, ranks: Sequence[int | None], *, is_sequence: bool = False
) -> Tensor:
    """`pool(low_rank_approx(activations, rank))` of several ranks at once, without gradients.

    Mean and components are those of all positions (all tokens) of the given activations, one batch.

    Args:
        activations: (B, D, H, W), (B, T, D) or (B, D).
        ranks: None, or at least D, leaves the features whole.
        is_sequence: as for `pool`.
    Returns:
        (len(ranks), B, D)
    Raises:
        ValueError: the activations are not finite.
    """
    pooled = pool(activations.detach(), is_sequence=is_sequence)
    cut = sorted({rank for rank in ranks if rank is not None and rank < pooled.shape[1]})
    features: dict[int | None, Tensor] = {}
    if cut:
        mean, axes = principal_components(activations, cut[-1])
        coordinates = (pooled.double() - mean) @ axes  # (B, r)
        kept, start = mean.expand(pooled.shape), 0
        for rank in cut:  # each adds its own components to those of the rank below
            kept = kept + coordinates[:, start:rank] @ axes[:, start:rank].T
            features[rank], start = kept.to(pooled), rank
    return torch.stack([features.get(rank, pooled) for rank in ranks])


class Probes(Task):
    """A linear probe for each layer and rank; also the task of training them together.

    Each starts from the seed alone and has parameters and optimiser state of its own, so it becomes
    what it would become alone.

    Args:
        network: frozen and in evaluation mode, as `load_model` gives it.
        ranks: components that are kept of each layer; None, or at least its width, keeps all.
        images: that the network takes.
        seed: of the initial weights.
    """

    def __init__(
        self,
        network: Network,
        layers: Sequence[str],
        ranks: Sequence[int | None],
        images: ImageSpec,
        *,
        seed: int,
    ):
        self.network, self.layers, self.ranks = network, list(layers), list(ranks)
        image = next(network.parameters()).new_zeros(1, *images.shape)
        with torch.no_grad():
            acts = network.activations(image, self.layers)
        self.widths = {layer: pool(acts[layer]).shape[1] for layer in self.layers}  # in features
        self.probes: dict[tuple[str, int | None], nn.Linear] = {}
        for layer, width in self.widths.items():
            for rank in self.ranks:
                with seeded(seed):
                    self.probes[layer, rank] = nn.Linear(width, images.n_classes).to(image)
        self.heads = self.modules = list(self.probes.values())
        self.names = [f"the probe of {layer}, rank {rank}" for layer, rank in self.probes]

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the cross-entropy of all probes on a batch, one layer at a time."""
        with torch.no_grad():
            acts = self.network.activations(images, self.layers)
        for layer in self.layers:
            try:
                is_sequence = self.network.is_sequence(layer)
                features = truncated_pools(
                    acts.pop(layer), self.ranks, is_sequence=is_sequence
                )  # (R, B, D)
            except ValueError as error:
                raise UserError(f"layer {layer}: {error}; check the checkpoint") from error
            heads = [self.probes[layer, rank] for rank in self.ranks]
            weights = torch.stack([head.weight for head in heads])  # (R, n_classes, D)
            biases = torch.stack([head.bias for head in heads])  # (R, n_classes)
            logits = torch.baddbmm(
                biases[:, None], features, weights.transpose(1, 2)
            )  # (R, B, n_classes)
            yield classification_losses(logits, labels)


def decay_epochs(n_epochs: int) -> list[int]:
    """Return the epochs after which the learning rate drops: the last five have a tenth of it, if
    there are more."""
    return [n_epochs - LAST_EPOCHS] if n_epochs > LAST_EPOCHS else []
