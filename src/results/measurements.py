"""The table of measurements: a row for each value that was measured of two layers of two networks.

Groups of networks, curves over depth, best matches and tests over ranks are functions of these rows.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from src.choices.similarity import SAMPLES, Measure, measure_of
from src.results.experiments import method_names
from src.results.folders import Stitch
from src.results.groups import Names
from src.results.named_networks import NamedNetwork
from src.results.network_names import OfTwoNetworks
from src.results.quantities import (
    DETECTOR,
    QUANTITIES,
    SKILL,
    STITCHING,
    Quantity,
    measured_by,
)
from src.results.similarity_rows import SimilarityRow
from src.results.spec import NETWORKS, RANKS, told_apart
from src.results.stitch_rows import StitchRow
from src.values import Pair, Rank

SIMILARITY = "similarity"  # the method of measures without a stitch
OF_STITCHES = measured_by(STITCHING, SKILL, DETECTOR)
REPORTED = [name for name, quantity in OF_STITCHES.items() if quantity.shown_in]

# Columns of the table in a CSV
OF_SIDES = ("network", "group", "training", "weights", "layer", "depth", "relative_depth", "rank")
OF_VALUES = ("pinv_rank", "dataset", "n_images", "seed", "value", "low", "high")
COLUMNS = (
    "method",
    "measure",
    *(f"front_{name}" for name in OF_SIDES),
    *(f"end_{name}" for name in OF_SIDES),
    *OF_VALUES,
)

# Settings of stitches with columns of their own
IN_COLUMNS = (*NETWORKS, *RANKS, "dataset", "seed")

NetworkPair = tuple[NamedNetwork, NamedNetwork]
TrainingRuns = tuple[str, str]


class NetworkLayer(NamedTuple):
    """A layer of a network."""

    network: NamedNetwork
    layer: str
    depth: int | None = None  # its place among the layers of the network; None: not recorded
    rank: Rank = None  # principal components that are kept
    weights: str | None = None  # of the network: the first digits of their SHA-256
    relative_depth: float | None = None  # the share of the blocks up to it; None: not recorded


class Measurement(NamedTuple):
    """A value that was measured of two layers of two networks."""

    method: str  # of stitching, or `SIMILARITY`
    quantity: str  # a column of `QUANTITIES`, or a measure of similarity
    front: NetworkLayer
    end: NetworkLayer
    value: float  # may be NaN
    low: float | None = None  # of the interval of 95 %
    high: float | None = None
    # The detector of a quantity of a stitch; or what a value of similarity is set against the values
    # of permuted images by, such as "calibrated_within"; empty: the value itself
    part: str = ""
    n_images: int | None = None
    dataset: str | None = None
    seed: int | None = None
    pinv_rank: Rank = None  # of the activations that a stitch was matched on
    alignment: str = ""  # how a measure makes samples of activations; empty: it needs no samples
    # Where a report tells values of a quantity apart: networks, data and method as a text
    setting: str = ""

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front.layer, self.end.layer)

    @property
    def networks(self) -> NetworkPair:
        """The networks."""
        return self.front.network, self.end.network

    @property
    def training_runs(self) -> TrainingRuns:
        """The training runs of the networks; of a network at two epochs they are equal."""
        return self.front.network.training, self.end.network.training

    @property
    def groups(self) -> tuple[str, str]:
        """The groups of the networks."""
        return self.front.network.group, self.end.network.group

    @property
    def swapped(self) -> "Measurement":
        """The row with front and end exchanged."""
        return self._replace(front=self.end, end=self.front)

    @property
    def record(self) -> dict[str, object]:
        """The row in a CSV, by column."""
        measure = self.quantity
        if self.part:
            measure += f"_{self.part}"
        record: dict[str, object] = {"method": self.method, "measure": measure}
        for side in ("front", "end"):
            place: NetworkLayer = getattr(self, side)
            values = place.network._asdict() | place._asdict() | {"network": place.network.name}
            record |= {f"{side}_{name}": values[name] for name in OF_SIDES}
        return record | {name: getattr(self, name) for name in OF_VALUES}


def described(method: str, quantity: str) -> Quantity | Measure:
    """Return the title and the scale of a quantity of stitches, or of a measure of similarity."""
    if method == SIMILARITY:
        return measure_of(quantity)
    return QUANTITIES[quantity]


def measurements_of(
    stitches: Sequence[Stitch],
    similarities: Sequence[SimilarityRow],
    names: Names,
    *,
    apart_from: Sequence[str] = IN_COLUMNS,
) -> list[Measurement]:
    """Return all measurements; similarities stand in both directions. Different images of one data
    set have different names.

    Args:
        stitches: with their evaluations.
        names: of all networks.
        apart_from: settings that do not tell methods of stitching apart.
    """
    results: list[Any] = [*(stitch.row for stitch in stitches), *similarities]
    told = told_apart(results)
    stitches = [replace(stitch, row=row) for stitch, row in zip(stitches, told, strict=False)]
    rows: list[Measurement] = []
    methods = method_names([stitch.row for stitch in stitches], apart_from=apart_from)
    for stitch, method in zip(stitches, methods, strict=True):
        rows += quantities_of(stitch, method, named_pair(stitch.row, names))
    depths = {place[:2]: place.depth for row in rows for place in (row.front, row.end)}
    for similarity in told[len(stitches) :]:
        for row in both_ways(similarity, named_pair(similarity, names)):
            front, end = (
                place._replace(depth=depths.get(place[:2])) for place in (row.front, row.end)
            )
            rows.append(row._replace(front=front, end=end))
    return rows


def named_pair(result: OfTwoNetworks, names: Names) -> NetworkPair:
    """Return both networks of a result by their names in reports."""
    first, second = result.network_keys
    return names[first], names[second]


def quantities_of(stitch: Stitch, method: str, networks: NetworkPair) -> Iterator[Measurement]:
    """Yield the measured quantities of a stitch, without undefined ones.

    Args:
        method: the name of its method.
    """
    row = stitch.row
    without_value = Measurement(
        method,
        "",
        *stitched_layers(row, networks),
        math.nan,
        n_images=row.n_images,
        dataset=row.dataset,
        seed=row.seed,
        pinv_rank=row.front_pinv_rank,
    )
    for name, quantity in OF_STITCHES.items():
        sources: dict[str, object] = {"": row}
        if quantity.measured_by == SKILL:
            sources = {"": stitch.skill}
        elif quantity.measured_by == DETECTOR:
            sources = dict(stitch.evaluations)
        for detector, source in sources.items():
            value = getattr(source, name, None)
            if value is not None and not math.isnan(value):
                low, high = (getattr(source, f"{name}_{end}", None) for end in ("low", "high"))
                yield without_value._replace(
                    quantity=name, value=value, low=low, high=high, part=detector
                )


def stitched_layers(row: StitchRow, networks: NetworkPair) -> tuple[NetworkLayer, NetworkLayer]:
    """Return both layers of a stitch."""
    front, end = networks
    return (
        NetworkLayer(
            front,
            row.front_layer,
            row.front_depth,
            row.front_stitch_rank,
            row.front_weights,
            row.front_relative_depth,
        ),
        NetworkLayer(
            end,
            row.end_layer,
            row.end_depth,
            weights=row.end_weights,
            relative_depth=row.end_relative_depth,
        ),
    )


def similarities_of(row: SimilarityRow, networks: NetworkPair) -> Iterator[Measurement]:
    """Yield the value of each measure from the first layer to the second, and the numbers of its
    nulls; values may be NaN."""
    first, second = networks
    layers = (
        NetworkLayer(first, row.layer1, None, row.rank1, row.model1_weights, row.relative_depth1),
        NetworkLayer(second, row.layer2, None, row.rank2, row.model2_weights, row.relative_depth2),
    )
    for column, value in row.numbers:
        if column.is_reversed:
            continue
        alignment = ""
        if measure_of(column.measure).of == SAMPLES:
            alignment = row.alignment
        yield Measurement(
            SIMILARITY,
            column.measure,
            *layers,
            value,
            part=column.name.removeprefix(column.measure).removeprefix("_"),
            n_images=row.n_samples,
            dataset=row.dataset,
            seed=row.seed,
            alignment=alignment,
        )


def both_ways(row: SimilarityRow, networks: NetworkPair) -> Iterator[Measurement]:
    """Yield the values of measures in both directions; once, of a layer and itself."""
    yield from similarities_of(row, networks)
    first, second = networks
    if (first, row.layer1, row.rank1) != (second, row.layer2, row.rank2):
        yield from similarities_of(row.swapped, (second, first))


def at_full_rank(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return the rows of layers and of stitches that were cut to no rank."""
    return [row for row in rows if not any((row.front.rank, row.end.rank, row.pinv_rank))]


def between_networks(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return the rows by which networks are compared: values at full rank of two independent
    trained networks, of measures of similarity and of the quantities of stitches that reports
    show."""
    kept = []
    for row in at_full_rank(rows):
        has_untrained = any(network.is_untrained for network in row.networks)
        is_of_pair = not has_untrained and row.training_runs[0] != row.training_runs[1]
        is_reported = row.method == SIMILARITY or row.quantity in REPORTED
        if is_of_pair and is_reported and not row.part:
            kept.append(row)
    return kept
