"""Maps of the verdicts on the stitches of two networks, and the figure of these maps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

from src.ground.figures import BLUE, VERMILION, YELLOW
from src.reports.captions import common
from src.reports.grid_figures import STITCHED
from src.reports.heat_maps import maps_figure
from src.reports.map_panels import UNSURE, ClassMap, HeatMap, Panel, Sign
from src.tables.matrices import Matrix, PairOfLayers, known, pivot
from src.tables.quantities import QUANTITIES
from src.verdict import LOST, NOT_MATCHED, SIMILAR, UNDECIDED, Limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGNS = {  # as in heat maps, bright is similar
    SIMILAR: Sign(YELLOW),
    LOST: Sign(VERMILION, "////"),
    NOT_MATCHED: Sign(BLUE),
    UNDECIDED: UNSURE,
}
TOLERANCES = 5  # the darkest penalty, in tolerances
IN_MAIN_FIGURE = ("accuracy", "identification")  # beside the verdict of a pair of networks


class JudgedPair(PairOfLayers, Protocol):
    """A row of a pair of layers with a verdict, and with the quantities of the figure."""

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""


def heat_map(
    quantity: str, matrix: Matrix, limits: Limits, *, end_accuracy: float = math.nan
) -> HeatMap:
    """Return the heat map of a matrix of a quantity, with the limit that the verdict judges it by.

    Args:
        end_accuracy: of the end network; NaN: of several, so that accuracies have no common limit.
    """
    if quantity == "penalty":
        darkest = min(TOLERANCES * limits.tolerance, 1) or 1
        meaning = QUANTITIES[quantity].description
        return HeatMap(matrix, (darkest, 0), limits.tolerance, meaning=meaning)
    if quantity == "accuracy" and not math.isnan(end_accuracy):
        panel = HeatMap.of(matrix, QUANTITIES[quantity], limit=end_accuracy - limits.tolerance)
        return panel._replace(
            is_linear=True, meaning=f"{panel.meaning}; end network: {end_accuracy:.3f}"
        )
    limit = limits.identification if quantity == "identification" else math.nan
    return HeatMap.of(matrix, QUANTITIES[quantity], limit=limit)


def verdict_map(rows: Iterable[JudgedPair], limits: Limits) -> dict[str, Panel]:
    """Return the map of verdicts, by its title."""
    verdicts = pivot(rows, lambda row: row.verdict, missing=None)
    return {"verdict": ClassMap(verdicts, SIGNS, _words_of_verdicts(limits))}


def share_map(shares: Mapping[str, Matrix], limits: Limits) -> HeatMap:
    """Return the heat map of the shares of similar pairs.

    A cell has the sign of another verdict that more than half of its pairs share.

    Args:
        shares: of the pairs with a verdict, by verdict: `SIMILAR`, and those that are to have signs.
    """
    verdict_of = {f"mostly {word}": word for word in shares if word != SIMILAR}
    signed = {}
    for words, verdict in verdict_of.items():
        share = shares[verdict]
        for y, x in np.argwhere(np.array(share.values) > 0.5):
            signed[share.rows[y], share.columns[x]] = words
    return HeatMap(
        shares[SIMILAR],
        signed=signed,
        signs={words: SIGNS[verdict] for words, verdict in verdict_of.items()},
        meaning=f"{rule_in_short(limits)}, both certain at 95 percent (score tests); {', '.join(verdict_of)}: "
        "more than half of the pairs; without a sign, no such majority",
    )


def rule_in_short(limits: Limits) -> str:
    """Return the rule for similar pairs, for captions."""
    return (
        f"less than {100 * limits.tolerance:g} points of accuracy are lost, and more than "
        f"{100 * limits.identification:g} percent of the images are identified at every layer"
    )


def _words_of_verdicts(limits: Limits) -> str:
    """Return the meanings of the verdicts, for captions."""
    return (
        f"{SIMILAR} ({rule_in_short(limits)}), {LOST} (as accurate, but fewer are identified), "
        f"{NOT_MATCHED} (more accuracy is lost), {UNDECIDED} (not "
        "certain at 95 percent, or a flaw, such as a training that had not converged)"
    )


def figure_of(
    rows_of_title: Mapping[str, Sequence[JudgedPair]], limits: Limits, *, caption: str = ""
) -> "Figure":
    """Return a matplotlib figure of accuracy, identification and verdict, without writing a file.

    Args:
        rows_of_title: the stitches of two networks in each column of panels, by its title.
        caption: a text for below the figure, in front of the rule.
    """
    all_rows = chain.from_iterable(rows_of_title.values())
    end_accuracy = float(common(all_rows, "end_accuracy") or math.nan)
    panels: dict[str, dict[str, Panel]] = {}
    for title, rows in rows_of_title.items():
        of_quantities: dict[str, Panel] = {}
        for name in IN_MAIN_FIGURE:
            matrix = pivot(rows, partial(known, name=name))
            of_quantities[QUANTITIES[name].title] = heat_map(
                name, matrix, limits, end_accuracy=end_accuracy
            )
        heading = title if len(rows_of_title) > 1 else ""
        panels[heading] = of_quantities | verdict_map(rows, limits)
    return maps_figure(panels, labels=STITCHED, caption=caption)
