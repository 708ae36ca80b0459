"""The report of a comparison: the tables of the paper's code that it prints, its CSV and its figure."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

from src.choices.similarity import MEASURES, measure_of
from src.figures.captions import on_data
from src.figures.check import draw_ranks
from src.figures.layers import draw_layers
from src.figures.shown import Shown, of_matrix, of_ranks
from src.ground.console import decimals, result, table
from src.tables.matrices import Matrix
from src.tables.similarity_rows import SimilarityRow, same_layers
from src.tables.tables import write_table
from src.values import (
    ALL_IMAGES,
    LARGEST,
    WITHIN_CLASSES,
    Rank,
    Similarity,
)

MAX_LINES = 10  # pairs of layers, of figures over ranks
Cells = Mapping[tuple[str, str], SimilarityRow]  # by two layers, or by two ranks


def is_matrix(rows: Sequence[SimilarityRow]) -> bool:
    """Return whether there are several pairs of layers, with one row a pair."""
    pairs = {(row.layer1, row.layer2) for row in rows}
    return 1 < len(pairs) == len(rows)


def print_matrices(rows: Sequence[SimilarityRow]) -> None:
    """Print a matrix over pairs of layers for each measure, and for its p-values where images were
    permuted; the rows are as in `is_matrix`."""
    cells = {(row.layer1, row.layer2): row for row in rows}
    for of_measure in matrices_of(cells).values():
        for title, matrix in of_measure.items():
            table(title, *matrix)
    for images in (ALL_IMAGES, WITHIN_CLASSES):
        for metric, similarity in rows[0].compared.values.items():
            if images in similarity.nulls:
                title = f"{measure_of(metric).title}, {_titled('p-value', images)}"
                table(title, *_matrix(cells, metric, images=images, part="p_value"))


def print_largest(rows: Sequence[SimilarityRow]) -> None:
    """Print the most similar pair of layers by each measure against the most similar pairs of
    permuted images; the rows are as in `is_matrix`."""
    for images, largest in LARGEST.items():
        lines = {}
        for metric in rows[0].compared.values:
            row = most_similar(rows, metric)
            similarity = row.compared.values[metric]
            null = similarity.nulls.get(largest)
            if null is not None:
                title = f"{measure_of(metric).title}: {row.layer1} – {row.layer2}"
                lines[title] = [similarity.value, *null]
        if lines:
            title = f"{_titled('most similar pair', images)}, against the most similar ones of permuted images"
            table(
                title,
                list(lines),
                ["value", "p-value", "95 % null", "calibrated"],
                [*lines.values()],
            )


def most_similar(rows: Sequence[SimilarityRow], metric: str) -> SimilarityRow:
    """Return the row with the most similar layers by a measure."""
    sign = measure_of(metric).sign

    def similarity(row: SimilarityRow) -> float:
        value = sign * row.compared.values[metric].value
        return -math.inf if math.isnan(value) else value

    return max(rows, key=similarity)


def print_tables(rows: Sequence[SimilarityRow], metrics: Sequence[str]) -> None:
    """Print the rows of one pair of layers as the public code does: a block for each rank of the
    first layer."""
    headings = {metric: measure_of(metric).heading for metric in metrics}
    for rank1 in dict.fromkeys(row.rank1 for row in rows):
        block = [row for row in rows if row.rank1 == rank1]
        first = block[0]
        lines = [f"{first.model1} -- {first.model2}", f"{first.layer1} -- {first.layer2}"]
        for metric, heading in headings.items():
            lines += [f"{heading}:", f"Model1 rank {rank1}:"]
            for row in block:
                similarity = row.compared.values[metric]
                text = f"{similarity.value}{_against_nulls(similarity)}"
                lines.append(f"\tModel2 rank {row.rank2}: {text}")
            lines.append("")
        result("\n".join([*lines, "", ""]))


def _against_nulls(similarity: Similarity) -> str:
    """Return the text that compares a value with its own nulls; empty if images were not permuted."""
    texts = []
    for images in (ALL_IMAGES, WITHIN_CLASSES):
        if images in similarity.nulls:
            null = similarity.nulls[images]
            text = f"p {null.p_value:.3g}, null {null.null_95:.4f}, calibrated {decimals(null.calibrated)}"
            if images == WITHIN_CLASSES:
                text = f"{images} {text}"
            texts.append(text)
    if not texts:
        return ""
    return f" ({'; '.join(texts)})"


def write_files(path: Path, rows: Sequence[SimilarityRow], *, title: str = "") -> None:
    """Write the CSV, one row for each pair of layers and ranks, and the figure of several rows.

    A full rank is empty, and an undefined value is `nan`.

    Args:
        title: of the figure.
    """
    write_table(path, SimilarityRow, rows)
    if len(rows) > 1:
        draw(path.with_suffix(".png"), rows, title=title)


def draw(path: Path, rows: Sequence[SimilarityRow], *, title: str = "") -> list[Path]:
    """Draw lines over the ranks of one side for few pairs of layers; else maps over both ranks of one
    pair, or over layers at the highest ranks. Return the written paths."""
    images = {(row.dataset, row.n_samples) for row in rows}
    source = on_data(len({row.network_keys for row in rows}), images)
    n_pairs = len({(row.layer1, row.layer2) for row in rows})
    ranks1 = {row.rank1 for row in rows}
    ranks2 = {row.rank2 for row in rows}
    has_one_side = min(len(ranks1), len(ranks2)) == 1 < max(len(ranks1), len(ranks2))
    if has_one_side and n_pairs <= MAX_LINES:
        lines = _over_ranks(rows, is_first=len(ranks1) > 1)
        return draw_ranks(path, lines, y_title="similarity", title=title, source=source)
    if n_pairs == 1 and len(ranks1) > 1:
        cells = {(_rank_title(row.rank1), _rank_title(row.rank2)): row for row in rows}
        axes = (f"{rows[0].layer1} of network 1", f"{rows[0].layer2} of network 2")
        framed: Collection[tuple[str, str]] = ()
    else:
        highest = (rows[0].rank1, rows[0].rank2)  # the highest ranks stand first
        at_highest = [row for row in rows if (row.rank1, row.rank2) == highest]
        cells = {(row.layer1, row.layer2): row for row in at_highest}
        axes = ("layer of network 1", "layer of network 2")
        framed = same_layers(at_highest)
    shown: list[Shown] = []
    for metric, of_measure in matrices_of(cells).items():
        for name, matrix in of_measure.items():
            quantity = metric if name == measure_of(metric).title else name
            shown += of_matrix(matrix, quantity, name, framed)
    return draw_layers(path, shown, axes=axes, title=title, source=source)


def _rank_title(rank: Rank) -> str:
    return "full rank" if rank is None else f"rank {rank}"


def _over_ranks(rows: Sequence[SimilarityRow], *, is_first: bool) -> list[Shown]:
    """Return the similarities over the ranks of the first or of the second layer, a line a measure;
    full rank has no place on the axis."""
    lines: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        rank, fixed = (row.rank1, row.rank2) if is_first else (row.rank2, row.rank1)
        if rank is None:
            continue
        panel = f"{row.layer1} and {row.layer2}"
        if fixed is not None:
            panel += f", the other at rank {fixed}"
        for metric, similarity in row.compared.values.items():
            measure = measure_of(metric)
            line = lines.setdefault(panel, {}).setdefault(measure.similarity_title, {})
            line[rank] = measure.similarity(similarity.value)
    return [row for panel, of_panel in lines.items() for row in of_ranks(of_panel, panel)]


def matrices_of(cells: Cells) -> dict[str, dict[str, Matrix]]:
    """Return the matrices of each measure, by its name: its values, and those against its nulls.

    Their keys are titles. Companions of a measure follow it, unless they repeat it. The axes keep the
    order of the rows.
    """
    metrics = dict.fromkeys(name for row in cells.values() for name in row.compared.values)
    with_companions = [(metric, *measure_of(metric).companions) for metric in metrics]
    matrices: dict[str, dict[str, Matrix]] = {}
    for metric in dict.fromkeys(chain.from_iterable(with_companions)):
        if metric not in metrics or _is_repeated(metric, cells.values()):
            continue
        title = measure_of(metric).title
        matrices[metric] = {title: _matrix(cells, metric)}
        for images in (ALL_IMAGES, WITHIN_CLASSES):
            if any(images in row.compared.values[metric].nulls for row in cells.values()):
                calibrated = _matrix(cells, metric, images=images, part="calibrated")
                matrices[metric][f"{title}, {_titled('calibrated', images)}"] = calibrated
    return matrices


def _titled(part: str, images: str) -> str:
    """Return the title of a number of a null, such as "p-value within classes"."""
    return f"{part} {images}" if images == WITHIN_CLASSES else part


def _matrix(cells: Cells, metric: str, *, images: str = "", part: str = "") -> Matrix:
    """Return the values of a measure.

    Args:
        images, part: return this number of the nulls of these images; NaN where a row has no null.
    """
    firsts = list(dict.fromkeys(first for first, _ in cells))
    seconds = list(dict.fromkeys(second for _, second in cells))
    values = []
    for first in firsts:
        similarities = [cells[first, second].compared.values[metric] for second in seconds]
        if part:
            nulls = [similarity.nulls.get(images) for similarity in similarities]
            values.append([getattr(null, part, math.nan) for null in nulls])
        else:
            values.append([similarity.value for similarity in similarities])
    return Matrix(firsts, seconds, values)


def _is_repeated(metric: str, rows: Collection[SimilarityRow]) -> bool:
    """Return whether a companion equals its measure, as PWCCA where all directions have
    partners."""
    for name, measure in MEASURES.items():
        if metric not in measure.companions:
            continue
        by_measure = [row.compared.values for row in rows]
        if all(name in values for values in by_measure):
            pairs = [(values[metric].value, values[name].value) for values in by_measure]
            return all(math.isclose(*pair, abs_tol=1e-6) for pair in pairs)
    return False
