"""misc/sensitivity_figure.py: which curves it draws, and the figure as a user gets it."""

from pathlib import Path

import pytest

from misc.sensitivity_figure import lines_of
from src.sensitivity.measurements import read_measurements
from tests.commands import PDF, caption_of, run
from tests.tables import PROBE, SIMILARITY, STITCH, write_table

SCRIPT = "misc/sensitivity_figure.py"
RANKS = [4, 2, 1]


@pytest.fixture
def tables(tmp_path) -> list[Path]:
    """Layers `x` and `y` of `a.pt` compared at three ranks and at full rank with those of `b.pt`."""
    pairs = [{"layer1": one, "layer2": two} for one, two in (("x", "x"), ("x", "y"), ("y", "y"))]
    measured = {"cka": 0.5, "pwcca": 0.25, "pwcca_morcos": 0.25}
    cut = [pair | measured | {"rank1": rank, "procrustes": rank / 2} for pair in pairs for rank in RANKS]
    whole = pairs[0] | {"cka": 1, "pwcca": 0, "procrustes": 0, "pwcca_morcos": 0}
    probes = [{"model": f"{name}.pt", "rank": rank, "accuracy": rank / 8} for name in "ab" for rank in (8, *RANKS)]
    stitches = [{"end_layer": "x", "front_stitch_rank": rank, "accuracy": rank / 9} for rank in RANKS]
    return [
        write_table(tmp_path / "similarity.csv", SIMILARITY, *cut, whole),
        write_table(tmp_path / "probes.csv", PROBE, *probes, probes[0] | {"dataset": "mnist", "accuracy": 0}),
        write_table(tmp_path / "dm.csv", STITCH, *stitches),
        write_table(tmp_path / "tlm.csv", STITCH | {"init": "rand", "n_epochs": 3}, *stitches),
    ]


def test_curves_rise_with_similarity_and_are_of_the_truncated_network(tables):
    assert lines_of(read_measurements(tables), ("x", "x")) == {
        "linear CKA": {4: 0.5, 2: 0.5, 1: 0.5},
        "1 − PWCCA distance": {4: 0.75, 2: 0.75, 1: 0.75},
        "1 − Procrustes distance / 2": {4: 0, 2: 0.5, 1: 0.75},
        "stitching accuracy (direct matching)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "stitching accuracy (task loss matching)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "probe accuracy": {8: 1, 4: 0.5, 2: 0.25, 1: 0.125},
    }
    assert "stitching accuracy (direct matching)" not in lines_of(read_measurements(tables), ("x", "y"))


def test_curves_of_one_name_say_which_networks_they_are_of(tables):
    other = tables[2].with_name("2.csv")
    other.write_text(tables[2].read_text().replace("b.pt", "c.pt"))
    labels = list(lines_of(read_measurements([*tables[1:3], other]), ("x", "x")))
    assert [label.split(", ")[0] for label in labels[:2]] == ["stitching accuracy (direct matching)"] * 2
    assert "a.pt -- b.pt" in labels[0] and "a.pt -- c.pt" in labels[1] and labels[2:] == ["probe accuracy"]


def test_draws_a_panel_for_each_layer_with_a_caption(tables, tmp_path, drawn_figures):
    run(SCRIPT, *tables, "-o", tmp_path / "both.png")
    run(SCRIPT, *tables, "-l", "x", "-other", "y", "-o", tmp_path / "one.pdf", "--title", "Layer x")
    both, one = drawn_figures["both.png"], drawn_figures["one.pdf"]
    assert [axes.get_title() for axes in both.axes] == ["x", "y"]
    assert [axes.get_title() for axes in one.axes] == ["x → y"] and one.get_suptitle() == "Layer x"
    assert caption_of(one) == "Networks: a.pt (resnet18), b.pt (resnet18). Data: digits, mnist."
    assert (tmp_path / "one.pdf").read_bytes().startswith(PDF)
