"""Checks the arguments of `judge`, and converts them to networks, image sets and methods.

The functions return `Network` views, image sets with labels, methods and settings. All that a
caller can correct is a UserError here, or a warning.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.core.arguments import check_integer
from src.core.cache import Cache
from src.core.choices.stitching import Method
from src.core.console import warn
from src.core.errors import UserError, unknown_name
from src.core.inputs import shape_text
from src.core.precision import full_precision
from src.datasets.base import UNLABELLED, InputSet
from src.datasets.iterated import IteratedInputs, check_classes
from src.models import Network, inputs_of
from src.models.building import advice_on_positions, unwrapped
from src.models.determinism import nondeterminism_of, warn_of_probabilities
from src.ood.reference import N_IMAGES
from src.stitching.closed_forms import AnySolver, UserSolver, solver_name, solver_of
from src.stitching.objectives import objective_of
from src.stitching.training import BATCH_SIZE, Settings
from src.training.settings import checked_settings
from src.verdict import Limits
from src.verdict import judge as judge_stitches

MOST_FITTING_SAMPLES = 10_000  # training images of an iterable, unless a caller asks for more
MOST_KEPT = 2**30  # bytes of these images
MOST_MISSING = 0.1  # share of the classes that the first training images may lack
N_OF_SCALE = 256  # inputs whose mean and standard deviation are compared
OTHER_SCALE = 10  # times
# Tables take them for randomly initialised weights, and for those of a type
NOT_NAMES = ("-", "DEFAULT")

Images = Iterable | InputSet
LayerNames = str | Sequence[str]
LayersOfBoth = LayerNames | tuple[LayerNames, LayerNames] | None
Methods = str | UserSolver | Sequence[str | UserSolver]


class ChosenMethod(NamedTuple):
    """A method of stitching, with its solver and its training settings."""

    method: Method
    solver: AnySolver  # of direct matching, or the name of an objective
    settings: Settings  # of the training


class JudgedInputs(NamedTuple):
    """The image sets on which stitching layers are fitted and evaluated."""

    train: InputSet  # of an iterable, the first ones; its epochs have all
    test: InputSet
    n_fitting_samples: int | None  # None: by the rule of `match`
    trains: bool  # a method trains on them, so that they have labels


class JudgedNetworks(NamedTuple):
    """Two networks and the layers to stitch."""

    front: Network
    end: Network
    front_layers: list[str]
    end_layers: list[str]


# ---- Options


def methods_of(forms: Methods, training: Mapping[str, Any]) -> dict[str, ChosenMethod]:
    """Return the methods of stitching by name, with their settings.

    Args:
        training: options of the training, fields of `Settings`.
    Raises:
        UserError: a method or an option of training is invalid.
    """
    if not forms:
        raise UserError('forms is empty; give a method such as "covariance", or several')
    chosen: dict[str, ChosenMethod] = {}
    if isinstance(forms, str) or not isinstance(forms, Iterable):
        forms = [forms]
    for solver in forms:
        name = solver_name(solver)
        method = Method.of(solver) if isinstance(solver, str) else Method(name)
        if method.n_epochs:
            objective_of(method.name)
        else:
            solver_of(solver)
        if name in chosen and chosen[name].solver is not solver:
            raise UserError(
                f"two methods have the name {name}; give each function a __name__ of its own"
            )
        chosen[name] = ChosenMethod(method, solver, _settings(method.n_epochs, training))
    return chosen


def _settings(n_epochs: int, options: Mapping[str, Any]) -> Settings:
    """Return the settings of a training run, with the defaults of `exec_stitch.py`."""
    further = [name for name in Settings._fields if name != "n_epochs"]
    for name in options:
        if name not in further:
            raise unknown_name("option of training", name, further)
    return checked_settings(Settings(n_epochs, **{"batch_size": BATCH_SIZE, **options}))


def check_options(n_fitting_samples: int | None, limits: Limits, names: Sequence[str]) -> None:
    """Raise a UserError if the sample size, the limits or the names are invalid."""
    if n_fitting_samples is not None:
        check_integer(
            "n_fitting_samples", n_fitting_samples, at_least=1, otherwise=", or None for all"
        )
    if not isinstance(limits, Limits):
        raise UserError(f"limits is {limits!r}; give Limits(tolerance=0.05, skill=0.33)")
    try:
        judge_stitches([], limits=limits)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{limits} is out of range; give shares from 0 to 1, such as Limits(tolerance=0.05, skill=0.33)"
        ) from error
    are_two = isinstance(names, tuple | list) and len(set(names)) == len(names) == 2
    if not are_two or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(
            f"names is {names!r}; give a name for each network, (front, end), two different texts"
        )
    for name in names:
        if name in NOT_NAMES:
            raise UserError(
                f"names has {name!r}, which stands for weights without a checkpoint in tables; give another name"
            )


# ---- Networks and their layers


def views_of(front: nn.Module | Network, end: nn.Module | Network) -> tuple[Network, Network]:
    """Return a new view of each network, or one shared view of both; raise a UserError if they cannot be
    judged."""
    views = []
    for side, network in (("front", front), ("end", end)):
        if not isinstance(network, (nn.Module, Network)):
            raise UserError(
                f"{side} is a {type(network).__name__}; give a torch.nn.Module with its weights loaded, in evaluation "
                "mode"
            )
        if isinstance(network, nn.Module):
            network = unwrapped(network)
        if any(module.training for module in network.modules()):
            raise UserError(
                f"the {side} network is in training mode, where its outputs depend on the batch; "
                f"call {side}.eval() before"
            )
        if isinstance(network, Network):
            views.append(copy.copy(network))
        else:
            views.append(Network(network))
    of_front, of_end = [view.example for view in views]
    if (of_front.dtype, of_front.device) != (of_end.dtype, of_end.device):
        raise UserError(
            f"the front network is {of_front.dtype} on {of_front.device}, and the end network {of_end.dtype} on "
            f"{of_end.device}; move both to one type and device, such as front.to(torch.float32)"
        )
    cache = Cache.of_device(of_end.device)  # all methods fit to the same images
    front_view, end_view = [view.keeping(cache) for view in views]
    if front_view.module is end_view.module:
        return end_view, end_view
    return front_view, end_view


def _of_both(
    layers: LayersOfBoth,
) -> tuple[str, str]:
    """Return the layers of the front and of the end network, each as one comma-separated text."""
    if layers is None:
        layers = "all"
    if not isinstance(layers, tuple):
        layers = (layers, layers)
    if len(layers) != 2:
        raise UserError(
            f"layers is a tuple of {len(layers)}; a tuple is (front layers, end layers), a list names layers of both"
        )
    front, end = layers
    return _in_one_text(front), _in_one_text(end)


def _in_one_text(names: LayerNames) -> str:
    """Join names of layers to one comma-separated text."""
    if isinstance(names, str):
        return names
    is_listed = isinstance(names, Iterable) and not isinstance(names, Mapping)
    if not is_listed or not all(isinstance(name, str) for name in names):
        raise UserError(
            f'layers has {names!r}; give names or patterns, such as "layer*", or a list of them'
        )
    return ",".join(names)


def networks_of(
    front: Network, end: Network, images: JudgedInputs, layers: LayersOfBoth
) -> JudgedNetworks:
    """Configure views of both networks for the images; return the views with the named layers.

    Raises:
        UserError: a network cannot take the images, lacks the layers, or gives no logits for the labels.
    """
    layers_of_front, layers_of_end = _of_both(layers)
    test = images.test
    inputs = inputs_of(test.spec)
    for network in (front, end):
        network.image_shape = test.image_shape
        network.n_classes = None
        if inputs is not None:
            network.inputs = inputs
    with full_precision(end.example.device):
        end.n_classes = _n_classes(end)
        front.n_classes = end.n_classes
        _check_labels(images, end.n_classes)
        _check_front(front, end.n_classes)
        spec = test.spec._replace(n_classes=end.n_classes)
        for network, side in {front: "front", end: "end"}.items():
            network.nondeterminism = nondeterminism_of(network, spec)
            warn_of_probabilities(network, spec, title=f"the {side} network")
        front_layers = front.layers(layers_of_front)
        end_layers = end.layers(layers_of_end, of_end=True)
        shape = test.image_shape
        if front is end:
            end = end.channels_first([*front_layers, *end_layers], image_shape=shape)
            return JudgedNetworks(end, end, front_layers, end_layers)
        front = front.channels_first(front_layers, image_shape=shape)
        end = end.channels_first(end_layers, image_shape=shape)
        return JudgedNetworks(front, end, front_layers, end_layers)


def _check_labels(images: JudgedInputs, n_classes: int) -> None:
    """Raise a UserError if labels are not classes of the end network; training images may be unlabelled."""
    check_classes("test", images.test.labels, n_classes)
    if images.trains:
        known = images.train.labels[images.train.labels != UNLABELLED]
        check_classes("train", known, n_classes)
        if isinstance(images.train, IteratedInputs):
            images.train.n_classes = n_classes


def _n_classes(end: Network) -> int:
    """Return the number of classes of the end network; raise a UserError if its output is not logits."""
    output_shape = _output_shape(end, "end")
    if len(output_shape) != 1:
        shape = shape_text(output_shape) or "a single number"
        raise UserError(
            f"the end network gives {shape} an input; {advice_on_positions(output_shape)}it has to give logits "
            "(n_classes,)"
        )
    (n_classes,) = output_shape
    return n_classes


def _output_shape(network: Network, side: str) -> tuple[int, ...]:
    """Return the shape of the output for one image; raise a UserError if the network fails on the images."""
    try:
        return network.output_shape
    except UserError:
        raise
    except Exception as error:  # raised by the network's forward
        shape = ", ".join(map(str, network.image_shape or ()))
        raise UserError(f"{side} cannot take inputs (B, {shape}): {str(error)[:300]}") from error


def _check_front(front: Network, n_classes: int) -> None:
    """Warn if the output of the front network seems to be logits of more classes than the end network's, rather
    than features."""
    output_shape = _output_shape(front, "front")
    # The output of the last linear layer is taken for logits
    linear = [module for module in front.modules() if isinstance(module, nn.Linear)]
    gives_logits = bool(linear) and output_shape == (linear[-1].out_features,)
    if gives_logits and front.is_encoder:
        warn(
            f"the front network gives {output_shape[0]} outputs, and the end network {n_classes} classes: "
            "the front is taken for an encoder, without an accuracy of its own"
        )


# ---- Images


def images_of(
    train: Images,
    test: Images,
    like: Tensor,
    methods: Mapping[str, ChosenMethod],
    *,
    n_fitting_samples: int | None,
) -> JudgedInputs:
    """Return training and test images as image sets; raise a UserError if a method cannot use the images."""
    at_most = max(n_fitting_samples or MOST_FITTING_SAMPLES, N_IMAGES)
    train_set = _image_set(train, "train", like, at_most=at_most, most_kept=MOST_KEPT)
    test_set = _image_set(test, "test", like, in_one_order=True)
    if train_set.image_shape != test_set.image_shape:
        raise UserError(
            f"train gives inputs of {shape_text(train_set.image_shape)}, and test of "
            f"{shape_text(test_set.image_shape)}; give inputs of one shape"
        )
    if train_set.fingerprint == test_set.fingerprint:
        warn("train and test give the same inputs; test on others, as maps fit the inputs of train")
    _check_scales(train_set, test_set)
    if len(train_set) == at_most:
        _check_classes(train_set.labels, test_set.labels)

    trained = [name for name, chosen in methods.items() if chosen.method.n_epochs]
    if trained and (train_set.labels == UNLABELLED).all():
        raise UserError(
            f"{', '.join(trained)}: a training run needs labels; let train give (inputs, labels)"
        )
    return JudgedInputs(train_set, test_set, n_fitting_samples, bool(trained))


def _check_scales(train: InputSet, test: InputSet) -> None:
    """Raise a UserError if test and training inputs differ in scale, such as pixels up to 255 and up to 1,
    judging by the first inputs."""
    scales = []
    for images in (train, test):
        first = torch.arange(min(len(images), N_OF_SCALE))
        inputs = torch.cat(
            [batch.flatten() for batch, _ in images.batches(N_OF_SCALE, indices=first)]
        )
        if not inputs.is_floating_point():
            return
        std, mean = torch.std_mean(inputs.double(), correction=0)
        scales.append((mean.item(), std.item()))
    (mean1, std1), (mean2, std2) = scales
    low, high = sorted((std1, std2))
    if high > OTHER_SCALE * low or abs(mean1 - mean2) > OTHER_SCALE * high:
        raise UserError(
            f"train gives inputs of mean {mean1:.3g} and standard deviation {std1:.3g}, and test of mean {mean2:.3g} "
            f"and standard deviation {std2:.3g}; scale and normalise both as the networks take them"
        )


def _image_set(
    images: Images,
    name: str,
    like: Tensor,
    **options: Any,
) -> InputSet:
    """Return images as an image set; arguments and errors as for `IteratedInputs`."""
    if isinstance(images, InputSet):
        return images.copied(like=like)
    return IteratedInputs(images, name=name, like=like, **options)


def _check_classes(train: Tensor, test: Tensor) -> None:
    """Raise a UserError if training images lack many classes of the test images, as when they are sorted by
    class."""
    classes = set(test.unique().tolist()) - {UNLABELLED}
    missing = classes - set(train.unique().tolist())
    if (train != UNLABELLED).all() and len(missing) > MOST_MISSING * len(classes):
        raise UserError(
            f"the first {len(train)} inputs of train lack {len(missing)} of the {len(classes)} classes of test; "
            "shuffle them, or give a random subset"
        )
