"""Two-way identification: foils and ties by hand, loops, and cheats that show another image."""

import math

import pytest
import torch
from scipy import stats

from src.ood import identification
from src.ood.identifying import N_CANDIDATES, choose_foils, share_of


def test_the_foil_is_the_nearest_in_logits():
    logits = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.2, 0.0], [5.0, 5.0]])
    assert choose_foils(logits).tolist() == [1, 2, 1, 2]
    assert choose_foils(logits[:1]).tolist() == [0]


def test_the_foil_is_one_of_300_others():
    """Nearer than the median of all, seldom the nearest of all, and always the same one."""
    logits = torch.randn(2000, 10, generator=torch.Generator().manual_seed(0))
    foils = choose_foils(logits)
    assert torch.equal(foils, choose_foils(logits))
    assert (foils != torch.arange(2000)).all()
    distances = torch.cdist(logits, logits)
    n_nearer = (distances < distances.gather(1, foils[:, None])).sum(
        1
    ) - 1  # without the image itself
    assert n_nearer.double().mean() == pytest.approx(2000 / N_CANDIDATES, rel=0.2)


def test_by_loops():
    draw = torch.Generator().manual_seed(0)
    own, logits = torch.randn(20, 3, 4, 4, generator=draw), torch.randn(20, 5, generator=draw)
    made = own + torch.randn(own.shape, generator=draw)
    foils = choose_foils(logits)

    def pooled(activation: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [activation[:, y : y + 2, x : x + 2].mean((1, 2)) for y in (0, 2) for x in (0, 2)]
        )

    for i, value in enumerate(identification(made, own, logits).tolist()):
        to_own, to_foil = ((pooled(made[i]) - pooled(own[j])).norm() for j in (i, foils[i]))
        assert value == (to_own < to_foil)


def test_cheats_know_no_image_and_ties_count_half():
    draw = torch.Generator().manual_seed(0)
    own, logits = torch.randn(400, 8, generator=draw), torch.randn(400, 10, generator=draw)
    assert identification(own, own, logits).mean() == 1
    assert identification(
        own[torch.randperm(400, generator=draw)], own, logits
    ).mean() == pytest.approx(0.5, abs=0.1)
    assert identification(own[choose_foils(logits)], own, logits).mean() == 0
    twice = own[:200].repeat(2, 1)  # each image is repeated, with the logits that it has
    assert identification(twice, twice, logits[:200].repeat(2, 1)).unique().tolist() == [0.5, 1.0]
    assert identification(own, torch.ones_like(own), logits).unique().tolist() == [0.5]


@pytest.mark.parametrize(("n_right", "n"), [(98, 100), (0, 40), (40, 40), (7, 20)])
def test_the_share_has_wilsons_interval(n_right, n):
    value, low, high = share_of(torch.arange(n).lt(n_right).double())
    expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
    assert value == n_right / n and (low, high) == pytest.approx(
        (expected.low, expected.high), abs=1e-4
    )
    assert math.isclose(share_of(torch.full((10,), 0.5)).value, 0.5)
