"""The report of a verdict: a table, a map of each method, and a paragraph of computed sentences."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from src.console import result
from src.files import write_text
from src.ood.registry import SCORES
from src.results.experiments import grouped
from src.results.figures import ClassMap, maps
from src.results.matrices import pivot
from src.results.records import write_table
from src.results.rows import Interval, VerdictRow
from src.stitching.report import AXES
from src.verdict.intervals import wider
from src.verdict.judging import FAR, SIMILAR, SIMILARITY_COLUMNS, UNDECIDED, VERDICTS, Limits

COLOURS = dict(zip(VERDICTS, ("#4daf4a", "#ff9f1c", "#c1c1d7", "#ffffff"), strict=True))  # told apart in grey as well


def print_verdicts(rows: Sequence[VerdictRow]) -> None:
    """Print a line for each verdict."""
    for row in rows:
        penalty, *intervals = row.summary.penalty
        interval = wider(*intervals) or Interval(math.nan, math.nan)
        limits = f"{interval.low:.4f}, {interval.high:.4f}"
        cost = math.nan if penalty is None else penalty
        measured = f"accuracy {row.summary.accuracy.value:.4f}, penalty {cost:.4f} [{limits}]"
        result(f"{row.method}, {row.networks}: {row.pair}: {row.verdict} ({measured}; {row.reason})")


def write_files(
    path: Path, rows: Sequence[VerdictRow], limits: Limits, *, figure: str, title: str = "", caption: str = ""
) -> None:
    """Write the CSV, and beside it the paragraph (`.md`) and the maps.

    Args:
        figure: the ending of the name of the maps, .png or .pdf.
        title, caption: the texts above and below the maps.
    """
    write_table(path, VerdictRow, rows, aurocs=SCORES, similarities=SIMILARITY_COLUMNS)
    lines = [f"# Verdict on {len(rows)} stitched pairs of layers", "", *sentences(rows, limits), ""]
    write_text(path.with_suffix(".md"), "\n".join(lines))
    points = f"{100 * limits.tolerance:g} points"
    rule = f"Similar: less than {points} are lost, at an AUROC below {limits.in_distribution:g}."
    draw(path.with_suffix(figure), rows, title=title, caption=f"{caption} {rule}".strip())


def sentences(rows: Sequence[VerdictRow], limits: Limits) -> list[str]:
    """Return the verdicts in words: one sentence on the rule, and some on each method."""
    points = f"{100 * limits.tolerance:g} points"
    lines = [
        f"A pair is similar if its penalty against the end network is below {points} and no trusted detector reaches "
        f"an AUROC of {limits.in_distribution:g}; penalties are judged by the limits of their 95 % intervals."
    ]
    for title, same in by_title(rows).items():
        counts = Counter(row.verdict for row in same)
        parts = [f"{counts[name]} {'are ' if i == 0 else ''}{name}" for i, name in enumerate(VERDICTS)]
        lines.append(f"{title[0].upper()}{title[1:]}: of {len(same)} pairs {', '.join(parts)}.")
        reasons = Counter(row.reason for row in same if row.verdict == UNDECIDED)
        if reasons:
            lines.append(f"Undecided: {'; '.join(f'{reason} ({n})' for reason, n in reasons.most_common())}.")
        own = [row for row in same if row.pair.front_layer == row.pair.end_layer]
        if own and len(own) < len(same):
            n = sum(row.verdict == SIMILAR for row in own)
            lines.append(f"Of the {len(own)} pairs of layers of the same name {n} are similar.")
        accurate = counts[SIMILAR] + counts[FAR]
        if accurate:
            far = f"{counts[FAR]} owe it to activations that the end network has never seen"
            lines.append(f"Of the {accurate} accurate pairs {far}.")
    return lines


def by_title(rows: Sequence[VerdictRow]) -> dict[str, list[VerdictRow]]:
    """Return the verdicts of each method, and of each pair of networks where a method has several."""
    networks = {method: {row.networks for row in same} for method, same in grouped(rows, lambda r: r.method).items()}
    return grouped(rows, lambda r: f"{r.method}, {r.networks}" if len(networks[r.method]) > 1 else r.method)


def draw(path: Path, rows: Sequence[VerdictRow], *, title: str = "", caption: str = "") -> None:
    """Draw a map of layers by layers for each method, in the colours of the verdicts, with accuracies in the cells."""
    panels = {
        name.replace(", ", "\n"): ClassMap(
            pivot({row.pair: (row.verdict, row.summary.accuracy.value) for row in same}, missing=None), COLOURS
        )
        for name, same in by_title(rows).items()
    }
    maps(path, panels, **AXES, title=title, caption=caption)
