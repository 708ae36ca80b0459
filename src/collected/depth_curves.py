"""Curves along the diagonal: accuracy, validity and similarity of the same layer of two networks,
over depth."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from src.choices.similarity import measure_of
from src.ground_truth.resampling import Estimate
from src.ground_truth.truth_rows import DepthRow
from src.network_names import NetworkKey
from src.results.captions import short
from src.results.curves import Point, curves
from src.results.matrices import by_depth, depths_of
from src.results.quantities import IN_CURVES, shown_in
from src.results.tables import write_table
from src.similarity.similarity_rows import SimilarityRow
from src.stitching.experiments import NETWORKS, method_names
from src.stitching.folders import StitchingRun
from src.verdict.groups import value_of

OF_MEASURES = {1: "similarity", -1: "distance"}  # by the sign of a measure

# By quantity, method or measure, groups of networks, and layer: the values of each pair of
# networks.
Cells = Mapping[tuple[str, str, str, str], Mapping[tuple[Hashable, Hashable], Sequence[float]]]


def depth_rows(
    runs: Sequence[StitchingRun],
    similarities: Sequence[SimilarityRow],
    *,
    groups: Mapping[NetworkKey, str] | None = None,
) -> list[DepthRow]:
    """Return the means over pairs of two networks at each layer, with intervals of 95 % over
    networks.

    Stitches of different layers, of a network with itself, and similarities at reduced ranks are
    left out.

    Args:
        groups: by the `listed_as` of a network; each pair of groups has a line of its own. Default: types.
    """
    cells = _cells(runs, similarities, groups or {})
    listed = {layer: i for i, layer in enumerate(dict.fromkeys(row.layer1 for row in similarities))}
    layers = by_depth(
        (layer for *_, layer in cells), depths_of([run.row for run in runs], "front", "end"), listed
    )
    lines = dict.fromkeys(key[:3] for key in cells)
    return [
        _row(*line, layer, cells[(*line, layer)])
        for line in lines
        for layer in layers
        if (*line, layer) in cells
    ]


def write_depth(
    path: Path, rows: Sequence[DepthRow], *, figure: str = ".png", title: str = ""
) -> None:
    """Write the CSV, and beside it the figure: a panel a quantity and method or measure, a line a
    pair of groups.

    With one pair of groups, a panel has a line for each method or measure.
    """
    write_table(path, DepthRow, rows)
    is_grouped = any(row.networks for row in rows)
    panels: dict[str, dict[str, dict[str, Point]]] = {}
    for row in rows:
        panel, line = (
            (f"{row.quantity}: {row.line}", row.networks)
            if is_grouped
            else (row.quantity, row.line)
        )
        points = panels.setdefault(panel, {}).setdefault(line, {})
        points[row.layer] = Point(row.value, row.low, row.high)
    n = max(row.n_networks for row in rows)
    bands = (
        "bands: 95 % over networks"
        if any(not math.isnan(row.low) for row in rows)
        else "too few for intervals"
    )
    texts = {"title": title, "caption": f"Means over pairs of {n} networks; {bands}."}
    layers = list(dict.fromkeys(row.layer for row in rows))  # the rows are in their order
    curves(
        path.with_suffix(figure),
        panels,
        x_label="layer of both networks",
        layers=layers,
        is_shared=False,
        **texts,
    )


def _cells(
    runs: Sequence[StitchingRun],
    similarities: Sequence[SimilarityRow],
    groups: Mapping[NetworkKey, str],
) -> Cells:
    methods = method_names([run.row for run in runs], apart_from=(*NETWORKS, "seed"))
    measured = []  # networks, layers, quantity, line, value
    for run, method in zip(runs, methods, strict=True):
        for name, quantity in shown_in(IN_CURVES).items():
            measured.append(
                (run.row.networks, run.row.pair, quantity.title, method, value_of(run, name))
            )
    for row in similarities:
        back = row.turned.measures
        for name, value in row.measures.items() if row.rank1 is row.rank2 is None else ():
            quantity = OF_MEASURES[measure_of(name).sign]
            measured.append(
                (row.networks, (row.layer1, row.layer2), quantity, name, (value + back[name]) / 2)
            )
    cells: dict = defaultdict(lambda: defaultdict(list))
    for networks, (layer, other), quantity, line, value in measured:
        keys = tuple(network.key for network in networks)
        if layer == other and keys[0] != keys[1] and value is not None and not math.isnan(value):
            title = " → ".join(
                groups.get(network.listed_as, short(network.type)) for network in networks
            )
            cells[quantity, line, title, layer][keys].append(value)
    if len({title for _, _, title, _ in cells}) == 1:
        return {
            (quantity, line, "", layer): values
            for (quantity, line, _, layer), values in cells.items()
        }
    return cells


def _row(
    quantity: str, line: str, networks: str, layer: str, of_pairs: Mapping[tuple, Sequence[float]]
) -> DepthRow:
    networks_of = list(dict.fromkeys(chain.from_iterable(of_pairs)))
    means = np.array([np.mean(values) for values in of_pairs.values()])
    has = np.array(
        [[name in pair for pair in of_pairs] for name in networks_of]
    )  # (networks, pairs)
    without_network, without_pair = (
        np.array([means[keep].mean() if keep.any() else np.nan for keep in kept])
        for kept in (~has, ~np.eye(len(means), dtype=bool))
    )
    estimate = Estimate(
        float(means.mean()), without_network, without_pair, np.zeros(len(networks_of))
    )
    return DepthRow(
        quantity,
        line,
        layer,
        estimate.value,
        *estimate.interval(),
        len(networks_of),
        len(means),
        networks,
    )
