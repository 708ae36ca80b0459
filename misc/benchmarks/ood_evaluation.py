#!/usr/bin/env python3
"""Measure how much faster the OOD evaluation of a folder is than the straightforward way, on the CPU.

There are 16 stitches between two resnet18 (four front layers × four end layers) and a detector for each end layer. The
straightforward way evaluates one stitch after the other. It runs whole networks with hooks and gradients: a pass for
the accuracy, a second one for the energies, and for each end layer a pass for the end network's own energies.

Fitting the detectors that need no training, at all eight blocks, is compared with one plain pass over the same images.
"""

import argparse
import time
from types import SimpleNamespace

import torch
from common import SHAPE, captured, check, frozen, replaced, resnets, timed

from src.console import progress, result
from src.models import build_model
from src.ood import energy
from src.ood.detectors import EnergyDetector
from src.ood.evaluation import fit_detectors, score_network, score_stitches
from src.ood.registry import SCORES
from src.runtime import keep_freed_memory
from src.stitching import Grid, build_layers

LAYERS = ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]


def straightforward(front, end, layers, detectors, images, labels) -> dict:
    """Return accuracy and energies of every stitch, computed one after the other."""

    def stitched(pair):
        with captured({"front": front.get_submodule(pair.front_layer)}) as outputs:
            front(images)
        activation = layers[pair](outputs["front"])
        with replaced(end.get_submodule(pair.end_layer), activation):
            return activation, end(images)

    results = {}
    for pair in progress(layers, "one stitch at a time"):
        accuracy = (stitched(pair)[1].argmax(1) == labels).double().mean().item()
        results[pair] = accuracy, energy(detectors[pair.end_layer](stitched(pair)[0])).detach()
    for layer in progress(detectors, "ID energies"):
        with captured({"end": end.get_submodule(layer)}) as outputs:
            end(images)
        energy(detectors[layer](outputs["end"]))
    return results


def fitting(network, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Compare fitting all scores of all blocks in one pass with a plain pass; prints the best of three runs each."""
    layers, batches = list(network.block_names), list(zip(images.split(64), labels.split(64), strict=True))
    names = [name for name, score in SCORES.items() if not score.is_trained]

    def plain() -> None:
        for batch, _ in batches:
            network(batch)

    def fit() -> None:
        fit_detectors(names, network, layers, batches)

    seconds = [[timed(run, time.process_time)[0] for run in (plain, fit)] for _ in range(3)]
    theirs, ours = (min(column) for column in zip(*seconds, strict=True))
    what = f"{len(names)} scores of {len(layers)} layers, {len(images)} images"
    result(f"{what}: {ours:.1f} s, {ours / theirs:.2f} times a plain pass (goal 1.5)")


def main() -> None:
    """Measure; takes a few minutes on two cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="images in the pass (default 64)")
    parser.add_argument("--training-images", type=int, default=2000, help="images that are fitted (default 2000)")
    options = parser.parse_args()
    n_images = options.images
    keep_freed_memory()
    torch.manual_seed(0)
    images, labels = torch.rand(n_images, *SHAPE), torch.randint(10, (n_images,))
    front, end = (network.requires_grad_(True) for network in resnets(images))
    layers, _ = build_layers(front, end, LAYERS, LAYERS, "rc2c_pre", image_shape=SHAPE, seed=0)
    classifiers = {}
    for layer in LAYERS:
        shape = tuple(end(images[:1], until=layer).shape[1:])
        classifiers[layer] = build_model("repr_cls_resnet18", representation_shape=shape).eval()

    theirs, expected = timed(lambda: straightforward(front, end, layers, classifiers, images, labels))
    front, end = frozen(front), frozen(end)
    detectors = {"energy": {layer: EnergyDetector(frozen(network)) for layer, network in classifiers.items()}}
    runs = {pair: SimpleNamespace(row=SimpleNamespace(pair=pair)) for pair in layers}  # of which the pair is read

    def here() -> list:
        score_network(end, detectors, [(images, labels)])
        return score_stitches([(Grid(front, end, layers), runs)], detectors, lambda: [(images, labels)])["energy"]

    ours, stitches = timed(here)
    for stitch in stitches:
        accuracy, energies = expected[stitch.run.row.pair]
        check("energies", (torch.from_numpy(stitch.scores) - energies).abs().max().item(), 1e-3)
        check("accuracies", abs(stitch.accuracy - accuracy), 0)
    times = f"{theirs:.1f} s one at a time, {ours:.1f} s here"
    with torch.no_grad():
        fitting(end, torch.rand(options.training_images, *SHAPE), torch.arange(options.training_images) % 10)
    result(f"16 stitches, {n_images} images: {times}: {theirs / ours:.1f}x (goal 2x)")


if __name__ == "__main__":
    main()
