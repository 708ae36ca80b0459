"""What the figure shows: the layers, both ranks, or the ranks of one side."""

import math

import pytest

from src.similarity import reporting
from src.similarity.results import Row


def rows_of(layers1, layers2, ranks1, ranks2) -> list[Row]:
    """Rows with values that tell them apart."""
    cases = [(a, b, r, s) for a in layers1 for b in layers2 for r in ranks1 for s in ranks2]
    return [
        Row("f.pt", "g.pt", *case, "positions", 9, {"cka": float(i), "pwcca": math.nan}, {})
        for i, case in enumerate(cases)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by the function that draws it."""
    calls = {}
    for name in ("heat_maps", "curves"):
        monkeypatch.setattr(
            reporting, name, lambda path, panels, name=name, **said: calls.update({name: (panels, said)})
        )
    return calls


def test_layers(drawn):
    reporting.draw("x.png", rows_of("ab", "cde", [None], [None]))
    panels, said = drawn["heat_maps"]
    assert panels["linear CKA"] == [[0, 1, 2], [3, 4, 5]] and all(map(math.isnan, panels["PWCCA distance"][0]))
    assert said["rows"] == ["a", "b"] and said["columns"] == ["c", "d", "e"]
    assert said["row_label"] == "layer of model 1" and said["column_label"] == "layer of model 2"


def test_both_ranks_of_a_pair(drawn):
    reporting.draw("x.png", rows_of("a", "c", [8, 4], [6, 3]))
    panels, said = drawn["heat_maps"]
    assert panels["linear CKA"] == [[0, 1], [2, 3]] and said["rows"] == ["8", "4"] and said["columns"] == ["6", "3"]
    assert said["row_label"] == "rank of a, model 1" and said["column_label"] == "rank of c, model 2"


def test_ranks_of_one_side(drawn):
    reporting.draw("x.png", rows_of("a", "c", [5], [6, 3]))
    panels, said = drawn["curves"]
    assert panels["linear CKA"] == {"a – c, rank 5 of model 1": {6: 0, 3: 1}} and said["x_label"] == "rank of model 2"
    reporting.draw("x.png", rows_of("ab", "c", [6, 3], [None]))
    panels, said = drawn["curves"]
    assert panels["linear CKA"] == {"a – c": {6: 0, 3: 1}, "b – c": {6: 2, 3: 3}}
    assert said["x_label"] == "rank of model 1"


def test_many_layers_at_many_ranks_show_the_highest(drawn):
    reporting.draw("x.png", rows_of("ab", "c", [8, 4], [6, 3]))
    panels, said = drawn["heat_maps"]
    assert panels["linear CKA"] == [[0], [4]]
    assert said["row_label"] == "layer of model 1 at rank 8" and said["column_label"] == "layer of model 2 at rank 6"
    reporting.draw("x.png", rows_of("abcdefgh", "ij", [8, 4], [None]))
    assert drawn["heat_maps"][1]["rows"] == list("abcdefgh") and "curves" not in drawn
