"""What the figure shows: the layers, both ranks, or the ranks of one side."""

import math
from dataclasses import replace

import pytest
from src.ground.curves import CurvePanel

from src.reports import similarity_report
from src.tables.similarity_rows import SimilarityRow
from src.values import Null
from tests.commands import says


def rows_of(layers1, layers2, ranks1, ranks2) -> list[SimilarityRow]:
    """Rows with values that tell them apart."""
    cases = [(a, b, r, s) for a in layers1 for b in layers2 for r in ranks1 for s in ranks2]
    return [
        SimilarityRow(
            "f.pt",
            "g.pt",
            *case,
            "positions",
            9,
            "",
            "",
            "",
            "auto",
            None,
            None,
            {"cka": float(i), "pwcca": math.nan},
        )
        for i, case in enumerate(cases)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by the function that draws it."""
    calls = {}
    for name in ("maps", "curves"):

        def record(path, panels, name=name, **said):
            if name == "maps":
                (panels,) = panels.values()  # one row, without a title
            calls[name] = (panels, said)

        monkeypatch.setattr(similarity_report, name, record)
    return calls


@pytest.mark.parametrize(
    ("of", "rows", "columns", "values", "labels"),
    [
        (("ab", "cde", [None], [None]), ["a", "b"], ["c", "d", "e"], [[0, 1, 2], [3, 4, 5]],
         ("first network", "second network")),
        (("a", "c", [None, 4], [None, 3]), ["full", "4"], ["full", "3"], [[0, 1], [2, 3]],
         ("rank of a, model 1", "rank of c, model 2")),
        (("ab", "c", [8, 4], [6, 3]), ["a", "b"], ["c"], [[0], [4]],
         ("first network at rank 8", "second network at rank 6")),
    ],
    ids=["layers", "full and lower ranks of a pair", "many layers at many ranks: the highest"],
)  # fmt: skip
def test_maps(of, rows, columns, values, labels, drawn):
    similarity_report.draw("x.png", rows_of(*of))
    panels, said = drawn["maps"]
    assert panels["linear CKA"].matrix == (rows, columns, values)
    assert all(map(math.isnan, panels["PWCCA distance"].matrix.values[0]))
    assert said["labels"][:2] == labels and "curves" not in drawn


def test_forms_of_a_measure_stand_side_by_side(drawn):
    values = {"pwcca": 0.5, "procrustes": 0.6, "pwcca_morcos": 0.4}
    similarity_report.draw(
        "x.png", [replace(row, values=values) for row in rows_of("ab", "c", [None], [None])]
    )
    panels, _ = drawn["maps"]
    assert list(panels) == ["PWCCA distance", "PWCCA distance (Morcos)", "Procrustes distance"]


def test_ranks_of_one_side(drawn):
    similarity_report.draw("x.png", rows_of("a", "c", [5], [6, 3]))
    panels, said = drawn["curves"]
    assert panels[0] == CurvePanel({"a – c, rank 5 of model 1": {6: 0, 3: 1}}, "linear CKA")
    assert "rank of the second network" in said["x_label"]
    # A distance rises with similarity, and the number of the full rank is not in the rows.
    rows = [
        replace(row, values={"procrustes": 0.5}) for row in rows_of("ab", "c", [None, 6], [None])
    ]
    similarity_report.draw("x.png", rows)
    panels, said = drawn["curves"]
    (panel,) = panels
    assert panel.curves == {"a – c": {6: 0.75}, "b – c": {6: 0.75}}
    assert (
        says(panel.y_label, "1 − ", "Procrustes", "/ 2")
        and "rank of the first network" in said["x_label"]
    )


def test_a_single_row_has_no_figure_and_keeps_none_of_an_earlier_table(drawn, tmp_path):
    rows = rows_of("a", "c", [None], [None, 3])
    similarity_report.write_files(tmp_path / "s.csv", rows)
    assert drawn
    drawn.clear()
    for name in ("s.png", "s.pdf", "s.txt"):
        (tmp_path / name).touch()
    similarity_report.write_files(tmp_path / "s.csv", rows[:1])
    assert not drawn and [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_nulls_have_panels_of_their_own(drawn):
    values = {"cka": 0.5}
    for ending, calibrated in (("", 0.25), ("_within", 0.125)):
        null = Null(0.05, 0.4, calibrated)
        values |= {f"cka_{part}{ending}": number for part, number in null._asdict().items()}
    similarity_report.draw(
        "x.png", [replace(row, values=values) for row in rows_of("a", "c", [None], [None])]
    )
    panels, _ = drawn["maps"]
    assert [panel.matrix.values for panel in panels.values()] == [[[0.5]], [[0.25]], [[0.125]]]
    plain, freely, within = panels
    assert plain == "linear CKA" and freely == f"{plain}, calibrated"
    assert says(within, freely, "within classes")


def test_cells_whose_samples_differ_are_marked_where_samples_count(drawn):
    first, *others = rows_of("ab", "c", [None], [None])
    mixed = [first, *(replace(row, alignment="average pool") for row in others)]
    similarity_report.draw("x.png", mixed)
    panels, said = drawn["maps"]
    assert panels["PWCCA distance"].marked == [("a", "c")] and not panels["linear CKA"].marked
    assert panels["PWCCA distance"].scale == (1, 0) and panels["linear CKA"].scale == (0, 1)
    assert says(said["caption"], "Red corners: ", "positions", "tokens", "samples")
    for rows in ([first, *others], [first, *(replace(row, alignment="none") for row in others)]):
        similarity_report.draw("x.png", rows)
        assert not drawn["maps"][0]["PWCCA distance"].marked


def test_the_caption_names_networks_data_samples_and_images():
    made_with = {"model1_type": "resnet18", "model2_type": "vit", "dataset": "digits"}
    rows = [replace(row, **made_with) for row in rows_of("ab", "c", [None], [None])]
    whole = "Similarity of layers of f (resnet18) and g (vit), on 9 test images of digits. Samples: positions."
    assert similarity_report.describe(rows) == whole
    by_grams = [replace(row, values={"cka": 0.5}) for row in rows]
    assert similarity_report.describe(by_grams) == whole.replace(" Samples: positions.", "")


@pytest.mark.parametrize(
    ("alignment", "words"),
    [
        ("average pool", "images, averaged over positions"),
        ("average pool / token mean", "images, averaged over positions or tokens"),
        ("token mean / samples", "images, averaged over tokens"),
        ("samples", "images"),
        ("tokens", "tokens"),
    ],
)
def test_the_caption_says_in_words_what_the_samples_are(alignment, words):
    rows = [replace(row, alignment=alignment) for row in rows_of("ab", "c", [None], [None])]
    assert similarity_report.describe(rows).endswith(f"on 9 test images. Samples: {words}.")
