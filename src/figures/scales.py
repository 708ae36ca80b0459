"""Titles, colour scales and axes of quantities, and error bars."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from src.core.choices.similarity import ACTIVATIONS, SIMILARITY, measure_of
from src.results.tables import QUANTITIES
from src.verdict import VERDICTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 100  # of accuracy
UNITS = {"accuracy_drop": POINTS}  # of values in figures
TICKS: dict[str, Sequence[float]] = {  # of axes that are logarithmic beyond a limit
    "skill": (-100, -30, -10, -3, -1, -0.5, 0, 0.5, 1),
    "accuracy_drop": (-50, -20, -10, -5, -2, 0, 1, 2, 5, 10, 20, 50, 100),
}
INTERVALS = {"x": ("hlines", "<>"), "y": ("vlines", "v^")}  # lines and arrowheads along an axis
LIMITS = {"x": "axvline", "y": "axhline"}
LIMIT: dict[str, Any] = {"color": "0.4", "linewidth": 0.6, "linestyle": ":", "zorder": 1}
TITLES = {
    "accuracy_drop": "accuracy drop (percentage points)",
    "skill": "skill at the output",
    SIMILARITY: "similarity",  # by any measure
}


class Scale(NamedTuple):
    """The title of a quantity, and the limits of its colour scale."""

    title: str
    different: float
    similar: float
    is_two_sided: bool = False  # similar in the middle, different at both ends
    is_open: bool = False  # values may lie beyond, as of a user's function

    @property
    def best(self) -> float:
        """The value of the most similar layers: the middle of a two-sided scale, else its similar end."""
        return (self.different + self.similar) / 2 if self.is_two_sided else self.similar


def title_of(quantity: str) -> str:
    """Return the title of a quantity, of a share of verdicts or of a measure of similarity."""
    if quantity in TITLES:
        return TITLES[quantity]
    if quantity in VERDICTS:
        return f"share {quantity}"
    if quantity in QUANTITIES:
        return QUANTITIES[quantity].title
    return measure_of(quantity).title


def scale_of(quantity: str) -> Scale:
    """Return the scale of a quantity or of a measure of similarity.

    Raises:
        ValueError: neither high nor low values are similar.
    """
    title = title_of(quantity)
    if quantity not in QUANTITIES:
        measure = measure_of(quantity)
        is_open = measure.of == ACTIVATIONS
        return Scale(title, measure.unrelated, measure.equal, is_open=is_open)
    entry = QUANTITIES[quantity]
    if entry.scale is None:
        raise ValueError(f"{title} has no scale for the colours of a map")
    return Scale(title, *entry.scale, entry.is_two_sided)


def drawn_value(quantity: str, value: float) -> float:
    """Return a value as figures show it: points of accuracy drop, and the similarity of a measure."""
    if quantity in QUANTITIES:
        return UNITS.get(quantity, 1) * value
    return measure_of(quantity).similarity(value)


def set_scale(
    axes: "Axes", side: str, quantity: str, ends: Sequence[float], tolerance: float
) -> None:
    """Set the limits and the scale of an axis (x or y) of a quantity: skill is logarithmic below −1, accuracy
    drop beyond the tolerance (in points), other quantities are linear."""
    from matplotlib.ticker import NullLocator

    axes.set(**{f"{side}lim": ends, f"{side}label": title_of(quantity)})
    ticks = TICKS.get(quantity)
    if ticks is None:
        return
    linear = max(tolerance, 1) if quantity == "accuracy_drop" else 1
    getattr(axes, f"set_{side}scale")("symlog", linthresh=linear, linscale=1)
    shown = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
    axis = getattr(axes, f"{side}axis")
    axis.set_ticks(shown, [f"{tick:g}".replace("-", "−") for tick in shown])
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


def add_limit(axes: "Axes", side: str, value: float, **look: Any) -> None:
    """Draw a dotted line at a value of an axis (x or y)."""
    getattr(axes, LIMITS[side])(value, **LIMIT | look)
