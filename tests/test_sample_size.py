"""The number of images to match on, and matching on too few."""

import math

import pytest
import torch

from src.core.activations import positions_of
from src.core.choices.stitching import FORMS
from src.judge import judge
from src.models import Network
from src.stitching import build_layers, build_stitching_layer, match, matching
from src.stitching.matching import n_samples_for
from tests.tiny_datasets import DoubleSet
from tests.tiny_networks import Computed

WIDE, NARROW, SINGLE = 16, 6, 2


def layered(seed: int) -> Network:
    """Three layers that can be stitched with each other: many channels, few, and few of which less is explained."""
    torch.manual_seed(seed)
    module = Computed(
        lambda net, x: net.fc(net.last(net.narrow(net.wide(x)).relu()).mean((2, 3))),
        wide=torch.nn.Sequential(torch.nn.Conv2d(3, WIDE, 1), torch.nn.ReLU()),
        narrow=torch.nn.Conv2d(WIDE, NARROW, 1),
        last=torch.nn.Conv2d(NARROW, SINGLE, 2, stride=2),
        fc=torch.nn.Linear(SINGLE, 10),
    )
    return Network(module).double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def networks():
    return [layered(seed) for seed in (0, 1)]


FRONTS, ENDS = ["wide", "narrow", "last"], ["narrow", "last"]


def layers_of(networks, fronts=FRONTS, ends=ENDS):
    return build_layers(*networks, fronts, ends, "rc2c_pre", image_shape=(3, 2, 2), seed=3)[0]


def data_of(n: int) -> DoubleSet:
    return DoubleSet(n, (3, 2, 2))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((16, 2, 2), (6, 2, 2), 500),  # 200 images would do
        ((512, 4, 4), (64, 32, 32), 1600),  # a resize adds no rows
        ((64, 32, 32), (512, 2, 2), 800),
        ((100,), (512,), 5000),
        ((100,), (8, 32, 32), 5000),
        ((8, 32, 32), (100,), 500),  # the mean over positions is a row of each image
        ((384, 7, 7), (512,), 10_000),
        ((65, 192), (65, 10), 500),
    ],
)
def test_there_are_fifty_rows_a_channel_of_the_source(source, target, expected):
    layer = build_stitching_layer("auto", source, target)
    assert n_samples_for(layer.plan) == expected
    n_channels = layer.plan.source.n_channels
    laid_out = layer.lay_out(torch.zeros(1, *source))
    n_rows = expected * min(positions_of(laid_out).shape[1], math.prod(target[1:]))
    if 500 < expected < 10_000:
        assert n_rows == 50 * n_channels


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_images", [1500, 700, 60])
def test_a_pair_gets_what_it_would_get_alone_on_so_many_images(
    networks, form, n_images, monkeypatch
):
    monkeypatch.setattr(matching, "FEWEST_MATCHED", 100)
    layers, data = layers_of(networks), data_of(n_images)
    matched = match(*networks, layers, data, 64, n_samples=None, seed=5, form=form)
    numbers = {pair: found.n_samples for pair, found in matched.items()}
    assert list(matched) == list(layers) and max(numbers.values()) == min(800, n_images)
    assert len(set(numbers.values())) == (1 if n_images == 60 else 4)
    for pair, found in matched.items():
        given = layers_of(networks, [pair.front_layer], [pair.end_layer])
        n = found.n_samples
        expected = match(*networks, given, data, 64, n_samples=n, seed=5, form=form)[pair]
        assert torch.equal(layers[pair].transform.weight, given[pair].transform.weight)
        assert torch.equal(found.bias, expected.bias) and found[2:] == expected[2:]


def on_some(inputs: slice) -> Computed:
    """A network that sees some of its inputs only."""
    layers = {"hidden": torch.nn.Linear(30, 40), "logits": torch.nn.Linear(40, 5)}
    return Computed(
        lambda net, x: net.logits(net.hidden(x.flatten(1)[:, inputs]).relu()), **layers
    ).eval()


@pytest.mark.parametrize(("n_fitting_samples", "is_few"), [(60, True), (2500, False)])
def test_layers_that_share_nothing_are_not_matched_by_any_form(n_fitting_samples, is_few):
    """However many images there are, R² of a map that keeps the variance falls from the matched
    images to the test images: it is 2ρ − 1 for a chance correlation ρ, and not ρ²."""
    torch.manual_seed(0)
    front, end = (on_some(inputs) for inputs in (slice(30), slice(30, 60)))
    images = torch.randn(3100, 1, 6, 10)
    labels = end(images).argmax(1)
    train, test = ([(images[part], labels[part])] for part in (slice(2500), slice(2500, None)))
    rows = judge(
        front,
        end,
        train,
        test,
        layers="hidden",
        forms=["pinv", "covariance"],
        n_fitting_samples=n_fitting_samples,
    )
    for row in rows:
        assert row.r2_test < row.r2_fit
        assert ("too few fitting samples" in row.reason) == is_few
        assert row.verdict == ("inconclusive" if is_few else "not matched")
