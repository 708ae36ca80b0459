"""Direct matching on as many images as each pair needs."""

import pytest
import torch

from src.choices.stitching import FORMS
from src.judge import judge
from src.models import Network
from src.stitching import build_layers, match_until_settled
from src.stitching.matching import (
    GAP,
    GridKeys,
    grid_moments,
    match_layers,
    matching_batches,
)
from tests.commands import says
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


def settled(networks, layers, data, batch_size=64, **options):
    return match_until_settled(*networks, layers, data, batch_size, seed=5, **options)


@pytest.mark.parametrize(
    ("form", "rank", "n_images"),
    [
        *((form, None, 1500) for form in FORMS),
        *(("covariance", None, n_images) for n_images in (875, 430, 60)),
        ("pinv", 3, 1700),
    ],
)
def test_a_pair_gets_what_it_would_get_alone_on_so_many_images(networks, form, rank, n_images):
    layers, data = layers_of(networks, ["wide", "last"]), data_of(n_images)
    matched = settled(networks, layers, data, form=form, rank=rank)
    assert n_images < 1000 or len({found.n_samples for found in matched.values()}) > 1
    for pair, found in matched.items():
        given = layers_of(networks, [pair.front_layer], [pair.end_layer])
        batches = matching_batches(data, found.n_samples, 50, seed=5, form=form)
        expected = match_layers(*networks, given, *batches, form=form, rank=rank)[pair]
        torch.testing.assert_close(
            layers[pair].transform.weight.detach()[:, :, 0, 0], expected.weight
        )
        torch.testing.assert_close(found.bias, expected.bias)
        for one, other in zip(found[2:], expected[2:], strict=True):
            assert one == other or one == pytest.approx(other, rel=1e-8)


@pytest.mark.parametrize("form", ["covariance", "ridge"])
def test_each_image_is_taken_once_and_no_more_than_are_needed(networks, form):
    data = data_of(30000)
    matched = settled(
        networks, layers_of(networks, ["wide", "narrow"], ["narrow"]), data, 500, form=form
    )
    assert set(data.taken.values()) == {1}
    largest = max(matching.n_samples for matching in matched.values())
    samples = data.permutation(5)
    assert largest < 15000 and data.taken.keys() == set(samples[: 2 * largest].tolist())


def test_sizes_follow_from_the_gaps(networks):
    """The number of a pair is the first size at which the gap is small, and was at the half, with
    rows enough."""
    data, layers = data_of(15000), layers_of(networks, ["wide", "last"])
    samples, sizes = data.permutation(5), [100 * 2**i for i in range(6)]
    for pair, found in settled(networks, layers, data, 500).items():
        one = layers_of(networks, [pair.front_layer], [pair.end_layer])
        (layer,), gaps = one.values(), {}
        for n in sizes:
            r2 = match_layers(*networks, one, data.batches(500, indices=samples[:n]))[pair].r2
            (rows,) = grid_moments(
                *networks,
                GridKeys.of(one),
                data.batches(500, indices=samples[n : 2 * n]),
                form="pinv",
            ).values()
            ((target, _),) = rows.cross.items()
            weight, bias = layer.transform.weight[:, :, 0, 0], layer.transform.bias
            residual = rows.squared_residual(target, weight, bias)
            gaps[n] = abs(r2 - rows.targets[target].r2(residual))
        n_positions, width = rows.source.n_rows // rows.n_samples, len(rows.source.mean)
        fitting = [n for n in sizes[1:] if gaps[n] <= GAP and gaps[n // 2] <= GAP]
        assert found.n_samples == next(n for n in fitting if n * n_positions >= 10 * width)


def test_says_when_the_images_are_used_up(networks, capsys):
    matched = settled(networks, layers_of(networks), data_of(190))
    assert {matching.n_samples for matching in matched.values()} == {190}
    assert says(capsys.readouterr().err, "all 190 training inputs")


def on_some(inputs: slice) -> Computed:
    """A network that sees some of its inputs only."""
    layers = {"hidden": torch.nn.Linear(30, 40), "logits": torch.nn.Linear(40, 5)}
    return Computed(
        lambda net, x: net.logits(net.hidden(x.flatten(1)[:, inputs]).relu()), **layers
    ).eval()


@pytest.mark.parametrize(("n_matched", "is_few"), [(60, True), (2500, False)])
def test_layers_that_share_nothing_are_not_matched_by_any_form(n_matched, is_few):
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
        forms=["pinv", "repair", "covariance"],
        n_matched=n_matched,
    )
    for row in rows:
        assert row.r2_test < row.r2_matched
        assert ("few inputs" in row.reason) == is_few
        assert row.verdict == ("undecided" if is_few else "not matched")
