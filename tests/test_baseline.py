"""Baselines of skill, the untrained copies of an end network, and the evaluation of a stitch that changes nothing, from
networks and images alone."""

import numpy as np
import pytest
import torch
from torch import nn

from src.models import Network, build_model
from src.ood.baselines import BaselineKey, Baselines, beside_class, n_copies_for, untrained_copy_of
from src.ood.evaluation import detection_of, score_grid
from src.ood.reference import EvaluationOptions, make_reference
from src.skill.skills import Baseline
from src.stitching import Grid, Pair, build_layers
from tests.tiny_datasets import few_grey_images
from tests.tiny_networks import Computed

IMAGES = few_grey_images(120, 8, n_classes=3)
KEYS = [BaselineKey("pool2", 1), BaselineKey("pool2", 2), BaselineKey("pool3", 1)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model("small_cnn", n_classes=3, n_channels=1).eval().requires_grad_(False)


def baselines_of(network, keys, *, batch_size: int = 50) -> dict[BaselineKey, Baseline]:
    baselines = Baselines(network, IMAGES, IMAGES, torch.arange(120), batch_size=batch_size)
    return dict(baselines.measured(keys))


def correlations(baseline: Baseline) -> list[float]:
    return [place.correlation for place in baseline.products]


def test_a_baseline_is_the_same_whatever_is_measured_beside_it(network):
    together = baselines_of(network, KEYS)
    for key in KEYS:
        assert correlations(baselines_of(network, [key])[key]) == correlations(together[key])
    baselines = Baselines(network, IMAGES, IMAGES, torch.arange(120), batch_size=50)
    baselines.measured(KEYS[:1])
    assert correlations(baselines.measured(KEYS[1:])[KEYS[2]]) == correlations(together[KEYS[2]])


def test_a_baseline_leaves_the_network_and_the_random_numbers_as_they_were(network):
    before = {name: values.clone() for name, values in network.state_dict().items()}
    state = torch.get_rng_state()
    baselines_of(network, KEYS)
    assert torch.equal(torch.get_rng_state(), state)
    for name, values in network.state_dict().items():
        assert torch.equal(values, before[name])
    assert not any(module.training for module in network.modules())


def test_copies_are_as_many_as_have_the_channels_of_the_front():
    assert [n_copies_for(front, 64) for front in (3, 64, 65, 128, 129)] == [1, 1, 2, 2, 3]


def test_copies_have_other_weights_of_the_same_spread_and_statistics_of_the_images():
    """Of a module with BatchNorm, and with a bare parameter that does not reset itself."""
    torch.manual_seed(5)
    module = Computed(
        lambda net, images: net.fc((net.scale * net.norm(net.conv(images))).mean((2, 3))),
        conv=nn.Conv2d(1, 4, 3),
        norm=nn.BatchNorm2d(4),
        scale=nn.Parameter(5 + torch.randn(4, 6, 6)),
        index=nn.Parameter(torch.arange(4), requires_grad=False),
        fc=nn.Linear(4, 3),
    )
    network = Network(module.eval(), image_shape=(1, 8, 8), n_classes=3)
    ((images, _),) = IMAGES.batches(120)
    copy, again, other = (
        untrained_copy_of(network, images, seed=seed).module for seed in (0, 0, 1)
    )
    modules = (network.module, copy, again, other)
    for name in ("conv.weight", "scale", "fc.bias"):
        own, first, second, third = (module.get_parameter(name) for module in modules)
        assert torch.equal(first, second)
        assert not torch.equal(first, third) and not torch.equal(first, own)
    assert copy.scale.mean().item() == pytest.approx(network.module.scale.mean().item(), abs=0.3)
    assert torch.equal(copy.index, network.module.index)
    with torch.no_grad():
        means = copy.conv(images).mean((0, 2, 3))
    torch.testing.assert_close(copy.norm.running_mean, means)
    assert not any(module.training for module in copy.modules())


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_copies_have_other_weights_where_a_module_resets_none_of_its_parameters(norm):
    """A reset of the weight leaves the parameters that it is computed from."""
    torch.manual_seed(5)
    module = nn.Sequential(nn.Flatten(), norm(nn.Linear(64, 3))).eval()
    network = Network(module, image_shape=(1, 8, 8), n_classes=3)
    ((images, _),) = IMAGES.batches(120)
    with torch.no_grad():
        network(images)  # the old norm cannot be copied before
    copy = untrained_copy_of(network, images, seed=0).module
    for name, own in module.named_parameters():
        assert not torch.equal(copy.get_parameter(name), own), name


@pytest.mark.parametrize("shape", [(5, 4, 2, 2), (5, 7, 4), (5, 4)])
def test_the_class_is_beside_the_channels_at_all_positions(shape):
    torch.manual_seed(0)
    activations, logits = torch.randn(shape), torch.randn(5, 3)
    axis = 1 if len(shape) == 4 else -1
    joint = beside_class([activations, 2 * activations], logits)
    own, second, of_class = joint.movedim(axis, -1).split([4, 4, 3], -1)
    assert torch.equal(own, activations.movedim(axis, -1)) and torch.equal(second, 2 * own)
    positions = of_class.reshape(5, -1, 3)
    assert (positions.argmax(-1) == logits.argmax(1)[:, None]).all()
    assert (positions.sum(-1) == 1).all()


LAYERS = ["pool1", "pool2"]
SCORE = "mahalanobis"


@pytest.fixture(scope="module")
def reference(network):
    options = EvaluationOptions(tuple(LAYERS), (SCORE,), IMAGES, 50, "images", IMAGES)
    return make_reference(network, options, trained={})


def grid_of(network, *, init: str) -> Grid:
    layers, _ = build_layers(
        network,
        network,
        LAYERS,
        LAYERS,
        "rc2c_pre",
        image_shape=IMAGES.image_shape,
        seed=0,
        init=init,
    )
    return Grid(network, network, {Pair(name, name): layers[name, name] for name in LAYERS})


def test_a_stitch_that_changes_nothing_is_the_network_itself(network, reference):
    right = [network(images).argmax(1) == labels for images, labels in IMAGES.batches(50)]
    for pair, scores in score_grid(grid_of(network, init="eye"), reference).items():
        own = reference.id_scores[SCORE][pair.end_layer]
        assert scores.is_finite and scores.accuracy == torch.cat(right).double().mean()
        np.testing.assert_allclose(scores.scores[SCORE], own, rtol=1e-4)
        for place in scores.skill[:2]:
            assert (place.correlation, place.skill) == pytest.approx((1, 1), abs=1e-5)
            assert place.baseline < 1
        assert scores.skill.n_images == len(IMAGES)
        detection = detection_of(own, own, is_paired=True)
        assert detection.metrics.auroc == 0.5 and detection.mean_stitched == detection.mean_own
