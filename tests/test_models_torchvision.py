"""Networks of torchvision: cuts at blocks and inside of them equal a plain hook. Blocks of these and of the zoo."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from src.models import MODEL_NAMES, Network, build_model
from src.models.torchvision_networks import classifiers
from src.runtime import seeded

BLOCKS = json.loads((Path(__file__).parent / "data" / "models" / "block_names.json").read_text())
FAST = ("tv_squeezenet1_1", "tv_shufflenet_v2_x0_5", "tv_mobilenet_v3_small", "tv_vgg11", "tv_densenet121",
        "tv_googlenet")  # fmt: skip
LARGE = {"vit_b_32": 224, "vit_b_16": 224, "vit_l_16": 224, "vit_l_32": 224, "vit_h_14": 224, "maxvit_t": 224}


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


def plain_pass(
    network: Network, images: Tensor, hooks: dict[str, Tensor | None], n_calls: Mapping[str, int] | None = None
) -> tuple[dict[str, Tensor], Counter[str]]:
    """Run a pass with plain hooks on modules, of which some replace the output of the last of `n_calls` calls.

    Returns copies of the last outputs by name, with the logits as `output`, and the numbers of calls.
    """
    outputs, calls = {}, Counter()

    def hook(name, output, value):
        calls[name] += 1
        if value is not None and calls[name] == n_calls[name]:
            output = value.clone()
        outputs[name] = output.clone()
        return output

    with contextlib.ExitStack() as handles:
        for name, value in hooks.items():
            see = network.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name, value=value: hook(name, output, value)
            )
            handles.callback(see.remove)
        outputs["output"] = network(images)
    return outputs, calls


def gradient(logits: Tensor, value: Tensor) -> Tensor:
    return torch.autograd.grad((logits * torch.arange(logits.numel()).view_as(logits)).sum(), value)[0]


def check_cuts(network: Network, size: int) -> None:
    """Check activations, and cuts at some blocks and inside of some, whose record two stitches share."""
    network, images = network.double(), torch.rand(2, 3, size, size, dtype=torch.float64)
    state = [each.clone() for each in network.buffers()]
    blocks = network.block_names
    inner = [name for name, shape in network.shapes().items() if name not in network.cut_names and shape]
    names = [blocks[0], blocks[-1], inner[len(inner) // 3], inner[-1]]
    with torch.no_grad():
        own, calls = plain_pass(network, images, dict.fromkeys([*blocks, *names]))
        acts, recorded = network.record(images, [*own], after=names)
    assert all(torch.equal(acts[name], own[name]) for name in own)
    for name in names:
        value = own[name].flip(0).requires_grad_()
        expected = plain_pass(network, images, {name: value}, calls)[0]["output"]
        found = network(value, after=name, images=recorded)
        assert torch.equal(found, expected), name
        assert torch.equal(gradient(found, value), gradient(expected, value)), name
        both = network(torch.cat([own[name], value]), after=name, images=recorded)  # larger products round differently
        torch.testing.assert_close(both, torch.cat([own["output"], expected]), rtol=0, atol=1e-12)
    assert not any(map(network.needs_images, blocks))
    assert all(map(torch.equal, network.buffers(), state))


@pytest.mark.parametrize("name", [name if f"tv_{name}" in FAST[:3] else pytest.param(name, marks=pytest.mark.slow)
                                  for name in classifiers()])  # fmt: skip
def test_cuts(name, capfd):
    check_cuts(built(name), LARGE.get(name, 75 if name == "inception_v3" else 64))
    assert "is cut by hooks" not in capfd.readouterr().err


def test_googlenet_trains_on_the_first_of_its_outputs():
    network = built("googlenet").train().requires_grad_(True)
    logits = network(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert network.module.fc.weight.grad is not None and network.module.aux1.fc2.weight.grad is None
