"""Figures: what they show, drawn without a display."""

import pytest

pytest.importorskip("matplotlib")

from src.figures.figure_files import remove_figure
from src.figures.style import style_sheets, use_style
from tests.commands import error_line, says


def test_a_style_sheet_counts_until_its_block_ends(tmp_path):
    sheet = tmp_path / "mine.mplstyle"
    sheet.write_text("axes.titlesize: 11\n")
    with use_style(str(sheet)):
        with use_style(None):
            assert style_sheets() == [sheet]
        assert style_sheets() == [sheet]
    assert style_sheets() == []


@pytest.mark.parametrize("text", ["font.size: 0", "image.cmap: foo", "figure.dpi: 0"])
def test_a_style_sheet_that_nothing_can_be_drawn_in_is_one_line(tmp_path, text):
    sheet = tmp_path / "wrong.mplstyle"
    sheet.write_text(f"{text}\n")
    line = error_line("misc/sensitivity_figure.py", "t.csv", "-o", "f.png", "--style", str(sheet))
    assert says(line, "--style", "wrong.mplstyle", "cannot draw", "give a style sheet")


@pytest.mark.parametrize("text", ["font.siz: 9", "font.size: large", "font.size", None])
def test_a_wrong_style_sheet_is_one_line(tmp_path, text):
    sheet = tmp_path / "wrong.mplstyle"
    if text is not None:
        sheet.write_text(f"axes.titlesize: 11\n{text}\n")
    line = error_line("misc/sensitivity_figure.py", "t.csv", "-o", "f.png", "--style", str(sheet))
    assert "--style" in line and "wrong.mplstyle" in line
    assert text is None or f"line 2 ('{text}')" in line


def test_the_pages_of_a_figure_are_removed_and_no_other_figure(tmp_path):
    """A figure with a table of its own, such as v_3.csv, is no page, nor are files of the user's."""
    endings = (".png", ".pdf", ".txt")
    pages = [f"v{page}{ending}" for page in ("", "_2", "_4") for ending in endings]
    others = ["v.csv", "v_3.csv", "v_3.png", "v_4.config.txt", "v_x.png", "v_2_2.png", "w.png"]
    others += ["v_5.png", "v_5.txt", "w.txt"]
    for name in [*pages, *others]:
        (tmp_path / name).touch()
    remove_figure(tmp_path / "v.csv", start=3)
    assert {path.name for path in tmp_path.iterdir()} == {*others, *pages[:6]}
    remove_figure(tmp_path / "v.csv")
    remove_figure(tmp_path / "w.csv")
    assert {path.name for path in tmp_path.iterdir()} == {*others}
