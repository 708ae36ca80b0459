"""What a verdict writes: a table, a map of each method, and a paragraph of computed sentences."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from src.figures import class_maps
from src.files import write_csv, write_text
from src.stitching.results import natural_order
from src.verdict.rows import FAR, SIMILAR, UNDECIDED, VERDICTS, Verdict

COLOURS = dict(zip(VERDICTS, ("#4daf4a", "#ff9f1c", "#c1c1d7", "#ffffff"), strict=True))  # told apart in grey as well


def write_files(
    path: Path, verdicts: Sequence[Verdict], *, figure: str, tolerance: float, in_distribution: float
) -> None:
    """Write the CSV, and beside it the paragraph (`.md`) and the maps; `figure` is their suffix, .png or .pdf."""
    write_csv(path, Verdict.columns(), [verdict.record() for verdict in verdicts])
    lines = [f"# Verdict on {len(verdicts)} stitched pairs of layers", ""]
    lines += [*sentences(verdicts, tolerance=tolerance, in_distribution=in_distribution), ""]
    write_text(path.with_suffix(".md"), "\n".join(lines))
    draw(path.with_suffix(figure), verdicts)


def sentences(verdicts: Sequence[Verdict], *, tolerance: float, in_distribution: float) -> list[str]:
    """The verdicts in words: one sentence on the rule, and some on each method."""
    said = [
        f"A pair is similar if its penalty against the end network is below {100 * tolerance:g} points and no trusted "
        f"detector reaches an AUROC of {in_distribution:g}; penalties are judged by the limits of their 95 % intervals."
    ]
    for method in dict.fromkeys(verdict.method for verdict in verdicts):
        rows = [verdict for verdict in verdicts if verdict.method == method]
        counts = Counter(verdict.verdict for verdict in rows)
        parts = [f"{counts[name]} {'are ' if i == 0 else ''}{name}" for i, name in enumerate(VERDICTS)]
        said.append(f"{method[0].upper()}{method[1:]}: of {len(rows)} pairs {', '.join(parts)}.")
        reasons = Counter(verdict.reason for verdict in rows if verdict.verdict == UNDECIDED)
        if reasons:
            said.append(f"Undecided: {'; '.join(f'{reason} ({n})' for reason, n in reasons.most_common())}.")
        own = [verdict for verdict in rows if verdict.front_layer == verdict.end_layer]
        if own and len(own) < len(rows):
            n = sum(verdict.verdict == SIMILAR for verdict in own)
            said.append(f"Of the {len(own)} pairs of layers of the same name {n} are similar.")
        accurate = counts[SIMILAR] + counts[FAR]
        if accurate:
            share = f"{counts[FAR]} of the {accurate} accurate pairs"
            said.append(f"Activations that the end network has never seen make {share}.")
    return said


def draw(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Draw a map of layers by layers for each method, in the colours of the verdicts, with accuracies in the cells."""
    fronts = natural_order(verdict.front_layer for verdict in verdicts)
    ends = natural_order(verdict.end_layer for verdict in verdicts)
    panels = {}
    for method in dict.fromkeys(verdict.method for verdict in verdicts):
        by_pair = {(v.front_layer, v.end_layer): v for v in verdicts if v.method == method}
        panels[method] = [
            [(by_pair[f, e].verdict, by_pair[f, e].accuracy.value) if (f, e) in by_pair else None for e in ends]
            for f in fronts
        ]
    class_maps(path, panels, COLOURS, rows=fronts, columns=ends, row_label="front layer", column_label="end layer")
