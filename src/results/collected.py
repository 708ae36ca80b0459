"""All results below a folder: stitches with their evaluations, and tables of similarity."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from src.choices.similarity import SIMILARITY
from src.results.evaluation import read_evaluated_stitches
from src.results.experiments import (
    options_beside_tables,
    told_apart,
    warn_of_earlier,
    warn_of_several,
)
from src.results.groups import Names
from src.results.named_networks import named_by_list, order_in
from src.results.similarity_rows import SimilarityRow
from src.results.stitches import Stitch, newest_stitches
from src.results.tables import read_table


class Collected(NamedTuple):
    """The results of many networks."""

    stitches: list[Stitch]  # with their evaluations; of repeated ones the newest
    similarities: list[SimilarityRow]
    names: Names  # of all networks


def collect(
    source_dirs: Iterable[Path],
    networks: str | Path | None,
    *,
    recursive: bool = True,
    tables: Iterable[Path] = (),
) -> Collected:
    """Read the results below folders; warn of results on different images, whose data sets have different
    names then.

    Args:
        networks: the list of networks; None: networks are named by their paths.
        recursive: read runs of all folders below, and tables of similarity.
        tables: further tables of similarity.
    """
    source_dirs = list(source_dirs)
    stitches = read_evaluated_stitches(source_dirs, recursive=recursive)
    paths = list(tables)
    if recursive:
        for source_dir in source_dirs:
            paths += tables_of_similarity(source_dir)
    similarities = read_similarities(list(dict.fromkeys(paths)))
    newest = newest_stitches(stitches)
    results: list[Any] = [*(stitch.row for stitch in newest), *similarities]
    warn_of_several(results)
    names = named_by_list(chain.from_iterable(row.networks for row in results), networks)
    told = told_apart(results)
    newest = [replace(stitch, row=row) for stitch, row in zip(newest, told, strict=False)]
    similarities = told[len(newest) :]
    if networks:
        order = order_in(names)
        newest.sort(key=lambda stitch: order(stitch.row))
        similarities.sort(key=order)
    return Collected(newest, similarities, names)


def tables_of_similarity(source_dir: Path) -> list[Path]:
    """Return the paths of all tables of similarity below a folder."""
    return sorted(source_dir.rglob(f"{SIMILARITY}/*.csv"))


def read_similarities(tables: Sequence[str | Path]) -> list[SimilarityRow]:
    """Return the rows of tables of similarity; warn of rows of weights that have changed since."""
    rows: list[SimilarityRow] = []
    for table in tables:
        rows += read_table(table, SimilarityRow)
    networks = chain.from_iterable(row.networks for row in rows)
    warn_of_earlier(networks, options_beside_tables(tables))
    return rows
