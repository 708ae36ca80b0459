"""The similarity of many networks, from their stored activations."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from src.choices.similarity import Measure, measures_of
from src.ground.cache import Cache
from src.ground.console import listed, progress, warn
from src.similarity.comparison import Comparison
from src.similarity.passes import Side, StoredActivations, take_statistics
from src.values import ComparedLayers

MAX_REASONS = 3  # in a warning


def similarities_of_pairs(
    networks: Mapping[str, Mapping[str, Tensor]],
    pairs: Collection[tuple[str, str]],
    metrics: Sequence[str],
    *,
    layers: Sequence[str],
    across_layers: Collection[str] = (),
    alignment: str = "auto",
    gigabytes: float | None = None,
) -> dict[str, NDArray]:
    """Measure the similarity of pairs of networks at layers of the same name, and warn of values
    that are not defined.

    Args:
        networks: N networks: activations (n, ...) of the same n images by layer, by name of the
            network.
        pairs: names of two networks each.
        metrics: names in `MEASURES`, or FILE.py:FUNCTION of a user's code, which is run.
        layers: L names; a network need not have all of these layers.
        across_layers: names of networks; of two of them, different layers are compared as well.
        alignment: see `features.alignment_of`.
        gigabytes: memory for features of networks that are compared again, see `Cache.of_device`.
    Returns:
        By measure, (N, N, L, L): similarities of a layer of one network to a layer of another one.
        Higher is more similar; NaN was not measured, or is not defined.
    Raises:
        UserError: a measure is unknown, or a user's code fails.
    """
    places = {name: place for place, name in enumerate(networks)}
    (n_images,) = {len(value) for of_network in networks.values() for value in of_network.values()}
    shape = (len(networks), len(networks), len(layers), len(layers))
    measures = measures_of(metrics)
    values = {name: np.full(shape, math.nan) for name in measures}
    undefined: dict[str, None] = {}  # reasons
    cache = Cache.of_device("cpu", gigabytes)
    for first, second in progress(pairs, "pairs of networks"):
        cache.begin_unit()
        common = [name for name in layers if name in networks[first] and name in networks[second]]
        blocks = [[name] for name in common]
        if first in across_layers and second in across_layers:
            blocks = [common]
        for block in blocks:
            statistics = take_statistics(
                Side(StoredActivations(networks[first]), block, title=first, key=first),
                Side(StoredActivations(networks[second]), block, title=second, key=second),
                batches=(),
                n_images=n_images,
                metrics=metrics,
                alignment=alignment,
                cache=cache,
            )
            comparison = Comparison(statistics, both_ways=True)
            for (compared,) in comparison.results():
                _enter(values, compared, measures, (places[first], places[second]), layers)
            for reason, names in comparison.undefined.items():
                undefined[f"{', '.join(names)}: {reason}"] = None
    if undefined:
        warn(f"not defined: {listed(undefined, n=MAX_REASONS)}")
    return values


def _enter(
    values: Mapping[str, NDArray],
    compared: ComparedLayers,
    measures: Mapping[str, Measure],
    networks: tuple[int, int],
    layers: Sequence[str],
) -> None:
    """Enter the similarities of two layers, both ways.

    Args:
        networks: places of the two networks.
    """
    first, second = networks
    layer1 = layers.index(compared.layer1)
    layer2 = layers.index(compared.layer2)
    for name, similarity in compared.values.items():
        values[name][first, second, layer1, layer2] = measures[name].sign * similarity.value
    for name, similarity in compared.swapped.values.items():
        values[name][second, first, layer2, layer1] = measures[name].sign * similarity.value
