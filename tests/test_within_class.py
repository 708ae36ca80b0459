"""The within-class correlation: its meaning, its jackknife, and its sums batch by batch."""

import math

import numpy as np
import pytest
import torch

from src.models import build_model
from src.skill.running import MOST_SUMS, Following, centred_logits, side_of_cells
from src.skill.within_class import skill_score, within_class, within_class_correlation
from src.statistics.jackknife import jackknife_variance

N = 300
N_CLASSES = 5


@pytest.fixture
def activations():
    """Activations of images of five classes, which differ in their means; own ones, and with noise."""
    draw = np.random.default_rng(0)
    classes = draw.integers(0, N_CLASSES, N)
    means = 10 * draw.normal(size=(N_CLASSES, 7))
    own = means[classes] + draw.normal(size=(N, 7))
    return own, own + draw.normal(size=(N, 7)), classes


def test_the_only_image_that_varies_leaves_an_interval_up_to_1(activations):
    own, stitched, classes = activations
    own[0] += 30
    stitched[0] += 30
    estimate = within_class_correlation(stitched, own, classes)
    assert estimate.low < estimate.value < estimate.high == 1


def test_it_is_0_for_what_knows_the_class_alone(activations):
    """On any scale."""
    own, _, classes = activations
    constant = np.arange(N_CLASSES, dtype=float)[classes, None] * np.ones(7)
    assert within_class_correlation(constant, 1e-6 * own, classes).value == 0


def test_own_image_for_a_share_of_the_images_is_that_share(activations):
    own, _, classes = activations
    draw = np.random.default_rng(1)
    shown = np.arange(N)
    for label in range(N_CLASSES):  # half of each class shows a classmate
        members = np.flatnonzero(classes == label)
        swapped = members[: len(members) // 2]
        shown[swapped] = draw.permutation(swapped)
    share = np.mean(shown == np.arange(N))
    estimate = within_class_correlation(own[shown], own, classes)
    assert estimate.low < share < estimate.high
    assert estimate.value == pytest.approx(share, abs=0.08)


def test_it_equals_the_correlation_of_what_class_means_leave(activations):
    """On any scale; NaN of activations that are not finite."""
    own, stitched, classes = activations
    rest = [stitched.copy(), own.copy()]
    for values in rest:
        for label in range(N_CLASSES):
            values[classes == label] -= values[classes == label].mean(0)
    expected = np.corrcoef(rest[0].ravel(), rest[1].ravel())[0, 1]
    for scale in (1, 1e-6):
        found = within_class_correlation(scale * stitched, scale * own, classes)
        assert found.value == pytest.approx(expected)
    stitched[3] = np.nan
    assert all(map(math.isnan, within_class_correlation(stitched, own, classes)))


def test_the_value_without_an_image_is_that_of_the_other_images(activations):
    """And the only image of a class says nothing."""
    own, stitched, classes = activations
    before = within_class(stitched[1:], own[1:], classes[1:]).correlation
    classes[0] = N_CLASSES
    sums = within_class(stitched, own, classes)
    assert sums.correlation == pytest.approx(before)
    for image in (0, 1, 17):
        others = np.delete(np.arange(N), image)
        without = within_class(stitched[others], own[others], classes[others])
        assert sums.without_each[image] == pytest.approx(without.correlation)


def test_intervals_have_the_true_value_in_about_95_of_100_samples():
    draw = np.random.default_rng(3)
    n_inside = 0
    for _ in range(300):
        classes = draw.integers(0, N_CLASSES, 400)
        own = draw.normal(size=(400, 3))
        stitched = own + draw.normal(size=(400, 3))
        estimate = within_class_correlation(stitched, own, classes)
        n_inside += estimate.low < 0.5**0.5 < estimate.high
    assert 0.91 <= n_inside / 300 <= 0.99


def test_skill_is_0_at_the_baseline_and_1_at_1():
    assert skill_score(0.4, 0.4) == 0
    assert skill_score(1, 0.4) == 1
    assert skill_score(0.1, 0.4) < 0
    assert math.isnan(skill_score(1.0, 1.0)) and np.isnan(skill_score(np.ones(2), np.ones(2))).all()


@pytest.mark.parametrize(("batch_size", "offset"), [(N, 0), (37, 0), (37, 100), (3, 0)])
def test_sums_of_batches_are_those_of_all_images(batch_size, offset):
    """Also where the mean is large beside the deviations. Errors are near those of all images: the
    first batches have means of few."""
    torch.manual_seed(0)
    end = build_model("small_cnn", n_classes=N_CLASSES, n_channels=1, image_shape=(1, 8, 8)).eval()
    layer = "pool2"
    logits = torch.randn(N, N_CLASSES)
    with torch.no_grad():
        own = {layer: end(torch.rand(N, 1, 8, 8), until=layer), end.output_name: logits}
    stitched = own[layer] + 0.1 * torch.randn_like(own[layer]) + offset
    own[layer] = own[layer] + offset
    stitched_logits = logits + 0.1 * torch.randn_like(logits)
    following = Following(end, [layer], image_shape=(1, 8, 8))
    for start in range(0, N, batch_size):
        batch = slice(start, start + batch_size)
        following.add_end({name: values[batch] for name, values in own.items()})
        following.add_stitches(
            ["stitch"], layer, stitched[None, batch], stitched_logits[None, batch]
        )
    products = following.products("stitch")
    at_end = (stitched, own[layer])
    at_output = map(centred_logits, (stitched_logits, logits))
    for sums, pair in ((products.end_layer, at_end), (products.output, at_output)):
        expected = within_class(*(values.numpy() for values in pair), logits.argmax(1))
        assert sums.correlation == pytest.approx(expected.correlation, abs=1e-5)
        error = jackknife_variance(sums.without_each) ** 0.5
        assert error == pytest.approx(jackknife_variance(expected.without_each) ** 0.5, rel=0.25)


def test_large_layers_are_pooled_until_their_class_means_fit():
    assert side_of_cells((64, 32, 32), 10) is None
    assert side_of_cells((512,), 10_000_000) is None
    side = side_of_cells((64, 56, 56), 1000)
    assert 64 * side**2 * 1000 <= MOST_SUMS < 64 * (side + 1) ** 2 * 1000
