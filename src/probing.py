"""Linear probes: how well classes can be read from a layer, at many layers and ranks together.

One pass of the network, which ends at the last layer, serves all probes. Truncation is linear, so it may come after
the pooling: pool(lowrank(X)) = (pool(X) − m)VVᵀ + m. One eigen-decomposition a layer and batch serves all its ranks.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.captions import caption, network
from src.errors import UserError
from src.figures import curves
from src.files import write_csv
from src.low_rank import principal_components
from src.models import Network
from src.runtime import seeded
from src.stitching.layers import has_cls_token
from src.training import EpochLog, HeadLosses, classification_losses

COLUMNS = (
    "model", "layer", "rank", "accuracy", "train_accuracy", "loss", "seed", "epochs", "model_type", "dataset",
    "n_images",
)  # fmt: skip
LAST_EPOCHS = 5  # that have a tenth of the learning rate


def pool(activations: Tensor) -> Tensor:
    """Return the features (B, D) that a probe reads.

    Args:
        activations: (B, D, H, W), averaged over the positions; (B, T, D), of which the first token, CLS, is taken, or
            the average where all tokens form a square, so that there is none; or (B, D), taken as they are.
    """
    if activations.ndim == 4:
        return activations.mean((2, 3))
    if activations.ndim == 3:
        return activations[:, 0] if has_cls_token(activations.shape[1]) else activations.mean(1)
    return activations


def truncated_pools(activations: Tensor, ranks: Sequence[int | None]) -> Tensor:
    """`pool(low_rank_approx(activations, rank))` of several ranks at once, without gradients.

    Mean and components are those of all positions (all tokens) of the given activations, one batch.

    Args:
        activations: (B, D, H, W), (B, T, D) or (B, D).
        ranks: None, or at least D, leaves the features whole.
    Returns:
        (len(ranks), B, D)
    Raises:
        ValueError: the activations are not finite.
    """
    pooled = pool(activations.detach())
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


class Probes:
    """A linear probe for each layer and rank; also the task of training them together.

    Each starts from the seed alone and has parameters and optimiser state of its own, so it becomes what it would
    become alone.

    Args:
        network: frozen and in evaluation mode, as `load_model` gives it.
        layers: their names.
        ranks: components that are kept of each layer; None, or at least its width, keeps all.
        image_shape: (C, H, W) of the images.
        seed: of the initial weights.
    """

    def __init__(
        self,
        network: Network,
        layers: Sequence[str],
        ranks: Sequence[int | None],
        *,
        n_classes: int,
        image_shape: Sequence[int],
        seed: int,
    ):
        self.network = network.for_inference(layers)
        self.layers, self.ranks = list(layers), list(ranks)
        image = next(network.parameters()).new_zeros(1, *image_shape)
        self.widths = _widths(self.network, self.layers, image)
        self.probes: dict[tuple[str, int | None], nn.Linear] = {}
        for layer, width in self.widths.items():
            for rank in self.ranks:
                with seeded(seed):
                    self.probes[layer, rank] = nn.Linear(width, n_classes).to(image)
        self.heads: Sequence[nn.Module] = list(self.probes.values())
        self.modules = self.heads
        self.names = [f"the probe of {layer}, rank {rank}" for layer, rank in self.probes]

    def train(self, mode: bool) -> None:
        """Switch the probes; the network stays in evaluation mode."""
        for head in self.heads:
            head.train(mode)

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the cross-entropy of all probes on a batch, one layer at a time."""
        with torch.no_grad():
            acts = self.network.activations(images, self.layers)
        numbers = {key: number for number, key in enumerate(self.probes)}
        for layer in self.layers:
            try:
                features = truncated_pools(acts.pop(layer), self.ranks)  # (R, B, D)
            except ValueError as error:
                raise UserError(f"layer {layer}: {error}; check the checkpoint") from error
            heads = [self.probes[layer, rank] for rank in self.ranks]
            weights = torch.stack([head.weight for head in heads])  # (R, n_classes, D)
            biases = torch.stack([head.bias for head in heads])  # (R, n_classes)
            logits = torch.baddbmm(biases[:, None], features, weights.transpose(1, 2))  # (R, B, n_classes)
            yield classification_losses([numbers[layer, rank] for rank in self.ranks], logits, labels)


def decay_epochs(n_epochs: int) -> list[int]:
    """Return the epochs after which the learning rate drops: the last five have a tenth of it, if there are more."""
    return [n_epochs - LAST_EPOCHS] if n_epochs > LAST_EPOCHS else []


def write_table(
    path: Path,
    logs: Mapping[tuple[str, int | None], EpochLog],
    widths: Mapping[str, int],
    *,
    made_with: Mapping[str, Any],
) -> None:
    """Write a CSV with one row a probe, and beside it a figure of accuracy over rank.

    Args:
        logs: of the last epoch, by layer and rank; full rank is None, and is empty in the CSV.
        widths: features of each layer; full rank is drawn there, and so is every rank above.
        made_with: the columns that are the same in all rows.
    """
    rows, lines = [], {layer: {} for layer in widths}
    for (layer, rank), (trained, val) in logs.items():
        scores = {"accuracy": val.accuracy, "train_accuracy": trained and trained.accuracy, "loss": val.loss}
        rows.append({**made_with, "layer": layer, "rank": rank, **scores})
        lines[layer][min(rank or widths[layer], widths[layer])] = val.accuracy
    write_csv(path, COLUMNS, rows)
    method = f"linear probes, {made_with['epochs']} epochs"
    probed = network(made_with["model"], made_with["model_type"])
    below = caption(network=probed, data=made_with["dataset"], method=method, images=made_with["n_images"])
    labels = {"x_label": "rank", "y_label": "accuracy", "y_range": (0, 1)}
    curves(Path(path).with_suffix(".png"), {"linear probes": lines}, **labels, caption=below)


def _widths(network: Network, layers: Sequence[str], image: Tensor) -> dict[str, int]:
    """Count the features of each layer."""
    with torch.no_grad():
        acts = network.activations(image, layers)
    return {layer: pool(acts[layer]).shape[1] for layer in layers}
