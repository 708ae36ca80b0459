"""Reads the tables of all pairs of networks (`misc/all_pairs.py`) into arrays by measure."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.choices.scores import SCORES
from src.console import warn
from src.errors import UserError
from src.ground_truth.scored_measures import PROBE, measures_of, similarities_of
from src.network_names import NetworkName
from src.ood.evaluation_rows import read_evaluations
from src.probing.probe_rows import ProbeRow
from src.results.matrices import by_depth, depths_of
from src.results.network_list import PROBES, SIMILARITY, TABLES, ListedNetwork, pair_name
from src.results.tables import read_table
from src.results.weights import counted, warn_of_newer
from src.similarity.similarity_rows import SimilarityRow
from src.stitching.folders import StitchingRun
from src.stitching.stitch_rows import StitchRow

Row = TypeVar("Row")
Cells = dict[
    str, dict[tuple, float]
]  # by measure; then by front and end network, front and end layer


class Tables(NamedTuple):
    """What was measured of all pairs of N networks and L layers."""

    layers: list[str]  # in the order of depth
    values: dict[
        str, NDArray
    ]  # by measure, (N, N, L, L): front and end network, front and end layer; higher is alike
    directed: frozenset[str]  # measures of stitches
    shortcut: float | None = None  # the option: test images had dots
    seed: int | None = None  # of fresh networks

    def into(self, measure: str, layer: str) -> NDArray:
        """Return the similarity (N, N) of front networks (rows) to end networks at a layer."""
        at = self.layers.index(layer)
        return self.values[measure][:, :, at, at]

    def alike(self, measure: str, layer: str) -> NDArray:
        """Return the similarity (N, N) of networks at a layer, the mean over both directions."""
        return (self.into(measure, layer) + self.into(measure, layer).T) / 2

    def of_layers(self, measure: str, first: int, second: int, layers: Sequence[str]) -> NDArray:
        """Return the similarity (L, L) of layers of two networks, the mean over both directions and
        networks."""
        at = np.ix_(*2 * [[self.layers.index(layer) for layer in layers]])
        forth, back = (
            self.values[measure][first, second][at],
            self.values[measure][second, first][at],
        )
        return (forth + forth.T + back + back.T) / 4


def read_tables(
    folder: Path, networks: Sequence[ListedNetwork], weights: Mapping[str, str] | None = None
) -> Tables:
    """Read `METHOD/A-B/`, `similarity/A-B.csv` and `probes/A.csv` of all networks; what is missing
    is NaN.

    Rows of earlier weights of a network are left out, with a warning.

    Args:
        weights: the SHA-256 of the weights of networks by their names in the list. Default: of those that are files.
    Raises:
        UserError: the folder has nothing of these networks, or a table is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give one that misc/all_pairs.py has written to")
    cells: Cells = defaultdict(dict)
    weights = weights or {}
    current = _CurrentRows(
        [network.named()._replace(weights=weights.get(network.name, "")) for network in networks]
    )
    similarities = _read_similarities(folder / SIMILARITY, networks, cells, current)
    probes = _read_probes(folder / PROBES, networks, cells, current)
    undirected = frozenset(cells)
    stitches = _read_stitches(folder, networks, cells, current)
    current.warn()
    if not cells:
        raise UserError(
            f"{folder} has no pair of the networks of this list; give what misc/all_pairs.py was given"
        )
    shortcuts = {row.shortcut for row in [*similarities, *probes, *stitches]}
    if len(shortcuts) > 1:
        raise UserError(
            f"{folder} has tables of images with dots (--shortcut) and of others; give one folder for each"
        )
    measured_layers = (
        layer for of_measure in cells.values() for key in of_measure for layer in key[2:]
    )
    # Rows of tables of similarity go through the layers in their order
    listed = {
        layer: place
        for place, layer in enumerate(dict.fromkeys(row.layer1 for row in similarities))
    }
    layers = by_depth(measured_layers, depths_of(stitches, "front", "end"), listed)
    places, values = {layer: i for i, layer in enumerate(layers)}, {}
    for name, of_measure in cells.items():
        values[name] = np.full(2 * (len(networks),) + 2 * (len(layers),), math.nan)
        for (first, second, layer1, layer2), value in of_measure.items():
            values[name][first, second, places[layer1], places[layer2]] = value
    return Tables(layers, values, frozenset(cells) - undirected, *shortcuts, current.seed)


class _CurrentRows:
    """Tells rows of networks as they are now from rows of earlier weights.

    Args:
        networks: of the list.
    """

    def __init__(self, networks: Sequence[NetworkName]):
        self.networks = networks
        self.seed: int | None = None  # of the fresh networks in rows
        self._earlier: Counter[str] = Counter()  # rows by network

    def of(self, rows: Iterable[Row], *places: int) -> list[Row]:
        """Return the rows that are of the networks at these places of the list as they are now."""
        current = []
        for row in rows:
            self.seed = next(
                (network.seed for network in row.networks if network.is_fresh), self.seed
            )
            pairs = zip(row.networks, (self.networks[place] for place in places), strict=True)
            earlier = {network.title for network, now in pairs if _is_earlier(network, now)}
            self._earlier.update(earlier)
            if not earlier:
                current.append(row)
        return current

    def warn(self) -> None:
        """Warn of the rows that were left out."""
        for title, n in self._earlier.items():
            warn(f"{counted(n, 'row')} of earlier weights of {title}, and left out")


def _is_earlier(network: NetworkName, now: NetworkName) -> bool:
    """Return whether a row is of other weights than a network has now, as far as both are known."""
    is_known = network.weights and not now.is_fresh and (now.weights or now.is_file)
    return bool(is_known) and network.identity != now.identity


def _pairs(
    folder: Path, networks: Sequence[ListedNetwork], ending: str = ""
) -> Iterator[tuple[int, int, Path]]:
    """Yield the ordered pairs of networks that have a folder, or a table with this ending."""
    for (i, front), (j, end) in permutations(enumerate(networks), 2):
        path = folder / f"{pair_name(front, end)}{ending}"
        if path.exists():
            yield i, j, path


def _read_similarities(
    folder: Path, networks: Sequence[ListedNetwork], cells: Cells, current: _CurrentRows
) -> list[SimilarityRow]:
    """Add the measures of similarity at full rank, both ways; return all rows."""
    rows = []
    for first, second, path in _pairs(folder, networks, ".csv"):
        of_pair = current.of(read_table(path, SimilarityRow), first, second)
        rows += of_pair
        for row in (row for row in of_pair if row.rank1 is row.rank2 is None):
            for key, way in (((first, second), row), ((second, first), row.turned)):
                for name, value in similarities_of(way).items():
                    cells[name][(*key, way.layer1, way.layer2)] = value
    if not all(row.is_both_ways for row in rows):
        warn(
            f"{folder}: PWCCA is not symmetric, and an earlier version measured it one way only, so its scores depend "
            "on the order of the list; remove this folder and let misc/all_pairs.py make it again"
        )
    return rows


def _read_stitches(
    folder: Path, networks: Sequence[ListedNetwork], cells: Cells, current: _CurrentRows
) -> list[StitchRow]:
    """Add the measures of stitches by each method; return all rows."""
    rows = []
    for method in sorted(
        path.name for path in folder.iterdir() if path.is_dir() and path.name not in TABLES
    ):
        for front, end, path in _pairs(folder / method, networks):
            runs = {run.row: run for run in _read_runs(path)}
            configs = [(run.folder / "config.txt", run.row.networks) for run in runs.values()]
            warn_of_newer((config, pair) for config, pair in configs if config.exists())
            for run in (runs[row] for row in current.of(runs, front, end)):
                rows.append(run.row)
                for name, value in measures_of(run).items():
                    cells[f"{method} {name}"][(front, end, *run.row.pair)] = value
    return rows


def _read_probes(
    folder: Path, networks: Sequence[ListedNetwork], cells: Cells, current: _CurrentRows
) -> list[ProbeRow]:
    """Add the negative differences of accuracies of the probes of two networks, at full rank;
    return all probes."""
    paths = [folder / f"{network.name}.csv" for network in networks]
    tables = {
        i: current.of(read_table(path, ProbeRow), i)
        for i, path in enumerate(paths)
        if path.exists()
    }
    probes = {
        (i, row.layer): row.accuracy
        for i, rows in tables.items()
        for row in rows
        if row.rank is None
    }
    for (i, layer1), (j, layer2) in permutations(probes, 2):
        if i != j:
            cells[PROBE][i, j, layer1, layer2] = -abs(probes[i, layer1] - probes[j, layer2])
    return [row for rows in tables.values() for row in rows]


def _read_runs(folder: Path) -> list[StitchingRun]:
    """Read the stitches of a pair from its tables; the newest of each pair of layers stands
    last."""
    table = folder / "grid.csv"
    rows = read_table(table, StitchRow) if table.exists() else []
    evaluations: dict[str, dict] = defaultdict(dict)
    for detector, evaluated in read_evaluations(folder, SCORES).items():
        for row in evaluated:
            evaluations[row.folder][detector] = row
    rows = sorted(rows, key=lambda row: row.folder)
    return [StitchingRun(folder / row.folder, {}, row, evaluations[row.folder]) for row in rows]
