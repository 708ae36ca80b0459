"""Networks of torchvision: which layers `all` stands for, and that cutting at every block changes nothing."""

import pytest
import torch
import torchvision

from src.models import Network
from src.models.block_names import find_blocks
from src.models.hooked import Hooked
from src.models.parts import OUTPUT, Traced
from src.runtime import seeded

# The architecture, the size of its images, and what `all` stands for where that is told here.
NETWORKS = {
    "resnet18": (32, ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "layer4.1"]),
    "convnext_tiny": (32, [f"features.{i}.{j}" for i, n in ((1, 3), (3, 3), (5, 9), (7, 3)) for j in range(n)]),
    "swin_t": (32, [f"features.{i}.{j}" for i, n in ((1, 2), (3, 2), (5, 6), (7, 2)) for j in range(n)]),
    "vit_b_32": (224, [f"encoder.layers.encoder_layer_{i}" for i in range(12)]),
    "efficientnet_b0": (32, [f"features.{i}.{j}" for i, n in enumerate((1, 2, 2, 3, 3, 4, 1), 1) for j in range(n)]),
    "densenet121": (32, ["features.denseblock1", *[f"features.{name}{i + ('dense' in name)}" for i in (1, 2, 3)
                                                   for name in ("transition", "denseblock")]]),
    "vgg11": (32, [f"features.{i}" for i in (1, 2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20)] + ["avgpool"]),
    "vgg11_bn": (32, [f"features.{i}" for i in (2, 3, 6, 7, 10, 13, 14, 17, 20, 21, 24, 27, 28)] + ["avgpool"]),
    "alexnet": (64, [f"features.{i}" for i in (1, 2, 4, 5, 7, 9, 11, 12)] + ["avgpool"]),
    "squeezenet1_1": (32, [f"features.{i}" for i in (3, 4, 6, 7, 9, 10, 11, 12)]),
    "mobilenet_v3_small": (32, [f"features.{i}" for i in range(1, 12)]),
    "shufflenet_v2_x0_5": (32, [f"stage{i}.{j}" for i, n in ((2, 4), (3, 8), (4, 4)) for j in range(n)]),
    "googlenet": (64, [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]),
}  # fmt: skip
FAST = ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "googlenet")
CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)


def built(name: str, **options) -> Network:
    with seeded(0):
        if name in ("googlenet", "inception_v3"):
            options["init_weights"] = False  # drawing truncated normal numbers takes half a minute
        network = Network(torchvision.models.get_model(name, weights=None, num_classes=7, **options))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def check_cuts(network: Network, size: int) -> None:
    """Its parts equal the hooks at every block, whole and cut, exactly; both engines find the same blocks."""
    network, images = network.to(torch.float64), torch.rand(2, 3, size, size, dtype=torch.float64)
    names, logits = [*network.block_names, OUTPUT], network(images)
    hooks, before = Hooked(network.module, images), [each.clone() for each in network.buffers()]
    acts, expected = network.activations(images, names), hooks.run(images, names)
    assert all(torch.equal(acts[name], expected[name]) for name in names) and torch.equal(acts[OUTPUT], logits)
    for name in network.block_names[:: max(1, len(network.block_names) // 5)]:
        assert torch.equal(network(acts[name], after=name, images=images), logits), name
        other = acts[name].flip(0)
        changed = hooks.run(other, [OUTPUT], name, images)[OUTPUT]
        assert torch.equal(network(other, after=name, images=images), changed) and changed.shape == logits.shape, name
    assert isinstance(network._engines.current(), Traced)
    if size == 32:
        assert find_blocks(network.module, hooks) == network.block_names
    assert hooks.output_name == network.output_name
    assert all(map(torch.equal, network.buffers(), before))
    folded = network.for_inference(network.block_names)
    found = folded.activations(images, names)
    for name in names:
        torch.testing.assert_close(found[name], acts[name], rtol=1e-9, atol=1e-9 * acts[name].abs().max().item())


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks(name):
    with torch.device("meta"):
        network = built(name)
    assert list(network.block_names) == NETWORKS[name][1]


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_cuts(name):
    check_cuts(built(name), NETWORKS[name][0])


def test_googlenet_trains_on_the_first_of_its_outputs():
    network = built("googlenet").train().requires_grad_(True)
    logits = network(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert network.module.fc.weight.grad is not None and network.module.aux1.fc2.weight.grad is None


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*CLASSIFIERS} - NETWORKS.keys()))
def test_every_classifier_of_torchvision(name):
    size = 224 if name.startswith(("vit", "maxvit")) else 75 if name == "inception_v3" else 64
    size = {"vit_h_14": 224}.get(name, size)
    network = built(name)
    assert len(network.block_names) > 1
    check_cuts(network, size)
