#!/usr/bin/env python3
"""Measure how much faster a grid is than the straightforward way, on the CPU.

The straightforward way takes one pair after the other. A hook reads the front layer in a pass of the whole front
network; another replaces the activation of the end layer in a pass of the whole end network. Both networks run once for
the accuracy and once for the representation difference. Objectives that compare with the end network's own activations
need one more pass of it. Direct matching resizes the source, appends a one and takes the pseudo-inverse of all rows.
The benchmark fails if the two ways disagree.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import ROOT, SHAPE, captured, check, replaced, resnets, timed
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from src.checkpoints import save_state
from src.console import progress, result
from src.datasets.augmentation import CropFlip
from src.datasets.in_memory import ImageSet
from src.models import Network
from src.moments import as_rows
from src.runtime import keep_freed_memory
from src.stitching import Grid, Pair, build_layers, match_layers
from src.stitching.layers import StitchingLayer, resize
from src.stitching.registry import OBJECTIVES


def line(title: str, straightforward: float, ours: float, goal: float) -> None:
    """Print one measurement."""
    ratio = straightforward / ours
    result(f"{title:58} {straightforward:9.2f} s {ours:9.2f} s {ratio:8.1f}x   (goal {goal:g}x)")


class OnePairAtATime:
    """The straightforward way: whole passes with hooks, one pair after the other."""

    def __init__(self, front: Network, end: Network, layers: dict[Pair, StitchingLayer]):
        self.front, self.end, self.layers = front, end, layers

    def stitched(self, pair: Pair, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stitched activation and the logits of one pair."""
        with torch.no_grad(), captured({"front": self.front.get_submodule(pair.front_layer)}) as outputs:
            self.front(images)
        activation = self.layers[pair](outputs["front"])
        with replaced(self.end.get_submodule(pair.end_layer), activation):
            return activation, self.end(images)

    def evaluate(self, images: Tensor, labels: Tensor) -> list[tuple[float, float]]:
        """Return accuracy and representation difference of every pair."""
        scores = []
        for pair in progress(self.layers, "one pair at a time"):
            with torch.no_grad():
                accuracy = (self.stitched(pair, images)[1].argmax(1) == labels).double().mean().item()
                activation, _ = self.stitched(pair, images)
                with captured({"end": self.end.get_submodule(pair.end_layer)}) as outputs:
                    self.end(images)
                difference = (activation - outputs["end"]).square().sum() / outputs["end"].square().sum()
            scores.append((accuracy, difference.item()))
        return scores

    def train(self, images: Tensor, labels: Tensor, objective: str) -> list[float]:
        """Train each pair for one step; returns the losses."""
        losses = []
        for pair in progress(self.layers, "one pair at a time"):
            loss = getattr(self, objective)(pair, images, labels)
            loss.backward()
            losses.append(loss.item())
        return losses

    def task(self, pair: Pair, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(self.stitched(pair, images)[1], labels)

    def soft(self, pair: Pair, images: Tensor, labels: Tensor) -> Tensor:
        """Return the divergence from the end network's predictions."""
        with torch.no_grad():
            expected = self.end(images)
        return F.kl_div(self.stitched(pair, images)[1].log_softmax(1), expected.softmax(1), reduction="batchmean")

    def compared(self, pair: Pair, images: Tensor, names: list[str]) -> list[tuple[Tensor, Tensor]]:
        """Return stitched and own activations of the end network at some layers."""
        modules = {name: self.end.get_submodule(name) for name in names}
        with torch.no_grad(), captured(modules) as own:
            self.end(images)
        with captured(modules) as stitched:
            activation, _ = self.stitched(pair, images)
        return [(activation if name == pair.end_layer else stitched[name], own[name]) for name in names]

    def hint(self, pair: Pair, images: Tensor, labels: Tensor) -> Tensor:
        """Return the relative distance at the end layer."""
        with torch.no_grad(), captured({"front": self.front.get_submodule(pair.front_layer)}) as outputs:
            self.front(images)
        with torch.no_grad(), captured({"end": self.end.get_submodule(pair.end_layer)}) as targets:
            self.end(images)
        return (self.layers[pair](outputs["front"]) - targets["end"]).norm() / targets["end"].norm()

    def fula(self, pair: Pair, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean relative distance from the end layer on."""
        names = self.end.block_names[self.end.block_names.index(pair.end_layer) :]
        return torch.stack([(h - g).norm() / g.norm() for h, g in self.compared(pair, images, names)]).mean()

    def feature(self, pair: Pair, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared difference at the last block."""
        return F.mse_loss(*self.compared(pair, images, self.end.block_names[-1:])[0])

    def match(self, images: Tensor) -> list[Tensor]:
        """Return the weights of direct matching for every pair."""
        weights = []
        for pair in progress(self.layers, "one pair at a time"):
            with torch.no_grad(), captured({"front": self.front.get_submodule(pair.front_layer)}) as outputs:
                self.front(images)
            with torch.no_grad(), captured({"end": self.end.get_submodule(pair.end_layer)}) as targets:
                self.end(images)
            source = as_rows(resize(outputs["front"], targets["end"].shape[2:], "bilinear"))
            augmented = torch.cat([source, torch.ones(len(source), 1)], dim=1)
            weights.append((torch.linalg.pinv(augmented) @ as_rows(targets["end"]))[:-1].T)
        return weights


def passes(n_images: int) -> None:
    """Compare evaluation, one training step on each objective, and direct matching of 64 pairs."""
    images, labels = torch.rand(n_images, *SHAPE), torch.randint(10, (n_images,))
    front, end = resnets(images)
    layers, _ = build_layers(front, end, front.block_names, end.block_names, "rc2c_pre", image_shape=SHAPE, seed=0)
    alone = OnePairAtATime(front, end, layers)
    front, end = (copy.deepcopy(network).to(memory_format=torch.channels_last) for network in (front, end))
    grid = Grid(front, end, layers)
    grid.evaluate([(images[:8], labels[:8])])  # warms up
    alone.stitched(next(iter(layers)), images[:8])

    ours, scores = timed(lambda: grid.evaluate([(images, labels)]))
    theirs, expected = timed(lambda: alone.evaluate(images, labels))
    pairs = zip(scores.pairs.values(), expected, strict=True)
    check("representation differences", max(abs(a.representation_difference - b) for a, (_, b) in pairs), 1e-4)
    line(f"evaluate 64 pairs, {n_images} images", theirs, ours, 9)

    seconds = {}
    for name, objective in OBJECTIVES.items():
        grid = Grid(front, end, layers, objective=objective)
        step(grid, images[:8], labels[:8])  # warms up
        seconds[name], losses = timed(lambda grid=grid: step(grid, images, labels))
        theirs, expected = timed(lambda name=name: alone.train(images, labels, name))
        check(f"losses of {name}", max(abs(a / b - 1) for a, b in zip(losses, expected, strict=True)), 1e-3)
        goal = 8 if name == "hint" else 3
        line(f"{name}, 64 pairs, one step on {n_images} images", theirs, seconds[name], goal)
    line("the 64-pair steps of task (left) and hint (right)", seconds["task"], seconds["hint"], 3)

    ours, _ = timed(lambda: match_layers(front, end, layers, [(images, labels)]))
    theirs, expected = timed(lambda: alone.match(images))
    weights = [layer.transform.weight.detach()[:, :, 0, 0] for layer in layers.values()]
    check("weights", max((a - b).abs().max().item() for a, b in zip(weights, expected, strict=True)), 1e-3)
    line(f"64 direct matchings, {n_images} samples", theirs, ours, 25)


def step(grid: Grid, images: Tensor, labels: Tensor) -> list[float]:
    """Compute losses and gradients of all pairs; returns the losses."""
    losses = torch.zeros(len(grid.layers))
    for group in grid.losses(images, labels, training=True):
        group.losses.sum().backward()
        losses[list(group.heads)] = group.losses.detach()
    return losses.tolist()


def augmentation(batch_size: int = 256, n_images: int = 5120) -> None:
    """Compare flip and crop of CIFAR-like images with torchvision's transforms of single images."""
    images = torch.randint(256, (n_images, *SHAPE), dtype=torch.uint8)
    data = ImageSet(images, torch.zeros(n_images), n_classes=10, augmentation=CropFlip(4))
    each = transforms.Compose(
        [transforms.RandomHorizontalFlip(), transforms.RandomCrop(32, padding=4), transforms.ToTensor()]
    )
    pictures = [to_pil_image(image) for image in images]

    def one_by_one() -> None:
        for start in range(0, n_images, batch_size):
            torch.stack([each(picture) for picture in pictures[start : start + batch_size]])

    # Both are short; the best of several runs is least disturbed by other jobs.
    ours = min(timed(lambda: deque(data.epoch(batch_size, seed=0, epoch=1), maxlen=0))[0] for _ in range(10))
    theirs = min(timed(one_by_one)[0] for _ in range(5))
    line(f"flip and crop of {n_images} images", theirs, ours, 20)


def processes(folder: Path, n_test: int) -> None:
    """Compare the whole process of a 64-pair grid of direct matching with 64 processes of one pair."""
    from tests.tiny_datasets import random_images

    sizes = {"train": 300, "test": n_test}
    images = {f"x_{split}": random_images(n, 32, 32, 3) for split, n in sizes.items()}
    np.savez(folder / "data.npz", **images, **{f"y_{split}": np.arange(n) % 10 for split, n in sizes.items()})
    networks = resnets(torch.rand(64, *SHAPE))
    for name, network in zip("fg", networks, strict=True):
        save_state(folder / f"{name}.pt", network.state_dict())

    def stitch(front: str, end: str) -> None:
        command = [sys.executable, ROOT / "exec_stitch.py", "f.pt", "g.pt", "resnet18", "resnet18", front, end]
        options = "rc2c_pre -i pinv -e 0 --mod-only-stitch -d data.npz -gpu -1 -b 100".split()
        subprocess.run([*command, *options], cwd=folder, check=True, capture_output=True)

    names = networks[0].block_names
    pairs = [(front, end) for front in names for end in names]
    ours, _ = timed(lambda: stitch("all", "all"))
    theirs, _ = timed(lambda: [stitch(*pair) for pair in progress(pairs, "one process a pair")])
    line(f"whole process, direct matching of 64 pairs, {n_test} test images", theirs, ours, 15)


def main() -> None:
    """Measure everything; takes about twenty minutes on two cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="images in a pass (default 100)")
    parser.add_argument("--test-images", type=int, default=100, help="of the whole processes, beside 300 for training")
    parser.add_argument("--skip-processes", action="store_true", help="leave out the comparison of whole processes")
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    result(f"{torch.get_num_threads()} threads; {'':33} one at a time       grid    ratio")
    augmentation()
    passes(args.images)
    if not args.skip_processes:
        with tempfile.TemporaryDirectory() as folder:
            processes(Path(folder), args.test_images)


if __name__ == "__main__":
    main()
