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
import subprocess
import sys
import tempfile
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


class Race(NamedTuple):
    """Seconds of both ways, and the largest difference between their numbers."""

    straightforward: float
    ours: float
    difference: float = 0.0


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
    start = sum(os.times()[:4])  # of this process and of those that it waited for
    value = run()
    return sum(os.times()[:4]) - start, value


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


def stitch(case: Case, name: str, *options: str) -> tuple[float, list[dict[str, str]]]:
    """Stitch all pairs of layers by the script; returns the seconds and the rows of grid.csv."""
    given = [*case.pair, "all", "all", "rc2c_pre", "--mod-only-stitch", "-dir", name, "-b", str(len(case.images))]
    return script("exec_stitch", *given, *options), rows(f"results/{name}/grid.csv")


def layers_of(name: str, grid: list[dict[str, str]]) -> list[tuple[str, str, list[Tensor]]]:
    """Load the stitching layers of a grid: names of front and end layer, weight and bias."""
    states = [torch.load(f"results/{name}/{row['folder']}/final_model.pt", weights_only=True) for row in grid]
    return [(row["front_layer"], row["end_layer"], [*state.values()]) for row, state in zip(grid, states, strict=True)]


def furthest(table: list[dict[str, str]], name: str, values: list[float]) -> float:
    """Return the largest difference between a column and values, relative to values above 1."""
    pairs = [(float(row[name]), value) for row, value in zip(table, values, strict=True)]
    return max(abs(a - b) / max(1, abs(b)) for a, b in pairs)


def spread(cases: list, n: int) -> list:
    """Choose n cases, evenly spread but not aligned with rows and columns."""
    n = min(n, len(cases))
    return [cases[int((i + 0.5) * len(cases) / n)] for i in range(n)]


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
def compare(case: Case, front: str, end: str, rank1: int | None, rank2: int | None) -> float:
    """Return CKA of one pair of layers at one pair of ranks, in double precision; also takes what Procrustes takes."""
    x, y = output(case.f, case.images, front), output(case.g, case.images, end)
    x, y = (low_rank_approx(z, rank) if rank else z for z, rank in ((x, rank1), (y, rank2)))
    pooled = [z.mean((2, 3)).double() for z in (x, y)]
    torch.linalg.svdvals((pooled[0] - pooled[0].mean(0)).T @ (pooled[1] - pooled[1].mean(0)))
    centred = [z.flatten(1).double() - z.flatten(1).double().mean(0) for z in (x, y)]
    first, second = (z @ z.T for z in centred)
    return ((first * second).sum() / first.norm() / second.norm()).item()


# ---- The races


def race_evaluation(case: Case) -> Race:
    ours, grid = stitch(case, "fresh", "-i", "rand", "-e", "0")
    theirs, found = timed(lambda: [evaluate(case, *each) for each in layers_of("fresh", grid)])
    return Race(theirs, ours, furthest(grid, "representation_difference", found))


def race_training(case: Case) -> Race:
    _, before = stitch(case, "before", "-i", "rand", "-e", "0")
    ours, grid = stitch(case, "trained", "-i", "rand", "-e", "1")
    theirs, losses = timed(lambda: [train(case, *each) for each in layers_of("before", before)])
    logs = [rows(f"results/trained/{row['folder']}/training_logs.csv")[0] for row in grid]
    return Race(theirs, ours, furthest(logs, "train_loss", losses))


def race_matching(case: Case) -> Race:
    ours, grid = stitch(case, "matched", "-i", "pinv", "-e", "0", "-pinv-samples", str(len(case.images)))
    pairs = [(row["front_layer"], row["end_layer"]) for row in grid]
    theirs, found = timed(lambda: [evaluate(case, *pair, match(case, *pair)) for pair in pairs])
    return Race(theirs, ours, furthest(grid, "representation_difference", found))


def race_processes(case: Case) -> Race:
    def run(front: str, end: str) -> None:
        given = [*case.pair, front, end, "rc2c_pre", "--mod-only-stitch", "-i", "pinv", "-e", "0", *ON_DATA]
        subprocess.run([sys.executable, ROOT / "exec_stitch.py", *given], check=True, capture_output=True)

    chosen = spread(list(product(case.layers, case.layers)), case.n_timed)
    theirs, _ = timed(lambda: [run(*pair) for pair in chosen])
    return Race(theirs * len(case.layers) ** 2 / len(chosen), timed(lambda: run("all", "all"))[0])


def race_ood(case: Case) -> Race:
    _, grid = stitch(case, "ood", "-i", "pinv", "-e", "0")
    ours = script("exec_eval_stitcher_ood", "results/ood", "--detector", "mahalanobis", "-b", str(len(case.images)))
    table = rows("results/ood/ood_evaluation_mahalanobis.csv")

    @torch.no_grad()
    def score(front: str, end: str, layer: list[Tensor]) -> float:
        detector, (source, own) = make_detector("mahalanobis"), sides(case, front, end)
        detector.add(own, case.labels)
        detector.fit()
        replaced(case.g, case.images, end, F.conv2d(source, *layer)).argmax(1)  # the accuracy
        detector.score(own)
        return detector.score(F.conv2d(sides(case, front, end)[0], *layer)).mean().item()

    layers = {(front, end): layer for front, end, layer in layers_of("ood", grid)}
    pairs = [(row["front_layer"], row["end_layer"]) for row in table]
    theirs, found = timed(lambda: [score(*pair, layers[pair]) for pair in pairs])
    return Race(theirs, ours, furthest(table, "mean_energy", found))


def ranks_of(case: Case, layer: str) -> list[int]:
    width = output(case.f, case.images[:2], layer).shape[1]
    return sorted({max(1, width * (i + 1) // case.n_ranks) for i in range(case.n_ranks)})


def race_probes(case: Case) -> Race:
    ranks = ranks_of(case, case.layers[-1])
    options = ["-l", *case.layers, "-ranks", *map(str, ranks), "-e", "1", "-b", str(len(case.images))]
    ours = script("exec_probe", case.pair[0], case.pair[2], *options)

    def train_probe(layer: str, rank: int) -> None:
        for is_training in (True, False):
            with torch.no_grad():
                pooled = low_rank_approx(output(case.f, case.images, layer), rank).mean((2, 3))
            probe = nn.Linear(pooled.shape[1], 10)
            loss = F.cross_entropy(probe(pooled), case.labels)
            if is_training:
                loss.backward()
                torch.optim.Adam(probe.parameters()).step()

    chosen = spread(list(product(case.layers, ranks)), case.n_timed)
    theirs, _ = timed(lambda: [train_probe(*each) for each in chosen])
    return Race(theirs * len(case.layers) * len(ranks) / len(chosen), ours)


def race_similarity(case: Case, layers: list[str], ranks: list[int]) -> Race:
    options = ["--alignment", "pool", "-n", str(len(case.images)), "-o", "similarity.csv"]
    options += ["-m1r", *map(str, ranks), "-m2r", *map(str, ranks)]
    ours = script("exec_compute_low_rank_sim_metrics", *case.pair, *[",".join(layers)] * 2, *options)
    cases = list(product(layers, layers, ranks or [None], ranks or [None]))
    chosen = spread(cases, case.n_timed)
    theirs, found = timed(lambda: [compare(case, *each) for each in chosen])
    keys = ("layer1", "layer2", "rank1", "rank2")
    table = {tuple(row[key] for key in keys): row for row in rows("similarity.csv")}
    measured = [table[tuple(str(value or "") for value in each)] for each in chosen]
    return Race(theirs * len(cases) / len(chosen), ours, furthest(measured, "cka", found))


@torch.no_grad()
def race_passes(case: Case) -> Race:
    """CKA of all layers against one plain pass of each network, which no method can avoid."""
    options = ["--metrics", "cka", "-n", str(len(case.images))]
    ours = script("exec_compute_low_rank_sim_metrics", *case.pair, "all", "all", *options)
    passes, _ = timed(lambda: [network(batch) for network in (case.f, case.g) for batch in case.images.split(64)])
    return Race(passes, ours)


RACES = {
    "evaluation": ("all pairs of layers: evaluation", race_evaluation),
    "training": ("a step of task loss matching, and evaluation", race_training),
    "matching": ("direct matching, and evaluation", race_matching),
    "processes": ("direct matching in one process, or one a pair", race_processes),
    "ood": ("OOD evaluation, Mahalanobis", race_ood),
    "probes": ("a step of probes at all layers and ranks", race_probes),
    "ranks": ("similarity of a pair of layers at all ranks",
              lambda case: race_similarity(case, [case.layers[-3]], ranks_of(case, case.layers[-3]))),
    "layers": ("similarity of all pairs of layers", lambda case: race_similarity(case, case.layers, [])),
    "passes": ("CKA of all pairs of layers, or plain passes", race_passes),
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
                found = race(case)
                if not found.difference < 1e-3:
                    raise ValueError(f"{title}: the two ways differ by {found.difference}")
                ratio = found.straightforward / found.ours
                result(f"{title:46} {found.straightforward:8.2f} s {found.ours:8.2f} s {ratio:6.1f}x")
        finally:
            os.chdir(before)


def main(argv=None) -> int:
    return cli.run(parser(), benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
