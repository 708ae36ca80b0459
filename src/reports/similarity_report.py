"""The report of a comparison: the tables of the paper's code that it prints, its CSV and its figure."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

from src.choices.similarity import ACTIVATIONS, MEASURES, SAMPLES, Measure, measure_of
from src.ground.console import decimals, result, table
from src.ground.curves import CurvePanel, curves
from src.ground.figures import joined
from src.reports.captions import common, headline
from src.reports.heat_maps import Labels, maps
from src.reports.map_panels import HeatMap
from src.tables.matrices import Matrix
from src.tables.network_names import networks_in_words
from src.tables.similarity_rows import SimilarityRow, same_layers
from src.tables.tables import write_table
from src.values import (
    ALL_IMAGES,
    BY_POSITION,
    LARGEST,
    NO_ALIGNMENT,
    WITHIN_CLASSES,
    Rank,
    Similarity,
)

ON_MEASURES = {  # sentences of captions, by measure
    "pwcca": "PWCCA distance (Morcos et al. 2018, in the form of Balogh and Jelasity 2025): 1 minus the mean of "
    "canonical correlations, weighted by what they hold of the first network's layer; the weights also count its "
    "directions without a partner in the second.",
    "pwcca_morcos": "PWCCA distance (Morcos), as published: with weights of the directions with a partner only.",
}
# In captions, by the name of a pool in an alignment
AVERAGED_OVER = {"average pool": "positions", "token mean": "tokens"}
MAX_CURVES = 10  # in one panel
ORDINALS = {1: "first", 2: "second"}
Cells = Mapping[tuple[str, str], SimilarityRow]  # by two layers, or by two ranks


def is_matrix(rows: Sequence[SimilarityRow]) -> bool:
    """Return whether there are several pairs of layers, with one row a pair."""
    pairs = {(row.layer1, row.layer2) for row in rows}
    return 1 < len(pairs) == len(rows)


def print_matrices(rows: Sequence[SimilarityRow]) -> None:
    """Print a matrix over pairs of layers for each measure, and for its p-values where images were
    permuted; the rows are as in `is_matrix`."""
    cells = {(row.layer1, row.layer2): row for row in rows}
    for title, panel in _heat_maps(cells).items():
        table(title, *panel.matrix)
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


def draw(path: Path, rows: Sequence[SimilarityRow], *, title: str = "") -> None:
    """Draw curves over the ranks of one side, or heat maps over both ranks or over layers.

    There are curves where one side alone has ranks, and the pairs of layers are few. There are heat
    maps over both ranks for one pair of layers, and over layers, at the highest ranks, for several.
    """
    caption = joined(describe(rows), definitions=_on_measures(rows))
    n_pairs = len({(row.layer1, row.layer2) for row in rows})
    n_ranks1 = len({row.rank1 for row in rows})
    n_ranks2 = len({row.rank2 for row in rows})
    has_one_side = min(n_ranks1, n_ranks2) == 1 < max(n_ranks1, n_ranks2)
    if has_one_side and n_pairs <= MAX_CURVES:
        side = 1 if n_ranks1 > 1 else 2
        curves(
            path,
            _curves(rows, side),
            x_label=f"retained rank of the {ORDINALS[side]} network (components)",
            title=title,
            caption=joined(
                caption,
                f"Layers of the {ORDINALS[side]} network keep so many principal components.",
            ),
        )
    elif n_pairs == 1 and n_ranks1 > 1:
        first = rows[0]
        cells = {(_rank_title(row.rank1), _rank_title(row.rank2)): row for row in rows}
        labels = Labels(f"rank of {first.layer1}, model 1", f"rank of {first.layer2}, model 2")
        _draw_maps(path, cells, labels, title=title, caption=caption)
    else:
        ranks = (rows[0].rank1, rows[0].rank2)  # the highest ranks stand first
        at_ranks = [row for row in rows if (row.rank1, row.rank2) == ranks]
        cells = {(row.layer1, row.layer2): row for row in at_ranks}
        titles = (_layer_title(1, ranks[0]), _layer_title(2, ranks[1]))
        labels = Labels(*titles, framed={"": same_layers(at_ranks)})
        _draw_maps(path, cells, labels, title=title, caption=caption)


def _rank_title(rank: Rank) -> str:
    return "full" if rank is None else str(rank)


def _layer_title(number: int, rank: Rank) -> str:
    """Return the label of an axis over the layers of a network at a rank."""
    title = f"{ORDINALS[number]} network"
    if rank is None:
        return title
    return f"{title} at rank {rank}"


def _draw_maps(path: Path, cells: Cells, labels: Labels, *, title: str, caption: str) -> None:
    """Draw a heat map of each measure over two axes."""
    panels = _heat_maps(cells)
    if any(panel.marked for panel in panels.values()):
        caption = joined(
            caption, "Red corners: positions or tokens are the samples, in all other cells images."
        )
    maps(path, {"": panels}, labels=labels, title=title, caption=caption)


def _heat_maps(cells: Cells) -> dict[str, HeatMap]:
    """Return a panel of each measure and of its nulls, by title. Companions of a measure follow it.
    The axes keep the order of the rows."""
    marked = [place for place, row in cells.items() if row.alignment in BY_POSITION]
    if all(row.alignment in (*BY_POSITION, NO_ALIGNMENT) for row in cells.values()):
        marked = []  # all cells with a value have the same samples
    metrics = dict.fromkeys(name for row in cells.values() for name in row.compared.values)
    with_companions = [(metric, *measure_of(metric).companions) for metric in metrics]
    panels: dict[str, HeatMap] = {}
    for metric in dict.fromkeys(chain.from_iterable(with_companions)):
        if metric not in metrics:
            continue
        measure = measure_of(metric)
        if _is_repeated(metric, cells.values()):
            continue
        corners = marked if measure.of == SAMPLES else []
        matrix = _matrix(cells, metric)
        ends = f"{measure.unrelated:g} for unrelated, {measure.equal:g} for equal layers"
        panels[measure.title] = HeatMap(
            matrix,
            _scale(measure, matrix),
            marked=corners,
            meaning="" if metric in ON_MEASURES else f"{measure.description}; {ends}",
        )
        for images in (ALL_IMAGES, WITHIN_CLASSES):
            if any(images in row.compared.values[metric].nulls for row in cells.values()):
                calibrated = _matrix(cells, metric, images=images, part="calibrated")
                title = f"{measure.title}, {_titled('calibrated', images)}"
                panels[title] = HeatMap(calibrated, marked=corners)
    return panels


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


def _scale(measure: Measure, matrix: Matrix) -> tuple[float, float]:
    """Return the values of the darkest and the brightest colour.

    Values of a user's function may lie beyond the values of unrelated and of equal layers.
    """
    if measure.of != ACTIVATIONS:
        return measure.unrelated, measure.equal
    values = [value for line in matrix.values for value in line if not math.isnan(value)]
    low = min(measure.unrelated, measure.equal, *values)
    high = max(measure.unrelated, measure.equal, *values)
    if measure.sign > 0:
        return low, high
    return high, low


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


def _curves(rows: Sequence[SimilarityRow], side: int) -> list[CurvePanel]:
    """Return a panel of each measure, with curves over the ranks of one side.

    There is a curve for each pair of layers and each fixed rank of the opposite side.
    """
    lines_of_measure: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        ranks = {1: row.rank1, 2: row.rank2}
        rank = ranks[side]
        fixed_rank = ranks[3 - side]
        if rank is None:  # full, and rows do not have its number
            continue
        label = f"{row.layer1} – {row.layer2}"
        if fixed_rank:
            label += f", rank {fixed_rank} of model {3 - side}"
        for metric, similarity in row.compared.values.items():
            measure = measure_of(metric)
            lines = lines_of_measure.setdefault(measure.similarity_title, {})
            lines.setdefault(label, {})[rank] = measure.similarity(similarity.value)
    return [CurvePanel(lines, title) for title, lines in lines_of_measure.items()]


def describe(rows: Sequence[SimilarityRow]) -> str:
    """Return the text below a figure."""
    is_aligned = any(measure_of(name).of == SAMPLES for row in rows for name in row.compared.values)
    samples = _samples_of(common(rows, "alignment")) if is_aligned else ""
    paths = [common(rows, "model1"), common(rows, "model2")]
    kinds = [common(rows, "model1_type"), common(rows, "model2_type")]
    text = headline(
        f"Similarity of layers of {networks_in_words(paths, kinds, sign='and')}".removesuffix(
            " of "
        ),
        data=common(rows, "dataset"),
        n_images=common(rows, "n_samples"),
    )
    if samples:
        text += f" Samples: {samples}."
    return text


def _on_measures(rows: Sequence[SimilarityRow]) -> str:
    """Return the sentences of the caption on measures that need one; "" if none does."""
    measures = dict.fromkeys(name for row in rows for name in row.compared.values)
    return " ".join(
        ON_MEASURES[name]
        for name in measures
        if name in ON_MEASURES and not _is_repeated(name, rows)
    )


def _samples_of(alignment: str) -> str:
    """Return an alignment of `features.alignment_of` in words."""
    if alignment in ("", NO_ALIGNMENT, *BY_POSITION):
        return alignment
    averaged_over = [
        AVERAGED_OVER[pool] for pool in alignment.split(" / ") if pool in AVERAGED_OVER
    ]
    if not averaged_over:
        return "images"
    return f"images, averaged over {' or '.join(averaged_over)}"
