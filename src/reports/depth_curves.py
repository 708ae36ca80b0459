"""Curves over depth: accuracy, validity and similarity of corresponding layers of two networks."""

import math
from collections.abc import Sequence
from pathlib import Path

from src.choices.similarity import measure_of
from src.collected.over_depth import OF_MEASURES
from src.ground.console import listed, note
from src.ground.figure_files import page_of, remove_figure
from src.reports.chosen import chosen_rows
from src.reports.curves import SHARE, CurvePanel, Point, curves, lines_of, points_of
from src.tables.quantities import IN_CURVES, shown_in
from src.tables.tables import write_table
from src.tables.truth_rows import DepthRow

MAX_PANELS = 6  # on a page
ON_DEPTH = (
    " Relative depth is the share of a network's blocks up to a layer; layers of different networks "
    "correspond if each is the nearest to the other in depth. Points stand at equal steps of depth: a "
    "pair of layers counts at the step that is nearest to the mean of its depths."
)
MAX_IN_CAPTION = 2  # pairs of groups without curves that a caption names

RANGES = {quantity.title: quantity.possible for quantity in shown_in(IN_CURVES).values()} | {
    "similarity": SHARE,
    "distance": (0.0, math.inf),
}


def write_depth(
    path: Path,
    rows: Sequence[DepthRow],
    *,
    title: str = "",
    quantities: Sequence[str] = (),
    without_curves: Sequence[str] = (),
) -> None:
    """Write the CSV, and beside it the figure, on pages of at most six panels.

    With several pairs of groups, a panel has a quantity of a method or a measure, and a line a pair
    of groups. Otherwise a panel has a quantity, and a line a method or measure. Panels with no value
    but zero are left out, and a note says so.

    Args:
        quantities: names of quantities, methods or measures to draw; empty: all of them.
        without_curves: the pairs of groups that have no curves, see `groups_without_curves`.
    """
    write_table(path, DepthRow, rows)
    drawn_rows = chosen_rows(rows, quantities, lambda row: (row.quantity, row.line))
    panels = _panels(drawn_rows)
    zero = [panel for panel in panels if not any(point.value for point in points_of([panel]))]
    if zero:
        names = [" ".join(filter(None, (panel.y_label, panel.title))) for panel in zero]
        note(f"not drawn, as all values are 0: {'; '.join(names)}")
    shown = [panel for panel in panels if panel not in zero]
    in_order = sorted(rows, key=lambda row: row.relative_depth)
    layers = list(filter(None, dict.fromkeys(row.layer for row in in_order)))
    pages = [shown[start : start + MAX_PANELS] for start in range(0, len(shown), MAX_PANELS)]
    remove_figure(path, start=len(pages) + 1)
    for number, page in enumerate(pages, start=1):
        page_path = page_of(path.with_suffix(".png"), number)
        panels_of_page = page
        if _method_of(page):  # the caption says it
            panels_of_page = [panel._replace(title="") for panel in page]
        curves(
            page_path,
            panels_of_page,
            x_label="layer of both networks" if layers else "relative depth of both layers",
            layers=layers,
            x_range=(0, 1),
            lines=lines_of(shown),
            title=title,
            caption=_caption(drawn_rows, page, number, len(pages), without_curves),
        )
    if len(pages) > 1:
        note(
            f"the figure has {len(pages)} pages: {path.stem}.png to {page_path.name}; "
            "--quantities draws some of the panels"
        )


def _panels(rows: Sequence[DepthRow]) -> list[CurvePanel]:
    """Return the panels of curves: a quantity, or with groups a quantity of a method or measure."""
    has_groups = any(row.networks for row in rows)
    points: dict[tuple[str, str], dict[str, dict[str | float, Point]]] = {}
    for row in rows:
        title = ""
        label = _title_of_line(row)
        if has_groups:
            title = label
            label = row.networks
        curve = points.setdefault((row.quantity, title), {}).setdefault(label, {})
        curve[row.layer or row.relative_depth] = Point(row.value, row.low, row.high)
    return [
        CurvePanel(lines, quantity, RANGES[quantity], title=title)
        for (quantity, title), lines in points.items()
    ]


def _title_of_line(row: DepthRow) -> str:
    """Return the method of a row, or the title of its measure."""
    return measure_of(row.line).title if row.quantity in OF_MEASURES.values() else row.line


def _method_of(page: Sequence[CurvePanel]) -> str:
    """Return the method that is the title of all panels of a page; "" if their titles differ."""
    titles = {panel.title for panel in page}
    return titles.pop() if len(page) > 1 and len(titles) == 1 else ""


def _caption(
    rows: Sequence[DepthRow],
    page: Sequence[CurvePanel],
    number: int,
    n_pages: int,
    without_curves: Sequence[str],
) -> str:
    """Return the text below a page of the figure."""
    n_networks = max(row.n_networks for row in rows)
    text = f"Means over pairs of {n_networks} networks{_on_bands(page)}."
    method = _method_of(page)
    if method:
        text = f"Method: {method}. {text}"
    if not all(row.layer for row in rows):
        text += ON_DEPTH
    if without_curves:
        text += f" No layers correspond: {listed(without_curves, n=MAX_IN_CAPTION)}."
    return f"{text} Page {number} of {n_pages}." if n_pages > 1 else text


def _on_bands(page: Sequence[CurvePanel]) -> str:
    """Return the words of the caption on the bands of a page; "" if it has none."""
    has_band = {not math.isnan(point.low) for point in points_of(page)}
    if True not in has_band:
        return ""
    if False in has_band:
        return "; bands: 95 % over networks, from four networks on"
    return "; bands: 95 % over networks"
