"""Curves along the diagonal: accuracy, validity and similarity of the same layer of two networks, over depth."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from src.ground_truth.bootstrap import draw_counts, interval, weighted_mean
from src.ground_truth.rows import DepthRow
from src.results.curves import Point, curves_over_layers
from src.results.experiments import CHECKPOINTS, method_names
from src.results.matrices import natural_order
from src.results.tables import write_table
from src.similarity.registry import MEASURES
from src.similarity.rows import SimilarityRow
from src.stitching.folders import StitchingRun

QUANTITIES = {
    "accuracy": lambda run: run.row.accuracy,
    "density ratio": lambda run: run.validity and run.validity.density_ratio,
    "recall ratio": lambda run: run.validity and run.validity.recall_ratio,
}
OF_MEASURES = {1: "similarity", -1: "distance"}  # by the sign of a measure

# By quantity, method or measure, and layer: the values of each pair of networks.
Cells = Mapping[tuple[str, str, str], Mapping[tuple[Hashable, Hashable], Sequence[float]]]


def depth_rows(runs: Sequence[StitchingRun], similarities: Sequence[SimilarityRow]) -> list[DepthRow]:
    """Return the means over pairs of two networks at each layer, with intervals of 95 % by a bootstrap over networks.

    Stitches of different layers, of a network with itself, and similarities at reduced ranks are left out. Networks are
    drawn whatever their group.
    """
    cells = _cells(runs, similarities)
    layers = natural_order(layer for *_, layer in cells)
    lines = dict.fromkeys((quantity, line) for quantity, line, _ in cells)
    return [_row(*line, layer, cells[(*line, layer)]) for line in lines for layer in layers if (*line, layer) in cells]


def write_depth(path: Path, rows: Sequence[DepthRow], *, figure: str = ".png", title: str = "") -> None:
    """Write the CSV, and beside it the figure: a panel a quantity, a line a method or measure."""
    write_table(path, DepthRow, rows)
    panels: dict[str, dict[str, dict[str, Point]]] = {}
    for row in rows:
        line = panels.setdefault(row.quantity, {}).setdefault(row.line, {})
        line[row.layer] = Point(row.value, row.low, row.high)
    n = max(row.n_networks for row in rows)
    bands = "bands: 95 % over networks" if any(not math.isnan(row.low) for row in rows) else "too few for intervals"
    texts = {"title": title, "caption": f"Means over pairs of {n} networks; {bands}."}
    curves_over_layers(path.with_suffix(figure), panels, **texts)


def _cells(runs: Sequence[StitchingRun], similarities: Sequence[SimilarityRow]) -> Cells:
    cells: dict = defaultdict(lambda: defaultdict(list))
    experiments = [run.row.experiment for run in runs]
    methods = method_names(experiments, apart_from=(*CHECKPOINTS, "seed"))
    for run, method in zip(runs, methods, strict=True):
        front, end = run.row.experiment.network_keys
        if run.row.pair.front_layer == run.row.pair.end_layer and front != end:
            for quantity, measure in QUANTITIES.items():
                value = measure(run)
                if value is not None and not math.isnan(value):
                    cells[quantity, method, run.row.pair.front_layer][front, end].append(value)
    for row in similarities:
        one, other = ((network.identity, network.type) for network in row.networks)
        if row.layer1 == row.layer2 and one != other and row.rank1 is None and row.rank2 is None:
            for measure, value in row.measures.items():
                if not math.isnan(value):
                    cells[OF_MEASURES[MEASURES[measure].sign], measure, row.layer1][one, other].append(value)
    return cells


def _row(quantity: str, line: str, layer: str, of_pairs: Mapping[tuple, Sequence[float]]) -> DepthRow:
    names = list(dict.fromkeys(chain.from_iterable(of_pairs)))
    first, second = np.array([[names.index(name) for name in pair] for pair in of_pairs]).T
    means = np.array([np.mean(values) for values in of_pairs.values()])
    counts = draw_counts(np.zeros(len(names)))
    resampled = weighted_mean(means, counts[:, first] * counts[:, second])
    return DepthRow(
        quantity, line, layer, float(weighted_mean(means)), *interval(resampled, counts), len(names), len(means)
    )
