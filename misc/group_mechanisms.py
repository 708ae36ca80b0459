"""The share of their mechanisms that two networks which multiply in a group have in common, by
their weights.

A network adds a function of the first element and a function of the second in each hidden unit. Its
mechanism is `Functions`: both as matrices (n elements, units), less their means over elements.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SMALL = 0.01  # singular values below this share of the largest are noise

Functions = tuple[NDArray, NDArray]  # (n, units) of the first and of the second element


def irreducible_representations(products: NDArray) -> list[NDArray]:
    """Return an orthonormal basis (n, d²) of the functions on a group that belong to each
    irreducible representation, of dimension d.

    They are the joint eigenspaces of the sums over conjugacy classes (Serre 1977, section 2.6), so the
    eigenspaces of a random combination of these sums. Representations that are complex conjugates of
    each other share a basis.

    Args:
        products: (n, n), the number of the product of two elements.
    Raises:
        ValueError: the table is none of a group.
    """
    n = len(products)
    elements = np.arange(n)
    is_latin = (np.sort(products) == elements).all() and (np.sort(products.T) == elements).all()
    is_unit = (products == elements).all(1)
    if not is_latin or not is_unit.any():
        raise ValueError("not the products of a group")
    inverse = np.argmax(products == np.argmax(is_unit), axis=1)
    conjugates = products[products, inverse[:, None]]  # (n, n): h g h⁻¹ by h and g
    classes = {tuple(np.unique(of_element)) for of_element in conjugates.T}
    rng = np.random.default_rng(0)
    combination = np.zeros((n, n))
    for members in sorted(classes):
        weight = rng.normal() / len(members)
        for member in members:
            combination[products[member], elements] += weight
    eigenvalues, vectors = np.linalg.eigh(combination + combination.T)
    ends = np.flatnonzero(np.diff(eigenvalues) > 1e-8) + 1
    return np.split(vectors, ends, axis=1)


def representation_shares(functions: Functions, bases: Sequence[NDArray]) -> NDArray:
    """Return the share of the energy of functions in each representation."""
    of_both = np.concatenate(functions, axis=1)
    energies = np.array([np.sum((basis.T @ of_both) ** 2) for basis in bases])
    return energies / energies.sum()


def shared_representations(front: NDArray, end: NDArray) -> float:
    """Return the sum of the smaller share of each representation in two networks."""
    return float(np.minimum(front, end).sum())


def spans(functions: Functions) -> Functions:
    """Return an orthonormal basis (n, rank) of the span of the functions of either element."""
    bases = []
    for of_element in functions:
        vectors, values, _ = np.linalg.svd(of_element, full_matrices=False)
        bases.append(vectors[:, values > SMALL * values[0]])
    return bases[0], bases[1]


def shared_subspaces(front: Functions, end: Functions) -> float:
    """Return the share of the end's functions in the spans of the front's, the mean over both
    elements.

    Args:
        front: from `spans`.
    """
    shares = []
    for span, of_element in zip(front, end, strict=True):
        shares.append(np.sum((span.T @ of_element) ** 2) / np.sum(of_element**2))
    return float(np.mean(shares))


def shared_units(front: Functions, end: Functions) -> float:
    """Return the squared cosine of the end's units, as pairs of functions, with the nearest unit
    of the front; the mean over units by their energy."""
    of_front = np.concatenate(front)
    of_end = np.concatenate(end)  # (2n, units)
    directions = of_front / np.maximum(np.linalg.norm(of_front, axis=0), 1e-9)
    nearest = np.maximum((directions.T @ of_end).max(0), 0)
    return float(np.sum(nearest**2) / np.sum(of_end**2))
