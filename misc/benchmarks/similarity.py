#!/usr/bin/env python3
"""Measure how much faster all ranks and all pairs of layers are than the straightforward way, on one core.

The straightforward way measures one pair of ranks or of layers after the other, as the paper's code does. Each time it
computes both activations, truncates them by a singular value decomposition and aligns them. CKA then takes Gram
matrices; PWCCA takes whitened samples and the singular values of their product; Procrustes takes the singular values of
the product of normalised samples. The benchmark fails if the two ways disagree.

CKA of all pairs of layers is also compared with one plain pass of each network as it is built, which no method can
avoid. Its products are in single precision; the benchmark fails if a value differs by 2e-6 from double precision.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import common
import torch
from common import captured, check, frozen, resnets
from torch import Tensor

from src.console import progress, result
from src.models import Network
from src.moments import as_rows
from src.runtime import keep_freed_memory
from src.similarity import Comparison

METRICS = ("cka", "pwcca", "procrustes")
N_RANKS = 14
timed = partial(common.timed, clock=time.process_time)


def activations(network: Network, images: Tensor, layer: str) -> Tensor:
    """Return the activations of one layer for all images, by whole passes with a hook."""
    batches = []
    for batch in images.split(64):
        with captured({"it": network.get_submodule(layer)}) as outputs:
            network(batch)
        batches.append(outputs["it"])
    return torch.cat(batches)


def truncated(activation: Tensor, rank: int | None) -> Tensor:
    """Return the first principal components by a singular value decomposition of all positions."""
    if rank is None or rank >= activation.shape[1]:
        return activation
    rows = as_rows(activation)
    mean = rows.mean(0)
    _, _, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    rows = (rows - mean) @ axes[:rank].T @ axes[:rank] + mean
    return rows.view(*activation.movedim(1, -1).shape).movedim(-1, 1)


def measured(x: Tensor, y: Tensor) -> list[float]:
    """Return the three measures in double precision, each computed separately."""
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


def ours(models: list[Network], images: Tensor, layers: tuple[list[str], list[str]], ranks) -> Iterator[list[float]]:
    """Measure all pairs of layers and ranks, with one pass of each network."""
    comparison = Comparison(*layers, n_images=len(images), metrics=METRICS, ranks1=ranks[0], ranks2=ranks[1])
    for batch in images.split(64):
        comparison.add(*(model.activations(batch, names) for model, names in zip(models, layers, strict=True)))
    for rows in comparison.rows():
        yield from ([row.values[metric] for metric in METRICS] for row in rows)


def straightforward(models: list[Network], images: Tensor, layers: Sequence[str], ranks: Sequence[int | None]):
    """Measure one pair of layers at one pair of ranks."""
    both = [activations(model, images, layer) for model, layer in zip(models, layers, strict=True)]
    return measured(*(truncated(activation, rank) for activation, rank in zip(both, ranks, strict=True)))


def race(title: str, models: list[Network], images: Tensor, layers, ranks, *, n_measured: int, columns) -> None:
    """Time all pairs of this suite, and evenly spread ones of the straightforward way; compares some of `METRICS`."""
    seconds, values = timed(lambda: list(ours(models, images, layers, ranks)))
    cases = list(product(product(*layers), product(*ranks)))
    chosen = spread(len(cases), n_measured)
    theirs, expected = timed(
        lambda: [straightforward(models, images, *cases[i]) for i in progress(chosen, "one at a time")]
    )
    difference = (torch.tensor([values[i] for i in chosen]) - torch.tensor(expected))[:, columns].abs().max().item()
    check(f"values of {title}", difference, 1e-4)
    theirs *= len(cases) / len(chosen)
    result(f"{title:32} {len(chosen)} of {len(cases)} timed {theirs:9.1f} s {seconds:9.1f} s {theirs / seconds:8.1f}x")


def race_against_passes(models: list[Network], images: Tensor, names: list[str], *, n_permutations: int) -> None:
    """Compare CKA of all pairs of layers with two plain passes, and time permutations; takes the best of two runs."""
    built = resnets(images[:64])  # not in the layout that the scripts use, which can be the slower one
    folded = [model.for_inference(names) for model in models]

    def passes() -> None:
        for model, batch in product(built, images.split(64)):
            model(batch)

    def cka(n: int = 0, *, double: bool = False) -> Tensor:
        comparison = Comparison(names, names, n_images=len(images), metrics=["cka"], n_permutations=n)
        for batch in images.split(64):
            layers_of = [model.activations(batch, names) for model in folded]
            comparison.add(*({name: x.double() if double else x for name, x in layers.items()} for layers in layers_of))
        return torch.tensor([rows[0].values["cka"] for rows in comparison.rows()])

    runs = [(timed(passes)[0], *timed(cka)) for _ in range(2)]
    plain, ours = min(run[0] for run in runs), min(run[1] for run in runs)
    seconds, _ = timed(lambda: cka(n_permutations))
    error = (runs[0][2] - cka(double=True)).abs().max().item()
    check("CKA in single and in double precision", error, 2e-6)
    result(f"8×8 CKA: {ours:.1f} s, {ours / plain:.2f} times two plain passes (goal 1.3); error {error:.0e}")
    result(f"{n_permutations} permutations of it: {seconds - ours:.1f} s more (goal 60 s on two cores)")


def spread(n: int, n_chosen: int) -> list[int]:
    """Choose some of n numbers, evenly spread but not aligned with rows and columns."""
    return [round((i + 0.5) * n / n_chosen) for i in range(min(n, n_chosen))]


def main() -> None:
    """Measure; takes several minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="images that are compared (default 1000)")
    parser.add_argument("--permutations", type=int, default=200, help="permutations of 8×8 CKA (default 200)")
    parser.add_argument("--measured", type=int, default=4, help="pairs timed of the straightforward way (default 4)")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)  # so that processor time is not spent on waiting, and other jobs do not count
    torch.manual_seed(0)
    images = torch.rand(options.images, *common.SHAPE)
    models = [frozen(network) for network in resnets(images[:64])]
    names = list(models[0].block_names)
    with torch.no_grad():
        race_against_passes(models, images, names, n_permutations=options.permutations)
    result(f"{f'resnet18, {options.images} images':45} {'one by one':>11} {'here':>11}")
    for layer, width in (("layer3.0", 256), ("layer4.1", 512)):
        ranks = [round(width * (i + 1) / N_RANKS) for i in reversed(range(N_RANKS))]
        race(f"14×14 ranks of {layer}", models, images, ([layer], [layer]), (ranks, ranks),
             n_measured=options.measured, columns=[0, 1, 2])  # fmt: skip
    # Where there are fewer images than pooled features of both layers, correlations tie, and the straightforward PWCCA
    # is noise: it is left out of the comparison, not of the time.
    race("8×8 layers at full rank", models, images, (names, names), ([None], [None]),
         n_measured=options.measured, columns=[0, 2])  # fmt: skip


if __name__ == "__main__":
    main()
