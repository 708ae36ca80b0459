"""Detectors of the layers of an end network, loaded or fitted, and its training images as a reference for validity."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from src.choices.scores import SCORES
from src.errors import UserError
from src.images import ImageSpec
from src.models import Network
from src.ood.detectors import Detector, make_detector
from src.ood.networks import StitchedNetworks
from src.ood.pooling import ClassMeans, mean_over_positions
from src.ood.store import DetectorStore
from src.ood.validity import N_IMAGES, Validity
from src.results.matrices import natural_order

Batches = Iterable[tuple[Tensor, Tensor]]
Detectors = dict[str, dict[str, Detector]]  # by score and layer


class Reference:
    """The training images at one layer, which validity and corruptions are compared with."""

    def __init__(self) -> None:
        self.validity, self.means = Validity(), ClassMeans()

    def add(self, activations: Tensor, labels: Tensor) -> None:
        """Take in a batch of training images: activations, and labels (B,) from 0 on."""
        self.validity.add(activations)
        self.means.add(mean_over_positions(activations).double(), labels)

    def fit(self) -> None:
        """Get ready; raises ValueError where validity has too few training images, or none that vary."""
        self.validity.fit()


def make_detectors(
    names: Sequence[str],
    networks: StitchedNetworks,
    layers: Iterable[str],
    images: ImageSpec,
    *,
    store: DetectorStore,
    all_in_store: bool,
    with_validity: bool,
    training_batches: Callable[[int | None], Batches],
    id_data: str,
) -> tuple[Detectors, dict[str, Reference], list[str]]:
    """Load the trained detectors of layers of the end network, and fit the others.

    Args:
        names: of `SCORES`.
        images: that the network takes.
        all_in_store: load the trained detectors of all other layers, too.
        with_validity: measure validity even if no detector is fitted; otherwise if one is.
        training_batches: gives so many labelled training images (None: all), shuffled and not augmented; called if a
            detector is fitted or validity is measured.
        id_data: the name of these images.
    Returns:
        The detectors, without scores that have none; the reference of each layer, if training images were passed over;
        and for each that is missing the reason.
    """
    layers, missing = natural_order(layers), []
    fitted = [name for name in names if not SCORES[name].is_trained]
    detectors: Detectors = {name: {} for name in names}
    for name in set(names).difference(fitted):
        store.entries()  # a missing store is an error, a missing detector is not
        more = natural_order(set(store.layers(networks.end_name)).difference(layers)) if all_in_store else []
        device = next(networks.end.parameters()).device
        for layer in [*layers, *more]:
            try:
                detectors[name][layer] = store.load(networks.end_name, layer, images, device=device)
            except UserError as error:
                missing.append(str(error))
    for name in fitted:
        detectors[name] = {layer: make_detector(name) for layer in layers}
        for detector in detectors[name].values():
            detector.id_data = id_data
    references = {layer: Reference() for layer in layers} if fitted or with_validity else {}
    if references:
        take_in(networks.end, detectors, references, training_batches(None if fitted else N_IMAGES))
        for title, fits in {**{name: detectors[name] for name in fitted}, "validity": references}.items():
            missing += [f"no {title} for {layer}: {reason}" for layer, reason in fit_each(fits).items()]
    return {name: by_layer for name, by_layer in detectors.items() if by_layer}, references, missing


@torch.no_grad()
def take_in(network: Network, detectors: Detectors, references: Mapping[str, Reference], batches: Batches) -> None:
    """Show labelled training images to the references of layers, and to the detectors there, in one pass."""
    layers = list(references)
    for images, labels in batches:
        activations = network.activations(images, layers)
        for layer in layers:
            for taking in (references, *detectors.values()):
                if layer in taking:
                    taking[layer].add(activations[layer], labels)


def fit_each(by_layer: dict[str, Detector] | dict[str, Reference]) -> dict[str, ValueError]:
    """Fit what has taken in all training images; take out what cannot be fitted, and return why."""
    reasons = {}
    for layer, each in list(by_layer.items()):
        try:
            each.fit()
        except ValueError as error:
            reasons[layer] = error
            del by_layer[layer]
    return reasons
