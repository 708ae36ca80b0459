"""One call for two networks and images: stitch, measure, judge.

    rows = judge(front, end, train_batches, test_batches, layers="layer*", form=["covariance", "pinv"])
    print(rows)
    rows.matrix("skill", form="pinv").values, rows.figure()

It runs the same functions as `exec_stitch.py`, `exec_eval_stitcher_ood.py` and `misc/verdict.py`.
No file is read, and none is written but by `rows.to_csv(path)`.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from src.choices import AUTO, WITH_POSITIONS, on_lost_positions
from src.choices.stitching import Method
from src.datasets.base import UNLABELLED, BaseImageSet, CastImages
from src.datasets.iterated import IteratedEpochs, IteratedImages
from src.ground.console import aligned, points, warn
from src.ground.errors import UserError, unknown_name
from src.ground.files import write_csv
from src.ground.images import shape_text
from src.ground.runtime import full_precision
from src.models import Network, inputs_of
from src.models.building import advice_on_positions
from src.models.steadiness import unsteadiness_of, warn_of_probabilities
from src.ood.evaluation import GridScoring, StitchScores
from src.ood.reference import N_IMAGES, EvaluationOptions, Reference, make_reference
from src.stitching import (
    Grid,
    Matching,
    build_layers,
    match_layers,
    match_until_settled,
    matching_batches,
)
from src.stitching.grid import GridEvaluation, GridScore
from src.stitching.layers import StitchingLayer
from src.stitching.matching import with_matching
from src.stitching.objectives import objective_of
from src.stitching.training import Settings, train_layers, training_settings
from src.values import (
    IntervalEstimate,
    Metrics,
    Pair,
    Predictions,
    has_converged,
    learning_rates,
)
from src.verdict import UNDECIDED, Limits, Stitches, Verdict, flaw_of
from src.verdict import judge as judge_stitches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MATCHED = 10_000  # training images of an iterable, unless a caller asks for more
MOST_KEPT = 2**30  # bytes of these images
N_COMPARED = 16  # images of train and of test
MOST_MISSING = 0.1  # share of the classes that the first training images may lack
BATCH_SIZE = 256  # of image sets; an iterable has its own batches

Images = Iterable | BaseImageSet
LayerNames = str | Sequence[str]


class JudgedStitch(NamedTuple):
    """A stitched pair of layers with its verdict; NaN: not measured, or not defined.

    The names are those of the columns of the scripts' tables, which `misc/docs/files.md` describes.
    `_low` and `_high` are the ends of intervals of 95 %. Accuracies, penalties, shares and R² are
    no percentages: 0.05 is five points.
    """

    form: str  # of direct matching, such as covariance; or an objective with its epochs
    front_layer: str
    end_layer: str
    verdict: str  # one of `src.verdict.VERDICTS`
    reason: str
    accuracy: float  # of the stitched network
    accuracy_low: float
    accuracy_high: float
    penalty: float  # end accuracy − accuracy
    penalty_low: float
    penalty_high: float
    skill: float  # at the output; 0 at the floor, 1 for the end network itself
    skill_low: float
    skill_high: float
    correlation: float  # within classes, at the output
    floor: float
    skill_at_end: float  # at the end layer
    skill_at_end_low: float
    skill_at_end_high: float
    correlation_at_end: float
    floor_at_end: float
    front_accuracy: float  # NaN of an encoder
    end_accuracy: float
    r2_matched: float  # centred R² of the map on the matched images; NaN after a training
    r2_test: float
    front_depth: int | None  # the places of the layers in their networks
    end_depth: int | None
    stitching_type: str  # chosen by the kinds of both activations

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)

    def __repr__(self) -> str:
        return (
            f"<{self.form}, {self.pair}: {self.verdict}; accuracy {self.accuracy:.4f}, "
            f"points lost {points(self.penalty)}, skill {self.skill:.4f}>"
        )


class LayerMatrix(NamedTuple):
    """The values of a quantity by front layer and end layer."""

    front_layers: tuple[str, ...]
    end_layers: tuple[str, ...]
    values: np.ndarray  # (front layers, end layers)


class Judgement(tuple[JudgedStitch, ...]):
    """Judged stitches, as a tuple, which prints as a table.

    Attributes:
        limits: of the verdicts.
        n_images: the number of test images.
    """

    limits: Limits
    n_images: int

    def __new__(cls, rows: Iterable[JudgedStitch], limits: Limits, n_images: int) -> "Judgement":
        judgement = super().__new__(cls, rows)
        judgement.limits = limits
        judgement.n_images = n_images
        return judgement

    def __reduce__(self) -> tuple[type, tuple[tuple[JudgedStitch, ...], Limits, int]]:
        """Copy and pickle the rows and the attributes."""
        return Judgement, (tuple(self), self.limits, self.n_images)

    def __getitem__(self, index: Any) -> Any:
        """Return a row; of a slice, its rows as a `Judgement`."""
        if isinstance(index, slice):
            return Judgement(super().__getitem__(index), self.limits, self.n_images)
        return super().__getitem__(index)

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms and objectives, in their order."""
        return tuple(dict.fromkeys(row.form for row in self))

    def __repr__(self) -> str:
        counts = Counter(row.verdict for row in self)
        words = ", ".join(f"{n} {word}" for word, n in counts.items())
        return f"<{len(self)} judged stitches: {words}; print() shows the table>"

    def __str__(self) -> str:
        lines = [
            (
                "form",
                "front",
                "end",
                "accuracy",
                "of end",
                "points lost",
                "skill",
                "at end layer",
                "verdict",
            )
        ]
        for row in self:
            penalty = (
                f"{points(row.penalty)} [{points(row.penalty_low)}, {points(row.penalty_high)}]"
            )
            skill = IntervalEstimate(row.skill, row.skill_low, row.skill_high)
            at_end = IntervalEstimate(row.skill_at_end, row.skill_at_end_low, row.skill_at_end_high)
            verdict = row.verdict
            if verdict == UNDECIDED:
                verdict += f": {row.reason}"
            layers = (row.form, row.front_layer, row.end_layer)
            accuracies = (f"{row.accuracy:.4f}", f"{row.end_accuracy:.4f}")
            lines.append((*layers, *accuracies, penalty, str(skill), str(at_end), verdict))
        text = aligned(lines)
        positions = self._on_positions()
        return f"{text}\n{positions} {WITH_POSITIONS}" if positions else text

    def _on_positions(self) -> str:
        """Return the sentence on stitches that lose positions; "" if all keep positions."""
        return on_lost_positions(row.stitching_type for row in self)

    def matrix(self, quantity: str, *, form: str | None = None) -> LayerMatrix:
        """Return the values of a quantity by layers.

        Args:
            quantity: a field of `JudgedStitch`, such as "skill" or "verdict".
            form: of the stitches; None: the only one.
        Raises:
            UserError: there is no such quantity or form, or the form is not named.
        """
        if quantity not in JudgedStitch._fields:
            raise unknown_name(
                "quantity",
                quantity,
                JudgedStitch._fields,
                where="they are the fields of JudgedStitch",
            )
        rows = [row for row in self if row.form == self._form(form)]
        fronts = tuple(dict.fromkeys(row.front_layer for row in rows))
        ends = tuple(dict.fromkeys(row.end_layer for row in rows))
        value_of = {row.pair: getattr(row, quantity) for row in rows}
        has_numbers = all(isinstance(value, (int, float)) for value in value_of.values())
        missing = None  # of pairs that cannot be stitched
        dtype: type = object
        if has_numbers:
            missing = math.nan
            dtype = float
        values = [[value_of.get(Pair(front, end), missing) for end in ends] for front in fronts]
        return LayerMatrix(fronts, ends, np.array(values, dtype))

    def _form(self, form: str | None) -> str:
        """Return the name of a form of the stitches; None stands for the only form."""
        if form is None and len(self.forms) == 1:
            return self.forms[0]
        if form is None:
            raise UserError(f"there are stitches of several forms; give form=, one of {self.forms}")
        if form not in self.forms:
            raise unknown_name("form", form, self.forms)
        return form

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as a CSV; an undefined value is an empty cell.

        Its columns are the fields of `JudgedStitch`.

        Raises:
            UserError: the file cannot be written.
        """
        records = []
        for row in self:
            values = row._asdict()
            records.append({name: value for name, value in values.items() if not _is_nan(value)})
        write_csv(Path(path), JudgedStitch._fields, records)

    def figure(self, *, forms: Sequence[str] = (), caption: str = "") -> "Figure":
        """Return the figure of points lost against skill, and of a map of each form.

        `rows.figure().savefig("maps.pdf")` writes a file. The attribute `caption` of the figure is
        the text for below it.

        Args:
            forms: at most two; empty: the first two.
            caption: a text on networks and images, for this text.
        Raises:
            UserError: there is no such form.
        """
        from src.figures.evidence import (
            evidence_figure,  # the one step up, from a result to its look
        )

        shown = [self._form(form) for form in forms or self.forms][:2]
        words = [Method.of(form).words for form in shown]
        stitches = {}
        for form, title in zip(shown, words, strict=True):
            if words.count(title) > 1:
                title += f" ({form})"
            stitches[title] = [row for row in self if row.form == form]
        source = caption or f"1 pair of networks, {self.n_images:,} test images."
        return evidence_figure(stitches, self.limits, source=source)


@torch.inference_mode(False)  # a training needs gradients
@torch.no_grad()
def judge(
    front: nn.Module | Network,
    end: nn.Module | Network,
    train: Images,
    test: Images,
    *,
    layers: LayerNames | tuple[LayerNames, LayerNames] | None = None,
    form: str | Sequence[str] = "covariance",
    n_matched: int | None = None,
    seed: int = 0,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    **training: Any,
) -> Judgement:
    """Stitch layers of two networks by direct matching or by training, and judge which are
    functionally similar.

    The stitching layer of a pair is fitted to activations of training images, without any cutoff
    but rounding; or it is drawn, and trained on an objective. Test images tell accuracy and skill, whose
    floors take training images as well. The verdicts on all pairs of a form are corrected together.
    Images go to the device of the networks, which stay as they are.

    Args:
        front, end: modules in evaluation mode, from images (B, C, H, W), tokens (B, T) or vectors (B, D) to
            logits (B, n_classes); the front may be an encoder. Or `Network` views of such modules.
        train, test: batches of (images, labels) that can be passed over several times, such as a
            `DataLoader` or a list, or an image set of this suite. Images and vectors are floating-point
            numbers, and tokens whole numbers, as the networks take them, tensors or arrays. Test
            images come in one order in all passes. Training images need labels only for a training,
            whose epochs are passes over `train` in the order of `train`; an image set of this suite
            shuffles and augments as in the scripts.
        layers: names, patterns or "all", in one text with commas or in a list; both networks have
            them. A tuple of two gives front layers and end layers. None or "all": the blocks of
            either network, which `Network(module).block_names` lists.
        form: a form of direct matching, of `FORMS`; an objective of `OBJECTIVES` with its epochs,
            such as "task:10", or FILE.py:FUNCTION:10 of your own; or several of both.
        n_matched: training images to match on, drawn from the first 2,000 that `train` gives, or
            from the first `n_matched` if that is more; from all images of an image set of this
            suite. None: as many as each pair needs (`-pinv-samples auto`), of an image set or of
            the first 10,000 that `train` gives; all of these if they take more than 1 GiB.
        seed: of drawn stitching layers, and of the order of the images of an image set.
        limits: of the verdict.
        training: how to train, as `exec_stitch.py` does with the defaults `optimizer="adam"`,
            `learning_rate=0.001`, `weight_decay=1e-5`, `scheduler="none"` (or "cosine"),
            `reduce_lr_epochs=()`, `grad_clip=None`, and for image sets `batch_size=256`.

    Returns:
        A row for each form and pair of layers.

    Raises:
        UserError: a network is in training mode, has not the layers, or gives no logits for these
            labels; the networks differ in type or device; images cannot be passed over again, or
            the first training images lack classes; a form, `n_matched` or an option of training is
            none; images have a size that a network does not take; or a training diverges.
    """
    methods = _methods(form)
    settings = {
        name: training_settings(method.n_epochs, {"seed": seed, **training})
        for name, method in methods.items()
    }
    if n_matched is not None and n_matched < 1:
        raise UserError(f"n_matched is {n_matched}; give 1 or more, or None for all")
    if not isinstance(limits, Limits):
        raise UserError(f"limits is {limits!r}; give Limits(tolerance=0.05, skill=0.33)")
    judge_stitches([], limits=limits)  # limits out of range raise before the work
    for side, network in (("front", front), ("end", end)):
        _check_mode(network, side)

    # The images, the networks, and the end network's own activations
    like = _example(end)
    _check_alike(_example(front), like)
    images = _images(train, test, like, list(methods.values()), n_matched=n_matched)
    rows: list[JudgedStitch] = []
    with full_precision(like.device):
        networks = _networks(front, end, images.test, _of_both(layers))
        stitching_layers = _stitching_layers(networks, images.test.image_shape, seed=seed)
        reference = _reference(networks.end, stitching_layers, images)

        # The stitches of each form
        made = {}
        for name, method in methods.items():
            made[name] = _made(networks, stitching_layers, images, method, settings[name])
        for name, stitches in _measured(made, reference).items():
            rows += _judged(name, stitches, limits)
    return Judgement(rows, limits, len(images.test))


class _Images(NamedTuple):
    """The images that stitches are made with and measured on."""

    train: BaseImageSet  # of an iterable, the first ones
    epochs: BaseImageSet | IteratedEpochs  # all training images
    test: BaseImageSet
    n_matched: int | None  # None: as many as each pair needs


class _Networks(NamedTuple):
    """Two networks and their layers."""

    front: Network
    end: Network
    front_layers: list[str]
    end_layers: list[str]


class _MadeStitches(NamedTuple):
    """The stitches of a form."""

    pairs: list[Pair]  # in the order of the rows
    grid: Grid
    matchings: dict[Pair, Matching]  # empty after a training
    losses: dict[Pair, list[float]]  # of the epochs of a training
    rates: list[float]  # of the epochs, see `learning_rates`


class _Stitch(NamedTuple):
    """The measurements of a stitch."""

    pair: Pair
    metrics: Metrics
    predictions: Predictions
    scores: StitchScores
    has_converged: bool
    stitching_type: str


def _methods(form: str | Sequence[str]) -> dict[str, Method]:
    """Return the methods of one or several forms, by form.

    Raises:
        UserError: there is no form, or a form is unknown.
    """
    forms = [form] if isinstance(form, str) else list(form)
    if not forms:
        raise UserError('form names nothing; give a form such as "covariance", or several')
    return {name: Method.of(name) for name in forms}


def _example(network: nn.Module | Network) -> Tensor:
    """Return a tensor of the type and on the device of a network."""
    if isinstance(network, Network):
        return network.example
    return Network(network).example


def _check_alike(front: Tensor, end: Tensor) -> None:
    """Raise a UserError if tensors of two networks differ in their type or device."""
    if (front.dtype, front.device) != (end.dtype, end.device):
        raise UserError(
            f"the front network is {front.dtype} on {front.device}, and the end network {end.dtype} on "
            f"{end.device}; move both to one type and device, such as front.to(torch.float32)"
        )


def _check_mode(network: nn.Module | Network, side: str) -> None:
    """Raise a UserError unless a network is a module in evaluation mode."""
    if not isinstance(network, (nn.Module, Network)):
        raise UserError(
            f"{side} is a {type(network).__name__}; give a torch.nn.Module with its weights loaded, in evaluation mode"
        )
    if any(module.training for module in network.modules()):
        raise UserError(
            f"the {side} network is in training mode, where it is another function in each batch; "
            f"call {side}.eval() before"
        )


def _is_nan(value: object) -> bool:
    """Return whether a value of a row is not defined."""
    return isinstance(value, float) and math.isnan(value)


def _check_classes(train: Tensor, test: Tensor) -> None:
    """Raise a UserError if the first training images lack many classes of the test images.

    A loader that is sorted by class gives such images.
    """
    classes = set(test.unique().tolist()) - {UNLABELLED}
    missing = classes - set(train.unique().tolist())
    if (train != UNLABELLED).all() and len(missing) > MOST_MISSING * len(classes):
        raise UserError(
            f"the first {len(train)} images of train lack {len(missing)} of the {len(classes)} classes of test; "
            "shuffle them, or give a random subset"
        )


def _of_both(
    layers: LayerNames | tuple[LayerNames, LayerNames] | None,
) -> tuple[str, str]:
    """Return the layers of the front and of the end network, each as one text with commas."""
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
    """Return names of layers as one text with commas."""
    if isinstance(names, str):
        return names
    return ",".join(names)


def _images(
    train: Images,
    test: Images,
    like: Tensor,
    methods: Sequence[Method],
    *,
    n_matched: int | None,
) -> _Images:
    """Return training and test images as image sets; of an iterable the first training images.

    Raises:
        UserError: the images cannot be used by these methods.
    """
    at_most = max(n_matched or MOST_MATCHED, N_IMAGES)
    # The penalty of ridge is judged on the last fifth of the images
    needs_order = any(method.name == "ridge" for method in methods)
    train_set = _image_set(
        train, "train", like, at_most=at_most, in_one_order=needs_order, most_kept=MOST_KEPT
    )
    test_set = _image_set(test, "test", like, in_one_order=True)
    if train_set.image_shape != test_set.image_shape:
        raise UserError(
            f"train gives images of {shape_text(train_set.image_shape)}, and test of "
            f"{shape_text(test_set.image_shape)}; give images of one shape"
        )
    if _are_the_same(train_set, test_set):
        warn("train and test give the same images; test on others, as maps fit the images of train")
    if len(train_set) == at_most:
        _check_classes(train_set.labels, test_set.labels)
    if n_matched is None and isinstance(train_set, IteratedImages) and not train_set.is_kept:
        n_matched = len(train_set)  # passes may give other images, so their number cannot grow

    trained = [str(method) for method in methods if method.n_epochs]
    if trained and (train_set.labels == UNLABELLED).all():
        raise UserError(
            f"{', '.join(trained)}: a training needs labels; let train give (images, labels)"
        )
    epochs: BaseImageSet | IteratedEpochs = train_set
    if not isinstance(train, BaseImageSet):
        epochs = IteratedEpochs(train, name="train", like=like)
    return _Images(train_set, epochs, test_set, n_matched)


def _are_the_same(train: BaseImageSet, test: BaseImageSet) -> bool:
    """Return whether two sets have equal labels and begin with equal images."""
    if not torch.equal(train.labels.cpu(), test.labels.cpu()):
        return False
    first = torch.arange(min(len(train), N_COMPARED))
    (images, _), *_ = train.batches(N_COMPARED, indices=first)
    (images_of_test, _), *_ = test.batches(N_COMPARED, indices=first)
    return torch.equal(images, images_of_test)


def _image_set(
    images: Images,
    name: str,
    like: Tensor,
    *,
    at_most: int | None = None,
    in_one_order: bool = False,
    most_kept: int = 0,
) -> BaseImageSet:
    """Return images as an image set; arguments and errors as for `IteratedImages.read`."""
    if isinstance(images, BaseImageSet):
        return CastImages(images, like)
    return IteratedImages.read(
        images,
        name=name,
        like=like,
        at_most=at_most,
        in_one_order=in_one_order,
        most_kept=most_kept,
    )


def _networks(
    front: nn.Module | Network,
    end: nn.Module | Network,
    test: BaseImageSet,
    layers: tuple[str, str],
) -> _Networks:
    """Return views on both networks that give the named layers; one view if they are one module.

    Raises:
        UserError: a network cannot take the images; the end network gives no logits, or the labels
            are no classes of it.
    """
    end_view = _view(end, test, None)
    output_shape = _output_shape(end_view, "end")
    if len(output_shape) != 1:
        shape = shape_text(output_shape)
        raise UserError(
            f"the end network gives {shape} an image; {advice_on_positions(output_shape)}it has to give logits "
            "(n_classes,)"
        )
    (n_classes,) = output_shape
    lowest = test.labels.min()
    highest = test.labels.max()
    if lowest < 0 or highest >= n_classes:
        raise UserError(
            f"test has labels from {lowest} to {highest}, and the end network has {n_classes} classes; "
            f"give labels from 0 to {n_classes - 1}"
        )
    end_view.n_classes = n_classes

    is_one_module = _module(front) is _module(end)
    front_view = end_view
    if not is_one_module:
        front_view = _view(front, test, n_classes)
    _check_front(front_view, n_classes)
    spec = test.spec._replace(n_classes=n_classes)
    end_view.unsteadiness = unsteadiness_of(end_view, spec)
    warn_of_probabilities(end_view, spec, title="the end network")
    if not is_one_module:
        warn_of_probabilities(front_view, spec, title="the front network")
        front_view.unsteadiness = unsteadiness_of(front_view, spec)
    front_layers = front_view.layers(layers[0])
    end_layers = end_view.layers(layers[1], of_end=True)
    if is_one_module:
        end_view = end_view.channels_first(
            [*front_layers, *end_layers], image_shape=test.image_shape
        )
        return _Networks(end_view, end_view, front_layers, end_layers)
    front_view = front_view.channels_first(front_layers, image_shape=test.image_shape)
    end_view = end_view.channels_first(end_layers, image_shape=test.image_shape)
    return _Networks(front_view, end_view, front_layers, end_layers)


def _output_shape(network: Network, side: str) -> tuple[int, ...]:
    """Return the shape of the output of a network for one image.

    Raises:
        UserError: the network cannot take the images.
    """
    try:
        return network.output_shape
    except UserError:
        raise
    except Exception as error:  # raised by the network's forward
        shape = ", ".join(map(str, network.image_shape or ()))
        raise UserError(f"{side} cannot take images (B, {shape}): {str(error)[:300]}") from error


def _check_front(front: Network, n_classes: int) -> None:
    """Raise a UserError if the front network cannot take the images; warn if its number of classes differs.

    The output of a last linear layer is taken for logits, rather than for features of an encoder.
    """
    output_shape = _output_shape(front, "front")
    linear = [module for module in front.modules() if isinstance(module, nn.Linear)]
    gives_logits = bool(linear) and output_shape == (linear[-1].out_features,)
    if gives_logits and front.is_encoder:
        warn(
            f"the front network gives {output_shape[0]} outputs, and the end network {n_classes} classes: "
            "the front is taken for an encoder, without an accuracy of its own"
        )


def _module(network: nn.Module | Network) -> nn.Module:
    """Return the module of a network."""
    if isinstance(network, Network):
        return network.module
    return network


def _view(network: nn.Module | Network, test: BaseImageSet, n_classes: int | None) -> Network:
    """Return a view on a network of its own, which takes the test images."""
    inputs = inputs_of(test.spec)
    if not isinstance(network, Network):
        return Network(network, image_shape=test.image_shape, n_classes=n_classes, inputs=inputs)
    view = copy.copy(network)
    view.image_shape = test.image_shape
    if inputs is not None:
        view.inputs = inputs
    view.n_classes = n_classes
    return view


def _stitching_layers(
    networks: _Networks, image_shape: Sequence[int], *, seed: int
) -> dict[Pair, StitchingLayer]:
    """Draw a stitching layer for each pair of layers; warn of pairs that cannot be stitched."""
    layers, skipped = build_layers(
        networks.front,
        networks.end,
        networks.front_layers,
        networks.end_layers,
        AUTO,
        image_shape=image_shape,
        seed=seed,
    )
    for pair, reason in skipped.items():
        warn(f"not stitched: {pair}: {reason}")
    return layers


def _reference(end: Network, layers: Mapping[Pair, StitchingLayer], images: _Images) -> Reference:
    """Return the end network without stitches, and its floors of skill."""
    options = EvaluationOptions(
        layers=tuple(dict.fromkeys(pair.end_layer for pair in layers)),
        scores={},
        train=images.train,
        batch_size=_batch_size(images.test),
        dataset="",
        test=images.test,
    )
    return make_reference(end, options, trained={})


def _batch_size(images: BaseImageSet) -> int:
    """Return the number of images that take a pass together."""
    if isinstance(images, IteratedImages):
        return images.batch_size
    return BATCH_SIZE


def _made(
    networks: _Networks,
    layers: Mapping[Pair, StitchingLayer],
    images: _Images,
    method: Method,
    settings: Settings,
) -> _MadeStitches:
    """Match or train copies of all layers."""
    copies = copy.deepcopy(dict(layers))
    if method.n_epochs:
        objective = objective_of(method.name)
        grid = Grid(networks.front, networks.end, copies, objective=objective)
        losses = train_layers(grid, images.epochs, images.test, settings)
        rates = learning_rates(
            method.n_epochs,
            scheduler=settings.scheduler,
            reduce_lr_epochs=settings.reduce_lr_epochs,
        )
        return _MadeStitches(list(layers), grid, {}, losses, rates)
    matchings = _matched(networks, copies, images, method.name, seed=settings.seed)
    grid = Grid(networks.front, networks.end, copies)
    return _MadeStitches(list(layers), grid, matchings, {}, [])


def _matched(
    networks: _Networks,
    layers: dict[Pair, StitchingLayer],
    images: _Images,
    form: str,
    *,
    seed: int,
) -> dict[Pair, Matching]:
    """Match layers in place, on as many training images as are asked for or as each pair needs."""
    of_networks = (networks.front, networks.end, layers)
    batch_size = _batch_size(images.train)
    if images.n_matched is None:
        return match_until_settled(
            *of_networks, images.train, batch_size, seed=seed, form=form, cutoff="exact"
        )
    batches = matching_batches(images.train, images.n_matched, batch_size, seed=seed, form=form)
    return match_layers(*of_networks, *batches, form=form, cutoff="exact")


def _measured(made: Mapping[str, _MadeStitches], reference: Reference) -> dict[str, list[_Stitch]]:
    """Measure the stitches of all forms on the test images."""
    grids = {form: stitches.grid for form, stitches in made.items()}
    measured = measure_grids(grids, reference)
    return {form: _with_scores(stitches, *measured[form]) for form, stitches in made.items()}


class MeasuredGrid(NamedTuple):
    """The measurements of the stitches of a grid."""

    score: GridScore
    scores: dict[Pair, StitchScores]


@torch.no_grad()
def measure_grids(grids: Mapping[str, Grid], reference: Reference) -> dict[str, MeasuredGrid]:
    """Measure accuracies and scores, as `Grid.evaluate` and `score_grid`, in one pass of the images.

    Args:
        grids: of the same layers of two networks, frozen.
        reference: of the end network.
    """
    any_grid, *_ = grids.values()
    for grid in grids.values():
        grid.train(False)
    evaluations = {name: GridEvaluation(grid) for name, grid in grids.items()}
    scorings = {name: GridScoring(grid, reference) for name, grid in grids.items()}
    for batch in reference.test_batches():
        front_acts, end_acts = any_grid.activations(batch.images)
        for name, grid in grids.items():
            evaluations[name].add_networks(batch.images, batch.labels, front_acts, end_acts)
            scorings[name].add_own(end_acts, batch)
            for pairs, stitched in grid.stitched(front_acts, batch.images):
                evaluations[name].add_stitches(pairs, stitched, end_acts)
                scorings[name].add_stitches(pairs, stitched, batch)
    return {
        name: MeasuredGrid(evaluations[name].score(), scorings[name].scores()) for name in grids
    }


def _with_scores(
    made: _MadeStitches, score: GridScore, scores: Mapping[Pair, StitchScores]
) -> list[_Stitch]:
    """Return the measurements of the stitches of a form."""
    stitches = []
    for pair in made.pairs:
        classes = [score.predictions[key].numpy() for key in (pair, "front", "end", "labels")]
        metrics = score.pairs[pair]
        if pair in made.matchings:
            metrics = with_matching(metrics, made.matchings[pair])
        converged = has_converged(made.losses.get(pair, []), made.rates)
        stitching_type = made.grid.layers[pair].stitching_type
        measured = (metrics, Predictions(*classes), scores[pair], converged, stitching_type)
        stitches.append(_Stitch(pair, *measured))
    return stitches


def _judged(form: str, stitches: Sequence[_Stitch], limits: Limits) -> list[JudgedStitch]:
    """Judge the stitches of a form together; return their rows."""
    to_judge = []
    for stitch in stitches:
        single = Stitches.single(stitch.predictions, stitch.scores.skill)
        to_judge.append(
            single._replace(
                front_accuracy=stitch.metrics.front_accuracy,
                end_accuracy=stitch.metrics.end_accuracy,
                has_converged=stitch.has_converged,
                flaw=flaw_of([stitch.metrics], form),
            )
        )
    verdicts = judge_stitches(to_judge, limits=limits)
    return [_row(form, stitch, verdict) for stitch, verdict in zip(stitches, verdicts, strict=True)]


def _row(form: str, stitch: _Stitch, verdict: Verdict) -> JudgedStitch:
    """Return the row of a stitch."""
    metrics = stitch.metrics
    r2_matched = metrics.r2_matched
    if r2_matched is None:  # of a trained stitch
        r2_matched = math.nan
    return JudgedStitch(
        form,
        *stitch.pair,
        verdict.word,
        verdict.reason,
        *verdict.accuracy,
        *verdict.penalty,
        *verdict.skill,
        *stitch.scores.skill.output[:2],
        *verdict.skill_at_end,
        *stitch.scores.skill.end_layer[:2],
        front_accuracy=metrics.front_accuracy,
        end_accuracy=metrics.end_accuracy,
        r2_matched=r2_matched,
        r2_test=metrics.r2_test,
        front_depth=metrics.front_depth,
        end_depth=metrics.end_depth,
        stitching_type=stitch.stitching_type,
    )
