"""All results below a folder: stitches with their evaluations, and tables of similarity."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from src.results.changes import options_beside_tables, warn_of_earlier
from src.results.corresponding import Correspondence, correspondence_of
from src.results.evaluations import read_evaluated_stitches
from src.results.folders import Stitch, newest_stitches
from src.results.groups import Names
from src.results.identity import NETWORKS
from src.results.image_records import refuse_several, warn_of_several
from src.results.measurements import Measurement, measurements_of
from src.results.named_networks import named_by_list
from src.results.network_list import SIMILARITY
from src.results.probe_rows import ProbeRow
from src.results.similarity_rows import SimilarityRow
from src.results.tables import read_table


class Collected(NamedTuple):
    """The results of many networks on the same images."""

    stitches: list[Stitch]  # of repeated ones the newest
    similarities: list[SimilarityRow]
    rows: list[Measurement]  # of all of these; the names of methods tell ranks apart
    correspondence: Correspondence

    @property
    def images(self) -> set[tuple[str | None, int | None]]:
        """The names of the data and the numbers of images."""
        of_stitches = {(stitch.row.dataset, stitch.row.n_images) for stitch in self.stitches}
        return of_stitches or {(row.dataset, row.n_samples) for row in self.similarities}


def collect(source_dir: Path, networks: str | None) -> Collected:
    """Read the results below a folder.

    Args:
        networks: the list of networks; None: networks are named by their paths.
    Raises:
        UserError: similarities were measured on different images.
    """
    stitches = newest_stitches(read_evaluated_stitches([source_dir], recursive=True))
    similarities = read_similarities(tables_of_similarity(source_dir))
    refuse_several(similarities, source_dir)
    warn_of_several([*(stitch.row for stitch in stitches), *similarities])
    names = names_of(stitches, similarities, networks)
    rows = measurements_of(stitches, similarities, names, apart_from=(*NETWORKS, "seed"))
    return Collected(stitches, similarities, rows, correspondence_of(rows))


def tables_of_similarity(source_dir: Path) -> list[Path]:
    """Return the paths of all tables of similarity below a folder."""
    return sorted(source_dir.rglob(f"{SIMILARITY}/*.csv"))


def read_similarities(tables: Sequence[str | Path]) -> list[SimilarityRow]:
    """Return the rows of tables of similarity; warn of rows of weights that have changed since."""
    return _read(tables, SimilarityRow)


def read_probes(tables: Sequence[str | Path]) -> list[ProbeRow]:
    """Return the rows of tables of probes; warn of rows of weights that have changed since."""
    return _read(tables, ProbeRow)


def _read(tables: Sequence[str | Path], kind: type) -> list[Any]:
    rows: list[Any] = []
    for table in tables:
        rows += read_table(table, kind)
    networks = chain.from_iterable(row.networks for row in rows)
    warn_of_earlier(networks, options_beside_tables(tables))
    return rows


def names_of(
    stitches: Iterable[Stitch], similarities: Iterable[SimilarityRow], table: str | None
) -> Names:
    """Return the names and groups of all networks, from the list if there is one."""
    results = [*(stitch.row for stitch in stitches), *similarities]
    return named_by_list(chain.from_iterable(row.networks for row in results), table)
