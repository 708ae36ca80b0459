"""Prints and draws the similarity of layers, in the format of the paper's code.

A frame has the columns of the table of `exec_compute_low_rank_sim_metrics.py`, a row for each pair of layers
and ranks.
"""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from src.core.choices.similarity import measure_of
from src.core.console import decimals, result, table
from src.figures.curves import draw_ranks
from src.figures.maps import Map, closest, draw_layers, print_values
from src.figures.pages import on_data
from src.results.network_names import architecture, pairs_in_words

LAYERS = ["layer1", "layer2"]
SIDES = ("layer of network 1", "layer of network 2")
RANKS = ["rank1", "rank2"]
FULL = "full rank"
MAX_LINES = 10  # pairs of layers, of figures over ranks
WITHIN = {"": "", "_within": " within classes"}  # in titles, by the end of a column
PARTS = {"p_value": "p-value", "null_95": "95 % null", "calibrated": "calibrated"}  # of nulls


def is_matrix(frame: pd.DataFrame) -> bool:
    """Return whether there are several pairs of layers with a single row each."""
    return len(frame) > 1 and not frame.duplicated(LAYERS).any()


def print_matrices(frame: pd.DataFrame, measures: Sequence[str]) -> None:
    """Print a matrix over pairs of layers for each measure, and with permutations of the images its calibrated
    values and p-values; the frame is as in `is_matrix`."""
    for name, title in titles_of(frame, measures, "calibrated", "p_value").items():
        print_values(title, _matrix(frame, name, LAYERS), axes=SIDES)


def print_largest(frame: pd.DataFrame, measures: Sequence[str]) -> None:
    """Print the most similar pair of layers by each measure, and the maximum under permutations of the images;
    the frame is as in `is_matrix`."""
    for ending, within in WITHIN.items():
        lines = {}
        for name in measures:
            columns = [f"{name}_{part}_largest{ending}" for part in PARTS]
            if columns[0] in frame:
                measure = measure_of(name)
                best = frame.loc[(measure.sign * frame[name]).fillna(-math.inf).idxmax()]
                title = f"{measure.title}: {best.layer1} – {best.layer2}"
                lines[title] = best[[name, *columns]].tolist()
        if lines:
            title = f"most similar pair{within}, against the most similar ones of permuted inputs"
            table(title, list(lines), ["value", *PARTS.values()], list(lines.values()))


def print_tables(frame: pd.DataFrame, measures: Sequence[str]) -> None:
    """Print the rows of one pair of layers in the format of the public code: a block for each rank of the first
    layer."""
    for rank1, block in frame.groupby("rank1", sort=False, dropna=False):
        first = block.iloc[0]
        lines = [f"{first.model1} -- {first.model2}", f"{first.layer1} -- {first.layer2}"]
        for name in measures:
            lines += [f"{measure_of(name).heading}:", f"Model1 rank {_rank(rank1)}:"]
            for _, row in block.iterrows():
                value = f"{row[name]}{_against_nulls(row, name)}"
                lines.append(f"\tModel2 rank {_rank(row.rank2)}: {value}")
            lines += ["", *map(str, block[name]), ""]
        result("\n".join([*lines, "", ""]))


def _rank(rank: float | None) -> int | None:
    """Return a rank as an integer; None for full rank, which is NaN in a numeric column."""
    return None if rank is None or math.isnan(rank) else int(rank)


def _against_nulls(row: Any, name: str) -> str:
    """Return the text that compares a value with its null distribution; empty without permutations."""
    texts = []
    for ending, within in WITHIN.items():
        if f"{name}_p_value{ending}" in row:
            p_value, null, calibrated = (row[f"{name}_{part}{ending}"] for part in PARTS)
            text = f"p {p_value:.3g}, null {null:.4f}, calibrated {decimals(calibrated)}"
            texts.append(f"{within} {text}".strip())
    return f" ({'; '.join(texts)})" if texts else ""


def draw(path: Path, frame: pd.DataFrame, measures: Sequence[str]) -> list[Path]:
    """Draw similarity as lines over the ranks of one layer for few pairs; else as maps over both ranks of one
    pair, or over layers at the highest ranks. Return the written paths."""
    images = set(frame[["dataset", "n_samples"]].itertuples(index=False, name=None))
    pairs = set(frame[["model1", "model2"]].itertuples(index=False, name=None))
    source = on_data(pairs_in_words(pairs), images)
    n_pairs = len(frame[LAYERS].drop_duplicates())
    n_ranks = [frame[name].nunique(dropna=False) for name in RANKS]
    if min(n_ranks) == 1 < max(n_ranks) and n_pairs <= MAX_LINES:
        lines = _over_ranks(frame, measures, *sorted(RANKS, reverse=n_ranks[0] == 1))
        return draw_ranks(path, lines, y_title="similarity", source=source)
    first = frame.iloc[0]
    if n_pairs == 1 and n_ranks[0] > 1:
        axes = (f"{first.layer1} of network 1", f"{first.layer2} of network 2")
        return draw_layers(path, _maps(frame, measures, RANKS), axes=axes, source=source)
    ranks = frame[RANKS].astype(float).fillna(0)  # of full rank
    highest = frame[ranks.eq(ranks.iloc[0]).all(axis=1)]
    maps = _maps(highest, measures, LAYERS)
    kinds = {architecture(first[f"model{n}"], first[f"model{n}_type"]) for n in (1, 2)}
    if len(kinds) == 1:
        framed = [(layer, layer) for layer in highest.layer1[highest.layer1 == highest.layer2]]
        maps = [item._replace(framed=framed) for item in maps]
    return draw_layers(path, maps, axes=SIDES, source=source)


def answer(frame: pd.DataFrame, measures: Sequence[str]) -> str:
    """Return the sentence on the closest layers by the first measure; the frame is as in `is_matrix`."""
    return closest(_maps(frame, measures, LAYERS)[0]).strip()


def _maps(frame: pd.DataFrame, measures: Sequence[str], columns: Sequence[str]) -> list[Map]:
    """Return a map for each measure, and for its calibrated values where inputs were permuted."""
    titles = titles_of(frame, measures, "calibrated")
    return [Map(name, _matrix(frame, name, columns), title) for name, title in titles.items()]


def _over_ranks(
    frame: pd.DataFrame, measures: Sequence[str], varied: str, fixed: str
) -> dict[str, dict[str, dict[int | None, float]]]:
    """Return the similarities over the ranks of the varied side, by pair of layers and measure."""
    panels: dict[str, dict[str, dict[int | None, float]]] = {}
    for (layer1, layer2, rank), rows in frame.groupby([*LAYERS, fixed], sort=False, dropna=False):
        title = " and ".join(dict.fromkeys([layer1, layer2]))
        if _rank(rank) is not None:
            title += f", the other at rank {_rank(rank)}"
        lines = panels.setdefault(title, {})
        for name in measures:
            measure = measure_of(name)
            similarities = map(measure.similarity, rows[name])
            ranks = map(_rank, rows[varied])
            lines[measure.similarity_title] = dict(zip(ranks, similarities, strict=True))
    return panels


def titles_of(frame: pd.DataFrame, measures: Sequence[str], *parts: str) -> dict[str, str]:
    """Return the titles of columns: of each measure, and of the named statistics of its null distribution."""
    titles = {}
    for measure in measures:
        titles[measure] = measure_of(measure).title
        for part, (ending, within) in product(parts, WITHIN.items()):
            titles[f"{measure}_{part}{ending}"] = f"{titles[measure]}, {PARTS[part]}{within}"
    return {name: title for name, title in titles.items() if name in frame}


def _matrix(frame: pd.DataFrame, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return the values of a column by layers or ranks, in the order of the rows."""
    labels = frame[columns]
    if columns == RANKS:
        labels = labels.map(lambda rank: f"rank {rank:.0f}", na_action="ignore").fillna(FULL)
    values = labels.assign(value=frame[name]).pivot(
        index=columns[0], columns=columns[1], values="value"
    )
    return values.reindex(index=labels[columns[0]].unique(), columns=labels[columns[1]].unique())
