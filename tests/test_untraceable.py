"""Networks that cannot be traced: hooks cut them as a trace would, and every script takes them."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import exec_compute_low_rank_sim_metrics
import exec_eval
import exec_eval_stitcher_ood
import exec_probe
import exec_stitch
import exec_train
import exec_train_representation_classifier
from src.errors import UserError
from src.models import Network
from src.models.hooked import Hooked
from src.models.parts import Traced
from src.runtime import seeded
from src.stitching.grid import Grid
from src.stitching.stitched_model import StitchedModel, build_layers
from tests.conftest import few_images
from tests.untraceable import KINDS, Base, Recurrent

FILE = f"{Path(__file__).parent}/untraceable.py"
DIGITS = ["-d", "digits", "-gpu", "-1"]
LAYERS = {kind: ["lstm", "attention", "again"] if kind == "recurrent" else ["blocks.1", "blocks.2"] for kind in KINDS}


def built(kind) -> Network:
    with seeded(0):
        network = Network(kind(), image_shape=(1, 8, 8), n_classes=10)
    return network.to(torch.float64).eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def first(value):
    while not isinstance(value, torch.Tensor):
        value = value[0]
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_equal_plain_hooks(kind, images, capfd):
    network, outputs = built(KINDS[kind]), {}
    module = network.module
    hooks = [each.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: first(out).clone()}))
             for name, each in module.named_modules() if name in LAYERS[kind]]  # fmt: skip
    logits = network(images)
    for hook in hooks:
        hook.remove()
    acts = network.activations(images, LAYERS[kind])
    for name in LAYERS[kind]:
        assert torch.equal(acts[name], outputs[name]) and torch.equal(network(images, until=name), outputs[name])
        assert network.needs_images(name)
        assert torch.equal(network(acts[name], after=name, images=images), logits)
        order = torch.tensor([3, 1, 0, 4, 2])
        swapped = network(acts[name][order], after=name, images=images)
        assert torch.equal(swapped, logits[order]) == (name in network.cut_names)
        with pytest.raises(ValueError, match="needs the images"):
            network(acts[name], after=name)
    assert isinstance(network._engines.current(), Hooked)
    assert capfd.readouterr().err.count("is cut by hooks") == 1
    assert set(network.cut_names) >= {"stem", "head"} - set(LAYERS[kind]) or kind in ("recurrent", "numpy", "twice")


def test_cuts_are_told_by_numbers(images):
    assert set(built(KINDS["shapes"]).cut_names) == {"stem", "blocks", "blocks.0", "blocks.1", "blocks.2", "head"}
    assert set(built(KINDS["twice"]).cut_names) == {"stem", "blocks", "blocks.0", "blocks.1", "blocks.2", "head"}
    assert set(built(KINDS["numpy"]).cut_names) == set(built(KINDS["shapes"]).cut_names)
    assert built(KINDS["recurrent"]).cut_names == ("embed", "attention", "lstm", "head")  # `again` gives its state too


@pytest.mark.parametrize("kind", [Base, Recurrent])
def test_hooks_equal_the_trace(kind, images):
    network = built(kind)
    traced, hooked = network._engines.current(), Hooked(network.module, network._engines.images())
    assert isinstance(traced, Traced)
    names = [name for name in traced.layers if name in hooked.layers]
    assert set(traced.layers) == set(hooked.layers) and network.output_name == hooked.output_name
    expected = hooked.run(images, names)
    for name, act in network.activations(images, names).items():
        assert torch.equal(act, expected[name]), name
    for name in names:
        behind = traced.behind(name, names)
        assert behind == hooked.behind(name, names) and traced.is_cut(name) == hooked.is_cut(name), name
        values = hooked.run(expected[name].flip(0), behind, name, images) if behind else {}
        for other, act in values.items():
            assert torch.equal(network.activations(expected[name].flip(0), [other], after=name, images=images)[other],
                               act), (name, other)  # fmt: skip


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


SLOW = [pytest.param(kind, marks=() if kind in ("structured", "views") else pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", SLOW)
def test_every_script(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network, layers = f"{FILE}:{kind}", ",".join(LAYERS[kind])
    pair = ["-", "net/model_1.pt", network, network]
    stitching = "t2t" if kind == "recurrent" else "rc2c_pre"
    detector = "repr_cls_vit_tiny" if kind == "recurrent" else "repr_cls_resnet18"
    with few_images(96, n_test=60):
        assert exec_train.main([network, *DIGITS, "-e", "1", "-dir", "net"]) == 0
        assert exec_eval.main(["net/model_1.pt", network, *DIGITS]) == 0
        for options in (["-i", "pinv", "-e", "0"], ["-e", "1"]):
            assert exec_stitch.main([*pair, layers, layers, stitching, "--mod-only-stitch", *options, "-dir", "runs",
                                     *DIGITS]) == 0  # fmt: skip
        assert exec_train_representation_classifier.main(
            ["net/model_1.pt", network, LAYERS[kind][0], "-m", detector, "-e", "1", "-fe", "1", "-b", "32", "-ftidd",
             "digits", "-ftoodd", "photo_patches", "-dir", "detector", "-fdir", "store", *DIGITS]) == 0  # fmt: skip
        assert exec_eval_stitcher_ood.main(["results/runs", "-detectors", "store", "--front-type", network,
                                            "--end-type", network, *DIGITS]) == 0  # fmt: skip
        assert exec_compute_low_rank_sim_metrics.main([*pair, layers, layers, "-n", "50", *DIGITS]) == 0
        assert exec_probe.main(["net/model_1.pt", network, "-l", layers, "-e", "1", *DIGITS]) == 0
    metrics = [json.loads(path.read_text()) for path in tmp_path.glob("results/runs/*/metrics.json")]
    assert len(metrics) == 2 * len(LAYERS[kind]) ** 2
    assert all(0 <= each["accuracy"] <= 1 for each in metrics) and "is cut by hooks" in capsys.readouterr().err
