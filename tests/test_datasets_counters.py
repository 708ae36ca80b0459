"""Random numbers by index: SplitMix64's words, the distributions made of them, and what they depend on."""

import numpy as np
import pytest
import torch
from scipy import stats

from src.datasets.counters import STEP, _mixed, normals, uniforms, words

KEY = 20_241_101
MASK = 2**64 - 1


def mixed(state: int) -> int:
    """The finaliser of SplitMix64, in whole numbers without bounds."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return state ^ (state >> 31)


def test_words_are_those_of_splitmix64():
    """The published first numbers of the seed 1234567, and a generator for each index."""
    step = STEP & MASK
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    states = 1234567 + torch.arange(1, 6) * STEP
    assert [word & MASK for word in _mixed(states).tolist()] == first
    indices, n = [0, 1, 7, 10**12], 3
    expected = [[mixed(mixed(KEY + i * step & MASK) + j * step & MASK) for j in range(1, n + 1)] for i in indices]
    drawn = words(KEY, torch.tensor(indices), n).tolist()
    assert [[word & MASK for word in row] for row in drawn] == expected


@pytest.mark.parametrize("draw", [uniforms, normals])
def test_numbers_depend_on_key_and_index_alone(draw):
    order = torch.randperm(100)
    state = torch.get_rng_state()
    drawn = draw(KEY, torch.arange(100), 5)
    assert torch.equal(draw(KEY, order, 5), drawn[order])
    assert torch.equal(draw(KEY, order[:1], 5), drawn[order[:1]])
    assert torch.equal(torch.get_rng_state(), state)
    assert not (draw(KEY + 1, torch.arange(100), 5) == drawn).any() and len(drawn.unique()) == 500
    assert draw(KEY, torch.arange(0), 5).shape == (0, 5)


@pytest.mark.parametrize(("draw", "distribution"), [(uniforms, "uniform"), (normals, "norm")])
@pytest.mark.parametrize(("n_indices", "n"), [(50_000, 2), (100, 1001), (20_001, 5)])
def test_distributions(draw, distribution, n_indices, n):
    drawn = draw(KEY, torch.arange(n_indices), n)
    assert drawn.shape == (n_indices, n)
    assert stats.kstest(drawn.double().flatten().numpy(), distribution).pvalue > 0.01


@pytest.mark.parametrize("draw", [uniforms, normals])
def test_numbers_of_one_index_of_neighbours_and_of_keys_are_not_correlated(draw):
    n, width = 40_000, 6
    drawn = draw(KEY, torch.arange(n), width).double()
    columns = [drawn, drawn.roll(1, 0), draw(KEY + 1, torch.arange(n), width).double(), drawn.square()]
    correlations = np.corrcoef(torch.cat(columns, dim=1).T.numpy())
    own_square = np.zeros_like(correlations, dtype=bool)
    for column in range(width):  # a number in [0, 1) and its square rise together
        own_square[column, 3 * width + column] = own_square[3 * width + column, column] = True
    off = correlations[~(own_square | np.eye(4 * width, dtype=bool))]
    assert np.abs(off).max() < 4.5 / n**0.5


def test_uniform_numbers_have_every_digit():
    """53 bits, never 1: a label that is drawn is always a class."""
    drawn = uniforms(KEY, torch.arange(100_000), 1)
    assert drawn.dtype == torch.float64 and 0 <= drawn.min() < 1e-4 and 1 - 1e-4 < drawn.max() < 1
    assert len((drawn * 2**53 % 2**20).unique()) > 95_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_numbers():
    indices = torch.arange(1000)
    assert torch.equal(uniforms(KEY, indices.cuda(), 7).cpu(), uniforms(KEY, indices, 7))
    torch.testing.assert_close(normals(KEY, indices.cuda(), 7).cpu(), normals(KEY, indices, 7), atol=1e-5, rtol=1e-5)
