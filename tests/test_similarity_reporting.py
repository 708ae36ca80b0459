"""What the figure shows: the layers, both ranks, or the ranks of one side."""

import math

import pytest

from src.similarity import report
from src.similarity.rows import SimilarityRow
from tests.commands import caption_of


def rows_of(layers1, layers2, ranks1, ranks2) -> list[SimilarityRow]:
    """Rows with values that tell them apart."""
    cases = [(a, b, r, s) for a in layers1 for b in layers2 for r in ranks1 for s in ranks2]
    return [
        SimilarityRow(
            "f.pt", "g.pt", *case, "positions", 9, "", "", "", "auto", None, None, {"cka": float(i), "pwcca": math.nan}
        )
        for i, case in enumerate(cases)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by the function that draws it."""
    calls = {}
    for name in ("maps", "curves"):
        monkeypatch.setattr(report, name, lambda path, panels, name=name, **said: calls.update({name: (panels, said)}))
    return calls


def test_layers(drawn):
    report.draw("x.png", rows_of("ab", "cde", [None], [None]))
    panels, said = drawn["maps"]
    matrix = panels["linear CKA"].matrix
    assert matrix.values == [[0, 1, 2], [3, 4, 5]]
    assert all(map(math.isnan, panels["PWCCA distance"].matrix.values[0]))
    assert matrix.rows == ["a", "b"] and matrix.columns == ["c", "d", "e"]
    assert said["row_label"] == "layer of model 1" and said["column_label"] == "layer of model 2"


def test_both_ranks_of_a_pair(drawn):
    report.draw("x.png", rows_of("a", "c", [8, 4], [6, 3]))
    panels, said = drawn["maps"]
    assert panels["linear CKA"].matrix == (["8", "4"], ["6", "3"], [[0, 1], [2, 3]])
    assert said["row_label"] == "rank of a, model 1" and said["column_label"] == "rank of c, model 2"
    report.draw("x.png", rows_of("a", "c", [None, 4], [None, 3]))
    assert drawn["maps"][0]["linear CKA"].matrix.rows == ["full", "4"]


def test_ranks_of_one_side(drawn):
    report.draw("x.png", rows_of("a", "c", [5], [6, 3]))
    panels, said = drawn["curves"]
    assert panels["linear CKA"] == {"a – c, rank 5 of model 1": {6: 0, 3: 1}} and said["x_label"] == "rank of model 2"
    report.draw("x.png", rows_of("ab", "c", [6, 3], [None]))
    panels, said = drawn["curves"]
    assert panels["linear CKA"] == {"a – c": {6: 0, 3: 1}, "b – c": {6: 2, 3: 3}}
    assert said["x_label"] == "rank of model 1"
    report.draw("x.png", rows_of("a", "c", [None, 6, 3], [None]))  # the number of the full rank is not in the rows
    assert drawn["curves"][0]["linear CKA"] == {"a – c": {6: 1, 3: 2}}


def test_many_layers_at_many_ranks_show_the_highest(drawn):
    report.draw("x.png", rows_of("ab", "c", [8, 4], [6, 3]))
    panels, said = drawn["maps"]
    assert panels["linear CKA"].matrix.values == [[0], [4]]
    assert said["row_label"] == "layer of model 1 at rank 8" and said["column_label"] == "layer of model 2 at rank 6"
    report.draw("x.png", rows_of("abcdefgh", "ij", [8, 4], [None]))
    assert drawn["maps"][0]["linear CKA"].matrix.rows == list("abcdefgh") and "curves" not in drawn


def test_every_measure_has_its_own_scale_on_which_bright_is_similar(tmp_path, drawn_figures):
    report.draw(tmp_path / "x.png", rows_of("ab", "cd", [None], [None]))
    images = {axes.get_title(): axes.images[0] for axes in drawn_figures["x.png"].axes if axes.images}
    assert [(title, image.get_cmap().name, image.get_clim()) for title, image in images.items()] == [
        ("linear CKA", "viridis", (0, 1)),
        ("PWCCA distance", "viridis_r", (0, 1)),
    ]


def test_cells_whose_samples_differ_are_marked_where_samples_count(tmp_path, drawn_figures):
    first, *others = rows_of("ab", "c", [None], [None])
    mixed = [first, *(row._replace(alignment="average pool") for row in others)]
    only_positions = [first, *(row._replace(alignment="none") for row in others)]
    for name, rows in (("mixed", mixed), ("equal", [first, *others]), ("none", only_positions)):
        report.draw(tmp_path / f"{name}.png", rows)
    cka, pwcca, *_ = drawn_figures["mixed.png"].axes
    assert not cka.patches and pwcca.patches[0].get_xy()[0].tolist() == [0.5, -0.5]  # of the first row
    assert "Red corners: positions or tokens are the samples" in caption_of(drawn_figures["mixed.png"])
    assert not drawn_figures["equal.png"].axes[1].patches and not drawn_figures["none.png"].axes[1].patches
    assert caption_of(drawn_figures["equal.png"]).endswith(" Samples: positions. Images: 9.")


def test_the_caption_names_networks_data_samples_and_images():
    made_with = {"model1_type": "resnet18", "model2_type": "vit", "dataset": "digits"}
    rows = [row._replace(**made_with) for row in rows_of("ab", "c", [None], [None])]
    whole = "Networks: f.pt (resnet18) – g.pt (vit). Data: digits. Samples: positions. Images: 9."
    assert report.describe(rows) == whole
    by_grams = [row._replace(values={"cka": 0.5}) for row in rows]
    assert report.describe(by_grams) == whole.replace("Samples: positions. ", "")


def test_curves_of_distances_rise_with_similarity(drawn):
    rows = [row._replace(values={"procrustes": 0.5}) for row in rows_of("a", "c", [8, 4], [None])]
    report.draw("x.png", rows)
    assert drawn["curves"][0] == {"1 − Procrustes distance / 2": {"a – c": {8: 0.75, 4: 0.75}}}
