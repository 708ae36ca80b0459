"""Reads the tables of all pairs of networks (`misc/all_pairs.py`) into arrays by measure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.choices.scores import SCORES
from src.errors import UserError
from src.ground_truth.measures import PROBE, VERDICT, VERDICT_VALUES, measures_of, similarities_of
from src.ood.evaluated import read_evaluations
from src.probing.rows import ProbeRow
from src.results.matrices import by_depth, depths_of
from src.results.network_list import PROBES, SIMILARITY, TABLES, ListedNetwork, pair_name
from src.results.tables import read_table
from src.similarity.report import read_similarities
from src.stitching.folders import StitchingRun
from src.stitching.rows import StitchRow
from src.verdict import Limits, judge
from src.verdict.groups import LABELS

LIMITS = Limits(tolerance=0.05)  # those of misc/verdict.py, with its other defaults


class Tables(NamedTuple):
    """What was measured of all pairs of N networks and L layers."""

    layers: list[str]  # in the order of depth
    values: dict[str, NDArray]  # by measure, (N, N, L, L): front and end network, front and end layer; higher is alike
    directed: frozenset[str]  # measures of stitches
    predictions: dict[int, dict[str, NDArray]]  # by network: its `classes` (n,) and the `labels` (n,)

    def alike(self, measure: str, layer: str) -> NDArray:
        """Return the similarity (N, N) of networks at a layer, the mean over both directions."""
        at = self.layers.index(layer)
        of_layer = self.values[measure][:, :, at, at]
        return (of_layer + of_layer.T) / 2

    def of_layers(self, measure: str, first: int, second: int, layers: Sequence[str]) -> NDArray:
        """Return the similarity (L, L) of layers of two networks, the mean over both directions and networks."""
        at = np.ix_(*2 * [[self.layers.index(layer) for layer in layers]])
        forth, back = self.values[measure][first, second][at], self.values[measure][second, first][at]
        return (forth + forth.T + back + back.T) / 4


def read_tables(folder: Path, networks: Sequence[ListedNetwork]) -> Tables:
    """Read `METHOD/A-B/`, `similarity/A-B.csv` and `probes/A.csv` of all networks; what is missing is NaN.

    Raises:
        UserError: the folder has nothing of these networks, or a table is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the one that misc/all_pairs.py has written to")
    cells: dict[str, dict[tuple, float]] = {}  # by measure; then by both networks and both layers
    stitches: list[StitchRow] = []
    listed: dict[str, int] = {}  # the place of each layer in tables of similarity, whose rows go through them in order
    predictions: dict[int, dict[str, NDArray]] = {}
    for first, second, path in _pairs(folder / SIMILARITY, networks, ".csv"):
        for row in read_similarities(path):
            listed.setdefault(row.layer1, len(listed))
            if row.rank1 is None and row.rank2 is None:
                for name, value in similarities_of(row).items():
                    found = cells.setdefault(name, {})
                    found[first, second, row.layer1, row.layer2] = found[second, first, row.layer2, row.layer1] = value
    methods = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in TABLES)
    if of_probes := dict(_differences_of_probes(folder / PROBES, networks)):
        cells[PROBE] = of_probes
    directed = set()
    for method in methods:
        for front, end, path in _pairs(folder / method, networks):
            runs = _read_runs(path)
            stitches += [run.row for run in runs]
            _keep_predictions(predictions, {"front": front, "end": end}, runs)
            for pair, values in _measure(runs):
                for name, value in values.items():
                    directed.add(f"{method} {name}")
                    cells.setdefault(f"{method} {name}", {})[(front, end, *pair)] = value
    if not cells:
        raise UserError(f"{folder} has no pair of the networks of this list; give what misc/all_pairs.py was given")
    found_layers = (layer for found in cells.values() for key in found for layer in key[2:])
    layers = by_depth(found_layers, depths_of(stitches, "front", "end"), listed)
    values = {name: _array(found, len(networks), layers) for name, found in cells.items()}
    return Tables(layers, values, frozenset(directed), predictions)


def _pairs(folder: Path, networks: Sequence[ListedNetwork], ending: str = "") -> Iterator[tuple[int, int, Path]]:
    """Yield the ordered pairs of networks that have a folder, or a table with this ending."""
    for i, front in enumerate(networks):
        for j, end in enumerate(networks):
            path = folder / f"{pair_name(front, end)}{ending}"
            if i != j and path.exists():
                yield i, j, path


def _differences_of_probes(
    folder: Path, networks: Sequence[ListedNetwork]
) -> Iterator[tuple[tuple[int, int, str, str], float]]:
    """Yield the negative differences of accuracies of the probes of two networks, at full rank."""
    paths = [folder / f"{network.name}.csv" for network in networks]
    probes = {
        (i, row.layer): row.accuracy
        for i, path in enumerate(paths)
        if path.exists()
        for row in read_table(path, ProbeRow)
        if row.rank is None
    }
    for (i, layer1), accuracy1 in probes.items():
        for (j, layer2), accuracy2 in probes.items():
            if i != j:
                yield (i, j, layer1, layer2), -abs(accuracy1 - accuracy2)


def _read_runs(folder: Path) -> list[StitchingRun]:
    """Read the stitches of a pair from its tables; the newest of each pair of layers stands last."""
    table = folder / "grid.csv"
    rows = read_table(table, StitchRow) if table.exists() else []
    evaluations: dict[str, dict] = {}
    for detector, evaluated in read_evaluations(folder, SCORES).items():
        for row in evaluated:
            evaluations.setdefault(row.folder, {})[detector] = row
    return [
        StitchingRun(folder / row.folder, {}, row, evaluations.get(row.folder, {}))
        for row in sorted(rows, key=lambda row: row.folder)
    ]


def _measure(runs: Sequence[StitchingRun]) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
    """Yield the measures of each pair of layers, and the verdict on it, which is tested with all of the pair.

    Label-only controls have a part in the verdicts alone.
    """
    rows = [row for row in judge(runs, limits=LIMITS) if row.control != LABELS]
    verdicts = {tuple(row.pair): VERDICT_VALUES.get(row.verdict, 0.5) for row in rows}
    for run in runs:
        if not run.row.control:
            pair = tuple(run.row.pair)
            yield pair, measures_of(run) | {VERDICT: verdicts[pair]}


def _keep_predictions(
    predictions: dict[int, dict[str, NDArray]], sides: Mapping[str, int], runs: Sequence[StitchingRun]
) -> None:
    """Keep the predicted classes of both networks, where no other pair has given them."""
    for side, network in sides.items():
        if network not in predictions and runs and runs[0].predictions:
            arrays = runs[0].predictions
            predictions[network] = {"classes": arrays[side], "labels": arrays["labels"]}


def _array(found: Mapping[tuple, float], n: int, layers: Sequence[str]) -> NDArray:
    values = np.full((n, n, len(layers), len(layers)), math.nan)
    at = {layer: i for i, layer in enumerate(layers)}
    for (front, end, front_layer, end_layer), value in found.items():
        values[front, end, at[front_layer], at[end_layer]] = value
    return values
