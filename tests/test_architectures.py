"""Matrices of networks of several architectures: no matrix mixes their layers."""

import itertools

import pytest

from src.results.grid_matrices import printed_matrices
from tests.commands import parse_matrix, run, says
from tests.result_rows import stitch_row
from tests.written_runs import write_run

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


def test_verdicts_have_a_matrix_for_each_pair_of_architectures(tmp_path):
    """Of equal names of layers, too."""
    kinds = {"a": "resnet18", "b": "resnet18", "c": "resnet34"}
    depth = {"resnet18": 0.5, "resnet34": 0.25}
    for front, end in itertools.permutations(kinds, 2):
        write_run(
            tmp_path / "all" / f"{front}-{end}",
            "0",
            n_right=900,
            metrics={
                "front_relative_depth": depth[kinds[front]],
                "end_relative_depth": depth[kinds[end]],
            },
            front_model_path=f"{front}.pt",
            end_model_path=f"{end}.pt",
            front_model_type=kinds[front],
            end_model_type=kinds[end],
        )
    folders = sorted((tmp_path / "all").iterdir())
    out, err = run("misc/verdict.py", *folders, "-o", "v.csv", cwd=tmp_path)
    pairs = ("resnet18 → resnet18", "resnet18 → resnet34", "resnet34 → resnet18")
    titles = [f"direct matching, {pair}" for pair in pairs]
    assert not any(title in out for title in titles)
    assert says(err, "--verbose", "pair of architectures")
    out, _ = run("misc/verdict.py", *folders, "-o", "v.csv", "--verbose", cwd=tmp_path)
    for title in titles:
        assert parse_matrix(out, f"{title}, 2 pairs of networks").keys() == {("x", "y")}
