#!/usr/bin/env python3
"""Measure how much faster probes at all layers and ranks are trained together than one after the other, on the CPU.

It is one training step of 112 probes: the eight blocks of a resnet18 at the fourteen ranks of the README. The
straightforward way runs the whole network with a hook for each probe, and truncates whole activations.
"""

import argparse

import torch
from common import SHAPE, captured, check, frozen, resnets, timed
from torch.nn.functional import cross_entropy

from src.console import progress, result
from src.images import ImageSpec
from src.low_rank import low_rank_approx
from src.probing import Probes, pool
from src.runtime import keep_freed_memory

RANKS = [512, 448, 384, 320, 256, 192, 128, 64, 32, 16, 8, 4, 2, 1]


def straightforward(network, probes, images, labels) -> list[float]:
    """Train each probe for one step, one after the other; returns the losses."""
    losses = []
    for (layer, rank), probe in progress(probes.items(), "one probe at a time"):
        optimizer = torch.optim.Adam(probe.parameters())
        with captured({layer: network.get_submodule(layer)}) as outputs, torch.no_grad():
            network(images)
        loss = cross_entropy(probe(pool(low_rank_approx(outputs[layer], rank))), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def together(task, images, labels) -> list[float]:
    """Train all probes for one step at once; returns the losses."""
    optimizer = torch.optim.Adam([parameter for probe in task.heads for parameter in probe.parameters()])
    losses = []
    for group in task.losses(images, labels, training=True):
        group.losses.sum().backward()
        losses += group.losses.tolist()
    optimizer.step()
    return losses


def main() -> None:
    """Measure; takes a few minutes on two cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="images in the batch (default 64)")
    n_images = parser.parse_args().images
    keep_freed_memory()
    torch.manual_seed(0)
    images, labels = torch.rand(n_images, *SHAPE), torch.randint(10, (n_images,))
    network, _ = resnets(images)

    def fresh(network) -> Probes:
        return Probes(network, network.block_names, RANKS, ImageSpec(10, SHAPE), seed=0)

    probes = fresh(network).probes
    theirs, expected = timed(lambda: straightforward(network, probes, images, labels))
    task = fresh(frozen(network))
    ours, measured = timed(lambda: together(task, images, labels))
    check("losses", max(abs(a - b) for a, b in zip(measured, expected, strict=True)), 1e-4)
    times = f"{theirs:.1f} s one at a time, {ours:.2f} s here"
    result(f"a step of {len(probes)} probes, {n_images} images: {times}: {theirs / ours:.0f}x")


if __name__ == "__main__":
    main()
