"""The report of a verdict: tables, maps of each method, and a paragraph of computed sentences."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from src.console import result, table
from src.files import write_text
from src.grouping import grouped
from src.results.heat_maps import ClassMap, HeatMap, maps
from src.results.matrices import Matrix, is_known, known, pivot
from src.results.quantities import IN_VERDICT, QUANTITIES, shown_in
from src.results.tables import write_table
from src.stitching.grid_tables import AXES
from src.verdict.groups import FRESH_FRONT, SELF
from src.verdict.judging import FAR, SIMILAR, UNDECIDED, VERDICTS, Limits
from src.verdict.verdict_rows import VerdictRow

COLOURS = dict(zip(VERDICTS, ("#4daf4a", "#74a9cf", "#ff9f1c", "#c1c1d7", "#ffffff"), strict=True))
IN_MAIN_FIGURE = ("identification", "kappa_within")  # the latter as the numbers in the map of words
N_MAIN_PANELS = 3
CONTROLS = {  # and how many of them must be similar
    SELF: ("layers stitched to themselves", "all must be"),
    FRESH_FRONT: ("stitches from networks that were never trained", "none may be"),
}
LOW = 0.5  # an accuracy of the end network that is said


def print_verdicts(rows: Sequence[VerdictRow]) -> None:
    """Print a line for each verdict."""
    for row in rows:
        parts = [
            f"accuracy {row.accuracy:.4f}",
            *(_estimate(row, name) for name in shown_in(IN_VERDICT)),
            row.reason,
        ]
        if row.accuracy_low is not None and row.kappa_within is None:
            parts.append(
                "κ within strata is not defined: the end network predicts one class within each stratum"
            )
        networks = f"{row.method}, {row.networks}"
        result(f"{networks}: {row.pair}: {row.verdict} ({'; '.join(filter(None, parts))})")


def _estimate(row: VerdictRow, name: str) -> str:
    """Return a value with its interval in words; "" where it is not known."""
    value, *interval = (getattr(row, f"{name}{end}", None) for end in ("", "_low", "_high"))
    ends = "" if None in interval else " [{:.4f}, {:.4f}]".format(*interval)
    return "" if value is None else f"{QUANTITIES[name].title} {value:.4f}{ends}"


def print_matrices(rows: Sequence[VerdictRow]) -> None:
    """Print the quantities that a verdict shows, such as penalties, of each method, as far as they
    are known."""
    for title, same in by_title(rows).items():
        for name, matrix in _matrices(same):
            table(f"{QUANTITIES[name].title}, {title}", *matrix)
            result()


def _matrices(rows: Sequence[VerdictRow]) -> Iterator[tuple[str, Matrix]]:
    for name in shown_in(IN_VERDICT):
        if is_known(rows, name):
            yield name, pivot(rows, partial(known, name=name))


def write_files(
    path: Path,
    rows: Sequence[VerdictRow],
    limits: Limits,
    *,
    figure: str,
    title: str = "",
    caption: str = "",
) -> None:
    """Write the CSV, and beside it the paragraph (`.md`), the maps of words and numbers.

    Args:
        figure: the ending of the names of the maps, .png or .pdf.
        title, caption: the texts above and below the maps.
    """
    write_table(path, VerdictRow, rows)
    lines = [f"# Verdict on {len(rows)} stitched pairs of layers", "", *sentences(rows, limits), ""]
    write_text(path.with_suffix(".md"), "\n".join(lines))
    main_panels: dict[str, HeatMap | ClassMap] = {}
    numbers: dict[str, HeatMap] = {}
    for name, of_method in by_title(rows).items():
        name = name.replace(", ", "\n")
        main_panels |= _main_panels(name, of_method)
        for column, matrix in _matrices(of_method):
            if column not in IN_MAIN_FIGURE:
                quantity = QUANTITIES[column]
                numbers[f"{quantity.title}\n{name}"] = HeatMap.of(matrix, quantity)
    below = f"{caption} {_rule_in_short(limits)}".strip()
    maps(
        path.with_suffix(figure),
        main_panels,
        **AXES,
        title=title,
        caption=below,
        n_columns=N_MAIN_PANELS,
    )
    if numbers:
        maps(
            path.with_name(f"{path.stem}_numbers{figure}"),
            numbers,
            **AXES,
            title=title,
            caption=caption,
        )


def _main_panels(name: str, rows: Sequence[VerdictRow]) -> dict[str, HeatMap | ClassMap]:
    """Return the panels of a method that stand side by side: accuracy, identification and words."""
    panels: dict[str, HeatMap | ClassMap] = {}
    for column in ("accuracy", "identification"):
        quantity = QUANTITIES[column]
        panels[f"{quantity.title}\n{name}"] = HeatMap.of(
            pivot(rows, partial(known, name=column)), quantity
        )
    words = pivot(rows, lambda row: (row.verdict, known(row, name="kappa_within")), missing=None)
    panels[f"verdict\n{name}"] = ClassMap(words, COLOURS)
    return panels


def _rule_in_short(limits: Limits) -> str:
    return (
        f"Similar: less than {100 * limits.tolerance:g} points are lost, in distribution, and more than "
        f"{limits.identification:.0%} of the images are identified (chance: 50%). Numbers in the verdict: κ within "
        "strata."
    )


def sentences(rows: Sequence[VerdictRow], limits: Limits) -> list[str]:
    """Return the verdicts in words: on the rule, on each method, and on the controls."""
    lines = [_rule(limits)]
    for title, same in by_title(rows).items():
        lines += _on_method(title, same)
    low = {
        row.networks: row.end_accuracy
        for row in rows
        if row.end_accuracy is not None and row.end_accuracy < LOW
    }
    lines += [
        f"The end network of {name} alone is right about {value:.0%}."
        for name, value in low.items()
    ]
    for kind, (title, must) in CONTROLS.items():
        similar = [row.verdict == SIMILAR for row in rows if row.control == kind]
        if similar:
            lines.append(f"Control: of {len(similar)} {title} {sum(similar)} are similar ({must}).")
    return lines


def _rule(limits: Limits) -> str:
    """Return what makes a pair similar."""
    noise, shrinkage = limits.validity
    tests = (
        "each pair for itself"
        if limits.pairwise
        else "false discovery rate over the pairs of a method"
    )
    return (
        f"A pair is similar if its penalty against the end network is below {100 * limits.tolerance:g} points (score "
        f"tests, {tests}), its activations are in distribution (at most {noise:.0%} of noise and {shrinkage:.0%} of "
        f"shrinkage), and more than {limits.identification:.0%} of the test images are identified by them (the "
        "interval lies above it; 50% is chance)."
    )


def _on_method(title: str, rows: Sequence[VerdictRow]) -> Iterator[str]:
    """Yield the sentences on the verdicts of a method."""
    counts = Counter(row.verdict for row in rows)
    parts = [f"{counts[name]} {'are ' if i == 0 else ''}{name}" for i, name in enumerate(VERDICTS)]
    yield f"{title[0].upper()}{title[1:]}: of {len(rows)} pairs {', '.join(parts)}."
    reasons = Counter(row.reason for row in rows if row.verdict == UNDECIDED)
    if reasons:
        yield f"Undecided: {'; '.join(f'{reason} ({n})' for reason, n in reasons.most_common())}."
    own = [row.verdict == SIMILAR for row in rows if row.front_layer == row.end_layer]
    if own and len(own) < len(rows):
        yield f"Of the {len(own)} pairs of layers of the same name {sum(own)} are similar."
    sides = Counter(row.side for row in rows if row.verdict == FAR)
    if sides:
        yield f"Out of distribution: {', '.join(f'{n} {side}' for side, n in sides.most_common())}."


def by_title(rows: Sequence[VerdictRow]) -> dict[str, list[VerdictRow]]:
    """Return the verdicts of each method, and of each pair of networks where a method has
    several."""
    networks = {
        method: {row.networks for row in same}
        for method, same in grouped(rows, lambda r: r.method).items()
    }
    return grouped(
        rows, lambda r: f"{r.method}, {r.networks}" if len(networks[r.method]) > 1 else r.method
    )
