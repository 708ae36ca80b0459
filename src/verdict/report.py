"""The report of a verdict: a table, a map of each method, and a paragraph of computed sentences."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from src.console import result
from src.files import write_text
from src.ood.registry import SCORES
from src.results.experiments import grouped
from src.results.heat_maps import ClassMap, maps
from src.results.matrices import pivot
from src.results.records import write_table
from src.results.rows import VerdictRow
from src.stitching.report import AXES
from src.verdict.groups import FRESH_FRONT, SELF
from src.verdict.judging import FAR, SIMILAR, SIMILARITY_COLUMNS, UNDECIDED, VERDICTS, Limits

COLOURS = dict(zip(VERDICTS, ("#4daf4a", "#ff9f1c", "#c1c1d7", "#ffffff"), strict=True))  # told apart in grey as well


def print_verdicts(rows: Sequence[VerdictRow]) -> None:
    """Print a line for each verdict."""
    for row in rows:
        numbers = [math.nan if value is None else value for value in (row.summary.accuracy.value, *row.summary.penalty)]
        measured = "accuracy {:.4f}, penalty {:.4f} [{:.4f}, {:.4f}]".format(*numbers)
        if row.validity:
            doses = row.validity.noise_dose, row.validity.shrinkage_dose
            measured += ", noise dose {:.3f}, shrinkage dose {:.3f}".format(*doses)
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
    rule = f"Similar: less than {points} are lost, in distribution by density and recall."
    draw(path.with_suffix(figure), rows, title=title, caption=f"{caption} {rule}".strip())


def sentences(rows: Sequence[VerdictRow], limits: Limits) -> list[str]:
    """Return the verdicts in words: on the rule, on each method, and on the controls."""
    lines = [_rule(limits)]
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
        far = Counter(row.reason.removeprefix("accurate, but ") for row in same if row.verdict == FAR)
        if far:
            sides = ", ".join(f"{n} {side}" for side, n in far.most_common())
            lines.append(
                f"Of the {counts[SIMILAR] + counts[FAR]} accurate pairs {far.total()} are out of distribution: {sides}."
            )
    return [*lines, *_controls(rows)]


def _rule(limits: Limits) -> str:
    """Return what makes a pair similar."""
    noise, shrinkage = (f"{100 * limit:g} %" for limit in limits.validity)
    tests = "each pair for itself" if limits.pairwise else "all pairs of a method together (Holm)"
    return (
        f"A pair is similar if its penalty against the end network is below {100 * limits.tolerance:g} points (score "
        f"tests, {tests}) and its activations are in distribution: as near to real ones as the end network's own with "
        f"at most {noise} of noise, and as spread as these when shrunk by at most {shrinkage}."
    )


def _controls(rows: Sequence[VerdictRow]) -> list[str]:
    """Return how many controls have the verdict that they must have."""
    lines = []
    for kind, title, must in (
        (SELF, "layers stitched to themselves", "all must be"),
        (FRESH_FRONT, "stitches from networks that were never trained", "none may be"),
    ):
        similar = [row.verdict == SIMILAR for row in rows if row.control == kind]
        if similar:
            lines.append(f"Control: of {len(similar)} {title} {sum(similar)} are similar ({must}).")
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
