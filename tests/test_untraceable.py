"""Networks that cannot be traced, which hooks cut (see test_models_cut.py): grids of them, and every script."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.models import Network
from src.runtime import seeded
from src.stitching.grid import Grid
from src.stitching.stitched_model import StitchedModel, build_layers
from tests import commands
from tests.commands import read_metrics
from tests.conftest import few_images
from tests.untraceable import KINDS, Base

FILE = f"{Path(__file__).parent}/untraceable.py"
LAYERS = {kind: ["lstm", "attention", "again"] if kind == "recurrent" else ["blocks.1", "blocks.2"] for kind in KINDS}


def built(kind) -> Network:
    with seeded(0):
        network = Network(kind(), image_shape=(1, 8, 8), n_classes=10)
    return network.to(torch.float64).eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_branches_that_no_gradient_leaves_are_seen(images):
    class Detached(Base):
        def forward(self, images):
            if images.ndim != 4:
                raise ValueError
            return super().forward(images) + images.detach().mean((1, 2, 3))[:, None]

    class Silent(Base):
        def forward(self, images):
            if images.ndim != 4:
                raise ValueError
            return super().forward(images) * 0 + images.flatten(1)[:, :10] * 0  # as heads that start at zero

    assert built(Detached).cut_names == built(Silent).cut_names == ()


def test_statistics_in_front_of_a_layer_do_not_move(images):
    class Norms(KINDS["values"]):
        class block(nn.Sequential):  # noqa: N801
            def __init__(self, width):
                super().__init__(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    network = built(Norms).train()
    h = network(images, until="blocks.1")
    norms = [block[1] for block in network.module.blocks]
    assert [norm.num_batches_tracked.item() for norm in norms] == [1, 1, 0]
    network(h, after="blocks.1", images=images)
    assert [norm.num_batches_tracked.item() for norm in norms] == [1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_equals_single_pairs(kind, images):
    front, end = built(KINDS[kind]), built(KINDS[kind])
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


def test_an_unknown_shape_of_images_is_asked_for():
    with pytest.raises(UserError, match=r"line \d+: .*; to cut it by hooks, say what images it takes: Network\(module"):
        _ = Network(KINDS["shapes"]()).layer_names


SLOW = [pytest.param(kind, marks=() if kind == "structured" else pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", SLOW)
def test_every_script(kind, in_tmp_path):
    network, layers, said = f"{FILE}:{kind}", ",".join(LAYERS[kind]), []
    trained, pair = ["net/model_1.pt", network], ["-", "net/model_1.pt", network, network]
    stitching = "t2t" if kind == "recurrent" else "rc2c_pre"
    detector = "repr_cls_vit_tiny" if kind == "recurrent" else "repr_cls_resnet18"

    def run(script: str, *arguments: str) -> None:
        said.append(commands.run(script, *arguments, "-d", "digits", "-gpu", "-1").err)

    with few_images(96, n_test=60):
        run("exec_train.py", network, "-e", "1", "-dir", "net")
        run("exec_eval.py", *trained)
        for options in (["-i", "pinv", "-e", "0"], ["-e", "1"]):
            run("exec_stitch.py", *pair, layers, layers, stitching, "--mod-only-stitch", *options, "-dir", "runs")
        tuning = ["-e", "1", "-fe", "1", "-b", "32", "-ftidd", "digits", "-ftoodd", "photo_patches", "-fdir", "store"]
        detector = [LAYERS[kind][0], "-m", detector, *tuning, "-dir", "detector"]
        run("exec_train_representation_classifier.py", *trained, *detector)
        types = ["--front-type", network, "--end-type", network]
        run("exec_eval_stitcher_ood.py", "results/runs", "-detectors", "store", *types)
        run("exec_compute_low_rank_sim_metrics.py", *pair, layers, layers, "-n", "50")
        run("exec_probe.py", *trained, "-l", layers, "-e", "1")
    metrics = [read_metrics(path.parent) for path in in_tmp_path.glob("results/runs/*/metrics.json")]
    assert len(metrics) == 2 * len(LAYERS[kind]) ** 2
    assert all(0 <= each["accuracy"] <= 1 for each in metrics) and "is cut by hooks" in "".join(said)
