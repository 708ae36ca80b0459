"""Tables and figures have the layers in the order in which networks compute them, whatever their
names are."""

from pathlib import Path

import pytest

from src.core.grouping import by_depth
from src.figures.pages import CELLS
from tests.commands import ON_DIGITS, pair_of, parse_matrix, read_csv, run, stitch_rows
from tests.conftest import few_images

HOUSE = f"{Path(__file__).parent}/tiny_networks.py:house"
LAYERS = ["stem", "body", "attic"]
MATRICES = {"direct matching": "verdict", "STITCHING ACCURACY": "ood", "": "collect"}


@pytest.fixture
def printed(in_tmp_path, drawn_figures):
    """What the scripts print that read the stitches of two networks; those into `stem` were added
    last."""
    matched = ["rc2c_pre", *ON_DIGITS, "-i", "pinv", "-e", "0", "-dir", "f to g/pinv"]
    all_layers = ",".join(LAYERS)
    with few_images(64, n_test=40):
        for seed, name in enumerate("fg"):
            run("exec_train.py", HOUSE, *ON_DIGITS, "-e", "1", "-s", seed, "-dir", name)
        pair = [*(f"{name}/model_1.pt" for name in "fg"), HOUSE, HOUSE]
        for layers in (("body,attic", "attic,body"), ("stem", "attic,body"), (all_layers, "stem")):
            run("exec_stitch.py", *pair, *layers, *matched)
        own = ["--own-types", HOUSE, "--detector", "mahalanobis"]
        evaluated = run("exec_eval_stitcher_ood.py", "results/f to g/pinv", *ON_DIGITS, *own)
        table = ["-o", "results/similarity/f-g.csv", "--metrics", "cka", "-n", "40"]
        measured = [*pair, all_layers, all_layers, *ON_DIGITS, *table]
        run("exec_compute_low_rank_sim_metrics.py", *measured)
    collected = run("misc/collect_results.py", "results/f to g/pinv")
    judged = run("misc/verdict.py", "results/f to g/pinv")
    run("misc/collect_results.py", "results")
    return {"ood": evaluated.out, "collect": f"\n{collected.out}", "verdict": judged.out}


def test_every_table_and_figure(printed, drawn_figures):
    for title, script in MATRICES.items():
        matrix = parse_matrix(printed[script], title)
        for side in zip(*matrix, strict=True):
            assert list(dict.fromkeys(side)) == LAYERS
    for name in ("collected.png", "verdict.png", "evaluation_mahalanobis.png", "f-g.png"):
        maps = [axes for axes in drawn_figures[name].axes if axes.get_gid() == CELLS]
        for labels in (maps[0].get_yticklabels(), maps[-1].get_xticklabels()):
            assert [text.get_text() for text in labels] == LAYERS, name
    (*_, axes) = drawn_figures["collected_depth.png"].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == LAYERS
    curves = read_csv("results/collected_means.csv")
    assert list(dict.fromkeys(row["layers"] for row in curves)) == LAYERS
    for row in stitch_rows("results/f to g/pinv"):
        depths = row["front_depth"], row["end_depth"]
        assert depths == tuple(str(LAYERS.index(layer)) for layer in pair_of(row))


def test_layers_of_unknown_depth_are_in_natural_order():
    layers = ["b10", "b2", "a"]
    assert by_depth(layers, {}) == by_depth(layers, {"b10": 0}) == ["a", "b2", "b10"]
    assert by_depth(layers, {"b10": 0, "a": 1, "b2": 2, "c": 3}) == ["b10", "a", "b2"]
