"""The table and the figures of the study (misc/docs/study.md), from the rows of its CSV."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from misc.paper.study_singles import ROBUST, STANDARD
from misc.paper.study_statistics import Difference, answer
from src.ground import figures
from src.reports.heat_maps import Labels, maps
from src.reports.map_panels import HeatMap
from src.tables.matrices import Matrix

MEASURES = {
    "cka_debiased": "debiased CKA",
    "mutual_knn": "mutual kNN",
    "identification": "identification",
    "similar": "share of similar pairs",
    "agreement": "agreement (κ)",
}
PARTS = ("first", "second", "third")

# Sections of the CSV
NETWORK = "network"
PAIR = "pair"
MEAN = "mean"
LAYERS = "layers"
TEST = "test"
CONTROL = "control"
DOSE = "dose"

# Quantities
RAW = "raw"
TWINS = "twins"
EXCESS = "excess"
DIFFERENT_TYPES = "different types"
MATCHED = "matched"
REGRESSION = "regression"
H1 = "H1"
H2 = "H2"
HYPOTHESES = {
    H1: "more alike than standard networks (RR − SS)",
    H2: "more alike than mixed pairs (RR − RS)",
}
GROUPS = ((ROBUST, ROBUST), (STANDARD, STANDARD), (ROBUST, STANDARD))  # as in `Means`


IN_PAIRS = ("cka_debiased", "identification", "agreement")  # measures in the figure of pairs
N_DIGITS = 6  # of the numbers in the CSV

# Rows of a figure: a control, or the excess
SHOWN = (
    EXCESS,
    RAW,
    TWINS,
    DIFFERENT_TYPES,
    MATCHED,
    REGRESSION,
    *(f"{part} layers" for part in PARTS),
)


class StudyRow(NamedTuple):
    """A number of the study. None: not defined."""

    section: str
    measure: str = ""
    quantity: str = ""
    first: str = ""  # a network or a group
    second: str = ""
    value: float | None = None
    low: float | None = None  # the interval of 95 %
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    reading: str = ""

    @classmethod
    def of(cls, section: str, measure: str, quantity: str, difference: Difference) -> "StudyRow":
        """Return the row of a difference."""
        return cls(section, measure, quantity, "", "", *difference)

    @property
    def rounded(self) -> "StudyRow":
        """The row with the numbers of a table: rounded, and None instead of NaN."""
        numbers = {}
        for name in ("value", "low", "high", "p_value", "p_adjusted"):
            number = getattr(self, name)
            is_defined = number is not None and not math.isnan(number)
            numbers[name] = round(number, N_DIGITS) if is_defined else None
        return self._replace(**numbers)


def table_of(rows: Sequence[StudyRow]) -> str:
    """Return the table of the page in Markdown: means of groups, and the tests of both hypotheses."""
    header = ["measure", "RR", "SS", "RS", "twins: RR", "SS", "RS"]
    for hypothesis, difference in ((H1, "RR − SS"), (H2, "RR − RS")):
        header += [f"{hypothesis}: {difference}, excess", "p, adjusted", "reading"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for measure in measures_of(rows):
        cells = [MEASURES[measure]]
        for kind in (RAW, TWINS):
            for first, second in GROUPS:
                row = find(rows, MEAN, measure, kind, first, second)
                cells.append(decimals(row.value) if row else "")
        for hypothesis in (H1, H2):
            row = find(rows, TEST, measure, hypothesis) or StudyRow(TEST, measure, hypothesis)
            interval = f"{decimals(row.low, sign=True)} to {decimals(row.high, sign=True)}"
            cells.append(f"{decimals(row.value, sign=True)} ({interval})")
            cells += [decimals(row.p_adjusted, n=3), row.reading]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def answers(rows: Sequence[StudyRow]) -> dict[str, str]:
    """Return the answer to each hypothesis, by the rules of the plan."""
    texts = {}
    for hypothesis, title in HYPOTHESES.items():
        tests = [row for row in rows if (row.section, row.quantity) == (TEST, hypothesis)]
        texts[f"{hypothesis}, robust networks are {title}"] = answer([row.reading for row in tests])
    return texts


def measures_of(rows: Sequence[StudyRow]) -> list[str]:
    """Return the measures that were tested, in their order."""
    tested = {row.measure for row in rows if row.section == TEST}
    return [measure for measure in MEASURES if measure in tested]


def find(
    rows: Sequence[StudyRow],
    section: str,
    measure: str,
    quantity: str,
    first: str = "",
    second: str = "",
) -> StudyRow | None:
    """Return the row with these columns, or None."""
    columns = (section, measure, quantity, first, second)
    return next((row for row in rows if row[:5] == columns), None)


def decimals(number: float | None, *, n: int = 2, sign: bool = False) -> str:
    """Return a number with so many decimals; – stands for none."""
    if number is None:
        return "–"
    text = f"{number:+.{n}f}" if sign else f"{number:.{n}f}"
    return text.replace("-", "−")


def draw(path: Path, rows: Sequence[StudyRow]) -> None:
    """Draw the figures beside a CSV: pairs of networks, differences of groups, and the dose."""
    draw_pairs(path.with_name(f"{path.stem}_pairs.png"), rows)
    draw_differences(path.with_name(f"{path.stem}_differences.png"), rows)
    draw_doses(path.with_name(f"{path.stem}_dose.png"), rows)


def draw_pairs(path: Path, rows: Sequence[StudyRow]) -> None:
    """Draw a matrix of all pairs of networks for some measures, robust networks first."""
    groups = {row.first: row.second for row in rows if row.section == NETWORK}
    names = sorted(groups, key=lambda name: groups[name] != ROBUST)
    panels = {}
    for measure in IN_PAIRS:
        values = {}
        for row in rows:
            if (row.section, row.measure, row.quantity) == (PAIR, measure, RAW):
                number = math.nan if row.value is None else row.value
                values[row.first, row.second] = values[row.second, row.first] = number
        cells = [[values.get((first, second), math.nan) for second in names] for first in names]
        numbers = [number for number in values.values() if not math.isnan(number)]
        lowest = min(numbers, default=0.0)
        highest = max(numbers, default=1.0)
        scale = (lowest, highest) if lowest < highest else (0.0, 1.0)
        panels[MEASURES[measure]] = HeatMap(Matrix(names, names, cells), scale)
    n_robust = sum(group == ROBUST for group in groups.values())
    maps(
        path,
        {"": panels},
        labels=Labels("network", "network", blank="itself"),
        caption=f"Values of pairs, without correction. The first {n_robust} networks are robust.",
    )


def draw_differences(path: Path, rows: Sequence[StudyRow]) -> None:
    """Draw both differences of each measure with their intervals, beside the controls."""
    if not figures.can_draw(path):
        return
    measures = measures_of(rows)
    with figures.new_figure(path, is_wide=True, caption=CAPTION) as figure:
        panels = figure.subplots(1, len(HYPOTHESES), sharey=True)
        legend: dict[str, Any] = {}
        looks = figures.looks_of_lines(len(measures))
        for panel, (hypothesis, title) in zip(panels, HYPOTHESES.items(), strict=True):
            for number, measure in enumerate(measures):
                look = looks[number] | {"linestyle": "none"}
                for place, kind in enumerate(SHOWN):
                    row = difference_row(rows, measure, hypothesis, kind)
                    if row is None or row.value is None:
                        continue
                    y = place + 0.14 * (number - (len(measures) - 1) / 2)
                    if row.low is not None and row.high is not None:
                        panel.hlines(y, row.low, row.high, color=look["color"])
                    (legend[MEASURES[measure]],) = panel.plot([row.value], [y], **look)
            panel.axvline(0, color="0.5", linewidth=0.6)
            panel.axhline(0.5, color="0.8", linewidth=0.6)
            panel.set(title=f"{hypothesis}: {title}", ylim=(len(SHOWN) - 0.5, -0.5))
            panel.set_yticks(range(len(SHOWN)), SHOWN)
        figures.add_legend(figure, legend)
        figures.fit_height(figure, panels[:1], lambda width: [2.6])


CAPTION = (
    "Differences of the means of groups; above the line those that were tested, below it the "
    "controls. Intervals of 95 %, by the jackknife over networks."
)


def difference_row(
    rows: Sequence[StudyRow], measure: str, hypothesis: str, kind: str
) -> StudyRow | None:
    """Return the row of a difference: of the excess, which is tested, or of a control."""
    if kind == EXCESS:
        return find(rows, TEST, measure, hypothesis)
    return find(rows, CONTROL, measure, f"{hypothesis}, {kind}")


def draw_doses(path: Path, rows: Sequence[StudyRow]) -> None:
    """Draw the mean excess of each network over its robustness, for each measure."""
    if not figures.can_draw(path):
        return
    groups = {row.first: row.second for row in rows if row.section == NETWORK}
    measures = measures_of(rows)
    caption = "Each network: its mean excess over all pairs with others."
    with figures.new_figure(path, is_wide=True, caption=caption) as figure:
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        legend: dict[str, Any] = {}
        standard, robust = figures.looks_of_lines(2)
        looks = {ROBUST: robust, STANDARD: standard}
        for column, (panel, measure) in enumerate(zip(panels, measures, strict=True)):
            for name, group in groups.items():
                robustness = find(rows, DOSE, "", "robustness", name)
                mean = find(rows, DOSE, measure, "mean excess", name)
                if robustness is None or mean is None or mean.value is None:
                    continue
                look = looks[group] | {"linestyle": "none"}
                (legend[group],) = panel.plot([robustness.value], [mean.value], **look)
            correlation = find(rows, DOSE, measure, "Spearman's correlation")
            text = decimals(correlation.value if correlation else None, sign=True)
            panel.set_title(f"{MEASURES[measure]}\nSpearman {text}")
            panel.set_xlabel("share of accuracy\nkept at 2/255" if column == 0 else "")
        figures.add_legend(figure, legend)
        figures.fit_height(figure, panels[:1], lambda width: [width])
