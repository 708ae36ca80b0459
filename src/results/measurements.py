"""One table of all measurements of pairs of layers, with the names and groups of the networks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from src.results.experiments import method_names
from src.results.folders import StitchingRun
from src.results.groups import Names
from src.results.identity import NETWORKS, RANKS
from src.results.measured import (
    MeasuredValue,
    NetworkPair,
    named_pair,
    quantities_of,
    reversed_similarities_of,
    similarities_of,
)
from src.results.named_networks import NamedNetwork
from src.results.quantities import DETECTOR, SKILL, STITCHING, measured_by
from src.results.similarity_rows import SimilarityRow


@dataclass(frozen=True)
class MeasurementRow:
    """A measured value as a row of the table of `misc/collect_results.py -r`."""

    contents: ClassVar[str] = "measurements"
    written_by: ClassVar[str] = "misc/collect_results.py -r"

    method: str  # of stitching, or "similarity"
    measure: str  # the column of the table that the value is from; with the detector, if it has one
    front_network: str  # the name in the list of networks, else the path
    front_group: str  # the group in the list of networks, else the type
    end_network: str
    end_group: str
    front_layer: str
    front_depth: int | None  # None: no stitch records it
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
    same_run: bool | None = None  # one network, at one or two epochs of its training
    front_relative_depth: float | None = None  # the share of the blocks up to the layer
    end_relative_depth: float | None = None

    @classmethod
    def of(cls, value: MeasuredValue, measure: str) -> "MeasurementRow":
        """Return the row of a measured value."""
        front = value.front
        end = value.end
        return cls(
            method=value.method,
            measure=measure,
            front_network=front.network.name,
            front_group=front.network.group,
            end_network=end.network.name,
            end_group=end.network.group,
            front_layer=front.layer,
            front_depth=front.depth,
            end_layer=end.layer,
            end_depth=end.depth,
            front_rank=front.rank,
            end_rank=end.rank,
            pinv_rank=value.pinv_rank,
            dataset=value.dataset,
            seed=value.seed,
            value=value.value,
            front_weights=front.weights,
            end_weights=end.weights,
            same_run=value.is_of_one_network,
            front_relative_depth=front.relative_depth,
            end_relative_depth=end.relative_depth,
        )


def measurement_rows(
    runs: Sequence[StitchingRun], similarities: Sequence[SimilarityRow], names: Names
) -> Iterator[MeasurementRow]:
    """Yield a row for each measured value; values of NaN are left out.

    Args:
        runs: with their evaluations.
        names: of all networks.
    """
    for run, method in zip(runs, _methods(runs), strict=True):
        yield from _rows_of_run(run, method, named_pair(run.row, names))
    depths = {}
    for run in runs:
        front, end = named_pair(run.row, names)
        depths[front, run.row.front_layer] = run.row.front_depth
        depths[end, run.row.end_layer] = run.row.end_depth
    for row in similarities:
        yield from _rows_of_similarity(row, named_pair(row, names), depths)


def _rows_of_run(run: StitchingRun, method: str, networks: NetworkPair) -> Iterator[MeasurementRow]:
    """Yield the rows of a stitch; quantities of detectors come last, detector by detector."""
    values = list(quantities_of(run, method, networks, measured_by(STITCHING, SKILL)))
    of_detectors = list(quantities_of(run, method, networks, measured_by(DETECTOR)))
    for detector in run.evaluations:
        values += [value for value in of_detectors if value.detector == detector]
    for value in values:
        if not math.isnan(value.value):
            measure = value.quantity
            if value.detector:
                measure += f"_{value.detector}"
            yield MeasurementRow.of(value, measure)


def _rows_of_similarity(
    row: SimilarityRow, networks: NetworkPair, depths: Mapping[tuple[NamedNetwork, str], int | None]
) -> Iterator[MeasurementRow]:
    """Yield a row for each number in a row of similarity.

    Args:
        depths: of layers by network, as stitches record them.
    """
    value_of_measure = {}
    for value in similarities_of(row, networks):
        front, end = (
            layer._replace(depth=depths.get((layer.network, layer.layer)))
            for layer in (value.front, value.end)
        )
        value_of_measure[value.quantity] = value._replace(front=front, end=end)
    for column, number in row.numbers:
        if not math.isnan(number):
            value = value_of_measure[column.measure]._replace(value=number)
            yield MeasurementRow.of(value, column.name)


def _methods(runs: Sequence[StitchingRun]) -> list[str]:
    """Return the names of the methods of stitches; values name their networks and ranks."""
    apart_from = (*NETWORKS, *RANKS, "dataset", "seed")
    return method_names([run.row for run in runs], apart_from=apart_from)


def layer_values(
    runs: Sequence[StitchingRun], similarities: Sequence[SimilarityRow], names: Names
) -> Iterator[MeasuredValue]:
    """Yield the values that groups of networks are compared by.

    They are at full rank, of independent trained networks. The method of a value names the data.

    Measures of similarity count from either network to the other.

    Args:
        names: of all networks.
    """
    quantities = measured_by(STITCHING, SKILL)
    shown = [name for name, quantity in quantities.items() if quantity.shown_in]
    values: list[MeasuredValue] = []
    for run, method in zip(runs, _methods(runs), strict=True):
        for value in quantities_of(run, method, named_pair(run.row, names), shown):
            if not math.isnan(value.value):
                values.append(value)
    for row in similarities:
        networks = named_pair(row, names)
        values += similarities_of(row, networks)
        values += reversed_similarities_of(row, networks)
    for value in values:
        if _is_compared(value):
            yield value._replace(method=f"{value.method}, {value.dataset}")


def _is_compared(value: MeasuredValue) -> bool:
    """Return whether a value is at full rank, and of two independent trained networks."""
    has_untrained = any(network.is_untrained for network in value.networks)
    if has_untrained or value.is_of_one_network:
        return False
    return not any((value.front.rank, value.end.rank, value.pinv_rank))
