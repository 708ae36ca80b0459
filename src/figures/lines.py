"""Lines with intervals, labelled at their ends."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from src.figures.cells import number
from src.figures.pages import ENDS, Look
from src.figures.shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = (-50, -20, -10, -5, -2, 0, 1, 2, 5, 10, 20, 50, 100)  # points of accuracy
MANY = 4  # more lines have bars for intervals, fewer have bands


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """Return the look of each line of a figure: colour, marker and style."""
    import matplotlib

    looks = cycle(matplotlib.rcParams["axes.prop_cycle"])
    return dict(zip(labels, looks, strict=False))


def draw_lines(
    axes: "Axes",
    lines: Mapping[str, Sequence[Shown]],
    looks: Mapping[str, Look],
    *,
    are_means: bool = False,
) -> None:
    """Draw a line a label: values over their places, with intervals.

    Args:
        are_means: lines of means without an interval have open markers: of too few networks.
    """
    for label, rows in lines.items():
        in_order = sorted(rows, key=lambda row: row.place)
        places = [row.place for row in in_order]
        lows = [row.low for row in in_order]
        highs = [row.high for row in in_order]
        look = looks[label]
        (line,) = axes.plot(places, [row.value for row in in_order], **look)
        if are_means and all(map(math.isnan, lows)):
            line.set_markerfacecolor("white")
        if len(lines) > MANY or len(places) == 1:
            axes.vlines(places, lows, highs, color=look.get("color"), linewidth=0.7, alpha=0.6)
        else:
            axes.fill_between(places, lows, highs, color=look.get("color"), alpha=0.15, linewidth=0)
    axes.spines[["top", "right"]].set_visible(False)


def label_ends(
    axes: "Axes", lines: Mapping[str, Sequence[Shown]], looks: Mapping[str, Look]
) -> None:
    """Write the label of each line at its end, in its colour; the axes have their limits."""
    bottom, top = sorted(axes.get_ylim())
    for label, rows in lines.items():
        known = [row for row in rows if math.isfinite(row.value)]
        if known:
            last = max(known, key=lambda row: row.place)
            y = min(max(last.value, bottom), top)
            axes.text(
                1.02,
                y,
                label,
                transform=axes.get_yaxis_transform(),
                va="center",
                color=looks[label].get("color", "black"),
                gid=ENDS,
            )


def scale_points(axes: "Axes", side: str, low: float, high: float, tolerance: float) -> None:
    """Set an axis of points of accuracy: linear to the tolerance, and logarithmic beyond.

    Args:
        side: x or y.
    """
    from matplotlib.ticker import NullLocator

    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set(**{f"{side}lim": (low, high)})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[side]
    set_scale = {"x": axes.set_xscale, "y": axes.set_yscale}[side]
    set_scale("symlog", linthresh=max(tolerance, 1), linscale=1)
    axis.set_ticks(ticks, [number(tick, 0) for tick in ticks])
    axis.set_minor_locator(NullLocator())
