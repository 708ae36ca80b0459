"""Networks with tuples, dataclasses, LSTMs and NumPy between layers: grids of them, and every script."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from src.models import Network
from src.runtime import seeded
from src.stitching.grid import Grid
from src.stitching.stitched_model import StitchedModel, build_layers
from tests import commands, traps
from tests.commands import read_metrics
from tests.conftest import few_images

FILE = f"{Path(__file__).parent}/traps.py"
LAYERS = {"structured": ["blocks.1", "blocks.2.one"], "recurrent": ["lstm", "attention", "again"],
          "numpy": ["blocks.1", "blocks.2"]}  # fmt: skip


def built(kind: str) -> Network:
    with seeded(0):
        network = Network(getattr(traps, kind)(n_channels=1), image_shape=(1, 8, 8), n_classes=10)
    return network.to(torch.float64).eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_grid_equals_single_pairs(kind, images):
    front, end = built(kind), built(kind)
    layers, _ = build_layers(front, end, LAYERS[kind], LAYERS[kind], "t2t" if kind == "recurrent" else "rc2c_pre",
                             image_shape=(1, 8, 8), seed=0)  # fmt: skip
    labels = torch.arange(5)
    grid = Grid(front, end, layers)
    losses = torch.cat([group.losses for group in grid.losses(images, labels, training=True)])
    losses.sum().backward()
    for pair, layer in layers.items():
        alone = copy.deepcopy(layer)
        alone.zero_grad()
        loss = nn.functional.cross_entropy(StitchedModel(front, end, alone, pair)(images), labels)
        loss.backward()
        torch.testing.assert_close(alone.transform.weight.grad, layer.transform.weight.grad, rtol=1e-9, atol=1e-12)


SLOW = [pytest.param(kind, marks=() if kind == "structured" else pytest.mark.slow) for kind in LAYERS]


@pytest.mark.parametrize("kind", SLOW)
def test_every_script(kind, in_tmp_path):
    network, layers = f"{FILE}:{kind}", ",".join(LAYERS[kind])
    trained, pair = ["net/model_1.pt", network], ["-", "net/model_1.pt", network, network]
    stitching = "t2t" if kind == "recurrent" else "rc2c_pre"
    detector = "repr_cls_vit_tiny" if kind == "recurrent" else "repr_cls_resnet18"

    def run(script: str, *arguments: str) -> None:
        commands.run(script, *arguments, "-d", "digits", "-gpu", "-1")

    with few_images(96, n_test=60):
        run("exec_train.py", network, "-e", "1", "-dir", "net")
        run("exec_eval.py", *trained)
        for options in (["-i", "pinv", "-e", "0"], ["-e", "1"]):
            run("exec_stitch.py", *pair, layers, layers, stitching, "--mod-only-stitch", *options, "-dir", "runs")
        tuning = ["-e", "1", "-fe", "1", "-b", "32", "-ftidd", "digits", "-ftoodd", "photo_patches", "-fdir", "store"]
        detector = [LAYERS[kind][0], "-m", detector, *tuning, "-dir", "detector"]
        run("exec_train_representation_classifier.py", *trained, *detector)
        types = ["--front-type", network, "--end-type", network]
        evaluate = ["exec_eval_stitcher_ood.py", "results/runs", "-detectors", "store"]
        line = commands.error_line(*evaluate, *commands.ON_DIGITS)
        assert "the code that a folder names is not run by itself" in line
        run(*evaluate, *types)
        run("exec_compute_low_rank_sim_metrics.py", *pair, layers, layers, "-n", "50")
        run("exec_probe.py", *trained, "-l", layers, "-e", "1")
    metrics = [read_metrics(path.parent) for path in in_tmp_path.glob("results/runs/*/metrics.json")]
    assert len(metrics) == 2 * len(LAYERS[kind]) ** 2
    assert all(0 <= each["accuracy"] <= 1 for each in metrics)
