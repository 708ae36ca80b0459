"""What a verdict writes: a table, a map of each method, and a paragraph of computed sentences."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.console import note
from src.figures import ClassMap, maps
from src.files import write_csv, write_text
from src.stitching.results import Run
from src.stitching.rows import natural_order
from src.verdict.judging import judge
from src.verdict.rows import FAR, SIMILAR, UNDECIDED, VERDICTS, Verdict
from src.verdict.stitches import Stitch, read_predictions

COLOURS = dict(zip(VERDICTS, ("#4daf4a", "#ff9f1c", "#c1c1d7", "#ffffff"), strict=True))  # told apart in grey as well


def write_files(
    path: Path,
    verdicts: Sequence[Verdict],
    *,
    figure: str,
    tolerance: float,
    in_distribution: float,
    title: str = "",
    caption: str = "",
) -> None:
    """Write the CSV, and beside it the paragraph (`.md`) and the maps.

    Args:
        figure: the ending of the name of the maps, .png or .pdf.
        title, caption: the texts above and below the maps.
    """
    write_csv(path, Verdict.columns(), [verdict.record() for verdict in verdicts])
    lines = [f"# Verdict on {len(verdicts)} stitched pairs of layers", ""]
    lines += [*sentences(verdicts, tolerance=tolerance, in_distribution=in_distribution), ""]
    write_text(path.with_suffix(".md"), "\n".join(lines))
    rule = f"Similar: less than {100 * tolerance:g} points are lost, at an AUROC below {in_distribution:g}."
    draw(path.with_suffix(figure), verdicts, title=title, caption=f"{caption} {rule}".strip())


def write_intervals(path: Path, runs: Iterable[Run]) -> None:
    """Write the accuracies and penalties of stitching runs with their 95 % intervals, and no verdict.

    A row is a pair of layers and a method, as in a verdict; the columns are those of its table that need no limits.
    """
    stitches = [Stitch(run.row, read_predictions(run), {}) for run in runs]
    start = Verdict.columns().index("n_runs")
    columns = [*Verdict.columns()[:4], *Verdict.columns()[start : Verdict.columns().index("auroc_energy")]]
    rows = [verdict.record() for verdict in judge(stitches, tolerance=0.0, in_distribution=0.0)]
    write_csv(path, columns, [{name: value for name, value in row.items() if name in columns} for row in rows])
    note(f"wrote {path}")


def sentences(verdicts: Sequence[Verdict], *, tolerance: float, in_distribution: float) -> list[str]:
    """Return the verdicts in words: one sentence on the rule, and some on each method."""
    lines = [
        f"A pair is similar if its penalty against the end network is below {100 * tolerance:g} points and no trusted "
        f"detector reaches an AUROC of {in_distribution:g}; penalties are judged by the limits of their 95 % intervals."
    ]
    for title, rows in by_title(verdicts).items():
        counts = Counter(verdict.verdict for verdict in rows)
        parts = [f"{counts[name]} {'are ' if i == 0 else ''}{name}" for i, name in enumerate(VERDICTS)]
        lines.append(f"{title[0].upper()}{title[1:]}: of {len(rows)} pairs {', '.join(parts)}.")
        reasons = Counter(verdict.reason for verdict in rows if verdict.verdict == UNDECIDED)
        if reasons:
            lines.append(f"Undecided: {'; '.join(f'{reason} ({n})' for reason, n in reasons.most_common())}.")
        own = [verdict for verdict in rows if verdict.front_layer == verdict.end_layer]
        if own and len(own) < len(rows):
            n = sum(verdict.verdict == SIMILAR for verdict in own)
            lines.append(f"Of the {len(own)} pairs of layers of the same name {n} are similar.")
        accurate = counts[SIMILAR] + counts[FAR]
        if accurate:
            share = f"{counts[FAR]} of the {accurate} accurate pairs"
            lines.append(f"Activations that the end network has never seen make {share}.")
    return lines


def by_title(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """Return the verdicts of each method, and of each pair of networks where a method has several."""
    networks: dict[str, set[str]] = {}
    for verdict in verdicts:
        networks.setdefault(verdict.method, set()).add(verdict.networks)
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        several = len(networks[verdict.method]) > 1
        title = f"{verdict.method}, {verdict.networks}" if several else verdict.method
        groups.setdefault(title, []).append(verdict)
    return groups


def draw(path: Path, verdicts: Sequence[Verdict], *, title: str = "", caption: str = "") -> None:
    """Draw a map of layers by layers for each method, in the colours of the verdicts, with accuracies in the cells."""
    fronts = natural_order(verdict.front_layer for verdict in verdicts)
    ends = natural_order(verdict.end_layer for verdict in verdicts)
    panels = {}
    for name, chosen in by_title(verdicts).items():
        by_pair = {(verdict.front_layer, verdict.end_layer): verdict for verdict in chosen}
        cells = [
            [(by_pair[f, e].verdict, by_pair[f, e].accuracy.value) if (f, e) in by_pair else None for e in ends]
            for f in fronts
        ]
        panels[name.replace(", ", "\n")] = ClassMap(cells, COLOURS)
    labels = {"row_label": "front layer", "column_label": "end layer", "title": title, "caption": caption}
    maps(path, panels, rows=fronts, columns=ends, **labels)
