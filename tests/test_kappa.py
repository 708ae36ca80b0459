"""κ within strata: scikit-learn, loops over images and simulated networks as oracles."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from src.collected.groups import value_of
from src.collected.measured import MeasuredLayer, MeasuredValue
from src.collected.named_networks import NamedNetwork
from src.collected.scored_measures import scored_stitch
from src.runs.folders import StitchingRun
from src.statistics.kappa import strata_of
from src.verdict import kappa_within
from tests.result_rows import stitch_row

N_CLASSES = 10


def networks(
    n: int, rng: np.random.Generator, *, error: float, shared: float
) -> tuple[np.ndarray, ...]:
    """The labels, and the classes that front, end and stitch predict, of images some of which are
    hard for all.

    Args:
        shared: the share of the end network's own errors that the stitch has too.
    """
    labels = rng.integers(N_CLASSES, size=n)
    other = (
        labels + rng.integers(1, 4, size=n)
    ) % N_CLASSES  # the class that an image may be taken for
    hard, of_front, of_end, of_stitch = rng.standard_normal((4, n))
    of_stitch = shared * of_end + math.sqrt(1 - shared**2) * of_stitch
    limit = np.quantile(rng.standard_normal(100_000), 1 - error)
    hardness = [(hard + own) / math.sqrt(2) for own in (of_front, of_end, of_stitch)]
    return labels, *(np.where(values > limit, other, labels) for values in hardness)


def test_one_stratum_is_cohens_kappa():
    labels, front, end, stitched = networks(500, np.random.default_rng(0), error=0.2, shared=0.5)
    value, low, high = kappa_within(stitched, end, np.zeros(500))
    assert value == pytest.approx(cohen_kappa_score(stitched, end)) and low < value < high


def test_strata_by_loops():
    labels, front, end, stitched = networks(300, np.random.default_rng(1), error=0.2, shared=0.5)
    expected = 0.0
    for stratum in set(zip(labels, front, strict=True)):
        inside = [i for i in range(300) if (labels[i], front[i]) == stratum]
        expected += sum(stitched[i] != end[j] for i in inside for j in inside) / len(inside)
    value = kappa_within(stitched, end, strata_of(labels, front)).value
    assert value == pytest.approx(1 - (stitched != end).sum() / expected)
    assert (
        strata_of(labels, np.full(300, -1)) == strata_of(labels, labels)
    ).all()  # an encoder predicts no class


def test_what_label_and_front_class_explain_counts_nothing():
    """A stitch that draws its class from its stratum alone; one that is the end network; a network
    to itself."""
    rng = np.random.default_rng(2)
    labels, front, end, stitched = networks(2000, rng, error=0.2, shared=0.5)
    strata = strata_of(labels, front)
    order = np.lexsort((rng.random(2000), strata))
    drawn = np.empty_like(end)
    drawn[np.argsort(strata, kind="stable")] = end[order]
    assert abs(kappa_within(drawn, end, strata).value) < 0.1
    assert kappa_within(drawn, end, strata).low < 0 < kappa_within(drawn, end, strata).high
    assert kappa_within(end, end, strata).value == 1
    assert all(map(math.isnan, kappa_within(stitched, end, strata_of(labels, end))))


def test_a_front_that_says_what_the_end_network_says_is_most_alike_in_ground_truth(tmp_path):
    """There κ within strata is not defined."""
    rng = np.random.default_rng(4)
    labels, front, end, stitched = networks(500, rng, error=0.2, shared=0.5)
    for name, classes in {"other": front, "copy": end}.items():
        (tmp_path / name).mkdir()
        np.savez(
            tmp_path / name / "predictions.npz",
            stitched=stitched,
            front=classes,
            end=end,
            labels=labels,
        )

    def kappa(name: str) -> float | None:
        value = value_of(StitchingRun(tmp_path / name, {}, stitch_row()), "kappa_within")
        if value is None:
            return None
        layer = MeasuredLayer(NamedNetwork(name, "", training=name), "x")
        _, scored = scored_stitch(MeasuredValue("dm", "kappa_within", layer, layer, value))
        return scored.value

    assert kappa("other") == kappa_within(stitched, end, strata_of(labels, front)).value
    assert kappa("copy") == 1
    assert kappa("none") is None


@pytest.mark.parametrize(
    ("n", "error", "shared"), [(360, 0.1, 0.6), (360, 0.1, 0.95), (1000, 0.25, 0.0)]
)
def test_the_interval_covers_the_truth(n, error, shared):
    """A bootstrap within strata covers 73 to 92 %, an interval by the variance under permutation 45
    to 85 %."""
    rng = np.random.default_rng(3)
    labels, front, end, stitched = networks(300_000, rng, error=error, shared=shared)
    truth = kappa_within(stitched, end, strata_of(labels, front)).value
    n_held = 0
    for _ in range(150):
        labels, front, end, stitched = networks(n, rng, error=error, shared=shared)
        _, low, high = kappa_within(stitched, end, strata_of(labels, front))
        n_held += low <= truth <= high
    assert n_held / 150 >= 0.9
