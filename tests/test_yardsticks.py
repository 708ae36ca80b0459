"""ρ and β: a loop over images, limits, Tang's score by likelihoods, and coverage of the intervals."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from src.verdict.intervals import ALPHA, of_ratio
from src.verdict.yardsticks import beta, rho


def predictions(rng: np.random.Generator, n: int, *, error: float, of: np.ndarray) -> np.ndarray:
    """Classes (n,) that differ from those of another network for a share of the images."""
    return np.where(rng.random(n) < error, (of + rng.integers(1, 10, n)) % 10, of)


@pytest.fixture(scope="module")
def networks() -> dict[str, list[np.ndarray]]:
    """Two pairs of networks, with one and with two runs."""
    rng, made = np.random.default_rng(0), {"end": [], "front": [], "stitched": [], "control": []}
    for n_runs in (1, 2):
        end = rng.integers(0, 10, (n_runs, 400))
        made["end"].append(end)
        for name, error in (("front", 0.1), ("stitched", 0.2), ("control", 0.4)):
            made[name].append(np.stack([predictions(rng, 400, error=error, of=each) for each in end]))
    return made


def test_both_equal_a_loop_over_images(networks):
    def share(name: str) -> float:
        means = []
        for of_networks, ends in zip(networks[name], networks["end"], strict=True):
            images = zip(of_networks.ravel(), ends.ravel(), strict=True)
            differ = [int(one != own) for one, own in images]
            means.append(sum(differ) / len(differ))
        return sum(means) / len(means)

    stitched, front, control, end = (networks[name] for name in ("stitched", "front", "control", "end"))
    assert rho(stitched, front, end).value == pytest.approx(share("stitched") / share("front"), abs=1e-12)
    assert beta(stitched, control, end).value == pytest.approx(1 - share("stitched") / share("control"), abs=1e-12)


def test_limits(networks):
    end, control, better = (networks[name][:1] for name in ("end", "control", "stitched"))
    perfect, alone, worse = beta(end, control, end), beta(control, control, end), beta(control, better, end)
    low, high = perfect.interval()
    assert perfect.value == high == 1 and 0.9 < low < 1
    assert alone.value == 0 and alone.interval()[0] <= 0 <= alone.interval()[1]
    assert worse.value < 0 and worse.interval()[1] < 0
    never = rho(control, end, end)
    assert math.isnan(never.value) and never.interval()[1] == math.inf
    assert beta(control, end, end).interval()[0] == -math.inf


def test_beta_mirrors_the_ratio(networks):
    one, other, end = (networks[name][:1] for name in ("stitched", "control", "end"))
    ratio = of_ratio([one[0] != end[0]], [other[0] != end[0]])
    low, high = ratio.interval()
    assert beta(one, other, end).interval() == pytest.approx((1 - high, 1 - low), abs=1e-6)
    assert beta(one, other, end).p_above(0) == pytest.approx(ratio.p_below(1))


@pytest.mark.parametrize("counts", [(30, 10, 40, 200), (0, 3, 20, 100), (5, 0, 0, 60), (0, 0, 30, 360), (12, 9, 0, 90)])
@pytest.mark.parametrize("ratio", [0.2, 0.8, 1.0, 1.7])
def test_a_ratio_is_tested_by_tangs_score(counts, ratio):
    """Its variance is that of the most likely shares under the ratio, found by search."""
    both, only_top, only_bottom, n = counts

    def shares(bottom_alone: float, either: float) -> tuple[float, float, float]:
        overlap = (either - (1 + ratio) * bottom_alone) / ratio
        return overlap, either - overlap - bottom_alone, bottom_alone

    def loss(bottom_alone: float) -> float:
        given = zip(shares(bottom_alone, (n - n_neither) / n), (both, only_top, only_bottom), strict=True)
        return -sum(count * math.log(max(share, 1e-300)) for share, count in given)

    n_neither = n - both - only_top - only_bottom
    either = 1 - n_neither / n
    bounds = max(0.0, either * (1 - ratio)) + 1e-13, either / (1 + ratio) - 1e-13
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    overlap, top_alone, bottom_alone = shares(best, either)
    variance = (overlap + top_alone) + ratio**2 * (overlap + bottom_alone) - 2 * ratio * overlap
    cells = np.repeat([0, 1, 2, 3], [both, only_top, only_bottom, n_neither])
    evidence = of_ratio([(cells <= 1)[None]], [np.isin(cells, (0, 2))[None]])
    z = (both + only_top - ratio * (both + only_bottom)) / math.sqrt(n * variance)
    assert evidence.p_below(ratio) == pytest.approx(stats.norm.cdf(z), abs=2e-5)
    low, high = evidence.interval()
    assert low == 0 or evidence.p_above(low) == pytest.approx(ALPHA)
    assert math.isinf(high) or evidence.p_below(high) == pytest.approx(ALPHA)


def coverage(n: int, value: float, *, disagreement: float, n_draws: int) -> float:
    """How often the interval of β holds the truth; some images are hard for both stitches."""
    rng, held = np.random.default_rng(n), 0
    stitched = (1 - value) * disagreement
    both = 0.6 * min(stitched, disagreement)
    bounds = np.cumsum([both, stitched - both, disagreement - both])
    for _ in range(n_draws):
        cells, end = np.searchsorted(bounds, rng.random(n)), np.zeros((1, n), int)
        one, other = (cells <= 1).astype(int)[None], np.isin(cells, (0, 2)).astype(int)[None]
        low, high = beta([one], [other], [end]).interval()
        held += low <= value <= high
    return held / n_draws


def test_the_interval_of_beta_covers_the_truth():
    assert coverage(100, 0.9, disagreement=0.15, n_draws=300) >= 0.92  # few images disagree


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 360, 1500])
@pytest.mark.parametrize("value", [-0.2, 0.0, 0.3, 0.6, 0.9])
def test_intervals_of_beta_cover_the_truth(n, value):
    for disagreement in (0.15, 0.4):
        assert 0.93 <= coverage(n, value, disagreement=disagreement, n_draws=2000) <= 0.975
