"""Figures: what they show, drawn without a display."""

import math

import pytest

from src.figures import curves, heat_maps, scatter

pytest.importorskip("matplotlib")
PNG = b"\x89PNG\r\n\x1a\n"


def test_heat_maps_leave_missing_values_blank(tmp_path):
    labels = {"rows": ["a", "b"], "columns": ["c"], "row_label": "front", "column_label": "end"}
    heat_maps(tmp_path / "full.png", {"accuracy": [[0.5], [0.25]]}, **labels)
    heat_maps(tmp_path / "gap.png", {"accuracy": [[0.5], [math.nan]]}, **labels)
    full, gap = ((tmp_path / name).read_bytes() for name in ("full.png", "gap.png"))
    assert full.startswith(PNG) and gap.startswith(PNG) and full != gap


def test_heat_maps_can_fit_their_colours_to_each_matrix(tmp_path):
    labels = {"rows": ["a", "b"], "columns": ["c"], "row_label": "front", "column_label": "end"}
    matrices = {"distance": [[0.5], [1.7]], "missing": [[math.nan], [math.nan]]}
    heat_maps(tmp_path / "fixed.png", matrices, **labels)
    heat_maps(tmp_path / "fitted.png", matrices, **labels, value_range=None)
    assert (tmp_path / "fixed.png").read_bytes() != (tmp_path / "fitted.png").read_bytes()


def test_scatter_shows_every_group(tmp_path):
    groups = {"one": [(0.1, 0.5), (0.9, 0.6)], "other": [(0.5, 1.0)]}
    for name, points in (("both", groups), ("one", {"one": groups["one"]})):
        scatter(tmp_path / f"{name}.png", points, x_label="accuracy", y_label="AUROC")
    both, one = ((tmp_path / f"{name}.png").read_bytes() for name in ("both", "one"))
    assert both.startswith(PNG) and both != one


def test_curves_have_a_panel_for_each_title(tmp_path):
    from matplotlib.image import imread

    line = {"layer1.0": {1: 0.3, 2: 0.5, 64: 0.9}, "layer2.0": {64: 0.8, 1: math.nan}}
    curves(tmp_path / "one.png", {"accuracy": line}, x_label="rank", y_label="accuracy", y_range=(0, 1))
    curves(tmp_path / "two.png", {"cka": line, "pwcca": line}, x_label="rank", y_label="similarity")
    one, two = (imread(tmp_path / name).shape for name in ("one.png", "two.png"))
    assert two[1] == 2 * one[1] and two[0] == one[0]
