"""The tables of the paper's code that a comparison prints, its CSV and its figure."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.choices.measures import GRAMS, MEASURES
from src.console import result
from src.results.captions import caption, common, network, pair_of_networks, short
from src.results.curves import curves
from src.results.heat_maps import HeatMap, maps
from src.results.matrices import Matrix
from src.results.tables import Rank, read_table, write_table
from src.similarity.rows import SimilarityRow

MAX_CURVES = 10  # in one panel


def print_tables(rows: Sequence[SimilarityRow], metrics: Sequence[str]) -> None:
    """Print the rows of one pair of layers the way the public code does, a block for each rank of the first layer."""
    for rank1 in dict.fromkeys(row.rank1 for row in rows):
        block = [row for row in rows if row.rank1 == rank1]
        result(f"{block[0].model1} -- {block[0].model2}\n{block[0].layer1} -- {block[0].layer2}")
        for metric in metrics:
            result(f"{MEASURES[metric].heading}:\nModel1 rank {rank1}:")
            for row in block:
                result(f"\tModel2 rank {row.rank2}: {row.values[metric]}{_against_null(row, metric)}")
            result()
        result("\n")


def _against_null(row: SimilarityRow, metric: str) -> str:
    texts = []
    for where, nulls in {"": row.nulls, "within classes ": row.nulls_within}.items():
        if null := nulls.get(metric):
            texts.append(f"{where}p {null.p_value:.3g}, null {null.null_95:.4f}, calibrated {null.calibrated:.4f}")
    return f" ({'; '.join(texts)})" if texts else ""


def write_files(path: Path, rows: Sequence[SimilarityRow], *, figure: str = ".png", title: str = "") -> None:
    """Write the CSV, one row for each pair of layers and ranks, and the figure (.png or .pdf) beside it.

    A full rank is empty; an undefined value is `nan`. There are columns of the measures that were asked for.
    """
    write_table(path, SimilarityRow, rows)
    draw(path.with_suffix(figure), rows, title=title)


def read_similarities(path: str | Path) -> list[SimilarityRow]:
    """Read the rows of a table of similarity.

    Raises:
        UserError: as for `read_table`.
    """
    return read_table(path, SimilarityRow)


def draw(path: Path, rows: Sequence[SimilarityRow], *, title: str = "") -> None:
    """Draw what varies: heat maps over layers or over both ranks, curves over the ranks of one side.

    Of several pairs of layers at several ranks there are curves for each pair when only one side has ranks and the
    pairs are few, and otherwise heat maps over the layers at the highest ranks.
    """
    pairs = list(dict.fromkeys((row.layer1, row.layer2) for row in rows))
    ranks1, ranks2 = list(dict.fromkeys(row.rank1 for row in rows)), list(dict.fromkeys(row.rank2 for row in rows))
    if min(len(ranks1), len(ranks2)) == 1 < max(len(ranks1), len(ranks2)) and len(pairs) <= MAX_CURVES:
        _draw_curves(path, rows, side=1 if len(ranks1) > 1 else 2, title=title)
    elif len(pairs) == 1 and len(ranks1) > 1:
        by_rank = {(_text(row.rank1), _text(row.rank2)): row for row in rows}
        _draw_maps(path, by_rank, "rank", f" of {pairs[0][0]}, model 1", f" of {pairs[0][1]}, model 2", title=title)
    else:
        highest = {(row.layer1, row.layer2): row for row in rows if (row.rank1, row.rank2) == (ranks1[0], ranks2[0])}
        suffix = [f" at rank {rank}" if rank else "" for rank in (ranks1[0], ranks2[0])]
        _draw_maps(path, highest, "layer", f" of model 1{suffix[0]}", f" of model 2{suffix[1]}", title=title)


def _draw_maps(
    path: Path,
    cells: Mapping[tuple[str, str], SimilarityRow],
    axis: str,
    suffix1: str,
    suffix2: str,
    *,
    title: str,
) -> None:
    """Draw heat maps of each measure over two axes, layers or ranks, in the order of the rows."""
    rows, firsts, seconds = list(cells.values()), *(list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    marked = [place for place, row in cells.items() if row.is_by_position]
    if not any(row.is_by_image for row in rows):  # all cells with a value have the same samples
        marked = []
    panels = {}
    of_others = {other: name for name, measure in MEASURES.items() for other in measure.companions}
    for metric, measure in MEASURES.items():
        if all(_equal(row.values.get(metric), row.values.get(of_others.get(metric))) for row in rows):
            continue  # as PWCCA in both forms where the first layer has no direction without a partner
        corners = [] if measure.of == GRAMS else marked
        if any(metric in row.values for row in rows):
            values = [[cells[f, s].values[metric] for s in seconds] for f in firsts]
            panels[measure.title] = HeatMap(Matrix(firsts, seconds, values), measure.scale, marked=corners)
        for field, addition in (("nulls", ""), ("nulls_within", " within classes")):
            if any(metric in getattr(row, field) for row in rows):
                nulls = [[getattr(cells[f, s], field).get(metric) for s in seconds] for f in firsts]
                values = [[null.calibrated if null else math.nan for null in line] for line in nulls]
                matrix = Matrix(firsts, seconds, values)
                panels[f"{measure.title}, calibrated{addition}"] = HeatMap(matrix, marked=corners)
    legend = " Red corners: positions or tokens are the samples, in all other cells images."
    below = describe(rows) + (legend if any(panel.marked for panel in panels.values()) else "")
    labels = {"row_label": axis + suffix1, "column_label": axis + suffix2, "title": title, "caption": below}
    maps(path, panels, **labels)


def _equal(one: float | None, other: float | None) -> bool:
    """Return whether two measured values are equal but for rounding."""
    return None not in (one, other) and math.isclose(one, other, abs_tol=1e-6)


def _text(rank: Rank) -> str:
    return "full" if rank is None else str(rank)


def describe(rows: Sequence[SimilarityRow]) -> str:
    """Return the text below a figure."""
    is_aligned = any(MEASURES[name].of != GRAMS for row in rows for name in row.measures)
    models = [network(common(rows, name), common(rows, f"{name}_type")) for name in ("model1", "model2")]
    return caption(
        networks=pair_of_networks(models, sign="–"),
        data=short(common(rows, "dataset")),
        samples=common(rows, "alignment") if is_aligned else "",
        images=common(rows, "n_samples"),
    )


def _draw_curves(path: Path, rows: Sequence[SimilarityRow], *, side: int, title: str) -> None:
    """Draw curves over the ranks of one side, one for each pair of layers."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        other = row.rank2 if side == 1 else row.rank1
        label = f"{row.layer1} – {row.layer2}" + (f", rank {other} of model {3 - side}" if other else "")
        for metric, value in row.measures.items():
            rank = row.rank1 if side == 1 else row.rank2
            if rank is None:  # full, whose number the rows do not say
                continue
            measure = MEASURES[metric]
            lines = panels.setdefault(measure.similarity_title, {})
            lines.setdefault(label, {})[rank] = measure.similarity(value)
    texts = {"x_label": f"rank of model {side}", "y_label": "similarity", "title": title, "caption": describe(rows)}
    curves(path, panels, **texts)
