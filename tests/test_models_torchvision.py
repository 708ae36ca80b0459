"""Networks of torchvision: cuts at blocks and inside of them equal a plain hook. Blocks of these and of the zoo."""

import contextlib
import json
import re

import pytest
import torch
import torchvision

from src.models import MODEL_NAMES, Network, build_model
from src.models.torchvision_networks import classifiers
from src.runtime import seeded
from tests.goldens import DATA
from tests.plain_hooks import gradient, plain_pass

BLOCKS = json.loads((DATA / "models" / "block_names.json").read_text())
FAST = ("tv_squeezenet1_1", "tv_shufflenet_v2_x0_5", "tv_vgg11", "tv_densenet121", "tv_googlenet")
SIZES = {"inception_v3": 75} | dict.fromkeys(("vit_b_32", "vit_b_16", "vit_l_16", "vit_l_32", "vit_h_14", "maxvit_t"),
                                             224)  # fmt: skip


def unpacked(text: str) -> list[str]:
    """The names that a text such as "layer1.0-2 layer2" stands for."""
    parts = [re.fullmatch(r"(\S*?)(?:(\d+)-(\d+))?", part).groups() for part in text.split()]
    return [stem if first is None else f"{stem}{i}" for stem, first, last in parts
            for i in ([0] if first is None else range(int(first), int(last) + 1))]  # fmt: skip


EXPECTED = {name: unpacked(text) for names, text in BLOCKS.items() for name in names.split()}


def built(name: str, **options) -> Network:
    with seeded(0):
        if name in ("googlenet", "inception_v3"):
            options["init_weights"] = False  # drawing truncated normal numbers takes half a minute
        module = torchvision.models.get_model(name, weights=None, num_classes=7, **options)
    return Network(module.eval().requires_grad_(False))


@pytest.mark.parametrize("name", [name if name in FAST or not name.startswith("tv_") else
                                  pytest.param(name, marks=pytest.mark.slow) for name in EXPECTED])  # fmt: skip
def test_blocks(name):
    shape = (17, 24) if name.startswith("repr_cls_vit") else (8, 4, 4) if name.startswith("repr_cls") else None
    with contextlib.nullcontext() if "regnet" in name else torch.device("meta"):  # RegNet computes its widths
        in_zoo = name in MODEL_NAMES
        network = build_model(name, representation_shape=shape) if in_zoo else built(name.removeprefix("tv_"))
    assert list(network.to("meta").block_names) == EXPECTED[name]


def test_blocks_are_told_of_every_network():
    assert EXPECTED.keys() == {*MODEL_NAMES, *(f"tv_{name}" for name in classifiers())}


@pytest.mark.parametrize("name", [name if f"tv_{name}" == FAST[0] else pytest.param(name, marks=pytest.mark.slow)
                                  for name in classifiers()])  # fmt: skip
def test_cuts(name, capfd):
    """Activations are those of hooks, and so is what follows some blocks and layers inside of some."""
    network, size = built(name).double(), SIZES.get(name, 64)
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    blocks = network.block_names
    inner = [name for name, shape in network.shapes().items() if name not in network.cut_names and shape] or blocks
    names = [blocks[0], blocks[-1], inner[len(inner) // 3], inner[-1]]
    with torch.no_grad():
        own, calls = plain_pass(network, images)
        acts, recorded = network.record(images, [*blocks, *names, "output"], after=names)
    assert all(torch.equal(act, own[name]) for name, act in acts.items())
    for name in names:
        value = own[name].flip(0).requires_grad_()
        expected = plain_pass(network, images, name, value, calls[name])[0]["output"]
        found = network(value, after=name, images=recorded)
        assert torch.equal(found, expected), name
        assert torch.equal(gradient(found, value), gradient(expected, value)), name
    assert {*blocks} <= {*network.cut_names}
    assert "is cut by hooks" not in capfd.readouterr().err
