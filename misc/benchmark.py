#!/usr/bin/env python3
"""Measure how much faster the scripts are than the straightforward way, and how soon they start.

All times are processor time.

The straightforward way takes one pair of layers after the other, with hooks in passes of whole
networks. Both ways use one thread. The time of a script covers everything but the import of torch.
The benchmark fails where the two ways give different numbers.
"""

import contextlib
import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src import cli
from src.ground.console import result
from src.models import Network, build_model
from src.ood import make_detector

SIZE = 32
TOLERANCE = 1e-3  # of numbers, relative to those above 1
Pair = tuple[str, str]  # of layers
Layer = tuple[Tensor, Tensor]  # weight (C2, C1, 1, 1) and bias (C2,)


class Case(NamedTuple):
    """Two networks, and images that serve as training and as test images.

    The working folder has all of this as files, for the scripts.
    """

    kind: str  # type of both networks
    front: nn.Module
    end: nn.Module
    images: Tensor  # (N, 3, SIZE, SIZE)
    labels: Tensor  # (N,)

    def run(self, script: str, *arguments: str) -> None:
        """Run a script on the images, in this process and without its output."""
        options = ["-d", "data.npz", "-gpu", "-1", "-b", str(len(self.images))]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = import_module(script).main([*arguments, *options])
        if status:
            sys.exit(output.getvalue())


@torch.no_grad()
def make_case(kind: str, n_images: int) -> Case:
    """Write f.pt, g.pt and data.npz: random networks, images to which their BatchNorm is fitted."""
    images = np.random.default_rng(0).integers(0, 256, (n_images, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(n_images) % 10
    np.savez("data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    networks = []
    for seed, name in enumerate("fg"):
        torch.manual_seed(seed)
        network = build_model(kind, n_classes=10, n_channels=3, image_shape=(3, SIZE, SIZE))
        network.train()(pixels)
        networks.append(network.eval().requires_grad_(False).module)
        torch.save(networks[-1].state_dict(), f"{name}.pt")
    return Case(kind, *networks, pixels, torch.from_numpy(labels))


def read_column(path: str, column: str) -> dict[Pair, str]:
    """Read a column of a script's table, by pair of layers."""
    with open(path) as file:
        rows = list(csv.DictReader(file))
    first, second = ("layer1", "layer2") if "layer1" in rows[0] else ("front_layer", "end_layer")
    return {(row[first], row[second]): row[column] for row in rows}


# ---- The straightforward way


def pass_with(hook: Callable, network: nn.Module, images: Tensor, layer: str) -> Tensor:
    """Return the logits of a pass of the whole network with a forward hook on a layer."""
    handle = network.get_submodule(layer).register_forward_hook(hook)
    logits = network(images)
    handle.remove()
    return logits


def activation(network: nn.Module, images: Tensor, layer: str) -> Tensor:
    """Return the output of a layer in a pass of the whole network."""
    outputs = []  # copies, since a later module may change an output in place
    pass_with(lambda *call: outputs.append(call[2].clone()), network, images, layer)
    return outputs[0]


def match(source: Tensor, target: Tensor) -> Layer:
    """Return the layer that direct matching over all positions gives."""
    x = source.movedim(1, -1).flatten(0, -2)  # (positions, C1)
    y = target.movedim(1, -1).flatten(0, -2)  # (positions, C2)
    solution = torch.linalg.pinv(torch.cat([x, torch.ones(len(x), 1)], 1)) @ y
    return solution[:-1].T[:, :, None, None], solution[-1]


def stitch(case: Case, pair: Pair, layer: Layer | None = None) -> tuple[Tensor, Tensor]:
    """Evaluate the stitch of one pair; without a layer, match one.

    Returns the stitched activation and that of the end network.
    """
    source = activation(case.front, case.images, pair[0])
    target = activation(case.end, case.images, pair[1])
    source = F.interpolate(source, target.shape[2:], mode="bilinear")
    if layer is None:
        layer = match(source, target)
    stitched = F.conv2d(source, *layer)
    pass_with(lambda *call: stitched.clone(), case.end, case.images, pair[1]).argmax(1)
    return stitched, target


def representation_difference(case: Case, pair: Pair) -> float:
    """Match one pair and evaluate the stitch; return its representation difference."""
    stitched, target = stitch(case, pair)
    return ((stitched - target).square().sum() / target.square().sum()).item()


def mean_score(case: Case, pair: Pair, *, folders: dict[Pair, str]) -> float:
    """Evaluate the stitch in the folder of a pair; return the mean of its Mahalanobis scores."""
    state = torch.load(f"results/stitches/{folders[pair]}/final_model.pt")
    layer = (state["transform.weight"], state["transform.bias"])
    stitched, target = stitch(case, pair, layer)
    detector = make_detector("mahalanobis")
    detector.add(target, case.labels)
    detector.fit()
    detector.score(target)
    return detector.score(stitched).mean().item()


def cka(case: Case, pair: Pair) -> float:
    """Return the linear CKA of one pair in double precision."""
    grams = []
    for network, layer in zip((case.front, case.end), pair, strict=True):
        features = activation(network, case.images, layer).flatten(1).double()
        centred = features - features.mean(0)
        grams.append(centred @ centred.T)
    return ((grams[0] * grams[1]).sum() / grams[0].norm() / grams[1].norm()).item()


# ---- The races


def race(
    case: Case,
    title: str,
    words: list[str],
    table: str,
    column: str,
    of_pair: Callable[[Case, Pair], float],
) -> None:
    """Print the time of a script that writes a column of a table, and of the way pair by pair.

    Raises ValueError where their numbers differ.
    """
    layers = Network(case.front).block_names
    start = time.process_time()
    case.run(*words)
    middle = time.process_time()
    with torch.no_grad():
        expected = {pair: of_pair(case, pair) for pair in product(layers, repeat=2)}
    end = time.process_time()

    numbers = read_column(table, column)
    for pair, number in expected.items():
        if not abs(float(numbers[pair]) - number) < TOLERANCE * max(1, abs(number)):
            raise ValueError(f"{title} of {pair}: {number} one by one, {numbers[pair]} here")
    seconds, seconds_one_by_one = middle - start, end - middle
    ratio = seconds_one_by_one / seconds
    result(f"{title:30} {seconds_one_by_one:8.2f} s {seconds:8.2f} s {ratio:6.1f}x")


def run_races(kind: str, n_images: int) -> None:
    """Run all races in the working folder, each on all pairs of layers."""
    case = make_case(kind, n_images)
    networks = ["f.pt", "g.pt", kind, kind, "all", "all"]
    result(f"{f'{kind}, {n_images} images':30} {'one by one':>10} {'here':>10}")

    words = ["exec_stitch", *networks, "rc2c_pre", "--mod-only-stitch", "-dir", "stitches"]
    words += ["-i", "pinv", "-e", "0", "-pinv-samples", str(n_images)]
    grid = "results/stitches/grid.csv"
    race(
        case, "direct matching", words, grid, "representation_difference", representation_difference
    )

    words = ["exec_eval_stitcher_ood", "results/stitches", "--detector", "mahalanobis"]
    table = "results/stitches/ood_evaluation_mahalanobis.csv"
    score = partial(mean_score, folders=read_column(grid, "folder"))
    race(case, "OOD evaluation", words, table, "mean_energy", score)

    words = ["exec_compute_low_rank_sim_metrics", *networks, "--metrics", "cka"]
    words += ["-n", str(n_images), "-o", "similarity.csv"]
    race(case, "CKA", words, "similarity.csv", "cka", cka)


# ---- The starts

# Runs a script, and prints its time when it asks for the first batch of images
FIRST_BATCH = """
import os, runpy, sys, time
from src.datasets.base import BaseImageSet

def stop(*pass_over_images, **options):
    print(time.process_time(), flush=True)
    os._exit(0)

BaseImageSet._deliver = stop
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
N_STARTS = 3  # of a script; the quickest counts


def run_starts(kind: str) -> None:
    """Print the time of each script until its first batch; in the folder of `run_races`."""
    networks = ["f.pt", "g.pt", kind, kind, "all", "all"]
    shutil.copy("data.npz", "ood.npz")
    detector = ["-m", "repr_cls_resnet18", "-ftidd", "data.npz", "-ftoodd", "ood.npz"]
    scripts = {
        "exec_train": [kind, "-dir", "trained"],
        "exec_eval": ["f.pt", kind],
        "exec_stitch": [*networks, "rc2c_pre", "-i", "pinv", "-e", "0"],
        "exec_train_representation_classifier": ["f.pt", kind, "all", *detector, "-dir", "trained"],
        "exec_eval_stitcher_ood": ["results/stitches", "--detector", "mahalanobis"],
        "exec_probe": ["f.pt", kind, "-l", "all"],
        "exec_compute_low_rank_sim_metrics": networks,
    }
    result(f"\n{f'{kind}, until the first batch':30} {'here':>21}")
    for script, words in scripts.items():
        seconds = min(seconds_to_first_batch(script, words) for _ in range(N_STARTS))
        result(f"{script:40} {seconds:9.2f} s")


def seconds_to_first_batch(script: str, words: list[str]) -> float:
    """Start a script on the images as a process; return its time until the first batch."""
    command = [str(ROOT / f"{script}.py"), *words, "-d", "data.npz", "-gpu", "-1"]
    done = subprocess.run(
        [sys.executable, "-c", FIRST_BATCH, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def parser() -> cli.Parser:
    options = cli.Parser(
        "Measure how much faster the scripts are than the straightforward way, and how soon they "
        "start."
    )
    add = options.add_argument
    add("--network", default="resnet18", help="type of both networks, whose layers give maps")
    add("--images", type=cli.whole_number(20), default=100, help="images of each split")
    return options


def benchmark(args) -> None:
    torch.set_num_threads(1)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            run_races(args.network, args.images)
            run_starts(args.network)
        finally:
            os.chdir(before)


def main(argv=None) -> int:
    return cli.run(parser(), benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
