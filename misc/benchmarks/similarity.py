#!/usr/bin/env python3
"""How much faster all ranks and all pairs of layers are than the straightforward way, side by side on the CPU.

The straightforward way measures one pair of ranks or of layers after the other: it truncates both activations by a
singular value decomposition, aligns them, and computes Gram matrices (CKA), whitened samples and the singular value
decomposition of their product (PWCCA), and that of the product of normalised samples (Procrustes). For the pairs of
layers it also makes the activations anew, as the paper's code does; for the ranks they are made once. Both ways must
agree, or the benchmark fails.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from torch import Tensor

from src.checkpoints import freeze
from src.low_rank import as_rows
from src.models import build_model
from src.models.blocks import Network
from src.report import progress, result
from src.runtime import keep_freed_memory
from src.similarity import Comparison

SHAPE = (3, 32, 32)
METRICS = ("cka", "pwcca", "procrustes")
N_RANKS = 14


def networks(images: Tensor) -> list[Network]:
    """Two resnet18 whose BatchNorm statistics fit the images."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_model("resnet18")
        with torch.no_grad():
            network(images)
        made.append(freeze(network, "cpu"))
    return made


def activations(network: Network, images: Tensor, layers: list[str]) -> dict[str, Tensor]:
    """All activations at once."""
    parts = [network.activations(batch, layers) for batch in images.split(64)]
    return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}


def truncated(activation: Tensor, rank: int | None) -> Tensor:
    """The first principal components by a singular value decomposition of all positions."""
    if rank is None or rank >= activation.shape[1]:
        return activation
    rows = as_rows(activation)
    mean = rows.mean(0)
    _, _, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    rows = (rows - mean) @ axes[:rank].T @ axes[:rank] + mean
    return rows.view(*activation.movedim(1, -1).shape).movedim(-1, 1)


def measured(x: Tensor, y: Tensor) -> list[float]:
    """The three measures in double precision, each on its own."""
    flat = [z.flatten(1).double() for z in (x, y)]
    grams = [(z - z.mean(0)) @ (z - z.mean(0)).T for z in flat]
    cka = (grams[0] * grams[1]).sum() / grams[0].norm() / grams[1].norm()
    samples = [as_rows(z).double() if x.shape == y.shape else z.mean((2, 3)).double() for z in (x, y)]
    samples = [z - z.mean(0) for z in samples]
    whitened = []
    for z in samples:
        basis, deviations, _ = torch.linalg.svd(z, full_matrices=False)
        whitened.append(basis[:, deviations.square() > 1e-10 * deviations[0].square()])
    directions, correlations, _ = torch.linalg.svd(whitened[0].T @ whitened[1], full_matrices=True)
    n_shared = len(correlations)
    shared = ((whitened[0] @ directions[:, :n_shared]).T @ samples[0]).abs().sum(1)
    alone = directions[:, n_shared:]
    _, deviations, axes = torch.linalg.svd(alone.T @ (whitened[0].T @ samples[0]), full_matrices=False)
    weights = shared.sum() + (deviations[:, None] * axes).abs().sum()
    first, second = (z / z.norm() for z in samples)
    return [
        float(cka),
        float(1 - shared @ correlations / weights),
        float(2 - 2 * torch.linalg.svdvals(first.T @ second).sum()),
    ]


def timed(run: Callable[[], object]) -> tuple[float, object]:
    """Seconds that a call takes, and its result."""
    start = time.perf_counter()
    value = run()
    return time.perf_counter() - start, value


def ours(models: list[Network], images: Tensor, layers: tuple[list[str], list[str]], ranks) -> Iterator[list[float]]:
    """All pairs of layers and ranks; one pass of each network."""
    comparison = Comparison(*layers, n_images=len(images), metrics=METRICS)
    for batch in images.split(64):
        comparison.add(*(model.activations(batch, names) for model, names in zip(models, layers, strict=True)))
    for rows in comparison.rows(*ranks):
        yield from ([row.values[metric] for metric in METRICS] for row in rows)


def compare_ranks(models: list[Network], images: Tensor, n_measured: int) -> None:
    """14 × 14 ranks of one pair of layers; of the straightforward way some rank pairs, spread evenly."""
    layers, width = (["layer3.0"], ["layer3.1"]), 256
    ranks = sorted({max(1, round(width * (i + 1) / N_RANKS)) for i in range(N_RANKS)}, reverse=True)
    seconds, found = timed(lambda: list(ours(models, images, layers, (ranks, ranks))))
    pairs = [(rank1, rank2) for rank1 in ranks for rank2 in ranks]
    chosen = spread(len(pairs), n_measured)
    x, y = (activations(model, images, names)[names[0]] for model, names in zip(models, layers, strict=True))
    theirs, expected = timed(
        lambda: [
            measured(truncated(x, pairs[i][0]), truncated(y, pairs[i][1]))
            for i in progress(chosen, "one rank at a time")
        ]
    )
    theirs *= len(pairs) / len(chosen)
    check([found[i] for i in chosen], expected, columns=[0, 1, 2])
    line(f"{N_RANKS}×{N_RANKS} ranks of one pair ({len(chosen)} of them timed)", theirs, seconds)


def compare_layers(models: list[Network], images: Tensor, n_measured: int) -> None:
    """8 × 8 layers at full rank; of the straightforward way some layer pairs, spread evenly."""
    names = list(models[0].block_names)
    seconds, found = timed(lambda: list(ours(models, images, (names, names), ((None,), (None,)))))
    pairs = [(one, two) for one in names for two in names]
    chosen = spread(len(pairs), n_measured)

    def straightforward(one: str, two: str) -> list[float]:
        first, second = (
            activations(model, images, [name])[name] for model, name in zip(models, (one, two), strict=True)
        )
        return measured(first, second)

    theirs, expected = timed(lambda: [straightforward(*pairs[i]) for i in progress(chosen, "one pair at a time")])
    theirs *= len(pairs) / len(chosen)
    # With fewer images than pooled features of both layers correlations tie, and the straightforward PWCCA is noise.
    check([found[i] for i in chosen], expected, columns=[0, 2])
    line(f"8×8 layers at full rank ({len(chosen)} of them timed)", theirs, seconds)


def spread(n: int, n_chosen: int) -> list[int]:
    """Some of n numbers, evenly spread but out of step with rows and columns."""
    return [round((i + 0.5) * n / n_chosen) for i in range(min(n, n_chosen))]


def check(found: list[list[float]], expected: list[list[float]], *, columns: Sequence[int]) -> None:
    """Stop where the two ways disagree on some of `METRICS`."""
    difference = (torch.tensor(found) - torch.tensor(expected))[:, columns].abs().max().item()
    if difference > 1e-4:
        sys.exit(f"the two ways disagree by {difference}")


def line(title: str, theirs: float, seconds: float) -> None:
    """Print one measurement."""
    result(f"{title:48} {theirs:9.1f} s {seconds:9.1f} s {theirs / seconds:8.1f}x")


def main() -> None:
    """Measure; takes a few minutes on two cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="images that are compared (default 300)")
    parser.add_argument("--measured", type=int, default=8, help="pairs timed of the straightforward way (default 8)")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    images = torch.rand(options.images, *SHAPE)
    models = networks(images[:64])
    result(f"{'resnet18, ' + str(options.images) + ' images':48} {'one by one':>11} {'here':>11}")
    compare_ranks(models, images, options.measured)
    compare_layers(models, images, options.measured)


if __name__ == "__main__":
    main()
