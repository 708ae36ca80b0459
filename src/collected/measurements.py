"""One table of all measurements of pairs of layers, with the names and groups of the networks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from src.network_names import NetworkKey, NetworkName
from src.results.network_list import ListedNetwork
from src.results.quantities import DETECTOR, STITCHING, VALIDITY, measured_by
from src.similarity.similarity_rows import SimilarityRow
from src.stitching.experiments import NETWORKS, RANKS, method_names
from src.stitching.folders import StitchingRun
from src.verdict.groups import value_of

SIMILARITY = "similarity"  # the method of what is not stitched


class MeasurementRow(NamedTuple):
    """A measurement of two layers of two networks: a row of the table of `misc/collect_results.py
    -r`."""

    method: str  # of stitching, or "similarity"
    measure: str
    front_network: str  # the name in the list of networks, else the path
    front_group: str  # likewise, else the type
    end_network: str
    end_group: str
    front_layer: str
    front_depth: int | None  # None: no stitch says it
    end_layer: str
    end_depth: int | None
    front_rank: int | None  # None: full
    end_rank: int | None
    pinv_rank: int | None  # of the activations that a stitch was matched on
    dataset: str | None
    seed: int | None
    value: float
    front_weights: str | None = None  # the first digits of their SHA-256
    end_weights: str | None = None

    contents, written_by = "measurements", "misc/collect_results.py -r"


def measurement_rows(
    runs: Sequence[StitchingRun],
    similarities: Sequence[SimilarityRow],
    *,
    listed: Mapping[NetworkKey, ListedNetwork],
) -> Iterator[MeasurementRow]:
    """Yield a row for each value that was measured; those that are NaN are left out.

    Args:
        runs: with their evaluations.
        listed: the networks of a list by `listed_as`, which gives them names and groups.
    """
    methods = method_names(
        [run.row for run in runs], apart_from=(*NETWORKS, *RANKS, "dataset", "seed")
    )
    depths: dict[tuple[NetworkKey, str], int | None] = {}
    for run, method in zip(runs, methods, strict=True):
        row = run.row
        front, end = row.networks
        depths |= {
            (front.key, row.front_layer): row.front_depth,
            (end.key, row.end_layer): row.end_depth,
        }
        for measure, value in _known(_values_of(run)):
            yield MeasurementRow(
                method, measure, *_named(front, listed), *_named(end, listed), row.front_layer,
                row.front_depth, row.end_layer, row.end_depth, row.front_stitch_rank, None, row.front_pinv_rank,
                row.dataset, row.seed, value, row.front_weights, row.end_weights,
            )  # fmt: skip
    for row in similarities:
        first, second = row.networks
        for measure, value in _known(row.values):
            yield MeasurementRow(
                SIMILARITY, measure, *_named(first, listed), *_named(second, listed), row.layer1,
                depths.get((first.key, row.layer1)), row.layer2, depths.get((second.key, row.layer2)),
                row.rank1, row.rank2, None, row.dataset, row.seed, value, row.model1_weights, row.model2_weights,
            )  # fmt: skip


def _values_of(run: StitchingRun) -> dict[str, float | None]:
    """Return all quantities of a run by column; behind those of a detector stands its name."""
    values = {name: value_of(run, name) for name in measured_by(STITCHING, VALIDITY)}
    for detector, evaluation in run.evaluations.items():
        values |= {
            f"{name}_{detector}": getattr(evaluation, name) for name in measured_by(DETECTOR)
        }
    return values


def _known(values: Mapping[str, float | None]) -> list[tuple[str, float]]:
    return [
        (name, value)
        for name, value in values.items()
        if value is not None and not math.isnan(value)
    ]


def _named(network: NetworkName, listed: Mapping[NetworkKey, ListedNetwork]) -> tuple[str, str]:
    """Return the name and the group of a network."""
    found = listed.get(network.listed_as)
    if not found:
        return network.title, network.type
    return found.name, found.group or network.type
