#!/usr/bin/env python3
"""Compare the run times of the scripts with a straightforward implementation.

That implementation takes one pair of layers after the other, with hooks in passes of whole
networks. Both ways use one thread. The benchmark fails where they give different numbers.
"""

import contextlib
import csv
import io
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src import cli
from src.core.console import result
from src.models import Network, build_model
from src.skill.baseline import Baselines

SHAPE = (3, 32, 32)
LayerPair = tuple[str, str]
Case = tuple[nn.Module, nn.Module, Tensor]  # two networks, and the images
TOLERANCE = 1e-3  # of numbers, relative to those above 1


def make_files(kind: str, n_images: int) -> Case:
    """Write data.npz, f.pt and g.pt; return the networks, with BatchNorm statistics, and the images as
    floating-point values."""
    images = np.random.default_rng(0).integers(0, 256, (n_images, *SHAPE), dtype=np.uint8)
    arrays = {"x": images.transpose(0, 2, 3, 1), "y": np.arange(n_images) % 10}
    splits = {f"{name}_{split}": arrays[name] for name in arrays for split in ("train", "test")}
    np.savez("data.npz", **splits)
    values = torch.from_numpy(images) / 255
    networks = []
    for seed, name in enumerate("fg"):
        torch.manual_seed(seed)
        network = build_model(kind, n_classes=10, n_channels=3, image_shape=SHAPE)
        network.train()(values)
        networks.append(network.eval().requires_grad_(False).module)
        torch.save(networks[-1].state_dict(), f"{name}.pt")
    front, end = networks
    return front, end, values


def activation(
    network: nn.Module, images: Tensor, layer: str, replacement: Tensor | None = None
) -> Tensor:
    """Return the output of a layer in a forward pass, which continues with a replacement if one is given."""
    outputs = []

    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
        outputs.append(output.clone())  # a later module may change an output in place
        return replacement

    handle = network.get_submodule(layer).register_forward_hook(hook)
    network(images)
    handle.remove()
    return outputs[0]


def representation_difference(
    front: nn.Module, end: nn.Module, images: Tensor, pair: LayerPair
) -> float:
    """Fit a stitch between one pair of layers at all positions; return its representation difference."""
    target = activation(end, images, pair[1])
    source = F.interpolate(activation(front, images, pair[0]), target.shape[2:], mode="bilinear")
    x = source.movedim(1, -1).flatten(0, -2)  # (positions, C1)
    y = target.movedim(1, -1).flatten(0, -2)  # (positions, C2)
    solution = torch.linalg.pinv(torch.cat([x, torch.ones(len(x), 1)], 1)) @ y
    stitched = F.conv2d(source, solution[:-1].T[:, :, None, None], solution[-1])
    activation(end, images, pair[1], replacement=stitched.clone())
    return ((stitched - target).square().sum() / target.square().sum()).item()


def cka(front: nn.Module, end: nn.Module, images: Tensor, pair: LayerPair) -> float:
    """Compute the linear CKA of one pair of layers in double precision."""
    grams = []
    for network, layer in zip((front, end), pair, strict=True):
        features = activation(network, images, layer).flatten(1).double()
        centred = features - features.mean(0)
        grams.append(centred @ centred.T)
    return ((grams[0] * grams[1]).sum() / grams[0].norm() / grams[1].norm()).item()


def seconds_of(command: str) -> float:
    """Run a script in this process; return its processor time, without the import of torch."""
    start = time.process_time()
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        script, *words = f"{command} -d data.npz -gpu -1".split()
        module = import_module(script)
        status = cli.run(module.parser(), module.main, words)
    if status:
        sys.exit(output.getvalue())
    return time.process_time() - start


def race(
    case: Case,
    title: str,
    command: str,
    table: str,
    columns: tuple[str, str, str],
    of_pair: Callable[[nn.Module, nn.Module, Tensor, LayerPair], float],
) -> None:
    """Print the processor time of a script and of the straightforward implementation.

    `columns` are of both layers and of the number in the table; a ValueError says where it differs.
    """
    of_script = seconds_of(command)
    start = time.process_time()
    names = Network(case[0]).block_names
    expected = {pair: of_pair(*case, pair) for pair in product(names, names)}
    one_by_one = time.process_time() - start
    (path,) = Path().rglob(table)
    with path.open() as file:
        measured = {
            tuple(map(row.get, columns[:2])): row[columns[2]] for row in csv.DictReader(file)
        }
    for pair, number in expected.items():
        if not abs(float(measured[pair]) - number) < TOLERANCE * max(1, abs(number)):
            raise ValueError(f"{title} of {pair}: {number} one by one, {measured[pair]} here")
    ratio = one_by_one / of_script
    result(f"{title:30} {one_by_one:8.2f} s {of_script:8.2f} s {ratio:6.1f}x")


def time_baselines() -> None:
    """Print the processor time of the baselines of skill beside the rest of the evaluation of the stitches."""
    seconds = []
    measured = Baselines.measured

    def timed(*call: Any) -> Any:
        start = time.process_time()
        baselines = measured(*call)
        seconds.append(time.process_time() - start)
        return baselines

    (path,) = Path().rglob("grid.csv")
    with patch.object(Baselines, "measured", timed):
        total = seconds_of(f"exec_eval_stitcher_ood {path.parent}")
    of_baselines = sum(seconds)
    rest = total - of_baselines
    share = of_baselines / rest
    result(f"{'baselines beside evaluation':30} {of_baselines:8.2f} s {rest:8.2f} s {share:6.2f}")


@torch.no_grad()
def run_races(kind: str, n_images: int) -> None:
    """Time all scripts on all pairs of layers of two networks, in the working folder."""
    case = make_files(kind, n_images)
    result(f"{f'{kind}, {n_images} images':30} {'one by one':>10} {'here':>10}")
    networks = f"f.pt g.pt {kind} {kind} all all"
    command = (
        f"exec_stitch {networks} rc2c_pre -i pinv -e 0 --mod-only-stitch -pinv-samples {n_images}"
    )
    columns = ("front_layer", "end_layer", "representation_difference")
    race(case, "direct matching", command, "grid.csv", columns, representation_difference)
    command = f"exec_compute_low_rank_sim_metrics {networks} --metrics cka -n {n_images} -o cka.csv"
    race(case, "CKA", command, "cka.csv", ("layer1", "layer2", "cka"), cka)
    time_baselines()


def parser() -> cli.Parser:
    options = cli.Parser(
        "Compare the run times of the scripts with a straightforward implementation."
    )
    options.add_argument("-m", "--model-type", default="resnet18", help="type of both networks")
    options.add_argument(
        "-n",
        "--n-samples",
        type=cli.integer_from(20),
        default=100,
        help="images of each split",
    )
    return options


def main(args: Namespace) -> None:
    torch.set_num_threads(1)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            run_races(args.model_type, args.n_samples)
        finally:
            os.chdir(before)


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
