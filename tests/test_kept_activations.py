"""Activations that are kept for further passes over the same images."""

import copy

import pytest
import torch
from torch import nn

from src.ground import console
from src.models import Network
from src.models.kept import KeptActivations
from tests.commands import says

LAYERS = ["0", "2"]


@pytest.fixture
def networks():
    """Four networks that count their images, and share the memory of 136 images of one network."""
    kept = KeptActivations(12_000)
    made = []
    for seed in range(4):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(), nn.Linear(12, 24), nn.Linear(24, 10))
        network = Network(module.eval(), image_shape=(3, 2, 2), n_classes=10)
        network.block_names  # noqa: B018 - passes on random images are not counted
        network.n_seen = 0
        module[0].register_forward_hook(count_for(network))
        network.kept = kept
        made.append(network)
    return made


def count_for(network):
    def count(module, inputs, output):
        network.n_seen += len(output)

    return count


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_batch_passes_once_for_each_layer(networks):
    network = networks[0]
    batch = images(5)
    expected = network.activations(batch, LAYERS)
    network.n_seen = 0
    first = network.kept_activations(batch, ["1"])
    again = network.kept_activations(batch.clone(), ["1"])
    assert network.n_seen == 5 and torch.equal(first["1"], again["1"])
    both = network.kept_activations(batch, LAYERS)
    assert network.n_seen == 10 and all(torch.equal(both[name], expected[name]) for name in LAYERS)
    network.kept_activations(batch, ["1", *LAYERS])
    assert network.n_seen == 10
    other = network.kept_activations(images(5, seed=1), LAYERS)
    assert network.n_seen == 15 and not torch.equal(other["2"], both["2"])


@torch.no_grad()
def test_a_network_with_other_weights_shares_nothing(networks):
    network = networks[0]
    batch = images(5)
    network.kept_activations(batch, LAYERS)
    changed = copy.deepcopy(network)
    changed.module[2].bias.add_(1)
    before, after = (of.kept_activations(batch, ["2"])["2"] for of in (network, changed))
    assert torch.allclose(before + 1, after)


@torch.no_grad()
def test_weights_or_a_mode_that_change_drop_what_was_kept(networks):
    linear = networks[0].module[1]
    module = nn.Sequential(nn.Flatten(), linear, nn.BatchNorm1d(24))
    network = Network(module, image_shape=(3, 2, 2))
    network.kept = networks[0].kept
    layers, batch = ["1", "2"], images(5)
    changes = [
        network.eval,
        lambda: linear.bias.add_(1),
        lambda: network.load_state_dict({k: 2 * v for k, v in network.state_dict().items()}),
        network.train,
        network.eval,
    ]
    for change in changes:
        change()
        expected = network.activations(batch, layers)
        kept = network.kept_activations(batch, layers)
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
    fitting = images(56, seed=1)  # only if what was dropped takes no memory
    kept = network.kept_activations(fitting, layers)
    assert network.kept_activations(fitting, layers)["2"] is kept["2"]


@torch.no_grad()
def test_what_does_not_fit_passes_again(networks, capsys):
    console._said.clear()
    network = networks[0]
    expected = network.activations(images(200), LAYERS)
    network.n_seen = 0
    for _ in range(2):
        found = network.kept_activations(images(200), LAYERS)
        assert all(torch.equal(found[name], expected[name]) for name in LAYERS)
    assert network.n_seen == 400
    assert says(capsys.readouterr().err, "do not fit into memory", "computed again for each pair")
