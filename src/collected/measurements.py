"""One table of all measurements of pairs of layers, with the names and groups of the networks."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from src.collected.between_groups import LayerValue
from src.collected.groups import Names, value_of
from src.runs.folders import StitchingRun
from src.tables.experiments import NETWORKS, RANKS, method_names
from src.tables.network_names import NetworkKey
from src.tables.quantities import DETECTOR, QUANTITIES, STITCHING, VALIDITY, measured_by
from src.tables.similarity_rows import SimilarityRow

SIMILARITY = "similarity"  # the method of measures without a stitch


@dataclass(frozen=True)
class MeasurementRow:
    """A measurement of two layers of two networks: a row of the table of `misc/collect_results.py
    -r`."""

    contents: ClassVar[str] = "measurements"
    written_by: ClassVar[str] = "misc/collect_results.py -r"

    method: str  # of stitching, or "similarity"
    measure: str
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
    class_control: bool = False  # of a stitch from the class beside an untrained network


def measurement_rows(
    runs: Sequence[StitchingRun], similarities: Sequence[SimilarityRow], names: Names
) -> Iterator[MeasurementRow]:
    """Yield a row for each measured value; values of NaN are left out.

    Args:
        runs: with their evaluations.
        names: of all networks.
    """
    depths: dict[tuple[NetworkKey, str], int | None] = {}
    for run in runs:
        front_key, end_key = run.row.network_keys
        depths[front_key, run.row.front_layer] = run.row.front_depth
        depths[end_key, run.row.end_layer] = run.row.end_depth
    yield from _of_stitches(runs, names)
    for row in similarities:
        yield from _of_similarity(row, names, depths)


def _of_stitches(runs: Sequence[StitchingRun], names: Names) -> Iterator[MeasurementRow]:
    """Yield the rows of stitches."""
    apart_from = (*NETWORKS, *RANKS, "dataset", "seed", "class_control")
    methods = method_names([run.row for run in runs], apart_from=apart_from)
    for run, method in zip(runs, methods, strict=True):
        row = run.row
        front_key, end_key = row.network_keys
        front = names[front_key]
        end = names[end_key]
        for measure, value in _defined(_values_of(run)):
            yield MeasurementRow(
                method=method,
                measure=measure,
                front_network=front.name,
                front_group=front.group,
                end_network=end.name,
                end_group=end.group,
                front_layer=row.front_layer,
                front_depth=row.front_depth,
                end_layer=row.end_layer,
                end_depth=row.end_depth,
                front_rank=row.front_stitch_rank,
                end_rank=None,
                pinv_rank=row.front_pinv_rank,
                dataset=row.dataset,
                seed=row.seed,
                value=value,
                front_weights=row.front_weights,
                end_weights=row.end_weights,
                same_run=front.training == end.training,
                class_control=row.class_control,
            )


def _of_similarity(
    row: SimilarityRow, names: Names, depths: Mapping[tuple[NetworkKey, str], int | None]
) -> Iterator[MeasurementRow]:
    """Yield a row for each value of a row of similarity.

    Args:
        depths: of layers by network, as stitches record them.
    """
    first, second = row.networks
    named_first = names[first.key]
    named_second = names[second.key]
    for measure, value in _defined(row.values):
        yield MeasurementRow(
            method=SIMILARITY,
            measure=measure,
            front_network=named_first.name,
            front_group=named_first.group,
            end_network=named_second.name,
            end_group=named_second.group,
            front_layer=row.layer1,
            front_depth=depths.get((first.key, row.layer1)),
            end_layer=row.layer2,
            end_depth=depths.get((second.key, row.layer2)),
            front_rank=row.rank1,
            end_rank=row.rank2,
            pinv_rank=None,
            dataset=row.dataset,
            seed=row.seed,
            value=value,
            front_weights=row.model1_weights,
            end_weights=row.model2_weights,
            same_run=named_first.training == named_second.training,
        )


def _values_of(run: StitchingRun) -> dict[str, float | None]:
    """Return all quantities of a run by column; the name of the detector ends a detector's
    columns."""
    values = {name: value_of(run, name) for name in measured_by(STITCHING, VALIDITY)}
    for detector, evaluation in run.evaluations.items():
        for name in measured_by(DETECTOR):
            values[f"{name}_{detector}"] = getattr(evaluation, name)
    return values


def _defined(values: Mapping[str, float | None]) -> list[tuple[str, float]]:
    """Return the values that are neither None nor NaN, with their names."""
    return [
        (name, value)
        for name, value in values.items()
        if value is not None and not math.isnan(value)
    ]


def layer_values(
    rows: Iterable[MeasurementRow], similarities: Iterable[SimilarityRow], names: Names
) -> Iterator[LayerValue]:
    """Yield the values that groups of networks are compared by: at full rank, of independent
    trained networks.

    Measures of similarity count from either network to the other.
    """
    untrained = {network.name for network in names.values() if network.is_untrained}
    for row in rows:
        if row.class_control or untrained & {row.front_network, row.end_network}:
            continue
        quantity = QUANTITIES.get(row.measure)
        is_shown = quantity is not None and bool(quantity.shown_in)
        ranks = (row.front_rank, row.end_rank, row.pinv_rank)
        if row.method == SIMILARITY or not is_shown or row.same_run or any(ranks):
            continue
        yield LayerValue(
            f"{row.method}, {row.dataset}",
            row.measure,
            row.front_network,
            row.end_network,
            row.front_layer,
            row.end_layer,
            row.value,
        )
    for measured in similarities:
        first, second = (names[network.key] for network in measured.networks)
        if first.training == second.training or measured.rank1 or measured.rank2:
            continue
        if first.is_untrained or second.is_untrained:
            continue
        forth, back = measured.compared, measured.compared.turned
        for compared, front, end in ((forth, first, second), (back, second, first)):
            for measure, similarity in compared.values.items():
                yield LayerValue(
                    f"{SIMILARITY}, {measured.dataset}",
                    measure,
                    front.name,
                    end.name,
                    compared.layer1,
                    compared.layer2,
                    similarity.value,
                )
