"""A grid gives every pair what it would get alone, in evaluation, matching and training."""

import copy
import math

import pytest
import torch

from src.core.activations import as_rows
from src.core.errors import UserError
from src.low_rank import low_rank_approx
from src.stitching import Grid, Pair, StitchedModel, build_layers
from src.stitching.grid import Fitting
from src.stitching.objectives import OBJECTIVES, functional_loss, hint_loss, soft_label_loss
from src.training import Settings, train
from src.verdict import obstacle_of
from tests.tiny_datasets import DoubleSet
from tests.tiny_networks import narrow_resnet

SHAPE = (1, 8, 8)
FRONTS, ENDS = ["layer1.0", "layer2.1", "layer4.1"], ["layer1.1", "layer3.0", "layer4.1"]

N = 24  # images


@pytest.fixture(scope="module")
def data():
    return DoubleSet(N, SHAPE)


@pytest.fixture(scope="module")
def networks(data):
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = narrow_resnet().double()
        model(data.images)  # lets the BatchNorm statistics move off their start
        models.append(model.eval().requires_grad_(False))
    return models


def layers_of(networks, fronts=FRONTS, ends=ENDS, kind="rc2c_pre", **options):
    return build_layers(*networks, fronts, ends, kind, image_shape=SHAPE, seed=3, **options)[0]


@pytest.mark.parametrize("broken", ["front network", "end network", "layer2.1 -> layer3.0"])
@torch.no_grad()
def test_logits_that_are_not_finite_have_no_accuracy(networks, data, broken):
    """The first of several pairs is whole. The front breaks behind its last stitched layer."""
    copies = [copy.deepcopy(network) for network in networks]
    layers = layers_of(copies, ["layer1.0", "layer2.1"], ["layer3.0"])
    places = {
        "front network": copies[0].module.fc.bias,
        "end network": copies[1].module.fc.bias,
        "layer2.1 -> layer3.0": layers["layer2.1", "layer3.0"].transform.bias,
    }
    places[broken][0] = math.nan
    with pytest.raises(UserError, match=f"the logits of (the )?{broken} are not finite"):
        Grid(*copies, layers).evaluate(data.batches(15))


@pytest.mark.parametrize(("rows_at_once", "front_rank"), [(1, None), (N, 3), (1024, None)])
@torch.no_grad()
def test_evaluation_equals_each_stitched_model_alone(
    networks, data, rows_at_once, front_rank, monkeypatch
):
    """The rank is cut in each batch, so the batches must be the same."""
    monkeypatch.setattr(Fitting, "rows", lambda self, kind: rows_at_once)
    layers = layers_of(networks, ends=["layer1.1", "layer3.0.conv2", "layer4.1"])
    score = Grid(*networks, layers, front_rank=front_rank).evaluate(data.batches(15))
    for pair, layer in layers.items():
        model = StitchedModel(*networks, layer, pair, front_rank=front_rank)
        n_correct, distance, norm = 0, 0.0, 0.0
        for images, labels in data.batches(15):
            n_correct += (model(images).argmax(1) == labels).sum().item()
            source = low_rank_approx(model.front(images, until=pair.front_layer), front_rank)
            target = networks[1](images, until=pair.end_layer)
            distance += (layer(source) - target).square().sum().item()
            norm += target.square().sum().item()
        found = score.pairs[pair]
        assert found.accuracy == n_correct / N
        assert found.representation_difference == pytest.approx(distance / norm, rel=1e-9)
        rows = as_rows(networks[1](data.images, until=pair.end_layer))
        variation = (rows - rows.mean(0)).square().sum().item()
        assert found.r2_test == pytest.approx(1 - distance / variation, rel=1e-9)
    for network, accuracy in zip(networks, (found.front_accuracy, found.end_accuracy), strict=True):
        assert accuracy == (network(data.images).argmax(1) == data.labels).double().mean().item()


def test_an_end_layer_that_a_branch_goes_around_says_nothing(networks, data):
    """An untrained front would be accurate there: the image reaches the output past the layer."""
    layers = layers_of(networks, ["layer2.1"], ["layer3.0", "layer3.0.conv1"])
    metrics = Grid(*networks, layers).evaluate(data.batches(N)).pairs
    obstacles = {
        pair.end_layer: obstacle_of([of_pair], "pinv") for pair, of_pair in metrics.items()
    }
    assert obstacles["layer3.0"] == ""
    assert "inside a block" in obstacles["layer3.0.conv1"]


def test_one_network_stitched_to_itself_takes_one_pass(networks, data):
    front, _ = networks
    layers = layers_of((front, front))
    expected = Grid(front, copy.deepcopy(front), layers).evaluate(data.batches(20))
    score = Grid(front, front, layers).evaluate(data.batches(20))
    for pair, metrics in score.pairs.items():
        assert vars(metrics) == pytest.approx(vars(expected.pairs[pair]), nan_ok=True)


OTHERS = [name for name in OBJECTIVES if name != "task"]


def logs_of(grid: Grid, data, settings: Settings) -> dict[Pair, list]:
    """The logs of all epochs of each pair."""
    *_, (history, _) = train(grid, data, data, settings)
    return {pair: [logs[pair] for logs in history] for pair in grid.layers}


SOME = (
    ["layer1.0", "layer3.1"],
    ["layer2.1", "layer3.0.conv2", "layer4.1"],
)  # pairs of layers, one inside a block


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        ("task", Settings(2, 16, grad_clip=0.1)),
        ("task", Settings(2, 16, optimizer="sgd", scheduler="cosine")),
        ("hint", Settings(1, 16)),
        ("fula", Settings(1, 16)),
    ],
    ids=["task, clipped", "task, sgd", "hint", "fula"],
)
def test_training_equals_each_pair_alone(networks, data, objective, settings):
    options = {
        "objective": OBJECTIVES[objective],
        "l1_coef": 1e-3,
        "front_rank": None if objective == "task" else 9,
    }
    together = layers_of(networks, *SOME)
    before = [
        {key: value.clone() for key, value in network.state_dict().items()} for network in networks
    ]
    logs = logs_of(Grid(*networks, together, **options), data, settings)
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    for pair, layer in together.items():
        alone = layers_of(networks, [pair.front_layer], [pair.end_layer])
        alone_logs = logs_of(Grid(*networks, alone, **options), data, settings)[pair]
        torch.testing.assert_close(
            layer.state_dict(), alone[pair].state_dict(), rtol=1e-8, atol=1e-8
        )
        for one, other in zip(logs[pair], alone_logs, strict=True):
            assert one.train == pytest.approx(other.train, rel=1e-8, nan_ok=True)
            assert one.val == pytest.approx(other.val, rel=1e-8)
            assert math.isnan(one.train.accuracy) == (objective == "hint")  # not measured
            if objective == "task":
                assert (
                    one.train.loss > one.train.cross_entropy
                    and one.val.loss == one.val.cross_entropy
                )  # l1


@pytest.mark.parametrize("objective", OTHERS)
def test_losses_are_those_of_plain_passes(networks, data, objective):
    front, end = networks
    images, labels = data.images[:12], data.labels[:12]
    grid = Grid(
        front, end, layers_of(networks, *SOME), objective=OBJECTIVES[objective], l1_coef=1e-3
    )
    for training in (True, False):
        groups = grid.losses(images, labels, training=training)
        losses = torch.cat([group.losses for group in groups]).tolist()
        for loss, (pair, layer) in zip(losses, grid.layers.items(), strict=True):
            behind = ["layer3.0", "layer3.1", "layer4.0", "layer4.1"]
            if pair.end_layer == "layer4.1":
                behind = []
            h, g = (
                [layer(front(images, until=pair.front_layer))],
                [end(images, until=pair.end_layer)],
            )
            g += [end(images, until=name) for name in behind]
            for name in behind:
                h.append(end(h[0], after=pair.end_layer, until=name, images=images))
            expected = {
                "soft": lambda h=h, pair=pair: soft_label_loss(
                    end(h[0], after=pair.end_layer, images=images), end(images)
                ),
                "hint": lambda h=h, g=g: hint_loss(h[0], g[0]),
                "fula": lambda h=h, g=g: functional_loss(h, g),
                "feature": lambda h=h, g=g: (h[-1] - g[-1]).square().mean(),
            }[objective]().item()
            accuracy_drop = training * 1e-3 * layer.l1_norm().item()
            assert loss == pytest.approx(expected + accuracy_drop, rel=1e-8)


def test_statistics_move_only_when_asked_for_and_targets_stay(data):
    torch.manual_seed(0)
    front, end = (narrow_resnet().double().eval().requires_grad_(False) for _ in "12")
    layers = layers_of((front, end), ["layer2.0"], ["layer2.0"])
    grid, before = (
        Grid(front, end, layers, frozen=False, objective=OBJECTIVES["fula"]),
        end(data.images),
    )
    list(train(grid, data, data, Settings(1, 20)))
    assert torch.equal(grid.originals["end"](data.images), before)
    assert (
        grid.front.module.bn1.num_batches_tracked == 2
        and grid.end.module.layer3[0].bn1.num_batches_tracked == 2
    )
    assert grid.front.module.layer3[0].bn1.num_batches_tracked == 0
    assert grid.end.module.layer2[0].bn1.num_batches_tracked == 0
    assert front.module.bn1.num_batches_tracked == end.module.layer3[0].bn1.num_batches_tracked == 0
    assert not front.module.training and not end.module.training
    with pytest.raises(ValueError, match="several pairs"):
        Grid(front, end, layers_of((front, end)), frozen=False)


@pytest.mark.parametrize(
    ("places", "is_warned"),
    [([[0, 0], [0]], True), ([[0, 0, 1]], False), ([[0], [1]], False), ([[0]], False)],
    ids=["equal", "the third differs", "batches of one", "one image"],
)
def test_a_front_that_shows_one_activation_is_warned_of(networks, data, places, is_warned, capsys):
    """Its map varies from position to position."""
    layers = layers_of(networks, ["layer1.0", "layer2.1"], ["layer3.0"])
    Grid(*networks, layers).evaluate([(data.images[some], data.labels[some]) for some in places])
    text = "the activations of layer1.0, layer2.1 of the front network are constant"
    assert (text in capsys.readouterr().err) == is_warned
