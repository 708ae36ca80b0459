"""Reads the tables of all pairs of networks, which `misc/all_pairs.py` writes, as arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.ground.errors import UserError
from src.ground.files import read_csv, readable
from src.ground.grouping import grouped
from src.ground_truth.outputs import baselines
from src.ground_truth.scored_measures import PROBE, is_scored, score_of, scored_as
from src.results.collected import read_probes, read_similarities, tables_of_similarity
from src.results.evaluations import read_evaluated_stitches
from src.results.folders import Stitch
from src.results.groups import Names
from src.results.image_records import refuse_several
from src.results.matrices import array_of, by_depth
from src.results.measurements import (
    Measurement,
    NetworkLayer,
    at_full_rank,
    both_ways,
    named_pair,
    quantities_of,
)
from src.results.named_networks import NamedNetwork
from src.results.network_list import PROBES, ListedNetwork, as_listed
from src.results.network_names import NetworkKey, NetworkName
from src.results.probe_rows import ProbeRow
from src.results.similarity_rows import SimilarityRow
from src.results.stitch_rows import StitchRow

N_IMAGES = 1000  # that networks are compared on, unless tables say otherwise


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

    def pairs(self, networks: Sequence[str]) -> list[tuple[str, str]]:
        """Return the pairs of networks that have a value, the one listed first in front.

        Probes are measured of single networks, and count if there is nothing else.

        Args:
            networks: N names.
        """
        names = self.values.keys() - {PROBE.name} or self.values.keys()
        values = np.array([self.values[name] for name in names])
        has_values = np.isfinite(values).any((0, 3, 4))  # (N, N)
        pairs = np.argwhere(np.triu(has_values | has_values.T, 1))
        return [(networks[first], networks[second]) for first, second in pairs]

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


def read_truths(path: str, networks: Sequence[str], clean: Sequence[int]) -> dict[str, NDArray]:
    """Read a table of true similarities of networks, as differences (N, N): low for similar
    networks.

    Args:
        path: of a CSV with the columns front and end, the names of networks, and a column of numbers for each
            truth. Both directions are averaged.
        networks: N names; other networks in the table do not count.
        clean: the places of the networks whose pairs have to be there.
    Raises:
        UserError: the file is no such table, or lacks a pair.
    """
    with readable(path, "give a CSV with the columns front, end and a column for each truth"):
        rows = read_csv(path)
        cells: dict[str, dict[tuple[str, str], float]] = {}
        for row in rows:
            pair = row.pop("front"), row.pop("end")
            if pair[0] in networks and pair[1] in networks:
                for name, value in row.items():
                    cells.setdefault(name, {})[pair] = float(value)
    if not cells:
        raise UserError(
            f"{path} has no truth of these networks; give their names, and a column for each truth"
        )
    truths = {}
    for name, of_pairs in cells.items():
        shared = array_of(of_pairs, networks, networks)
        truths[name] = -(shared + shared.T) / 2
        of_clean = truths[name][np.ix_(clean, clean)]
        if np.isnan(of_clean[np.triu_indices(len(clean), 1)]).any():
            raise UserError(f"{path} lacks a pair of networks in the column {name}; give all pairs")
    return truths


def read_tables(
    folder: Path, networks: Sequence[ListedNetwork], weights: Mapping[str, str] | None = None
) -> Tables:
    """Read the tables of all pairs of N networks: stitches by folders METHOD, and the tables in
    `similarity/` and `probes/`.

    Missing values are NaN. Results of earlier weights of a network, and of other networks, are left
    out.

    Args:
        weights: the SHA-256 of the weights, by name of the network. It may lack networks whose
            weights are in a file.
    Raises:
        UserError: the folder has no tables of these networks, a table is damaged, or the images of
            two tables differ.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give one that misc/all_pairs.py has written to")
    stitches = {stitch.row: stitch for stitch in read_evaluated_stitches([folder], recursive=True)}
    similarities = read_similarities(tables_of_similarity(folder))
    probes = read_probes(sorted((folder / PROBES).glob("*.csv")))
    tables: list[SimilarityRow | ProbeRow | StitchRow] = [*similarities, *probes, *stitches]
    recorded = dict.fromkeys(chain.from_iterable(row.networks for row in tables))
    names = _names(recorded, as_listed(networks), weights or {})
    tables = [row for row in tables if all(network.key in names for network in row.networks)]
    rows = list(filter(is_scored, _rows(tables, stitches, names)))
    if not rows:
        raise UserError(
            f"{folder} has no pair of the networks of this list; give the list that "
            "misc/all_pairs.py was given"
        )
    shortcuts = {row.shortcut for row in tables}
    if len(shortcuts) > 1:
        raise UserError(
            f"{folder} has tables of images with dots (--shortcut) and tables of images without; "
            "give one folder for each"
        )
    refuse_several(tables, folder)

    # Arrays
    layers = _ordered_layers(rows, similarities)
    by_measure = grouped(rows, scored_as)
    test_images = {row.test_images for row in tables if row.test_images}
    seeds = [network.seed or 0 for network in recorded if network.is_fresh]
    network_names = [network.name for network in networks]
    arrays = Tables(
        layers,
        {
            measure.name: _as_array(of_measure, network_names, layers)
            for measure, of_measure in by_measure.items()
        },
        directed=frozenset(measure.name for measure in by_measure if measure.is_directed),
        families={measure.name: measure.family for measure in by_measure},
        shortcut=shortcuts.pop(),
        seed=max(seeds, default=None),
        test_images=min(test_images, default=None),
    )
    for row in tables:
        if isinstance(row, SimilarityRow):
            return arrays._replace(alignment=row.alignment_option, n_images=row.n_samples)
    return arrays


def _names(
    networks: Iterable[NetworkName],
    listed: Mapping[NetworkKey, ListedNetwork],
    weights: Mapping[str, str],
) -> dict[NetworkKey, NamedNetwork]:
    """Return the networks of tables that have the weights of a network of the list, by key."""
    names = {}
    for network in networks:
        line = listed.get(network.listed_as)
        if line:
            now = network
            if network.weights and not network.is_fresh:
                now = network._replace(weights=weights.get(line.name, network.weights))
            if now.identity == network.identity:
                names[network.key] = NamedNetwork(line.name, "", training=line.name)
    return names


def _rows(
    tables: Iterable[SimilarityRow | ProbeRow | StitchRow],
    stitches: Mapping[StitchRow, Stitch],
    names: Names,
) -> Iterator[Measurement]:
    """Yield the measurements at full rank; of probes the negative differences between accuracies."""
    accuracies: dict[NetworkLayer, float] = {}
    for row in tables:
        if isinstance(row, SimilarityRow):
            yield from at_full_rank(both_ways(row, named_pair(row, names)))
        elif isinstance(row, StitchRow):
            yield from quantities_of(
                stitches[row], stitches[row].folder.parent.name, named_pair(row, names)
            )
        elif row.rank is None:
            (network,) = row.networks
            accuracies[NetworkLayer(names[network.key], row.layer)] = row.accuracy
    for front, end in permutations(accuracies, 2):
        if front.network != end.network:
            similarity = -abs(accuracies[front] - accuracies[end])
            yield Measurement(PROBE.name, PROBE.name, front, end, similarity)


def _ordered_layers(
    rows: Sequence[Measurement], similarities: Iterable[SimilarityRow]
) -> list[str]:
    """Return all layers that have values, by the depths of stitches, or in the order of rows."""
    measured = list(chain.from_iterable((row.front, row.end) for row in rows))
    depths = {place.layer: place.depth for place in measured if place.depth is not None}
    rows_of_layers = dict.fromkeys(row.layer1 for row in similarities)
    places = {layer: place for place, layer in enumerate(rows_of_layers)}
    return by_depth((place.layer for place in measured), depths, places)


def _as_array(
    rows: Iterable[Measurement], networks: Sequence[str], layers: Sequence[str]
) -> NDArray:
    """Return the scores of a measure, (N, N, L, L); missing values are NaN."""
    scores = {}
    for row in rows:
        names = (row.front.network.name, row.end.network.name)
        scores[names + row.pair] = score_of(row)
    return array_of(scores, networks, networks, layers, layers)
