"""Titles, colour scales and axes of quantities, and error bars."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from src.choices.similarity import ACTIVATIONS, measure_of
from src.results.quantities import QUANTITIES
from src.verdict import VERDICTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 100  # of accuracy
SKILL_TICKS = (-100, -30, -10, -3, -1, -0.5, 0, 0.5, 1)
DROP_TICKS = (-50, -20, -10, -5, -2, 0, 1, 2, 5, 10, 20, 50, 100)
TITLES = {
    "accuracy_drop": "accuracy drop (percentage points)",
    "skill": "skill at the output",
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
    return QUANTITIES[quantity].title if quantity in QUANTITIES else measure_of(quantity).title


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


def unit_of(quantity: str) -> int:
    """Return the factor from a value in tables to a value in figures."""
    return POINTS if quantity == "accuracy_drop" else 1


def set_scale(
    axes: "Axes", side: str, quantity: str, ends: Sequence[float], tolerance: float
) -> None:
    """Set the limits and the scale of an axis (x or y) of a quantity: skill is logarithmic below −1, accuracy
    drop beyond the tolerance (in points), other quantities are linear."""
    from matplotlib.ticker import NullLocator

    axes.set(**{f"{side}lim": ends, f"{side}label": title_of(quantity)})
    linear = 1.0
    ticks: Sequence[float] = SKILL_TICKS
    if quantity == "accuracy_drop":
        linear = max(tolerance, 1)
        ticks = DROP_TICKS
    elif quantity != "skill":
        return
    change = {"x": axes.set_xscale, "y": axes.set_yscale}[side]
    change("symlog", linthresh=linear, linscale=1)
    axis = {"x": axes.xaxis, "y": axes.yaxis}[side]
    shown = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
    axis.set_ticks(shown, [f"{tick:g}".replace("-", "−") for tick in shown])
    axis.set_minor_locator(NullLocator())


def draw_interval(
    axes: "Axes", side: str, place: float, ends: Sequence[float], **look: Any
) -> None:
    """Draw an error bar along an axis (x or y); an arrowhead marks an end beyond the limits."""
    limits = sorted({"x": axes.get_xlim, "y": axes.get_ylim}[side]())
    low, high = (min(max(end, limits[0]), limits[1]) for end in ends)
    draw = axes.hlines if side == "x" else axes.vlines
    draw(place, low, high, **look)
    markers = {"x": "<>", "y": "v^"}[side]
    for marker, end, limit in zip(markers, ends, limits, strict=True):
        if math.isfinite(end) and not limits[0] <= end <= limits[1]:
            point = {"x": (limit, place), "y": (place, limit)}[side]
            axes.plot(*point, marker, color=look.get("color"), markersize=3, clip_on=False)
