"""Reads the tables of all pairs of networks, which `misc/all_pairs.py` writes, as arrays."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, permutations
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.ground.console import warn
from src.ground.errors import UserError
from src.ground.grouping import grouped
from src.ground_truth.outputs import baselines
from src.ground_truth.scored_measures import PROBE, is_scored, score_of, scored_as
from src.results.evaluations import with_evaluations
from src.results.folders import StitchingRun, one_of_each, read_runs
from src.results.image_records import refuse_several
from src.results.matrices import array_of, by_depth, depths_of
from src.results.measurements import (
    Measurement,
    NetworkLayer,
    at_full_rank,
    both_ways,
    quantities_of,
)
from src.results.named_networks import NamedNetwork
from src.results.network_list import PROBES, SIMILARITY, ListedNetwork, pair_name, stitches_name
from src.results.network_names import NetworkName
from src.results.probe_rows import ProbeRow
from src.results.run import STALE
from src.results.similarity_rows import SimilarityRow
from src.results.stitch_rows import StitchRow
from src.results.tables import read_table
from src.results.weights import (
    counted,
    readable_records,
    warn_of_earlier_code,
    warn_of_newer,
)

N_IMAGES = 1000  # that networks are compared on, unless tables say otherwise


class RowOfNetworks(Protocol):
    """A row of a table that names its networks."""

    @property
    def networks(self) -> Sequence[NetworkName]: ...


Row = TypeVar("Row", bound=RowOfNetworks)


class Tables(NamedTuple):
    """The measures of all pairs of N networks and all pairs of L layers."""

    layers: list[str]  # in the order of depth
    # By measure, (N, N, L, L): front network, end network, front layer, end layer; higher is more
    # similar, NaN is missing
    values: dict[str, NDArray]
    directed: frozenset[str]  # the measures of stitches
    families: Mapping[str, str] = {}  # by measure, see `ScoredMeasure`
    shortcut: float | None = None  # the option `--shortcut`: test images had dots
    seed: int | None = None  # of fresh networks
    test_images: str | None = None  # the first digits of their fingerprint; None: not recorded
    # Of measures of similarity: their option `--alignment`, and the number of images, the first ones
    alignment: str = "auto"
    n_images: int = N_IMAGES

    def with_baselines(self, numbers: NDArray) -> "Tables":
        """Return the tables with the values of the baselines as further measures.

        Args:
            numbers: (3, N, L), from `outputs.baseline_numbers`.
        """
        return self._replace(values=self.values | baselines(numbers))

    def pairs(self) -> list[tuple[int, int]]:
        """Return the places of the pairs of networks that have a value, the lower one first.

        Probes are measured of single networks, and count if there is nothing else.
        """
        names = self.values.keys() - {PROBE.name} or self.values.keys()
        values = np.array([self.values[name] for name in names])
        has_values = np.isfinite(values).any((0, 3, 4))  # (N, N)
        firsts, seconds = np.triu(has_values | has_values.T, 1).nonzero()
        return list(zip(firsts.tolist(), seconds.tolist(), strict=True))

    def into(self, measure: str, layer: str) -> NDArray:
        """Return the similarity of front networks (rows) to end networks at a layer, (N, N)."""
        place = self.layers.index(layer)
        return self.values[measure][:, :, place, place]

    def at_layer(self, measure: str, layer: str) -> NDArray:
        """Return the similarity of networks at a layer, (N, N), averaged over both directions."""
        directed = self.into(measure, layer)
        return (directed + directed.T) / 2

    def of_layers(self, measure: str, first: int, second: int, layers: Sequence[str]) -> NDArray:
        """Return the similarity of layers of two networks, (len(layers), len(layers)).

        It is averaged over both directions and over both roles of the networks.
        """
        places = np.array([self.layers.index(layer) for layer in layers])
        block = np.ix_(places, places)
        forth = self.values[measure][first, second][block]
        back = self.values[measure][second, first][block]
        return (forth + forth.T + back + back.T) / 4


def read_tables(
    folder: Path, networks: Sequence[ListedNetwork], weights: Mapping[str, str] | None = None
) -> Tables:
    """Read the tables of all pairs of N networks.

    Reads the stitches in `A to B/METHOD/`, and the tables `similarity/A-B.csv` and `probes/A.csv`.
    Missing values are NaN. Rows of earlier weights of a network are left out, with a warning.

    Args:
        weights: the SHA-256 of the weights, by name of the network. It may lack networks whose
            weights are in a file.
    Raises:
        UserError: the folder has no tables of these networks, a table is damaged, or the images of
            two tables differ.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give one that misc/all_pairs.py has written to")
    weights = weights or {}
    names = []
    for network in networks:
        weights_of_network = weights.get(network.name, "")
        names.append(network.named()._replace(weights=weights_of_network))

    current = _CurrentRows(names)
    similarities, rows = _read_similarities(folder / SIMILARITY, networks, current)
    probes, of_probes = _read_probes(folder / PROBES, networks, current)
    stitches, of_stitches = _read_stitches(folder, networks, current)
    rows += of_probes + of_stitches
    current.warn()
    warn_of_earlier_code(readable_records(folder.glob("**/*.config.txt")), kind="unit")
    if not rows:
        raise UserError(
            f"{folder} has no pair of the networks of this list; give the list that "
            "misc/all_pairs.py was given"
        )
    rows_of_tables: list[SimilarityRow | ProbeRow | StitchRow] = [*similarities, *probes, *stitches]
    shortcuts = {row.shortcut for row in rows_of_tables}
    if len(shortcuts) > 1:
        raise UserError(
            f"{folder} has tables of images with dots (--shortcut) and tables of images without; "
            "give one folder for each"
        )
    refuse_several(rows_of_tables, folder)
    test_images = {row.test_images for row in rows_of_tables if row.test_images}
    layers = _ordered_layers(rows, similarities, stitches)
    by_measure = grouped(rows, scored_as)
    network_names = [network.name for network in networks]
    tables = Tables(
        layers,
        {
            measure.name: _as_array(of_measure, network_names, layers)
            for measure, of_measure in by_measure.items()
        },
        directed=frozenset(measure.name for measure in by_measure if measure.is_directed),
        families={measure.name: measure.family for measure in by_measure},
        shortcut=shortcuts.pop(),
        seed=current.seed,
        test_images=min(test_images, default=None),
    )
    if not similarities:
        return tables
    row = similarities[0]
    return tables._replace(alignment=row.alignment_option, n_images=row.n_samples)


def _ordered_layers(
    rows: Iterable[Measurement],
    similarities: Sequence[SimilarityRow],
    stitches: Sequence[StitchRow],
) -> list[str]:
    """Return all layers that have values, in the order of depth.

    Stitches record depths. Otherwise the order is that of the rows of similarity.
    """
    rows_of_layers = dict.fromkeys(row.layer1 for row in similarities)
    places = {layer: place for place, layer in enumerate(rows_of_layers)}
    layers = chain.from_iterable(row.pair for row in rows)
    return by_depth(layers, depths_of(stitches, "front", "end"), places)


def _as_array(
    rows: Iterable[Measurement], networks: Sequence[str], layers: Sequence[str]
) -> NDArray:
    """Return the scores of a measure, (N, N, L, L); missing values are NaN."""
    scores = {}
    for row in rows:
        front, end = row.networks
        scores[(front.name, end.name, *row.pair)] = score_of(row)
    return array_of(scores, networks, networks, layers, layers)


class _CurrentRows:
    """Tells rows of the networks' current weights from rows of earlier weights.

    Args:
        networks: the networks of the list, with their current weights.
    """

    def __init__(self, networks: Sequence[NetworkName]):
        self.networks = networks
        self.seed: int | None = None  # of the fresh networks in rows
        self._n_earlier: Counter[str] = Counter()  # rows by network

    def select(self, rows: Iterable[Row], *numbers: int) -> list[Row]:
        """Return the rows of current weights.

        Args:
            numbers: of the networks of these rows in the list.
        """
        current = []
        networks = [self.networks[number] for number in numbers]
        for row in rows:
            titles = set()
            for network_of_row, network in zip(row.networks, networks, strict=True):
                if _is_earlier(network_of_row, network):
                    titles.add(network_of_row.title)
            self._n_earlier.update(titles)
            if not titles:
                current.append(row)
            fresh = [network for network in row.networks if network.is_fresh]
            if fresh:
                self.seed = fresh[0].seed
        return current

    def warn(self) -> None:
        """Warn of the rows that were left out."""
        for title, n in self._n_earlier.items():
            warn(f"{counted(n, 'row')} of earlier weights of {title}, and left out")


def _is_earlier(network_of_row: NetworkName, network: NetworkName) -> bool:
    """Return whether a row was made with earlier weights of a network; False if unknown."""
    if not network_of_row.weights or network.is_fresh:
        return False
    if not network.weights and not network.is_file:
        return False
    return network_of_row.identity != network.identity


def _pairs(folder: Path, networks: Sequence[ListedNetwork]) -> Iterator[tuple[int, int, Path]]:
    """Yield the ordered pairs of networks that have a table `A-B.csv` in a folder, with its path."""
    for (i, first), (j, second) in permutations(enumerate(networks), 2):
        path = folder / f"{pair_name(first, second)}.csv"
        if path.exists():
            yield i, j, path


def _named(network: ListedNetwork) -> NamedNetwork:
    """Return a network of the list in the form of measured values."""
    return NamedNetwork(network.name, network.group or "", training=network.name)


def _read_similarities(
    folder: Path, networks: Sequence[ListedNetwork], current: _CurrentRows
) -> tuple[list[SimilarityRow], list[Measurement]]:
    """Return all rows of similarity, and the values at full rank, in both directions."""
    tables: list[SimilarityRow] = []
    rows: list[Measurement] = []
    for first, second, path in _pairs(folder, networks):
        pair = (_named(networks[first]), _named(networks[second]))
        for row in current.select(read_table(path, SimilarityRow), first, second):
            tables.append(row)
            rows += at_full_rank(both_ways(row, pair))
    return tables, list(filter(is_scored, rows))


def _read_stitches(
    folder: Path, networks: Sequence[ListedNetwork], current: _CurrentRows
) -> tuple[list[StitchRow], list[Measurement]]:
    """Return all stitches, and what was measured of them, by method."""
    tables: list[StitchRow] = []
    rows: list[Measurement] = []
    for (i, front), (j, end) in permutations(enumerate(networks), 2):
        pair = (_named(front), _named(end))
        for path in sorted((folder / stitches_name(front, end)).glob("*")):
            if path.name.startswith(STALE) or not path.is_dir():
                continue
            runs = {run.row: run for run in _read_runs(path)}
            _warn_of_newer_checkpoints(runs.values())
            for row in current.select(runs, i, j):
                tables.append(row)
                rows += quantities_of(runs[row], path.name, pair)
    return tables, list(filter(is_scored, rows))


def _warn_of_newer_checkpoints(runs: Iterable[StitchingRun]) -> None:
    """Warn of runs that are older than a checkpoint, as far as their `config.txt` exists."""
    configs = [(run.folder / "config.txt", run.row.networks) for run in one_of_each(runs)]
    warn_of_newer((config, networks) for config, networks in configs if config.exists())


def _read_runs(folder: Path) -> list[StitchingRun]:
    """Read the stitches of a pair of networks; the newest stitch of two layers stands last."""
    runs, _ = read_runs(folder)
    return with_evaluations(runs)


def _read_probes(
    folder: Path, networks: Sequence[ListedNetwork], current: _CurrentRows
) -> tuple[list[ProbeRow], list[Measurement]]:
    """Return all probes, and the negative differences between the accuracies at full rank."""
    tables: list[ProbeRow] = []
    accuracies: dict[NetworkLayer, float] = {}
    for number, network in enumerate(networks):
        path = folder / f"{network.name}.csv"
        if path.exists():
            for row in current.select(read_table(path, ProbeRow), number):
                tables.append(row)
                if row.rank is None:
                    accuracies[NetworkLayer(_named(network), row.layer)] = row.accuracy
    rows = []
    for front, end in permutations(accuracies, 2):
        if front.network != end.network:
            similarity = -abs(accuracies[front] - accuracies[end])
            rows.append(Measurement(PROBE.name, PROBE.name, front, end, similarity))
    return tables, rows
