#!/usr/bin/env python3
"""Measure how much faster the scripts are than the straightforward way, in processor time of one
thread.

The straightforward way takes one pair of layers after the other, by hooks in passes of whole
networks. A script counts with all that it does: it loads, evaluates, writes and draws, but for the
import of torch. The benchmark fails where the two ways give different numbers."""

import contextlib
import csv
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src import cli
from src.console import result
from src.models import Network, build_model
from src.ood import make_detector

SIZE = 32
Pair = tuple[str, str]  # of layers


class Case(NamedTuple):
    """Two networks of a type as f.pt and g.pt in the working folder, and images for both splits in
    data.npz."""

    kind: str
    front: nn.Module
    end: nn.Module
    layers: list[str]
    images: Tensor
    labels: Tensor

    def run(self, script: str, *arguments: str) -> float:
        """Run a script on the images in this process; return the seconds."""
        main = import_module(script).main
        options = ["-d", "data.npz", "-gpu", "-1", "-b", str(len(self.images))]
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as errors,
        ):
            seconds, status = timed(lambda: main([*arguments, *options]))
        if status:
            sys.exit(errors.getvalue())
        return seconds

    def stitch(self, folder: str) -> float:
        """Stitch all pairs of layers by direct matching with all images, into a folder; return the
        seconds."""
        networks = [
            "f.pt",
            "g.pt",
            self.kind,
            self.kind,
            "all",
            "all",
            "rc2c_pre",
            "--mod-only-stitch",
            "-dir",
            folder,
        ]
        return self.run(
            "exec_stitch",
            *networks,
            "-i",
            "pinv",
            "-e",
            "0",
            "-pinv-samples",
            str(len(self.images)),
        )


@torch.no_grad()
def make_case(kind: str, n_images: int) -> Case:
    """Write random images, and two networks whose BatchNorm statistics fit them."""
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
    return Case(
        kind, *networks, list(Network(networks[0]).block_names), pixels, torch.from_numpy(labels)
    )


def timed(run: Callable) -> tuple[float, list]:
    """Return the seconds of processor time that a call takes, which other jobs hardly change, and
    its result."""
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


def read_column(path: str, name: str) -> dict[Pair, str]:
    """Return a column of a table by front and end layer, or by the two layers that are compared."""
    with open(path) as file:
        rows = list(csv.DictReader(file))
    keys = [key for key in ("front_layer", "end_layer", "layer1", "layer2") if key in rows[0]]
    return {tuple(row[key] for key in keys): row[name] for row in rows}


def furthest(column: dict[Pair, str], values: dict[Pair, float]) -> float:
    """Return the largest difference between two numbers of a pair, relative to values above 1."""
    return max(
        abs(float(column[pair]) - value) / max(1, abs(value)) for pair, value in values.items()
    )


# ---- The straightforward way


def output(network: nn.Module, images: Tensor, layer: str) -> Tensor:
    """Return the output of a layer in a pass of the whole network, as it is before later in-place
    operations."""
    outputs: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_hook(
        lambda *call: outputs.append(call[2].clone())
    )
    network(images)
    hook.remove()
    return outputs[0]


def replaced(network: nn.Module, images: Tensor, layer: str, value: Tensor) -> Tensor:
    """Return the logits of a pass of the whole network in which the output of a layer is
    replaced."""
    hook = network.get_submodule(layer).register_forward_hook(lambda *call: value.clone())
    logits = network(images)
    hook.remove()
    return logits


def activations(case: Case, front: str, end: str) -> tuple[Tensor, Tensor]:
    """Return the activation of the front network, resized, and that of the end network."""
    source, target = output(case.front, case.images, front), output(case.end, case.images, end)
    return F.interpolate(source, target.shape[2:], mode="bilinear"), target


def match(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of direct matching, by the pseudo-inverse of all positions."""
    x, y = (
        activation.movedim(1, -1).flatten(0, -2) for activation in (source, target)
    )  # (positions, channels)
    solution = torch.linalg.pinv(torch.cat([x, torch.ones(len(x), 1)], 1)) @ y
    return solution[:-1].T[:, :, None, None], solution[-1]


@torch.no_grad()
def difference(case: Case, front: str, end: str) -> float:
    """Return the representation difference of one stitch, which is matched and evaluated."""
    source, target = activations(case, front, end)
    made = F.conv2d(source, *match(source, target))
    replaced(case.end, case.images, end, made).argmax(1)
    return ((made - target).square().sum() / target.square().sum()).item()


@torch.no_grad()
def score(case: Case, front: str, end: str, *, layers: dict[Pair, dict[str, Tensor]]) -> float:
    """Return the mean score of one stitch of these weights by Mahalanobis; it is evaluated as
    well."""
    source, target = activations(case, front, end)
    made = F.conv2d(source, *layers[front, end].values())
    replaced(case.end, case.images, end, made).argmax(1)
    detector = make_detector("mahalanobis")
    detector.add(target, case.labels)
    detector.fit()
    detector.score(target)
    return detector.score(made).mean().item()


@torch.no_grad()
def cka(case: Case, front: str, end: str) -> float:
    """Return CKA of one pair of layers in double precision."""
    outputs = output(case.front, case.images, front), output(case.end, case.images, end)
    samples = [activation.flatten(1).double() for activation in outputs]
    first, second = ((x - x.mean(0)) @ (x - x.mean(0)).T for x in samples)
    return ((first * second).sum() / first.norm() / second.norm()).item()


# ---- The races: the seconds of a script, its numbers, and the function that gives one of them
# straightforwardly


def race_matching(case: Case) -> tuple[float, dict, Callable]:
    seconds = case.stitch("matched")
    return seconds, read_column("results/matched/grid.csv", "representation_difference"), difference


def race_ood(case: Case) -> tuple[float, dict, Callable]:
    case.stitch("ood")
    folders = read_column("results/ood/grid.csv", "folder")
    layers = {
        pair: torch.load(f"results/ood/{folder}/final_model.pt") for pair, folder in folders.items()
    }
    seconds = case.run("exec_eval_stitcher_ood", "results/ood", "--detector", "mahalanobis")
    table = read_column("results/ood/ood_evaluation_mahalanobis.csv", "mean_energy")
    return seconds, table, partial(score, layers=layers)


def race_cka(case: Case) -> tuple[float, dict, Callable]:
    networks = [
        "f.pt",
        "g.pt",
        case.kind,
        case.kind,
        "all",
        "all",
        "--metrics",
        "cka",
        "-n",
        str(len(case.images)),
    ]
    seconds = case.run("exec_compute_low_rank_sim_metrics", *networks, "-o", "similarity.csv")
    return seconds, read_column("similarity.csv", "cka"), cka


RACES = {
    "matching": ("direct matching of all pairs, and evaluation", race_matching),
    "ood": ("OOD evaluation of all pairs, Mahalanobis", race_ood),
    "cka": ("CKA of all pairs of layers", race_cka),
}


def parser() -> cli.Parser:
    options = cli.Parser(
        "Measure how much faster the scripts are than the straightforward way, on one core."
    )
    add = options.add_argument
    add(
        "races",
        nargs="*",
        choices=[[], *RACES],
        metavar="RACE",
        help=f"of {', '.join(RACES)}; default: all",
    )
    add("--network", default="resnet18", help="type of both networks, whose layers give maps")
    add(
        "--images",
        type=cli.whole_number(20),
        default=100,
        help="images to match on, and to test on",
    )
    return options


def benchmark(args) -> None:
    torch.set_num_threads(1)
    before = os.getcwd()
    result(f"{f'{args.network}, {args.images} images':46} {'one by one':>10} {'here':>10}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            case = make_case(args.network, args.images)
            pairs = list(product(case.layers, repeat=2))
            for title, race in (RACES[name] for name in args.races or RACES):
                ours, column, one_by_one = race(case)
                theirs, values = timed(
                    lambda way=one_by_one: {pair: way(case, *pair) for pair in pairs}
                )
                if not furthest(column, values) < 1e-3:
                    raise ValueError(f"{title}: the two ways differ by {furthest(column, values)}")
                result(f"{title:46} {theirs:8.2f} s {ours:8.2f} s {theirs / ours:6.1f}x")
        finally:
            os.chdir(before)


def main(argv=None) -> int:
    return cli.run(parser(), benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
