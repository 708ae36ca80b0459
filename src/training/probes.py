"""Linear probes of many layers and ranks, trained together.

One pass of the network serves all probes; it ends at the last layer. Truncation is linear, so it
may come after the pooling: pool(lowrank(X)) = (pool(X) − m)VVᵀ + m. One eigen-decomposition a layer
and batch serves all ranks of the layer.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from src.core.activations import ActivationShape, TokenLayout, pool
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.seeds import seeded
from src.core.values import Rank
from src.low_rank import principal_components
from src.models import Network
from src.training.task import HeadLosses, Task, classification_losses

LAST_EPOCHS = 5  # that have a tenth of the learning rate


def truncated_pools(
    activations: Tensor, ranks: Sequence[Rank], layout: TokenLayout | None = None
) -> Tensor:
    """Return `pool(low_rank_approx(activations, rank))` for several ranks, without gradients.

    Mean and principal components are taken over all positions (all tokens) of the batch.

    Args:
        activations: (B, D, H, W), (B, T, D) or (B, D).
        ranks: None, or at least D, leaves the features whole.
        layout: as for `pool`.
    Returns:
        (len(ranks), B, D)
    Raises:
        ValueError: the activations are not finite.
    """
    pooled = pool(activations.detach(), layout)
    width = pooled.shape[1]
    ranks_below_width = sorted({rank for rank in ranks if rank is not None and rank < width})
    truncated: dict[Rank, Tensor] = {}
    if ranks_below_width:
        mean, axes = principal_components(activations, ranks_below_width[-1])
        coordinates = (pooled.double() - mean) @ axes  # (B, r)
        sums = mean.expand(pooled.shape)
        first = 0
        for rank in ranks_below_width:  # a rank adds its components to those of the rank below
            sums = sums + coordinates[:, first:rank] @ axes[:, first:rank].T
            truncated[rank] = sums.to(pooled)
            first = rank
    return torch.stack([truncated.get(rank, pooled) for rank in ranks])


LayerAndRank = tuple[str, Rank]


class Probes(Task[LayerAndRank]):
    """A linear probe for each layer and rank; also the task of training all probes together.

    A probe starts from the seed alone and has its own parameters and optimiser state. It therefore
    becomes what it would become if it trained alone.

    Args:
        network: frozen and in evaluation mode, as `load_model` returns it.
        ranks: numbers of components that are kept of a layer; None, or at least the width of the
            layer, keeps all.
        images: the images that the network takes.
        seed: of the initial weights.
    """

    def __init__(
        self,
        network: Network,
        layers: Sequence[str],
        ranks: Sequence[Rank],
        images: InputSpec,
        *,
        seed: int,
    ):
        self.network = network
        self.layers = list(layers)
        self.ranks = list(ranks)

        # Orders of tokens, and numbers of features and of positions, by layer
        self.layouts = {layer: network.token_layout(layer) for layer in self.layers}
        axes = network.activation_shapes(self.layers, images.shape)
        shapes = {
            layer: ActivationShape.of(axes[layer], title=f"layer {layer!r}")
            for layer in self.layers
        }
        self.widths = {layer: shape.n_channels for layer, shape in shapes.items()}
        self.n_positions = {layer: shape.n_positions for layer, shape in shapes.items()}

        self.heads: dict[LayerAndRank, nn.Linear] = {}
        for layer, rank in itertools.product(self.layers, self.ranks):
            with seeded(seed):
                probe = nn.Linear(self.widths[layer], images.n_classes)
            self.heads[layer, rank] = probe.to(network.example)
        self.modules = list(self.heads.values())

    def title(self, key: LayerAndRank) -> str:
        """Return the name of a probe in messages."""
        layer, rank = key
        return f"the probe of {layer}, rank {rank}"

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the cross-entropies of the probes on a batch, layer by layer.

        Raises:
            UserError: the activations are not finite.
        """
        with torch.no_grad():
            activations = self.network.activations(images, self.layers)
        for layer in self.layers:
            try:
                features = truncated_pools(
                    activations.pop(layer), self.ranks, self.layouts[layer]
                )  # (R, B, D)
            except ValueError as error:
                raise UserError(f"layer {layer}: {error}; check the checkpoint") from error
            probes = [self.heads[layer, rank] for rank in self.ranks]
            weights = torch.stack([probe.weight for probe in probes])  # (R, n_classes, D)
            biases = torch.stack([probe.bias for probe in probes])  # (R, n_classes)
            logits = torch.baddbmm(biases[:, None], features, weights.transpose(1, 2))
            yield classification_losses(logits, labels)


def used_rank(rank: int | None, n_features: int, n_samples: int) -> int | None:
    """Return the number of components that a truncation to a rank keeps: at most as many as there are
    features, and one less than samples. None stays None.

    Args:
        n_samples: positions of the activations that are truncated together.
    """
    if rank is None:
        return None
    return min(rank, n_features, max(1, n_samples - 1))


def decay_epochs(n_epochs: int) -> list[int]:
    """Return the epochs after which the learning rate drops to a tenth.

    The last five epochs have the lower rate, if there are more than five.
    """
    if n_epochs > LAST_EPOCHS:
        return [n_epochs - LAST_EPOCHS]
    return []
