"""What the figure shows: the layers, both ranks, or the ranks of one side."""

import math
from itertools import product

import pandas as pd
import pytest

from src.core.values import ALL_IMAGES, WITHIN_CLASSES, ComparedLayers, Null, Similarity
from src.figures import similarities
from src.results.similarities import measured_in, record_of, value_columns
from tests.commands import panels_of, says
from tests.result_rows import similarity_row


def rows_of(layers1, layers2, ranks1, ranks2, values=None) -> pd.DataFrame:
    """Rows with values that tell them apart, or with these values."""
    layers = [
        dict(zip(("layer1", "layer2"), pair, strict=True)) for pair in product(layers1, layers2)
    ]
    ranks = [dict(zip(("rank1", "rank2"), pair, strict=True)) for pair in product(ranks1, ranks2)]
    records = []
    for of_layers, of_ranks in product(layers, ranks):
        own = {"cka": float(len(records)), "pwcca": math.nan}
        records.append(similarity_row(**of_layers, **of_ranks, **(values or own)))
    return pd.DataFrame.from_records(records)


def draw(path, rows) -> None:
    similarities.draw(path, rows, measured_in(rows))


@pytest.mark.parametrize(
    ("of", "rows", "columns", "values", "labels"),
    [
        (("ab", "cde", [None], [None]), ["a", "b"], ["c", "d", "e"], [[0, 1, 2], [3, 4, 5]],
         ("layer of network 1", "layer of network 2")),
        (("a", "c", [None, 4], [None, 3]), ["full rank", "rank 4"], ["full rank", "rank 3"], [[0, 1], [2, 3]],
         ("a of network 1", "c of network 2")),
        (("ab", "c", [8, 4], [6, 3]), ["a", "b"], ["c"], [[0], [4]],
         ("layer of network 1", "layer of network 2")),
    ],
    ids=["layers", "full and lower ranks of a pair", "many layers at many ranks: the highest"],
)  # fmt: skip
def test_maps(of, rows, columns, values, labels, drawn_figures, tmp_path):
    draw(tmp_path / "x.png", rows_of(*of))
    panels = panels_of(drawn_figures["x.png"])
    cka = panels["linear CKA"]
    assert cka.images[0].get_array().tolist() == values
    assert [text.get_text() for text in cka.get_yticklabels()] == rows
    assert [text.get_text() for text in cka.get_xticklabels()] == columns
    figure = drawn_figures["x.png"]
    assert (figure.get_supylabel(), cka.get_xlabel()) == labels
    assert panels["PWCCA distance"].images[0].get_array().mask.all()  # NaN


def test_ranks_of_one_side(drawn_figures, tmp_path):
    """A distance rises with similarity, and the number of the full rank is not in the rows."""
    draw(tmp_path / "x.png", rows_of("a", "c", [5], [6, 3]))
    (axes,) = drawn_figures["x.png"].axes
    assert axes.lines[0].get_xydata().tolist() == [[3, 1], [6, 0]]
    assert says(axes.get_xlabel(), "a and c, the other at rank 5")
    values = {"procrustes": 0.5}
    draw(tmp_path / "x.png", rows_of("ab", "c", [None, 6], [None], values))
    panels = drawn_figures["x.png"].axes
    assert [says(panel.get_xlabel(), "and c") for panel in panels] == [True, True]
    for panel in panels:
        assert panel.lines[0].get_xydata().tolist() == [[6, 0.75]]
        assert says(panel.lines[0].get_label(), "1 − ", "Procrustes", "/ 2")


def test_nulls_have_panels_of_their_own(drawn_figures, tmp_path):
    values = {"cka": 0.5, "pwcca": 0.5}
    for ending, calibrated in (("", 0.25), ("_within", 0.125)):
        null = Null(0.05, 0.4, calibrated)
        values |= {f"cka_{part}{ending}": number for part, number in null._asdict().items()}
    draw(tmp_path / "x.png", rows_of("a", "c", [None], [None], values))
    panels = panels_of(drawn_figures["x.png"])
    drawn = {title: panel.images[0].get_array().item() for title, panel in panels.items()}
    assert list(drawn.values()) == [0.5, 0.25, 0.125, 0.5]
    plain, freely, within, pwcca = drawn
    assert (plain, pwcca) == ("linear CKA", "PWCCA distance")
    assert says(freely, plain, "calibrated") and "within classes" in within


def test_a_row_keeps_what_was_compared():
    nulls = {ALL_IMAGES: Null(0.05, 0.1, 0.2), WITHIN_CLASSES: Null(0.5, 0.3, 0.0)}
    back = {"pwcca": Similarity(0.5, {ALL_IMAGES: Null(0.25, 0.75, 0.125)})}
    values = {
        "cka": Similarity(0.5, nulls),
        "pwcca": Similarity(0.25),
        "own_distance": Similarity(2.0),
    }
    source = {
        "model1": "a.pt", "model2": "b.pt", "model1_type": "small_cnn", "model2_type": "small_cnn",
        "dataset": "digits", "n_samples": 10, "alignment_option": "auto", "n_permutations": 20, "seed": None,
    }  # fmt: skip
    row = record_of(ComparedLayers("x", "y", 4, None, "positions", values, back), source)
    columns = value_columns(row)
    assert columns[:4] == ["cka", "pwcca", "own_distance", "pwcca_reversed"]
    assert row["cka_null_95_within"] == 0.3
    assert row["pwcca_reversed_p_value"] == 0.25
    assert measured_in(row) == ["cka", "pwcca", "own_distance"] and len(columns) == 4 + 3 * 3
