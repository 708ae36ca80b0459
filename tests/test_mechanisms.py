"""What networks that multiply in a group share, on small groups by hand."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from misc import mechanism_statistics
from misc.group_mechanisms import (
    irreducible_representations,
    representation_shares,
    shared_representations,
    shared_subspaces,
    shared_units,
    spans,
)
from misc.mechanism_statistics import (
    BEHIND,
    COMPARED,
    IS_ACCURATE,
    TRUTHS,
    Directions,
    Test,
    adjusted_tests,
    correlation,
    outcomes,
    products_of,
    rank_correlation,
    truths_of,
)
from misc.mechanism_statistics import tests_of as all_tests_of
from misc.multiplier import Multiplier
from tests.commands import run


def products_of_permutations(n: int) -> np.ndarray:
    """Return the multiplication table of the permutations of n things."""
    elements = list(permutations(range(n)))
    number = {element: place for place, element in enumerate(elements)}
    return np.array([[number[tuple(a[i] for i in b)] for b in elements] for a in elements])


@pytest.mark.parametrize(("n", "dimensions"), [(3, [1, 1, 2]), (4, [1, 1, 2, 3, 3])])
def test_representations_have_the_dimensions_of_the_group(n, dimensions):
    bases = irreducible_representations(products_of_permutations(n))
    assert sorted(basis.shape[1] for basis in bases) == [d**2 for d in dimensions]
    together = np.concatenate(bases, axis=1)
    assert together.T @ together == pytest.approx(np.eye(len(together)), abs=1e-9)


def test_the_sign_and_the_standard_representation_of_three_things():
    elements = list(permutations(range(3)))
    bases = irreducible_representations(products_of_permutations(3))
    sign = np.array([np.linalg.det(np.eye(3)[list(element)]) for element in elements])
    where = np.eye(3)[[element[0] for element in elements]] - 1 / 3  # where the first goes
    of_sign = representation_shares((sign[:, None], sign[:, None]), bases)
    of_place = representation_shares((where, where), bases)
    assert np.sort(of_sign) == pytest.approx([0, 0, 1], abs=1e-9)
    assert bases[int(of_place.argmax())].shape[1] == 4
    assert shared_representations(of_sign, of_place) == pytest.approx(0, abs=1e-9)
    assert shared_representations(of_sign, of_sign) == pytest.approx(1)


def test_subspaces_have_a_direction(rng):
    small = rng.normal(size=(6, 2))
    large = np.concatenate([small, rng.normal(size=(6, 1))], axis=1)
    assert shared_subspaces(spans((large, large)), (small, small)) == pytest.approx(1)
    assert shared_subspaces(spans((small, small)), (large, large)) < 0.99
    mixed = small @ rng.normal(size=(2, 2))
    assert shared_subspaces(spans((small, small)), (mixed, mixed)) == pytest.approx(1)
    assert shared_units((small, small), (mixed, mixed)) < 0.99
    assert shared_units((small, small), (2 * small[:, ::-1], 2 * small[:, ::-1])) == pytest.approx(
        1
    )


def test_a_table_without_a_unit_is_no_group():
    with pytest.raises(ValueError, match="group"):
        irreducible_representations((np.arange(3)[:, None] - np.arange(3)) % 3)


def trained_network(products: np.ndarray, seed: int) -> Multiplier:
    """Return a network that multiplies without a mistake."""
    torch.manual_seed(seed)
    n = len(products)
    network = Multiplier(n)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    elements = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    answers = torch.from_numpy(products).flatten()
    for _ in range(200):
        loss = torch.nn.functional.cross_entropy(network(elements), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@pytest.fixture(scope="module")
def networks():
    return [trained_network(products_of_permutations(3), seed) for seed in range(4)]


def test_the_group_and_the_truths_are_read_off_networks(networks):
    products = products_of(networks)
    assert (products == products_of_permutations(3)).all()
    truths = truths_of(networks, products)
    for truth in truths.values():
        assert np.diag(truth) == pytest.approx(np.ones(4))
        assert ((truth >= 0) & (truth <= 1 + 1e-9)).all()
    assert truths["representations"] == pytest.approx(truths["representations"].T)


def test_partial_correlation_is_that_of_residuals(rng):
    """Of ranks, each less what a regression on the third says; 0 of a measure that is the third."""
    x, y, z = rng.random((3, 36))
    x, y = x + z, y + z
    ranks = [rankdata(values) for values in (x, y, z)]
    one, two = (np.polyval(np.polyfit(ranks[2], each, 1), ranks[2]) - each for each in ranks[:2])
    assert rank_correlation(x, y, z) == pytest.approx(np.corrcoef(one, two)[0, 1], abs=1e-12)
    assert rank_correlation(-z, y, z) == 0 < abs(rank_correlation(-z, y))
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(rank_correlation(x, np.ones(36)))


def test_a_measure_that_is_the_truth(rng, monkeypatch):
    monkeypatch.setattr(mechanism_statistics, "N_PERMUTATIONS", 2000)
    truths = {name: rng.random((6, 6)) for name in (*TRUTHS, BEHIND)}
    measures = {name: rng.random((6, 6)) for name in COMPARED}
    for name in ("cka_debiased", "pinv skill"):
        measures[name] = truths["subspaces"]
    measures[IS_ACCURATE] = np.ones((6, 6))
    tests = {
        (test.hypothesis, test.measure, test.truth): test for test in all_tests_of(measures, truths)
    }
    assert tests["", "cka_debiased", "subspaces"].value == pytest.approx(1)
    assert tests["H3", "pinv skill, of accurate stitches", "subspaces"].value == pytest.approx(1)
    assert tests["H5", "pinv skill, between directions", "subspaces"].value == pytest.approx(1)
    # 6! = 720 orders of six networks: chance is above 1/2,000
    assert 1 / 720 / 2 < tests["H5", "pinv skill, between directions", "subspaces"].p < 4 / 720


def test_a_hypothesis_whose_comparison_is_missing_is_not_answered(rng, monkeypatch):
    monkeypatch.setattr(mechanism_statistics, "N_PERMUTATIONS", 200)
    truths = {name: rng.random((6, 6)) for name in (*TRUTHS, BEHIND)}
    measures = {name: rng.random((6, 6)) for name in COMPARED}
    measures["pinv accuracy"] = truths["representations"]
    measures["task accuracy"] = np.full((6, 6), np.nan)
    measures[IS_ACCURATE] = np.ones((6, 6))
    tests = [test for test in all_tests_of(measures, truths) if test.adjusted_p is not None]
    missing = [test for test in tests if np.isnan(test.value)]
    assert len(tests) == 28 and len(missing) == 4  # R, S, H1 and one of H2
    lines = [line for line in outcomes(tests) if "not answered" in line]
    assert [line[:5] for line in lines] == ["* H1:", "* H2:"]
    assert all("task accuracy" in line for line in lines)
    one, other = (Test("", "", "", 0, 0, 0, p) for p in (0.01, np.nan))
    assert adjusted_tests([one, other])[0].adjusted_p == pytest.approx(0.02)  # of two planned tests


def test_intervals_of_correlations_stay_below_1_and_cover_it(rng):
    """Of 12 networks with an error of their own, measured on pairs with an error each."""

    def draw(n):
        shares = rng.dirichlet(np.full(4, 0.5), n)
        truth = np.minimum(shares[:, None], shares[None]).sum(2)
        own = rng.normal(size=n) * 0.05
        pairs = rng.normal(size=(n, n)) * 0.15
        return truth + own[:, None] + own[None] + (pairs + pairs.T) / 2, truth

    of_many = [Directions.of(matrix).mean for matrix in draw(600)]
    expected = rank_correlation(*of_many)
    n_inside = 0
    for _ in range(100):
        test = Test.of_correlation("", "", "", correlation(*draw(12)), 12)
        assert -1 <= test.low < test.value < test.high <= 1
        n_inside += test.low < expected < test.high
    assert n_inside >= 88


def test_functions_behind_the_relu_are_means_over_the_other_element():
    network = Multiplier(6)
    a, b = network.functions_behind_relu()
    elements = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    embedded = torch.cat([network.W_x[elements[:, 0]], network.W_y[elements[:, 1]]], 1)
    hidden = torch.relu(embedded @ network.W).detach().view(6, 6, 128)
    for found, mean in ((a, hidden.mean(1)), (b, hidden.mean(0))):
        expected = (mean - mean.mean(0)).double()
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [(20, 12), (256, 12), (20, 128)])
def test_networks_of_other_sizes_are_an_error_of_one_line(sizes, in_tmp_path, capsys):
    for name in ("a.pt", "b.pt"):
        torch.save(Multiplier(6, *sizes).state_dict(), name)
    result = run("misc/mechanisms.py", "a.pt", "b.pt", "-o", "s", "-gpu", "-1", status=2)
    assert "misc/multiplier.py" in result.err and "Traceback" not in result.err


@pytest.mark.slow
def test_the_study_as_one_command(networks, in_tmp_path, rendered):
    files = []
    for seed, network in enumerate(networks):
        files.append(f"seed{seed}.pt")
        torch.save(network.state_dict(), files[-1])
    for _ in range(2):  # the second time from finished stitches
        run("misc/mechanisms.py", *files, "-o", "study", "-gpu", "-1")
        text = Path("study.md").read_text()
        assert "* H3:" in text
        assert "| `cka_debiased` |" in text
    assert Path("study_maps.png").stat().st_size > 0
    run("misc/mechanisms.py", *files[:3], "-o", "study", "-gpu", "-1")  # a shortened list
    assert "nan" in Path("study.md").read_text()  # three networks have no intervals
