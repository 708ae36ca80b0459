"""Curves over depth: accuracy, skill and similarity of corresponding layers of two networks."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from src.choices.similarity import measure_of
from src.collected.groups import Names
from src.collected.over_depth import OF_MEASURES
from src.ground.console import listed, note
from src.ground.curves import (
    OPEN_MARKERS,
    SHARE,
    CurvePanel,
    Point,
    curves,
    is_logarithmic,
    lines_of,
    points_of,
)
from src.ground.figure_files import page_of
from src.ground.figures import capitalised
from src.reports.captions import describe_stitches, on_convergence
from src.runs.folders import StitchingRun
from src.tables.chosen import chosen_rows
from src.tables.quantities import IN_CURVES, QUANTITIES, shown_in
from src.tables.tables import write_table
from src.tables.truth_rows import DepthRow
from src.verdict import Limits

MAX_PANELS = 12  # on a page
ON_DEPTH = (
    "Relative depth: position of a layer among its network's blocks, from 0 to 1. A point stands at the mean of its "
    "two layers, or at the nearest of equal steps where pairs of networks differ. Layers of different networks "
    "correspond if each is the nearest to the other in depth."
)
MAX_IN_CAPTION = 2  # pairs of groups without curves that a caption names

SHOWN = {quantity.title: quantity for quantity in shown_in(IN_CURVES).values()}
OF_MEASURE = {"similarity": SHARE, "distance": (0.0, math.inf)}
POSSIBLE = {title: quantity.possible for title, quantity in SHOWN.items()} | OF_MEASURE
ACCURACY = QUANTITIES["accuracy"].title
PENALTY = QUANTITIES["penalty"].title
IN_POINTS = " (points)"  # ends the label of its axis
RANGES = POSSIBLE | {  # of the axes
    ACCURACY: (-math.inf, 1.0),
    PENALTY: (0.0, math.inf),
    "skill": (-math.inf, 1.0),
}
LIMIT = "limit of similar pairs"


def write_depth(
    path: Path,
    rows: Sequence[DepthRow],
    *,
    runs: Sequence[StitchingRun] = (),
    names: Names | None = None,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    title: str = "",
    quantities: Sequence[str] = (),
    without_curves: Sequence[str] = (),
) -> None:
    """Write the CSV, and beside it the figure, on pages of at most twelve panels.

    With several pairs of groups, a panel has a quantity of a method or a measure, and a line a pair
    of groups. Otherwise a panel has a quantity, and a line a method or measure. Accuracies are drawn
    if they are named: those of stitches into different end networks do not compare, penalties do.
    Panels with no value but zero are left out, and a note says so.

    Args:
        runs: that the rows are of, for captions.
        names: of the networks, for captions.
        limits: of similar pairs, which are marked.
        quantities: names of quantities, methods or measures to draw; empty: all of them.
        without_curves: the pairs of groups that have no curves, see `groups_without_curves`.
    """
    write_table(path, DepthRow, rows)
    drawn_rows = chosen_rows(rows, quantities, lambda row: (row.quantity, row.line))
    if ACCURACY not in quantities:
        drawn_rows = [row for row in drawn_rows if row.quantity != ACCURACY]
    panels = _panels(drawn_rows, limits)
    zero = [panel for panel in panels if not any(point.value for point in points_of([panel]))]
    if zero:
        titles = [" ".join(filter(None, (panel.y_label, panel.heading))) for panel in zero]
        note(f"not drawn, as all values are 0: {'; '.join(titles)}")
    shown = [panel for panel in panels if panel not in zero]
    in_order = sorted(rows, key=lambda row: row.relative_depth)
    layers = list(filter(None, dict.fromkeys(row.layer for row in in_order)))
    pages = [shown[start : start + MAX_PANELS] for start in range(0, len(shown), MAX_PANELS)]
    on_stitches = ""
    if runs:
        on_stitches = describe_stitches(
            [run.row for run in runs], names=names, remark=on_convergence(runs)
        )
    x_label = "layer of both networks" if layers else "relative depth of both layers"
    for number, page in enumerate(pages, start=1):
        page_path = page_of(path.with_suffix(".png"), number)
        curves(
            page_path,
            page,
            x_label=x_label,
            layers=layers,
            x_range=(in_order[0].relative_depth, in_order[-1].relative_depth) if rows else None,
            lines=lines_of(shown),
            title=title,
            caption=on_stitches,
            on_lines=_on_lines(drawn_rows, page, without_curves),
            definitions=_definitions(drawn_rows, page),
        )
    if len(pages) > 1:
        note(
            f"the figure has {len(pages)} pages: {path.stem}.png to {page_path.name}; "
            "--quantities draws some of the panels"
        )


def _panels(rows: Sequence[DepthRow], limits: Limits) -> list[CurvePanel]:
    """Return the panels of curves: a quantity, or with groups a quantity of a method or measure.

    Pairs of groups are in the order of their names, as in the figures of verdicts.
    """
    has_groups = any(row.networks for row in rows)
    points: dict[tuple[str, str], dict[str, dict[str | float, Point]]] = {}
    for row in rows:
        title = ""
        label = _title_of_line(row)
        unit = 1.0
        if has_groups:
            title = label
            label = _title_of_groups(row)
        elif row.quantity == OF_MEASURES[-1]:  # distances of one panel go to 1
            unit = measure_of(row.line).unrelated
            label = label if unit == 1 else f"{label} / {unit:g}"
        curve = points.setdefault((title, row.quantity), {}).setdefault(label, {})
        curve[row.layer or row.relative_depth] = _point(row, unit)
    titles = list(dict.fromkeys(title for title, _ in points))
    tolerance = 100 * limits.tolerance
    marks = {
        PENALTY: {LIMIT: tolerance},
        "skill": {LIMIT: limits.skill, "floor": 0},
    }
    if has_groups:
        points = {key: dict(sorted(lines.items())) for key, lines in points.items()}
    return [
        CurvePanel(
            points[title, quantity],
            f"{quantity}{IN_POINTS}" if quantity == PENALTY else quantity,
            RANGES[quantity],
            heading=title,
            content=_content(quantity, points[title, quantity]) if not has_groups else "",
            marks=marks.get(quantity, {}),
            has_own_scale=quantity == OF_MEASURES[-1],
            linear_up_to=tolerance if quantity == PENALTY else math.inf,
        )
        for title, quantity in sorted(points, key=lambda panel: titles.index(panel[0]))
    ]


def _point(row: DepthRow, unit: float) -> Point:
    """Return the point of a row in a unit; penalties are in points of accuracy."""
    low, high = np.clip((row.low, row.high), *POSSIBLE[row.quantity])
    if row.quantity == PENALTY:
        unit = 0.01
    is_of_few = math.isnan(row.low)
    return Point(row.value / unit, float(low) / unit, float(high) / unit, is_of_few)


def _content(quantity: str, lines: Iterable[str]) -> str:
    """Return the content of a panel for the caption: of measures, with their names."""
    return f"{quantity} ({listed(lines)})" if quantity in OF_MEASURES.values() else ""


def _title_of_line(row: DepthRow) -> str:
    """Return the method of a row, or the title of its measure."""
    if row.quantity in OF_MEASURES.values():
        return measure_of(row.line).title
    return row.line


def _title_of_groups(row: DepthRow) -> str:
    """Return the pair of groups of a row: with an arrow, unless it is of a measure, which has no
    direction."""
    front, _, end = row.networks.partition(" → ")
    if row.quantity in OF_MEASURES.values() and end and front != end:
        return f"{front}, {end}"
    return row.networks


def _on_lines(
    rows: Sequence[DepthRow], page: Sequence[CurvePanel], without_curves: Sequence[str]
) -> str:
    """Return the sentences of the caption on the lines of a page."""
    sentences = [
        "Corresponding layers, means over pairs of networks.",
        _on_points(page),
    ]
    penalties = [panel for panel in page if panel.linear_up_to < math.inf]
    if penalties and is_logarithmic(penalties):
        tolerance = penalties[0].linear_up_to
        sentences.append(f"Penalties beyond {tolerance:g} points are on a logarithmic scale.")
    if without_curves:
        sentences.append(f"No layers correspond: {listed(without_curves, n=MAX_IN_CAPTION)}.")
    return " ".join(filter(None, sentences))


def _definitions(rows: Sequence[DepthRow], page: Sequence[CurvePanel]) -> str:
    """Return the meanings of the quantities of a page, and of relative depths."""
    quantities = {panel.y_label.removesuffix(IN_POINTS) for panel in page}
    definitions = [
        f"{capitalised(title)}: {SHOWN[title].description}."
        for title in SHOWN
        if title in quantities
    ]
    measures = dict.fromkeys(
        row.line for row in rows if row.quantity in quantities & set(OF_MEASURES.values())
    )
    if measures:
        definitions.append(
            f"Measures of similarity, both directions together: {_on_measures(measures)}."
        )
    if not all(row.layer for row in rows):
        definitions.append(ON_DEPTH)
    return " ".join(definitions)


def _on_measures(names: Iterable[str]) -> str:
    """Return the meanings of measures and of the ends of their scales."""
    texts = []
    for name in names:
        measure = measure_of(name)
        ends = f"{measure.unrelated:g} for unrelated, {measure.equal:g} for equal layers"
        texts.append(f"{measure.title}, {measure.description}: {ends}")
    return "; ".join(texts)


def _on_points(page: Sequence[CurvePanel]) -> str:
    """Return the sentence of the caption on bands and open markers."""
    kinds = []
    if any(not math.isnan(point.low) for point in points_of(page)):
        kinds.append("bands: intervals of 95 percent over networks (jackknife and Student's t)")
    if any(point.is_of_few for point in points_of(page)):
        kinds.append(OPEN_MARKERS)
    return f"{capitalised('; '.join(kinds))}." if kinds else ""
