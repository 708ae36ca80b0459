"""All results below a folder: stitches with their evaluations, and tables of similarity."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from src.results.evaluations import read_evaluated_stitches
from src.results.folders import Stitch, newest_stitches
from src.results.groups import Names
from src.results.measurements import Measurement, measurements_of
from src.results.named_networks import named_by_list, order_in
from src.results.network_list import SIMILARITY
from src.results.network_names import NetworkKey
from src.results.similarity_rows import SimilarityRow
from src.results.spec import options_beside_tables, warn_of_earlier, warn_of_several
from src.results.tables import read_table


class Collected(NamedTuple):
    """The results of many networks."""

    stitches: list[Stitch]  # with their evaluations
    newest: list[Stitch]  # of repeated ones the newest
    similarities: list[SimilarityRow]
    names: Names  # of all networks

    @property
    def images(self) -> set[tuple[str | None, int | None]]:
        """The names of the data and the numbers of images."""
        of_stitches = {(stitch.row.dataset, stitch.row.n_images) for stitch in self.newest}
        return of_stitches or {(row.dataset, row.n_samples) for row in self.similarities}

    @property
    def pairs(self) -> set[tuple[NetworkKey, NetworkKey]]:
        """The pairs of networks."""
        of_stitches = {stitch.row.network_keys for stitch in self.newest}
        return of_stitches or {row.network_keys for row in self.similarities}

    def measurements(self, *, apart_from: Sequence[str]) -> list[Measurement]:
        """Return all that was measured; arguments as for `measurements_of`."""
        return measurements_of(self.newest, self.similarities, self.names, apart_from=apart_from)


def collect(source_dir: Path, networks: str | None, *, recursive: bool = True) -> Collected:
    """Read the results below a folder; warn of results on different images.

    Args:
        networks: the list of networks; None: networks are named by their paths.
        recursive: read runs of all folders below, and tables of similarity.
    """
    stitches = read_evaluated_stitches([source_dir], recursive=recursive)
    similarities = []
    if recursive:
        similarities = read_similarities(tables_of_similarity(source_dir))
    newest = newest_stitches(stitches)
    results: list[Any] = [*(stitch.row for stitch in newest), *similarities]
    warn_of_several(results)
    names = named_by_list(chain.from_iterable(row.networks for row in results), networks)
    if networks:
        order = order_in(names)
        newest.sort(key=lambda stitch: order(stitch.row))
        similarities.sort(key=order)
    return Collected(stitches, newest, similarities, names)


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
