"""Intervals, tests and means: values by hand, oracles, laws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.stats import ttest_ind

from src.core.activations import positions_of
from src.core.choices.stitching import FORMS
from src.core.values import IntervalEstimate
from src.judge import judge
from src.models import Network, build_model
from src.skill.running import MOST_SUMS, Following, centred_logits, side_of_cells
from src.skill.within_class import skill_score, within_class, within_class_correlation
from src.statistics import permutation_tests
from src.statistics.intervals import (
    ALPHA,
    Evidence,
    Repetitions,
    images_needed,
    of_accuracy_drop,
    of_difference,
    of_estimates,
    of_share,
    wilson_intervals,
)
from src.statistics.jackknife import jackknife_variance
from src.statistics.moments import CrossMoments, Moments, Rows
from src.statistics.permutation_tests import END, FRONT, permutation_p, permutation_test
from src.statistics.resampling import Estimate, estimate, permuted_p
from src.statistics.significance import false_discovery_rate
from src.stitching import build_layers, build_stitching_layer, match, matching
from src.stitching.matching import n_samples_for
from tests.goldens import random
from tests.tiny_datasets import DoubleSet
from tests.tiny_networks import Computed


@pytest.mark.parametrize(("n_right", "n"), [(98, 100), (0, 40), (40, 40), (7, 20)])
def test_wilsons_interval(n_right, n):
    """By scipy, and by inverting the test."""
    expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
    found, unknown = wilson_intervals([n_right / n, math.nan], [n, n])
    assert found == pytest.approx((n_right / n, *expected), abs=1e-4)
    assert found == pytest.approx(of_share([(np.arange(n) < n_right)[None]]).interval(), abs=1e-4)
    assert all(map(math.isnan, unknown))


def test_permutation_p_by_hand():
    assert permutation_p(3.0, [1, 2, 3, 4]) == 3 / 5  # itself, 3 and 4
    assert permutation_p(0.1 + 0.2, [0.3, 0.0]) == 2 / 3  # equal up to rounding
    assert permutation_p(9.0, np.arange(9)) == 1 / 10
    assert math.isnan(permutation_p(math.nan, [1.0]))


def test_the_false_discovery_rate_is_scipys(rng):
    for n in (1, 2, 30):
        p_values = rng.random(n) ** 3
        p_values[: n // 3] = p_values[0]  # ties
        expected = stats.false_discovery_control(p_values)
        assert false_discovery_rate(p_values).tolist() == np.atleast_1d(expected).tolist()
    assert false_discovery_rate([]).tolist() == []


@pytest.mark.parametrize("offset", [0, 1e6])
def test_pooled_moments_are_those_of_all_rows(offset):
    """A large mean costs no digits, from the first batch on."""
    x, y = random(30, 4), random(30, 3, seed=1)
    moments, cross = Moments(), CrossMoments()
    for part in torch.arange(30).split(10):
        rows_x, rows_y = Rows.of(x[part] + offset), Rows.of(y[part] - offset)
        moments = moments.pooled(rows_x.moments())
        cross = cross.pooled(rows_x.cross(rows_y))
    whole_x, whole_y = Rows.of(x), Rows.of(y)
    expected = whole_x.moments().scatter, whole_x.cross(whole_y).scatter, x.mean(0) + offset
    found = moments.scatter, cross.scatter, moments.mean
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def accuracy_drop(lost: int, won: int, n: int) -> Evidence:
    """The evidence of one stitch that loses and wins so many images against the end network."""
    end = (np.arange(n) < lost) | (np.arange(n) >= lost + won)
    return of_difference([end[None]], [(np.arange(n) >= lost)[None]])


def negative_log(counts, shares) -> float:
    return -sum(
        count * math.log(max(share, 1e-300)) for count, share in zip(counts, shares, strict=True)
    )


@pytest.mark.parametrize(
    "counts", [(10, 3, 100), (0, 0, 50), (5, 0, 40), (0, 4, 30), (30, 25, 360)]
)
def test_a_accuracy_drop_is_tested_by_tangos_score(counts):
    """Its variance is that of the most likely shares under the limit, found by search."""
    evidence, (lost, won, n) = accuracy_drop(*counts), counts
    assert evidence.value == pytest.approx((lost - won) / n)
    for limit in (-0.2, -0.05, 0.05, 0.1, 0.3):

        def loss(share: float, limit: float = limit) -> float:
            return negative_log(
                (lost, won, n - lost - won), (share + limit, share, 1 - 2 * share - limit)
            )

        bounds = max(0, -limit) + 1e-12, (1 - limit) / 2 - 1e-12
        share = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
        z = (evidence.value - limit) / math.sqrt((2 * share + limit * (1 - limit)) / n)
        assert evidence.p_below(limit) == pytest.approx(stats.norm.cdf(z), abs=1e-5)
        assert evidence.p_above(limit) == pytest.approx(stats.norm.sf(z), abs=1e-5)
    _, low, high = evidence.interval()
    assert low < evidence.value < high
    assert evidence.p_above(low) == pytest.approx(ALPHA) and evidence.p_below(
        high
    ) == pytest.approx(ALPHA)


def test_half_widths_over_images_and_repetitions_add_up():
    """By the quantiles of scipy, at the ends of an interval and at the level of a p-value."""
    repetitions = Repetitions(5, 0.03)
    evidence = Evidence(0.1, 400, lambda limit: 4e-4 + limit**2 / 100, (-1, 1), repetitions)
    _, *ends = evidence.interval()
    of_repetitions = 0.03 / math.sqrt(5)
    for end in ends:
        images = 1.959964 * math.sqrt(evidence.variance_at(end))
        half_width = images + stats.t.isf(ALPHA, 4) * of_repetitions
        assert abs(end - 0.1) == pytest.approx(half_width, rel=1e-6)
    p = evidence.p_below(0.2)
    images = stats.norm.isf(p) * math.sqrt(evidence.variance_at(0.2))
    assert images + stats.t.isf(p, 4) * of_repetitions == pytest.approx(0.1)
    assert evidence.p_above(0.2) == pytest.approx(1 - p) and evidence.p_below(0.1) == 0.5


def test_networks_count_alike_and_seeds_are_repetitions_of_one_pair():
    rng = np.random.default_rng(0)
    end, stitched = (
        rng.random((3, 300)) < 0.9,
        rng.random((3, 300)) < np.array([[0.8], [0.7], [0.6]]),
    )
    differences = end.astype(float) - stitched
    seeds = of_difference([end], [stitched])
    networks = of_difference([end[:1], end], [stitched[:1], stitched])
    assert seeds.repetitions == pytest.approx((3, np.std(differences.mean(1), ddof=1)))
    means = [differences[0].mean(), differences.mean()]
    assert networks.value == pytest.approx(np.mean(means))
    assert networks.repetitions == pytest.approx((2, np.std(means, ddof=1)))
    single = (
        np.mean(differences**2) - differences.mean() ** 2
    )  # the variance over images is that of one run
    assert seeds.variance_at(seeds.value) == pytest.approx(single / 300, rel=1e-6)


def test_estimates_of_runs_are_put_together():
    """By the half-width of a run, and Student's over pairs of networks; runs of a pair count once."""
    runs = [
        [IntervalEstimate(0.9, 0.8, 1.0)],
        [IntervalEstimate(0.7, 0.6, 0.8), IntervalEstimate(0.8, 0.7, 0.9)],
    ]
    half_width = stats.t.isf(ALPHA, 1) * np.std([0.9, 0.75], ddof=1) / math.sqrt(2)
    evidence = of_estimates(runs, n_images=400)
    value, low, high = evidence.interval()
    assert (value, low) == pytest.approx((0.825, 0.725 - half_width), rel=1e-4)
    assert high == 1  # the highest that is possible
    alone = of_estimates([runs[0]], n_images=400).interval()
    assert alone == pytest.approx((0.9, 0.8, 1.0), abs=1e-4)
    undefined = IntervalEstimate(math.nan, math.nan, math.nan)
    assert all(map(math.isnan, of_estimates([runs[0], [undefined]], n_images=9).interval()))


def test_how_many_images_a_tolerance_needs():
    for tolerance in (0.05, 0.01):
        n = images_needed(tolerance)
        assert (
            accuracy_drop(0, 0, n).p_below(tolerance)
            < ALPHA
            <= accuracy_drop(0, 0, n - 1).p_below(tolerance)
        )
    assert math.isinf(images_needed(0))


def false_rates(
    n_repetitions: int, n: int, deviations, *, n_draws: int, correlation: float
) -> np.ndarray:
    """How often each layer is called below the tolerance, which is its true mean over networks.

    Args:
        deviations: of the accuracy drops of networks, one a layer.
        correlation: of the errors of networks and of images, which both move the accuracy drop.
    """
    rng = np.random.default_rng(n_repetitions)
    tolerance, won = 0.05, 0.04
    n_false = np.zeros(len(deviations))
    for _ in range(n_draws):
        shift = rng.normal()  # of the images at hand, common to all networks
        error_of_images = math.sqrt((2 * won + tolerance * (1 - tolerance)) / n)
        for layer, deviation in enumerate(deviations):
            networks = deviation * rng.normal(size=n_repetitions)
            networks += correlation * (
                deviation / math.sqrt(n_repetitions) * shift - networks.mean()
            )
            lost = (tolerance + won + networks + error_of_images * shift).clip(0, 1 - won)
            evidence = of_accuracy_drop(
                list(lost[:, None]), [np.array([won])] * n_repetitions, n_images=n
            )
            n_false[layer] += evidence.p_below(tolerance) < ALPHA
    return n_false / n_draws


@pytest.mark.parametrize(("n_repetitions", "correlation"), [(2, 0.0), (4, 1.0)])
def test_error_rates_over_repetitions_with_unequal_variances(n_repetitions, correlation):
    """One layer varies six times as much as the others; errors of networks and images may go
    together."""
    deviations = [0.03, 0.005, 0.005]
    rates = false_rates(n_repetitions, 1500, deviations, n_draws=1000, correlation=correlation)
    assert rates.max() <= 0.025 + 3 * math.sqrt(0.025 / 1000)


# ---- Scores over pairs of networks


def random_matrix(n: int, seed: int = 0) -> np.ndarray:
    """A symmetric matrix (n, n)."""
    upper = np.triu(np.random.default_rng(seed).random((n, n)), 1)
    return upper + upper.T


def correlation_of(matrix: np.ndarray, truth: np.ndarray):
    """The score of a measure: Pearson's correlation with the truth over pairs."""
    measured, true = (each[np.triu_indices(len(each), 1)] for each in (matrix, truth))

    def score(at, known):
        pairs = zip(at, known, strict=True)
        return np.array([np.corrcoef(measured[one], true[other])[0, 1] for one, other in pairs])

    return score


def test_scores_without_each_network_are_those_of_smaller_matrices():
    matrix, truth = random_matrix(8), random_matrix(8, 1)
    found = estimate(correlation_of(matrix, truth), 8)
    for i in range(8):
        left = np.ix_(*2 * [np.delete(np.arange(8), i)])
        smaller = estimate(correlation_of(matrix[left], truth[left]), 7)
        assert found.without_network[i] == pytest.approx(smaller.value, abs=1e-12)
    lacking = np.delete(np.arange(28), 5)[None]
    (expected,) = correlation_of(matrix, truth)(lacking, lacking)
    assert found.without_pair[5] == pytest.approx(expected, abs=1e-12)
    assert len(found.without_pair) == 28


def test_the_interval_of_a_mean_over_networks_is_students():
    values = np.array([3.0, 1, 4, 1, 5])
    without = np.array([np.delete(values, i).mean() for i in range(5)])
    found = Estimate(values.mean(), without, np.zeros(1))
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert found.interval() == pytest.approx(expected)
    few = Estimate(0.5, without[:3], np.zeros(1))
    assert all(map(math.isnan, few.interval()))


def test_p_values_are_shares_of_orders_of_networks(rng):
    matrix, truth = random_matrix(10), random_matrix(10, 1)
    pairs = np.arange(45)[None]
    (value,) = correlation_of(matrix, truth)(pairs, pairs)
    scores = []
    for _ in range(1000):
        order = rng.permutation(10)
        scores += [*correlation_of(matrix[np.ix_(order, order)], truth)(pairs, pairs)]
    found = permuted_p(correlation_of(matrix, truth), 10, 999)
    assert found == pytest.approx(np.mean(np.array(scores) >= value), abs=0.08)
    assert permuted_p(correlation_of(matrix, matrix), 10, 199) == 1 / 200


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


N_ROWS = 300
N_CLASSES = 5


@pytest.fixture
def activations():
    """Activations of images of five classes, which differ in their means; own ones, and with noise."""
    draw = np.random.default_rng(0)
    classes = draw.integers(0, N_CLASSES, N_ROWS)
    means = 10 * draw.normal(size=(N_CLASSES, 7))
    own = means[classes] + draw.normal(size=(N_ROWS, 7))
    return own, own + draw.normal(size=(N_ROWS, 7)), classes


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
    shown = np.arange(N_ROWS)
    for label in range(N_CLASSES):  # half of each class shows a classmate
        members = np.flatnonzero(classes == label)
        swapped = members[: len(members) // 2]
        shown[swapped] = draw.permutation(swapped)
    share = np.mean(shown == np.arange(N_ROWS))
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
        others = np.delete(np.arange(N_ROWS), image)
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


@pytest.mark.parametrize(("batch_size", "offset"), [(N_ROWS, 0), (37, 0), (37, 100), (3, 0)])
def test_sums_of_batches_are_those_of_all_images(batch_size, offset):
    """Also where the mean is large beside the deviations. Errors are near those of all images: the
    first batches have means of few."""
    torch.manual_seed(0)
    end = build_model("small_cnn", n_classes=N_CLASSES, n_channels=1, image_shape=(1, 8, 8)).eval()
    layer = "pool2"
    logits = torch.randn(N_ROWS, N_CLASSES)
    with torch.no_grad():
        own = {layer: end(torch.rand(N_ROWS, 1, 8, 8), until=layer), end.output_name: logits}
    stitched = own[layer] + 0.1 * torch.randn_like(own[layer]) + offset
    own[layer] = own[layer] + offset
    stitched_logits = logits + 0.1 * torch.randn_like(logits)
    following = Following(end, [layer], image_shape=(1, 8, 8))
    for start in range(0, N_ROWS, batch_size):
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


IN_GROUP = np.array([True, True, False])


def test_three_networks_by_hand():
    """Of networks a, b | c there are three labelings. A second group of one network shows no spread,
    so that the largest difference in terms of the spread of the group is that of the observed one."""
    values = np.array([[np.nan, 10.0, 2.0], [12.0, np.nan, 2.0], [8.0, 3.0, np.nan]])
    test = permutation_test(values, IN_GROUP, side=END)
    assert (test.mean_within, test.mean_across, test.difference) == (11, 2, 9)
    assert (test.n_labelings, test.is_exact) == (3, True)
    assert test.p_value == test.lowest_p == pytest.approx(1 / 3)
    test = permutation_test(values, IN_GROUP, side=FRONT)  # c -> a and c -> b
    assert (test.mean_within, test.mean_across) == (11, 5.5)


def test_effects_are_those_of_least_squares(rng):
    """Of a layout of two ways without a diagonal; their difference is that of the means of pairs."""
    values = rng.normal(size=(6, 6))
    for n_in_group in (2, 3, 5):
        labelings = permutation_tests.all_labelings(6, n_in_group)
        found = permutation_tests.effects(values, labelings)
        for effects, in_group in zip(found, labelings, strict=True):
            pairs = [(i, j) for i in np.flatnonzero(in_group) for j in range(6) if i != j]
            design = np.array([[*np.eye(6)[i], *np.eye(6)[j]] for i, j in pairs])
            solution = np.linalg.lstsq(design, [values[pair] for pair in pairs], rcond=None)[0]
            fitted = solution[6:] + solution[:6][in_group].mean()
            np.testing.assert_allclose(effects, fitted, atol=1e-12)
            test = permutation_test(values, in_group, side=END)
            difference = effects[in_group].mean() - effects[~in_group].mean()
            assert difference == pytest.approx(test.difference)


def test_welch_p_values_are_those_of_scipy(rng):
    samples = rng.normal(size=(20, 9)) * np.arange(1, 10)
    labelings = permutation_tests.all_labelings(9, 3)[:20]
    found = permutation_tests.welch_p(samples, labelings)
    for p_value, sample, in_group in zip(found, samples, labelings, strict=True):
        expected = ttest_ind(sample[in_group], sample[~in_group], equal_var=False).pvalue
        assert p_value == pytest.approx(expected)
    equal = np.array([[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    halves = np.array([[True, True, False, False]] * 2)
    assert permutation_tests.welch_p(equal, halves).tolist() == [0, 1]


def test_networks_without_spread_differ_or_do_not():
    """0.1 + 0.2 and 0.3 are equal up to rounding."""
    in_group = np.arange(6) < 3
    values = np.where(in_group, 0.1 + 0.2, 0.3) * np.ones((6, 1))
    assert permutation_test(values, in_group, side=END).p_value == 1
    values = np.where(in_group, 0.4, 0.3) * np.ones((6, 1))
    assert permutation_test(values, in_group, side=END).p_value == 2 / 20  # and the mirrored labels


@pytest.mark.parametrize("n", [2, 3, 5])
def test_groups_that_separate_perfectly_have_the_smallest_p_of_two_labelings(n):
    """Shares of 1 within and 0 across have no spread, whatever the labels of two groups."""
    in_group = np.arange(2 * n) < n
    values = np.equal.outer(in_group, in_group).astype(float)
    found = permutation_test(values, in_group, side=END)
    assert found.difference == 1 and found.p_value == pytest.approx(2 * found.lowest_p)


def test_the_other_side_of_a_pair_has_no_influence(rng):
    """Networks that are better as fronts do not change a test of ends."""
    values, in_group = rng.normal(size=(7, 7)), np.arange(7) < 3
    test = permutation_test(values, in_group, side=END)
    as_fronts = 5 * rng.normal(size=(7, 1)) + 20 * in_group[:, None]
    other = permutation_test(values + as_fronts, in_group, side=END)
    assert (other.p_value, other.difference) == pytest.approx((test.p_value, test.difference))


def test_the_order_of_the_networks_and_the_unit_do_not_matter(rng):
    values = rng.normal(size=(7, 7))
    in_group = np.arange(7) < 3
    test = permutation_test(values, in_group, side=END)
    order = rng.permutation(7)
    shuffled = permutation_test(values[np.ix_(order, order)], in_group[order], side=END)
    assert shuffled == pytest.approx(test)
    scaled = permutation_test(100 - 10 * values, in_group, side=END)
    assert scaled.p_value == test.p_value and test.n_labelings == 35
    assert permutation_test(values.T, in_group, side=FRONT) == pytest.approx(test)


def test_exactly_so_many_labelings_are_rejected_under_the_null(rng):
    """Over all labelings of one matrix, at most the share α has a p-value of at most α, and every
    labeling counts once."""
    values = rng.normal(size=(6, 6))
    p_values = [
        permutation_test(values, labeling, side=END).p_value
        for labeling in permutation_tests.all_labelings(6, 3)
    ]
    assert sorted(p_values) == pytest.approx(np.arange(1, 21) / 20)


def test_pairs_that_share_networks_reject_no_more_than_the_level(rng):
    """Networks differ in quality, as fronts and as ends, so that pairs depend on each other; the
    test of 300 true null hypotheses rejects about 5 % of them."""
    in_group = np.arange(8) < 4
    p_values = []
    for _ in range(300):
        quality = rng.normal(size=(8, 1)) + 2 * rng.normal(size=(1, 8))
        values = quality + 0.3 * rng.normal(size=(8, 8))
        p_values.append(permutation_test(values, in_group, side=END).p_value)
    assert 0.015 < np.mean(np.array(p_values) <= 0.05) < 0.09


@pytest.mark.parametrize("n_in_group,n_second", [(2, 8), (9, 3)])
def test_groups_of_different_sizes_and_spreads(n_in_group, n_second, rng):
    """The networks of the smaller group vary three times as much, and means are equal. A test that
    permutes differences of means would reject three to five times as often as its level."""
    in_group = np.arange(n_in_group + n_second) < n_in_group
    is_smaller = in_group == (n_in_group < n_second)
    p_values = []
    for _ in range(400):
        as_front, as_end = rng.normal(size=(2, len(in_group))) * np.where(is_smaller, 3, 1)
        values = as_front[:, None] + as_end + 0.3 * rng.normal(size=2 * in_group.shape)
        p_values.append(permutation_test(values, in_group, side=END).p_value)
    assert np.mean(np.array(p_values) <= 0.05) < 0.14


def test_of_many_networks_random_labelings_are_drawn(rng, monkeypatch):
    monkeypatch.setattr(permutation_tests, "MAX_EXACT", 1000)
    values = rng.normal(size=(16, 16))
    in_group = np.arange(16) < 8
    test = permutation_test(values, in_group, side=END)
    assert (test.n_labelings, test.is_exact, test.lowest_p) == (1000, False, 0.001)
    assert test.p_value >= test.lowest_p
    values[:8, :8] += 9
    assert permutation_test(values, in_group, side=END).p_value == 0.001
    monkeypatch.setattr(permutation_tests, "MAX_EXACT", 20_000)
    exact = permutation_test(values - 9 * np.outer(in_group, in_group), in_group, side=END)
    assert exact.is_exact and exact.p_value == pytest.approx(test.p_value, abs=0.06)
