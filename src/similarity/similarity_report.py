"""The tables of the paper's code that a comparison prints, its CSV and its figure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from src.choices.similarity import ACTIVATIONS, MEASURES, SAMPLES, Measure, measure_of
from src.console import result, table
from src.results.captions import caption, common, network, pair_of_networks, short
from src.results.curves import curves
from src.results.heat_maps import HeatMap, maps
from src.results.matrices import Matrix
from src.results.tables import write_table
from src.similarity.similarity_rows import (
    BY_POSITION,
    NO_ALIGNMENT,
    SimilarityRow,
    measures_in,
)

MAX_CURVES = 10  # in one panel


def print_matrices(rows: Sequence[SimilarityRow]) -> None:
    """Print the matrices of the figure of several pairs of layers, each at one rank, below the
    blocks of the pairs."""
    cells = {(row.layer1, row.layer2): row for row in rows}
    if 1 < len(cells) == len(rows):
        for title, panel in _heat_maps(cells).items():
            table(title, *panel.matrix)


def print_tables(rows: Sequence[SimilarityRow], metrics: Sequence[str]) -> None:
    """Print the rows of one pair of layers the way the public code does, a block for each rank of
    the first layer."""
    for rank1 in dict.fromkeys(row.rank1 for row in rows):
        block = [row for row in rows if row.rank1 == rank1]
        result(f"{block[0].model1} -- {block[0].model2}\n{block[0].layer1} -- {block[0].layer2}")
        for metric in metrics:
            result(f"{measure_of(metric).heading}:\nModel1 rank {rank1}:")
            for row in block:
                result(
                    f"\tModel2 rank {row.rank2}: {row.values[metric]}{_against_null(row, metric)}"
                )
            result()
        result("\n")


def _against_null(row: SimilarityRow, metric: str) -> str:
    texts = []
    for where, which in {"": "", "within classes ": "_within"}.items():
        if null := row.nulls(which).get(metric):
            texts.append(
                f"{where}p {null.p_value:.3g}, null {null.null_95:.4f}, calibrated {null.calibrated:.4f}"
            )
    return f" ({'; '.join(texts)})" if texts else ""


def write_files(
    path: Path, rows: Sequence[SimilarityRow], *, figure: str = ".png", title: str = ""
) -> None:
    """Write the CSV, one row for each pair of layers and ranks, and the figure (.png or .pdf)
    beside it.

    A full rank is empty; an undefined value is `nan`. There are columns of the measures that were
    asked for."""
    write_table(path, SimilarityRow, rows)
    draw(path.with_suffix(figure), rows, title=title)


def draw(path: Path, rows: Sequence[SimilarityRow], *, title: str = "") -> None:
    """Draw what varies: heat maps over layers or over both ranks, curves over the ranks of one
    side.

    Of several pairs of layers at several ranks there are curves for each pair when only one side
    has ranks and the pairs are few, and otherwise heat maps over the layers at the highest ranks.
    """
    pairs = list(dict.fromkeys((row.layer1, row.layer2) for row in rows))
    ranks1, ranks2 = (
        list(dict.fromkeys(row.rank1 for row in rows)),
        list(dict.fromkeys(row.rank2 for row in rows)),
    )
    if (
        min(len(ranks1), len(ranks2)) == 1 < max(len(ranks1), len(ranks2))
        and len(pairs) <= MAX_CURVES
    ):
        side = 1 if len(ranks1) > 1 else 2
        labels = {"x_label": f"rank of model {side}", "y_label": "similarity"}
        curves(path, _curves(rows, side), **labels, title=title, caption=describe(rows))
        return
    if len(pairs) == 1 and len(ranks1) > 1:
        cells = {
            tuple("full" if rank is None else str(rank) for rank in (row.rank1, row.rank2)): row
            for row in rows
        }
        labels = [
            f"rank of {layer}, model {number}" for number, layer in enumerate(pairs[0], start=1)
        ]
    else:
        cells = {
            (row.layer1, row.layer2): row
            for row in rows
            if (row.rank1, row.rank2) == (ranks1[0], ranks2[0])
        }
        at = [f" at rank {rank}" if rank else "" for rank in (ranks1[0], ranks2[0])]
        labels = [f"layer of model {number}{rank}" for number, rank in enumerate(at, start=1)]
    panels, below = _heat_maps(cells), describe(rows)
    if any(panel.marked for panel in panels.values()):
        below += " Red corners: positions or tokens are the samples, in all other cells images."
    maps(path, panels, row_label=labels[0], column_label=labels[1], title=title, caption=below)


def _heat_maps(cells: Mapping[tuple[str, str], SimilarityRow]) -> dict[str, HeatMap]:
    """Return panels of each measure over two axes, layers or ranks, in the order of the rows, and
    of its nulls."""
    firsts, seconds = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    marked = [place for place, row in cells.items() if row.alignment in BY_POSITION]
    if all(row.alignment in (*BY_POSITION, NO_ALIGNMENT) for row in cells.values()):
        marked = []  # all cells with a value have the same samples

    def matrix(column: str) -> Matrix:
        values = [
            [cells[first, second].values.get(column, math.nan) for second in seconds]
            for first in firsts
        ]
        return Matrix(firsts, seconds, values)

    columns = dict.fromkeys(column for row in cells.values() for column in row.values)
    panels: dict[str, HeatMap] = {}
    for metric in measures_in(columns):
        measure = measure_of(metric)
        if _is_repeated(metric, cells.values()):
            continue
        corners = marked if measure.of == SAMPLES else []
        if metric in columns:
            panels[measure.title] = HeatMap(
                matrix(metric), _scale(measure, matrix(metric)), marked=corners
            )
        for which, where in (("", ""), ("_within", " within classes")):
            if f"{metric}_calibrated{which}" in columns:
                calibrated = matrix(f"{metric}_calibrated{which}")
                panels[f"{measure.title}, calibrated{where}"] = HeatMap(calibrated, marked=corners)
    return panels


def _scale(measure: Measure, matrix: Matrix) -> tuple[float, float]:
    """Return the values of the darkest and the brightest colour.

    The values of a user's function may lie beyond those of unrelated and of equal layers.
    """
    if measure.of != ACTIVATIONS:
        return measure.unrelated, measure.equal
    values = [value for line in matrix.values for value in line if not math.isnan(value)]
    low = min(measure.unrelated, measure.equal, *values)
    high = max(measure.unrelated, measure.equal, *values)
    return (low, high) if measure.sign > 0 else (high, low)


def _is_repeated(metric: str, rows: Iterable[SimilarityRow]) -> bool:
    """Return whether a measure that comes with another equals it, as PWCCA where all directions
    have partners."""
    for other, measure in MEASURES.items():
        if metric in measure.companions and all(
            {metric, other} <= row.values.keys() for row in rows
        ):
            return all(
                math.isclose(row.values[metric], row.values[other], abs_tol=1e-6) for row in rows
            )
    return False


def _curves(rows: Sequence[SimilarityRow], side: int) -> dict[str, dict[str, dict[int, float]]]:
    """Return panels of curves over the ranks of one side, one for each pair of layers."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        rank, other = (row.rank1, row.rank2) if side == 1 else (row.rank2, row.rank1)
        label = f"{row.layer1} – {row.layer2}" + (
            f", rank {other} of model {3 - side}" if other else ""
        )
        for metric, value in row.measures.items():
            if rank is not None:  # full, whose number the rows do not say
                lines = panels.setdefault(measure_of(metric).similarity_title, {})
                lines.setdefault(label, {})[rank] = measure_of(metric).similarity(value)
    return panels


def describe(rows: Sequence[SimilarityRow]) -> str:
    """Return the text below a figure."""
    is_aligned = any(measure_of(name).of == SAMPLES for row in rows for name in row.measures)
    models = [
        network(common(rows, name), common(rows, f"{name}_type")) for name in ("model1", "model2")
    ]
    return caption(
        networks=pair_of_networks(models, sign="–"),
        data=short(common(rows, "dataset")),
        samples=common(rows, "alignment") if is_aligned else "",
        images=common(rows, "n_samples"),
    )
