#!/usr/bin/env python3
"""Measure what cutting costs: a whole network as a part against its own pass, and a grid by hooks against the trace."""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from src.models import build_model
from src.models.engines import Traced
from src.models.parts import OUTPUT
from src.models.tracing import Untraceable
from src.stitching.grid import Grid
from src.stitching.stitched_model import build_layers

SHAPE = (3, 32, 32)


def shortest(*functions, n_times: int) -> list[float]:
    """Return the shortest processor time of each function in seconds, run in turn."""
    times = [[] for _ in functions]
    for _ in range(n_times):
        for function, taken in zip(functions, times, strict=True):
            start = time.process_time()
            function()
            taken.append(time.process_time() - start)
    return list(map(min, times))


def grid_of(name: str) -> Grid:
    """Return a grid of all pairs of blocks of two fresh networks."""
    networks = [build_model(name, image_shape=SHAPE).eval().requires_grad_(False) for _ in range(2)]
    blocks = networks[0].block_names
    return Grid(*networks, build_layers(*networks, blocks, blocks, "rc2c_pre", image_shape=SHAPE, seed=0)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["resnet18", "tv_densenet121", "tv_mobilenet_v3_small"])
    parser.add_argument("-n", type=int, default=10, help="number of times")
    args = parser.parse_args()
    torch.manual_seed(0)
    images, labels = torch.rand(16, *SHAPE), torch.arange(16) % 10
    with torch.no_grad():
        for name in args.names:
            network = build_model(name, image_shape=SHAPE).eval().requires_grad_(False)
            network(images, until=OUTPUT)
            runs = partial(network, images), partial(network, images, until=OUTPUT)
            whole, part = shortest(*runs, n_times=args.n)
            print(f"{name}: whole {whole * 1e3:.1f} ms, as a part {part / whole:.3f} times that")
        traced = grid_of("resnet18")
        traced.evaluate([(images[:2], labels[:2])])
        with patch.object(Traced, "__init__", side_effect=Untraceable("not traced for this measurement")):
            hooked = grid_of("resnet18")
            hooked.evaluate([(images[:2], labels[:2])])
        batches = [(images, labels)]
        fast, slow = shortest(lambda: traced.evaluate(batches), lambda: hooked.evaluate(batches), n_times=1)
        print(f"8×8 grid of resnet18: traced {fast:.2f} s, by hooks {slow:.2f} s, {slow / fast:.2f} times that")


if __name__ == "__main__":
    main()
