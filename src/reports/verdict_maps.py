"""Maps of the verdicts on the stitches of two networks, and the figure of these maps."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from src.ground.figures import BLUE, ORANGE, YELLOW, joined
from src.reports.captions import common
from src.reports.grid_figures import STITCHED
from src.reports.heat_maps import maps_figure
from src.reports.map_panels import UNSURE, ClassMap, HeatMap, Panel, Sign
from src.tables.matrices import Matrix, PairOfLayers, known, mean_pivot, pivot
from src.tables.quantities import QUANTITIES
from src.verdict import ACCURATE_ONLY, NOT_MATCHED, SIMILAR, UNDECIDED, Limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGNS = {  # as in heat maps, bright is similar
    SIMILAR: Sign(YELLOW),
    ACCURATE_ONLY: Sign(ORANGE, "//////"),
    NOT_MATCHED: Sign(BLUE),
    UNDECIDED: UNSURE,
}
TOLERANCES = 5  # the darkest penalty, in tolerances
IN_MAIN_FIGURE = ("accuracy", "skill")  # beside the verdict of a pair of networks


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
        return _penalty_map(matrix, limits)
    if quantity == "accuracy" and not math.isnan(end_accuracy):
        panel = HeatMap.of(matrix, QUANTITIES[quantity], limit=end_accuracy - limits.tolerance)
        return panel._replace(is_linear=True, note=f"end network: {end_accuracy:.3f}")
    limit = {"skill": limits.skill, "skill_at_end": limits.skill_at_end}.get(quantity, math.nan)
    return HeatMap.of(matrix, QUANTITIES[quantity], limit=limit)


def _penalty_map(matrix: Matrix, limits: Limits) -> HeatMap:
    """Return the heat map of penalties, in points of accuracy."""
    points = [[100 * value for value in line] for line in matrix.values]
    darkest = min(TOLERANCES * limits.tolerance, 1) or 1
    return HeatMap(
        matrix._replace(values=points),
        (100 * darkest, 0),
        100 * limits.tolerance,
        n_digits=1,
        meaning=QUANTITIES["penalty"].description,
    )


def title_of_map(quantity: str) -> str:
    """Return the title of a quantity in figures, with the unit of its numbers there."""
    title = QUANTITIES[quantity].title
    return f"{title} (points)" if quantity == "penalty" else title


def verdict_map(shares: Mapping[str, Matrix], limits: Limits, *, of: str = "") -> ClassMap:
    """Return the map of verdicts.

    Args:
        shares: of each verdict, see `shares_of_verdicts`.
        of: what the shares are of, if a cell has several verdicts, such as "pairs of networks".
    """
    note = f"strips: shares of the {of}" if of else ""
    return ClassMap(shares, SIGNS, note, _words_of_verdicts(limits))


def shares_of_verdicts(rows: Sequence[JudgedPair]) -> dict[str, Matrix]:
    """Return the matrix (front layers, end layers) of the share of stitches with each verdict."""
    return {word: shares_of(word, rows) for word in SIGNS}


def shares_of(word: str, rows: Sequence[JudgedPair]) -> Matrix:
    """Return the matrix (front layers, end layers) of the share of stitches with a verdict, such as
    similar."""
    return mean_pivot(rows, lambda row: float(row.verdict == word))


def rule_in_short(limits: Limits) -> str:
    """Return the rule for similar pairs, for captions."""
    return (
        f"less than {100 * limits.tolerance:g} points of accuracy lost, and "
        f"a skill above {limits.skill:g} at the output and {limits.skill_at_end:g} at the end layer"
    )


def _words_of_verdicts(limits: Limits) -> str:
    """Return the meanings of the verdicts, for captions."""
    return (
        f"{SIMILAR} ({rule_in_short(limits)}), {ACCURATE_ONLY} (as accurate, less skill), "
        f"{NOT_MATCHED} (more accuracy lost), {UNDECIDED} (none of these certain at 95 percent, or a flaw of the "
        "stitch)"
    )


def figure_of(
    rows_of_title: Mapping[str, Sequence[JudgedPair]],
    limits: Limits,
    *,
    caption: str = "",
    definitions: str = "",
) -> "Figure":
    """Return a matplotlib figure of accuracy, skill and verdict, without writing a file.

    Args:
        rows_of_title: the stitches of two networks in each column of panels, by its title.
        caption: a text for below the figure, in front of the panels.
        definitions: sentences in front of those on the quantities.
    """
    all_rows = chain.from_iterable(rows_of_title.values())
    end_accuracy = float(common(all_rows, "end_accuracy") or math.nan)
    panels: dict[str, dict[str, Panel]] = {}
    framed = {}
    for title, rows in rows_of_title.items():
        of_quantities: dict[str, Panel] = {}
        for name in IN_MAIN_FIGURE:
            matrix = pivot(rows, partial(known, name=name))
            of_quantities[title_of_map(name)] = heat_map(
                name, matrix, limits, end_accuracy=end_accuracy
            )
        of_quantities["verdict"] = verdict_map(shares_of_verdicts(rows), limits)
        heading = title if len(rows_of_title) > 1 else ""
        panels[heading] = of_quantities
        if set(matrix.rows) == set(matrix.columns):
            framed[heading] = [(layer, layer) for layer in matrix.rows]
    labels = STITCHED._replace(framed=framed)
    return maps_figure(panels, labels=labels, caption=joined(caption, definitions=definitions))
