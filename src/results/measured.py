"""Values of two layers of two networks: quantities of stitches, and similarities."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from src.choices.similarity import SAMPLES, measure_of
from src.results.folders import StitchingRun
from src.results.groups import Names, value_of
from src.results.named_networks import NamedNetwork
from src.results.network_names import OfTwoNetworks
from src.results.quantities import DETECTOR, QUANTITIES
from src.results.similarity_rows import SimilarityRow
from src.results.stitch_rows import StitchRow
from src.values import ComparedLayers, Null, Pair, Rank

SIMILARITY = "similarity"  # the method of measures without a stitch

NetworkPair = tuple[NamedNetwork, NamedNetwork]
Trainings = tuple[str, str]


class MeasuredLayer(NamedTuple):
    """A layer of a network."""

    network: NamedNetwork
    layer: str
    depth: int | None = None  # its place among the layers of the network; None: not recorded
    rank: Rank = None  # principal components that are kept
    weights: str | None = None  # of the network: the first digits of their SHA-256
    relative_depth: float | None = None  # the share of the blocks up to it; None: not recorded


class MeasuredValue(NamedTuple):
    """A value that was measured of two layers of two networks."""

    method: str  # of stitching, or `SIMILARITY`
    quantity: str  # a column of `QUANTITIES`, or a measure of similarity
    front: MeasuredLayer
    end: MeasuredLayer
    value: float  # may be NaN
    detector: str = ""  # that measures a quantity of a stitch
    nulls: Mapping[str, Null] = {}  # of a measure of similarity, see `Similarity`
    alignment: str = ""  # how a measure makes samples of activations; empty: it needs no samples
    dataset: str | None = None
    seed: int | None = None
    pinv_rank: Rank = None  # of the activations that a stitch was matched on
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
    def is_of_one_network(self) -> bool:
        """Whether both are one network, at one or two epochs of its training."""
        front, end = trainings_of(self.networks)
        return front == end


def trainings_of(networks: NetworkPair) -> Trainings:
    """Return the trainings of two networks."""
    front, end = networks
    return front.training, end.training


def named_pair(result: OfTwoNetworks, names: Names) -> NetworkPair:
    """Return both networks of a result by their names in reports."""
    first, second = result.network_keys
    return names[first], names[second]


def accuracy_of(row: StitchRow, method: str, networks: NetworkPair) -> MeasuredValue:
    """Return the accuracy of a stitch.

    Args:
        method: the name of its method.
    """
    front, end = stitched_layers(row, networks)
    return MeasuredValue(
        method,
        "accuracy",
        front,
        end,
        row.accuracy,
        dataset=row.dataset,
        seed=row.seed,
        pinv_rank=row.front_pinv_rank,
    )


def stitched_layers(row: StitchRow, networks: NetworkPair) -> tuple[MeasuredLayer, MeasuredLayer]:
    """Return both layers of a stitch."""
    front, end = networks
    return (
        MeasuredLayer(
            front,
            row.front_layer,
            row.front_depth,
            row.front_stitch_rank,
            row.front_weights,
            row.front_relative_depth,
        ),
        MeasuredLayer(
            end,
            row.end_layer,
            row.end_depth,
            weights=row.end_weights,
            relative_depth=row.end_relative_depth,
        ),
    )


def quantities_of(
    run: StitchingRun, method: str, networks: NetworkPair, quantities: Iterable[str]
) -> Iterator[MeasuredValue]:
    """Yield the quantities of a stitch, as far as they were measured.

    Args:
        method: the name of its method.
        quantities: columns of `QUANTITIES`. A quantity of detectors has a value for each detector.
    """
    accuracy = accuracy_of(run.row, method, networks)
    for name in quantities:
        for detector, value in _values_of(run, name).items():
            if value is not None:
                yield accuracy._replace(quantity=name, value=value, detector=detector)


def _values_of(run: StitchingRun, name: str) -> dict[str, float | None]:
    """Return the values of a quantity by detector; the key of a quantity of no detector is ""."""
    if QUANTITIES[name].measured_by != DETECTOR:
        return {"": value_of(run, name)}
    return {detector: getattr(evaluation, name) for detector, evaluation in run.evaluations.items()}


def similarities_of(row: SimilarityRow, networks: NetworkPair) -> Iterator[MeasuredValue]:
    """Yield the value of each measure, from the first layer to the second."""
    first, second = compared_layers(row, networks)
    return _similarities(row, row.compared, first, second)


def reversed_similarities_of(row: SimilarityRow, networks: NetworkPair) -> Iterator[MeasuredValue]:
    """Yield the value of each measure, from the second layer to the first."""
    first, second = compared_layers(row, networks)
    return _similarities(row, row.compared.turned, second, first)


def compared_layers(
    row: SimilarityRow, networks: NetworkPair
) -> tuple[MeasuredLayer, MeasuredLayer]:
    """Return both layers of a row of similarity."""
    first, second = networks
    return (
        MeasuredLayer(
            first,
            row.layer1,
            rank=row.rank1,
            weights=row.model1_weights,
            relative_depth=row.relative_depth1,
        ),
        MeasuredLayer(
            second,
            row.layer2,
            rank=row.rank2,
            weights=row.model2_weights,
            relative_depth=row.relative_depth2,
        ),
    )


def _similarities(
    row: SimilarityRow, compared: ComparedLayers, front: MeasuredLayer, end: MeasuredLayer
) -> Iterator[MeasuredValue]:
    for name, similarity in compared.values.items():
        alignment = ""
        if measure_of(name).of == SAMPLES:
            alignment = row.alignment
        yield MeasuredValue(
            SIMILARITY,
            name,
            front,
            end,
            similarity.value,
            nulls=similarity.nulls,
            alignment=alignment,
            dataset=row.dataset,
            seed=row.seed,
        )
