"""Titles, colour scales and axes of quantities, and error bars."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from src.core.choices.similarity import SIMILARITY, measure_of
from src.results.tables import QUANTITIES, VERDICT, Quantity
from src.verdict import VERDICTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 100  # of accuracy
TICKS: dict[str, Sequence[float]] = {  # of axes that are logarithmic beyond a limit
    "skill": (-100, -30, -10, -3, -1, -0.5, 0, 0.5, 1),
    "accuracy_drop": (-50, -20, -10, -5, -2, 0, 1, 2, 5, 10, 20, 50, 100),
}
INTERVALS = {"x": ("hlines", "<>"), "y": ("vlines", "v^")}  # lines and arrowheads along an axis
LIMIT: dict[str, Any] = {"color": "0.4", "linewidth": 0.6, "linestyle": ":", "zorder": 1}


def quantity_of(name: str) -> Quantity:
    """Return the entry of a quantity, of a share of verdicts or of a measure of similarity."""
    if name in QUANTITIES:
        return QUANTITIES[name]
    if name in VERDICTS:
        return Quantity(f"share {name}", VERDICT)
    measure = measure_of(name)
    return Quantity(measure.title, SIMILARITY, scale=(measure.unrelated, measure.equal))


def title_of(name: str) -> str:
    """Return the title of a quantity, of a share of verdicts or of a measure of similarity."""
    return quantity_of(name).title


def drawn_value(quantity: str, value: float) -> float:
    """Return a value as figures show it: points of accuracy drop, and the similarity of a measure."""
    if quantity == "accuracy_drop":
        return POINTS * value
    if quantity in QUANTITIES:
        return value
    return measure_of(quantity).similarity(value)


def set_scale(
    axes: "Axes", side: str, quantity: str, ends: Sequence[float], tolerance: float
) -> None:
    """Set the limits, the scale and the label of an axis (x or y) of a quantity: skill is logarithmic below −1,
    accuracy drop beyond the tolerance (in points), other quantities are linear."""
    from matplotlib.ticker import NullLocator

    title = title_of(quantity)
    if quantity == "skill" and ends[0] < -1:
        title += "\n(logarithmic below −1)"
    axes.set(**{f"{side}lim": ends, f"{side}label": title})
    if quantity not in TICKS:
        return
    linear = max(tolerance, 1) if quantity == "accuracy_drop" else 1
    getattr(axes, f"set_{side}scale")("symlog", linthresh=linear, linscale=1)
    ticks = [tick for tick in TICKS[quantity] if ends[0] <= tick <= ends[1]]
    axis = getattr(axes, f"{side}axis")
    axis.set_ticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axis.set_minor_locator(NullLocator())


def draw_interval(
    axes: "Axes", side: str, place: float, ends: Sequence[float], **look: Any
) -> None:
    """Draw an error bar along an axis (x or y); an arrowhead marks an end beyond the limits."""
    limits = sorted(getattr(axes, f"get_{side}lim")())
    lines, markers = INTERVALS[side]
    getattr(axes, lines)(place, *np.clip(ends, *limits), **look)
    for marker, end, limit in zip(markers, ends, limits, strict=True):
        if math.isfinite(end) and not limits[0] <= end <= limits[1]:
            point = {"x": (limit, place), "y": (place, limit)}[side]
            axes.plot(*point, marker, color=look.get("color"), markersize=3, clip_on=False)
