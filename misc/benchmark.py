#!/usr/bin/env python3
"""Measure how much faster the scripts are than the straightforward way, in processor time of one thread.

The straightforward way takes one pair of layers, probe or rank after the other, by hooks in passes of whole networks. A
script counts with all that it does: it loads, evaluates, writes and draws, but for the import of torch. The benchmark
fails where the two ways give different numbers.
"""

import contextlib
import csv
import io
import os
import random
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src import cli
from src.console import result
from src.low_rank import low_rank_approx
from src.models import Network, build_model
from src.ood import make_detector

SIZE = 32
ON_DATA = ["-d", "data.npz", "-gpu", "-1"]


class Case(NamedTuple):
    """Two networks of a type as f.pt and g.pt in the working folder, and images for both splits in data.npz."""

    pair: list[str]  # as arguments of a script
    f: nn.Module
    g: nn.Module
    layers: list[str]
    images: Tensor
    labels: Tensor
    n_ranks: int
    n_timed: int  # cases of the straightforward way that are timed, where one is like another


@torch.no_grad()
def make_case(kind: str, n_images: int, n_ranks: int, n_timed: int) -> Case:
    """Write random images, and two networks whose BatchNorm statistics fit them."""
    images = np.random.default_rng(0).integers(0, 256, (n_images, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(n_images) % 10
    np.savez("data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    pixels, networks = torch.from_numpy(images).permute(0, 3, 1, 2) / 255, []
    for seed, name in enumerate("fg"):
        torch.manual_seed(seed)
        network = build_model(kind, n_classes=10, n_channels=3, image_shape=(3, SIZE, SIZE))
        network.train()(pixels)
        networks.append(network.eval().requires_grad_(False).module)
        torch.save(networks[-1].state_dict(), f"{name}.pt")
    layers = list(Network(networks[0]).block_names)
    return Case(["f.pt", "g.pt", kind, kind], *networks, layers, pixels, torch.from_numpy(labels), n_ranks, n_timed)


def timed(run) -> tuple[float, list]:
    """Return the seconds of processor time that a call takes, which other jobs hardly change, and its result."""
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


def script(name: str, *arguments: str) -> float:
    """Run a script on the images, in this process; returns the seconds."""
    main = import_module(name).main
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        seconds, status = timed(lambda: main([*arguments, *ON_DATA]))
    if status:
        sys.exit(errors.getvalue())
    return seconds


def rows(path: str) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with open(path) as file:
        return list(csv.DictReader(file))


def stitch(case: Case, name: str, *options: str) -> tuple[float, list[dict[str, Any]]]:
    """Stitch all pairs of layers by the script; returns the seconds, and the rows of grid.csv.

    Each row also has the names of its layers, and its stitching layer: weight and bias.
    """
    given = [*case.pair, "all", "all", "rc2c_pre", "--mod-only-stitch", "-dir", name, "-b", str(len(case.images))]
    seconds, grid = script("exec_stitch", *given, *options), rows(f"results/{name}/grid.csv")
    for row in grid:
        state = torch.load(f"results/{name}/{row['folder']}/final_model.pt", weights_only=True)
        row |= {"layers": (row["front_layer"], row["end_layer"]), "stitch": [*state.values()]}
    return seconds, grid


def furthest(table: list[dict[str, str]], name: str, values: list[float]) -> float:
    """Return the largest difference between a column and values, relative to values above 1."""
    pairs = [(float(row[name]), value) for row, value in zip(table, values, strict=True)]
    return max(abs(a - b) / max(1, abs(b)) for a, b in pairs)


def timed_sample(case: Case, cases: list, run) -> tuple[float, list, list]:
    """Run some of many cases; returns the seconds that all would take, those that were run, and their results."""
    chosen = random.Random(0).sample(cases, min(case.n_timed, len(cases)))
    seconds, found = timed(lambda: [run(*each) for each in chosen])
    return seconds * len(cases) / len(chosen), chosen, found


# ---- The straightforward way


def output(network: nn.Module, images: Tensor, layer: str) -> Tensor:
    """Return the output of a layer in a pass of the whole network, as it is before later in-place operations."""
    found: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_hook(lambda *call: found.append(call[2].clone()))
    network(images)
    hook.remove()
    return found[0]


def replaced(network: nn.Module, images: Tensor, layer: str, value: Tensor) -> Tensor:
    """Return the logits of a pass of the whole network in which the output of a layer is replaced."""
    hook = network.get_submodule(layer).register_forward_hook(lambda *call: value.clone())
    logits = network(images)
    hook.remove()
    return logits


def sides(case: Case, front: str, end: str) -> tuple[Tensor, Tensor]:
    """Return the front activation, resized, and the end activation."""
    with torch.no_grad():
        source, target = output(case.f, case.images, front), output(case.g, case.images, end)
    return F.interpolate(source, target.shape[2:], mode="bilinear"), target


@torch.no_grad()
def evaluate(case: Case, front: str, end: str, layer: list[Tensor]) -> float:
    """Return the representation difference of one stitch, after a pass for its accuracy."""
    source, target = sides(case, front, end)
    replaced(case.g, case.images, end, F.conv2d(source, *layer)).argmax(1)
    return ((F.conv2d(source, *layer) - target).square().sum() / target.square().sum()).item()


def train(case: Case, front: str, end: str, layer: list[Tensor]) -> float:
    """Train one stitch on the task for one step, and evaluate it; returns the loss before the step."""
    layer = [value.clone().requires_grad_() for value in layer]
    optimizer = torch.optim.Adam(layer)
    activation = F.conv2d(sides(case, front, end)[0], *layer)
    loss = F.cross_entropy(replaced(case.g, case.images, end, activation), case.labels)
    loss.backward()
    optimizer.step()
    evaluate(case, front, end, layer)
    return loss.item()


@torch.no_grad()
def match(case: Case, front: str, end: str) -> list[Tensor]:
    """Return weight and bias of direct matching, by the pseudo-inverse of all positions of the resized source."""
    x, y = (z.movedim(1, -1).flatten(0, -2) for z in sides(case, front, end))  # (positions, channels)
    solution = torch.linalg.pinv(torch.cat([x, torch.ones(len(x), 1)], 1)) @ y
    return [solution[:-1].T[:, :, None, None], solution[-1]]


@torch.no_grad()
def score(case: Case, front: str, end: str, layer: list[Tensor]) -> float:
    """Return the mean score of one stitch by Mahalanobis, after a pass for its accuracy."""
    detector, (source, own) = make_detector("mahalanobis"), sides(case, front, end)
    detector.add(own, case.labels)
    detector.fit()
    replaced(case.g, case.images, end, F.conv2d(source, *layer)).argmax(1)
    detector.score(own)
    return detector.score(F.conv2d(sides(case, front, end)[0], *layer)).mean().item()


def train_probe(case: Case, layer: str, rank: int) -> None:
    """Train one probe for one step, and evaluate it."""
    for is_training in (True, False):
        with torch.no_grad():
            pooled = low_rank_approx(output(case.f, case.images, layer), rank).mean((2, 3))
        probe = nn.Linear(pooled.shape[1], 10)
        loss = F.cross_entropy(probe(pooled), case.labels)
        if is_training:
            loss.backward()
            torch.optim.Adam(probe.parameters()).step()


@torch.no_grad()
def compare(case: Case, front: str, end: str, rank1: int | str, rank2: int | str) -> float:
    """Return CKA of one pair of layers at one pair of ranks, in double precision; also takes what Procrustes takes."""
    x, y = output(case.f, case.images, front), output(case.g, case.images, end)
    x, y = (low_rank_approx(z, rank) if rank else z for z, rank in ((x, rank1), (y, rank2)))
    pooled = [z.mean((2, 3)).double() for z in (x, y)]
    torch.linalg.svdvals((pooled[0] - pooled[0].mean(0)).T @ (pooled[1] - pooled[1].mean(0)))
    centred = [z.flatten(1).double() - z.flatten(1).double().mean(0) for z in (x, y)]
    first, second = (z @ z.T for z in centred)
    return ((first * second).sum() / first.norm() / second.norm()).item()


# ---- The races: the seconds of both ways, and the largest difference between their numbers


def race_evaluation(case: Case) -> tuple[float, float, float]:
    ours, grid = stitch(case, "fresh", "-i", "rand", "-e", "0")
    theirs, found = timed(lambda: [evaluate(case, *row["layers"], row["stitch"]) for row in grid])
    return theirs, ours, furthest(grid, "representation_difference", found)


def race_training(case: Case) -> tuple[float, float, float]:
    _, before = stitch(case, "before", "-i", "rand", "-e", "0")
    ours, grid = stitch(case, "trained", "-i", "rand", "-e", "1")
    theirs, losses = timed(lambda: [train(case, *row["layers"], row["stitch"]) for row in before])
    logs = [rows(f"results/trained/{row['folder']}/training_logs.csv")[0] for row in grid]
    return theirs, ours, furthest(logs, "train_loss", losses)


def race_matching(case: Case) -> tuple[float, float, float]:
    ours, grid = stitch(case, "matched", "-i", "pinv", "-e", "0", "-pinv-samples", str(len(case.images)))
    theirs, found = timed(lambda: [evaluate(case, *row["layers"], match(case, *row["layers"])) for row in grid])
    return theirs, ours, furthest(grid, "representation_difference", found)


def race_ood(case: Case) -> tuple[float, float, float]:
    _, grid = stitch(case, "ood", "-i", "pinv", "-e", "0")
    ours = script("exec_eval_stitcher_ood", "results/ood", "--detector", "mahalanobis", "-b", str(len(case.images)))
    table = {row["folder"]: row for row in rows("results/ood/ood_evaluation_mahalanobis.csv")}
    theirs, found = timed(lambda: [score(case, *row["layers"], row["stitch"]) for row in grid])
    return theirs, ours, furthest([table[row["folder"]] for row in grid], "mean_energy", found)


def ranks_of(case: Case, layer: str) -> list[int]:
    width = output(case.f, case.images[:2], layer).shape[1]
    return sorted({max(1, width * (i + 1) // case.n_ranks) for i in range(case.n_ranks)})


def race_probes(case: Case) -> tuple[float, float, float]:
    ranks = ranks_of(case, case.layers[-1])
    options = ["-l", *case.layers, "-ranks", *map(str, ranks), "-e", "1", "-b", str(len(case.images))]
    ours = script("exec_probe", case.pair[0], case.pair[2], *options)
    theirs, _, _ = timed_sample(case, list(product(case.layers, ranks)), partial(train_probe, case))
    return theirs, ours, 0.0


def race_similarity(case: Case, layers: list[str], ranks: list[int]) -> tuple[float, float, float]:
    options = ["--alignment", "pool", "-n", str(len(case.images)), "-o", "similarity.csv"]
    options += ["-m1r", *map(str, ranks), "-m2r", *map(str, ranks)]
    ours = script("exec_compute_low_rank_sim_metrics", *case.pair, *[",".join(layers)] * 2, *options)
    cases = list(product(layers, layers, ranks or [""], ranks or [""]))
    theirs, chosen, found = timed_sample(case, cases, partial(compare, case))
    keys = ("layer1", "layer2", "rank1", "rank2")
    table = {tuple(row[key] for key in keys): row for row in rows("similarity.csv")}
    return theirs, ours, furthest([table[tuple(map(str, each))] for each in chosen], "cka", found)


RACES = {
    "evaluation": ("all pairs of layers: evaluation", race_evaluation),
    "training": ("a step of task loss matching, and evaluation", race_training),
    "matching": ("direct matching, and evaluation", race_matching),
    "ood": ("OOD evaluation, Mahalanobis", race_ood),
    "probes": ("a step of probes at all layers and ranks", race_probes),
    "ranks": ("similarity of a pair of layers at all ranks",
              lambda case: race_similarity(case, [case.layers[-3]], ranks_of(case, case.layers[-3]))),
    "layers": ("similarity of all pairs of layers", lambda case: race_similarity(case, case.layers, [])),
}  # fmt: skip


def parser() -> cli.Parser:
    options = cli.Parser("Measure how much faster the scripts are than the straightforward way, on one core.")
    add = options.add_argument
    add("races", nargs="*", choices=[[], *RACES], metavar="RACE", help=f"of {', '.join(RACES)}; default: all")
    add("--network", default="resnet18", help="type of both networks, whose layers give maps")
    add("--images", type=cli.whole_number(20), default=100, help="images to train on, and to test on")
    add("--ranks", type=cli.whole_number(1), default=14, help="ranks of a layer")
    add("--timed", type=cli.whole_number(1), default=8, help="cases of the straightforward way, where all are alike")
    return options


def benchmark(args) -> None:
    torch.set_num_threads(1)
    before = os.getcwd()
    result(f"{f'{args.network}, {args.images} images':46} {'one by one':>10} {'here':>10}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            case = make_case(args.network, args.images, args.ranks, args.timed)
            for title, race in (RACES[name] for name in args.races or RACES):
                theirs, ours, difference = race(case)
                if not difference < 1e-3:
                    raise ValueError(f"{title}: the two ways differ by {difference}")
                result(f"{title:46} {theirs:8.2f} s {ours:8.2f} s {theirs / ours:6.1f}x")
        finally:
            os.chdir(before)


def main(argv=None) -> int:
    return cli.run(parser(), benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
