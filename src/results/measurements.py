"""Single values that were measured of two layers of two networks, as tests over ranks take them."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from src.choices.similarity import SAMPLES, SIMILARITY, measure_of
from src.results.groups import Names
from src.results.named_networks import NamedNetwork
from src.results.network_names import OfTwoNetworks
from src.results.quantities import (
    DETECTOR,
    SKILL,
    STITCHING,
    measured_by,
)
from src.results.similarity_rows import SimilarityRow
from src.results.stitches import Stitch, StitchRow
from src.values import Pair, Rank

OF_STITCHES = measured_by(STITCHING, SKILL, DETECTOR)

NetworkPair = tuple[NamedNetwork, NamedNetwork]


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
