"""Matrices of networks of several architectures: no matrix mixes their layers."""

import itertools

import pytest

from src.results.grid_matrices import printed_matrices
from tests.result_rows import stitch_row

LAYERS = {
    "deep": {"a": 0.25, "b": 0.5, "c": 1.0},
    "flat": {"a": 0.5, "b": 1.0},
    "flat_again": {"a": 0.5, "b": 1.0},
}


def stitches():
    """All pairs of layers of two networks of each type; the accuracy tells the types of a pair."""
    networks = [(kind, f"{kind}{i}.pt") for kind in LAYERS for i in range(2)]
    for number, ((kind1, front), (kind2, end)) in enumerate(itertools.permutations(networks, 2)):
        for layer1, layer2 in itertools.product(LAYERS[kind1], LAYERS[kind2]):
            yield stitch_row(
                front_model_path=front,
                end_model_path=end,
                front_model_type=kind1,
                end_model_type=kind2,
                front_layer=layer1,
                end_layer=layer2,
                front_relative_depth=LAYERS[kind1][layer1],
                end_relative_depth=LAYERS[kind2][layer2],
                accuracy=(1 + (kind1 == "deep") + 2 * (kind2 == "deep")) / 10,
                front_weights=front,
                end_weights=end,
                folder=f"{number}",
            )


def test_means_are_over_networks_of_one_pair_of_architectures():
    """Types of equal layers at equal depths are one architecture."""
    matrices = printed_matrices(list(stitches()))
    found = {title.split(", mean")[0]: matrix for title, matrix in matrices.items()}
    flat = "flat, flat_again"
    method = "task loss matching"
    assert found.keys() == {
        f"{method}, {pair}"
        for pair in ("deep → deep", f"deep → {flat}", f"{flat} → deep", f"{flat} → {flat}")
    }
    across = found[f"{method}, deep → {flat}"]
    assert (across.rows, across.columns) == (["a", "b", "c"], ["a", "b"])
    assert across.values == [pytest.approx([0.2, 0.2])] * 3
    assert found[f"{method}, {flat} → {flat}"].values == [pytest.approx([0.1, 0.1])] * 2
