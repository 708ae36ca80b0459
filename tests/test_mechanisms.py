"""What networks that multiply in a group share, on small groups by hand."""

from itertools import permutations

import numpy as np
import pytest

from src.ground_truth.mechanisms import (
    irreducible_representations,
    representation_shares,
    shared_representations,
    shared_subspaces,
    shared_units,
    spans,
)


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
