"""misc/sensitivity_figure.py: which curves it draws, and the figure as a user gets it."""

from pathlib import Path

import pytest

from misc.sensitivity_figure import lines_of
from src.measurements import read_tables
from tests.commands import PDF, run, run_process
from tests.test_measurements import PROBING, SIMILARITY, STITCHING, write

SCRIPT = "misc/sensitivity_figure.py"
RANKS = [4, 2, 1]


@pytest.fixture
def tables(tmp_path):
    return write_tables(tmp_path)


def write_tables(folder: Path) -> list[Path]:
    """Layers `x` and `y` of `a.pt` compared at three ranks and at full rank with those of `b.pt`."""
    rows = [f"a.pt,b.pt,{one},{two},{rank},,p,10,0.5,0.25,{rank / 2},0.25\n"
            for one, two in (("x", "x"), ("x", "y"), ("y", "y")) for rank in (*RANKS, "") if rank]  # fmt: skip
    rows.append("a.pt,b.pt,x,x,,,p,10,1,0,0,0\n")
    write(folder / "similarity.csv", SIMILARITY, *rows)
    rows = [f"{model},x,{rank},{rank / 8},,1,0,10\n" for model in ("a.pt", "b.pt") for rank in (8, *RANKS)]
    write(folder / "probes.csv", PROBING, *rows)
    for name, init in (("dm", "pinv"), ("tlm", "rand")):
        rows = [f"x,x,rc2c_pre,{init},{rank},{rank},0,{rank / 9},0.9,0.9,0.1,0.2,t\n" for rank in RANKS]
        write(folder / f"{name}.csv", STITCHING, *rows)
    return [folder / f"{name}.csv" for name in ("similarity", "probes", "dm", "tlm")]


def test_curves_rise_with_similarity_and_are_of_the_truncated_network(tables):
    assert lines_of(read_tables(tables), ("x", "x")) == {
        "linear CKA": {4: 0.5, 2: 0.5, 1: 0.5},
        "1 − PWCCA distance": {4: 0.75, 2: 0.75, 1: 0.75},
        "1 − Procrustes distance / 2": {4: 0, 2: 0.5, 1: 0.75},
        "stitching accuracy (init pinv)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "stitching accuracy (task loss matching)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "probe accuracy": {8: 1, 4: 0.5, 2: 0.25, 1: 0.125},
    }
    assert "stitching accuracy (init pinv)" not in lines_of(read_tables(tables), ("x", "y"))


def test_what_would_be_named_alike_says_where_it_is_from(tables):
    labels = list(lines_of(read_tables([*tables[1:3], write(tables[0].parent / "2.csv", tables[2].read_text())]),
                           ("x", "x")))  # fmt: skip
    assert [label.split(", ")[0] for label in labels] == ["stitching accuracy (init pinv)"] * 2 + ["probe accuracy"] * 2
    assert "dm.csv" in labels[0] and "2.csv" in labels[1] and labels[2:] == [f"probe accuracy, {m}.pt" for m in "ab"]


def test_draws_a_panel_for_each_layer(tables, tmp_path):
    imread = pytest.importorskip("matplotlib.image").imread
    run_process(SCRIPT, *tables, "-o", "both.png", cwd=tmp_path)
    run(SCRIPT, *tables, "-l", "x", "-other", "y", "-o", "one.png", cwd=tmp_path)
    both, one = (imread(tmp_path / name).shape for name in ("both.png", "one.png"))
    assert both[1] == 2 * one[1]


def test_the_caption_names_networks_data_and_images(tables, tmp_path, drawn_figures):
    header = SIMILARITY.replace("\n", ",model1_type,model2_type,dataset\n")
    rows = [f"a.pt,b.pt,x,x,{rank},,p,10,0.5,0.25,{rank / 2},0.25,resnet18,vit,digits\n" for rank in RANKS]
    write(tables[0], header, *rows)
    run(SCRIPT, *tables, "-o", tmp_path / "f.pdf", "--title", "Layer x")
    figure = drawn_figures["f.pdf"]
    below = figure.texts[-1].get_text().replace("\n", " ")
    assert below == "Networks: a.pt (resnet18), b.pt (vit). Data: digits. Images: 10 (similarity)."
    assert figure.get_suptitle() == "Layer x" and (tmp_path / "f.pdf").read_bytes().startswith(PDF)
