"""One call for two networks and images: stitch, measure, judge.

    rows = judge(front, end, train_batches, test_batches, layers="layer*", forms=["covariance", "pinv"])
    print(rows)
    rows.frame, rows.matrix("skill", form="pinv"), rows.figure()

It runs the same functions as `misc/compare.py`. No file is read, and none is written but by
`rows.to_csv(path)` and `rows.save(folder)`.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.choices import AUTO, Options
from src.choices.stitching import Method
from src.core.cache import Cache
from src.core.console import listed, note, warn
from src.core.errors import UserError
from src.core.grouping import grouped
from src.core.images import shape_text
from src.core.runtime import full_precision
from src.core.tensors import content_of_state
from src.datasets.base import UNLABELLED, BaseImageSet, CastImages
from src.datasets.iterated import IteratedEpochs, IteratedImages
from src.judgement import JudgedStitch, Judgement, Record
from src.models import Network, inputs_of
from src.models.building import advice_on_positions
from src.models.determinism import nondeterminism_of, warn_of_probabilities
from src.ood.evaluation import StitchScores, measure_grids
from src.ood.reference import N_IMAGES, EvaluationOptions, Reference, make_reference
from src.stitching import Grid, Matching, build_layers, chosen_options, match
from src.stitching.closed_forms import ClosedForm, UserForm, name_of, solver_of
from src.stitching.grid import GridScore
from src.stitching.layers import StitchingLayer
from src.stitching.matching import with_matching
from src.stitching.objectives import objective_of
from src.stitching.training import Settings, train_layers, training_settings
from src.values import MeasuredStitch, Pair, Predictions, has_converged, learning_rates
from src.verdict import Limits, Stitches, Verdict, obstacle_of
from src.verdict import judge as judge_stitches

__all__ = ["JudgedStitch", "Judgement", "judge"]

FORMS = ("pinv", "covariance")
MOST_FITTING_SAMPLES = 10_000  # training images of an iterable, unless a caller asks for more
MOST_KEPT = 2**30  # bytes of these images
MOST_MISSING = 0.1  # share of the classes that the first training images may lack
BATCH_SIZE = 256  # of image sets; an iterable has its own batches
NOT_NAMES = (
    "-",
    "DEFAULT",
)  # tables take them for randomly initialised weights, and for those of a type

Images = Iterable | BaseImageSet
LayerNames = str | Sequence[str]


@torch.inference_mode(False)  # a training run needs gradients
@torch.no_grad()
def judge(
    front: nn.Module | Network,
    end: nn.Module | Network,
    train: Images,
    test: Images,
    *,
    layers: LayerNames | tuple[LayerNames, LayerNames] | None = None,
    forms: str | UserForm | Sequence[str | UserForm] = FORMS,
    n_fitting_samples: int | None = None,
    seed: int = 0,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    names: tuple[str, str] = ("front", "end"),
    **training: Any,
) -> Judgement:
    """Stitch layers of two networks by direct matching or by training, and judge which are
    functionally similar.

    The stitching layer of a pair is fitted to activations of training images, without any cutoff
    but rounding; or it is drawn, and trained on an objective. Test images tell accuracy and skill, whose
    baselines take training images as well. The verdicts on all pairs of a form are corrected together.
    Images go to the device of the networks, which stay as they are.

    Args:
        front, end: modules in evaluation mode, from images (B, C, H, W), tokens (B, T) or vectors (B, D) to
            logits (B, n_classes); the front may be an encoder. Or `Network` views of such modules.
        train, test: batches of (images, labels) that can be passed over several times, such as a
            `DataLoader` or a list, or an image set of this suite. Images and vectors are floating-point
            numbers, and tokens integers, as the networks take them, tensors or arrays. Test
            images come in one order in all passes. Training images need labels only for a training run,
            whose epochs are passes over `train` in the order of `train`; an image set of this suite
            shuffles and augments as in the scripts.
        layers: names, patterns or "all", in one text with commas or in a list; both networks have
            them. A tuple of two gives front layers and end layers. None or "all": the blocks of
            either network, which `Network(module).block_names` lists.
        forms: forms of direct matching, of `FORMS` in `src.choices.stitching`, or of your own: a
            function (see `UserForm`), or FILE.py:FUNCTION. Or objectives of `OBJECTIVES` with their
            epochs, such as "task:10", or FILE.py:FUNCTION:10 of your own.
        n_fitting_samples: training images to match on, drawn from the first 2,000 that `train` gives, or
            from the first `n_fitting_samples` if that is more; from all images of an image set of this
            suite. None: 50 rows a channel of the front layer (`-pinv-samples auto`), of an image set
            or of the first 10,000 that `train` gives.
        seed: of drawn stitching layers, and of the order of the images of an image set.
        limits: of the verdict.
        names: of both networks, in tables and figures; not "-" and "DEFAULT".
        training: how to train, as `exec_stitch.py` does with the defaults `optimizer="adam"`,
            `learning_rate=0.001`, `weight_decay=1e-5`, `scheduler="none"` (or "cosine"),
            `reduce_lr_epochs=()`, `grad_clip=None`, and for image sets `batch_size=256`.

    Returns:
        A row for each form and pair of layers.

    Raises:
        UserError: a network is in training mode, has not the layers, or gives no logits for these
            labels; the networks differ in type or device; images cannot be passed over again, or
            the first training images lack classes; a form, `n_fitting_samples`, a name or an option of
            training is none; images have a size that a network does not take; or a training run
            diverges.
    """
    chosen = _chosen(forms, {"seed": seed, **training})
    _check_options(n_fitting_samples, limits, names)
    front, end = _views(front, end)
    like = end.example
    images = _images(train, test, like, chosen, n_fitting_samples=n_fitting_samples)
    with full_precision(like.device):
        networks = _networks(front, end, images.test, _of_both(layers))

        # A layer for each pair, and the end network's own activations
        drawn = _stitching_layers(networks, images.test.image_shape, seed=seed)
        reference = _reference(networks.end, drawn, images)

        # Stitches by each form, measured in one pass of the test images
        made = {}
        for name, making in chosen.items():
            note(f"judge: stitches {len(drawn)} pairs of layers by {name}")
            made[name] = _made(networks, drawn, images, making)
        note(f"judge: measures accuracy, skill and its baselines on {len(images.test)} test inputs")
        measured = measure_grids({name: made[name].grid for name in made}, reference)
        stitches = {name: _with_scores(made[name], *measured[name], list(drawn)) for name in made}
    metrics = next(iter(stitches[next(iter(chosen))].values())).metrics
    accuracies = (metrics.front_accuracy, metrics.end_accuracy)
    shares = [f"{name} {accuracy:.1%}" for name, accuracy in zip(names, accuracies, strict=True)]
    note(f"judge: accuracies of the networks alone: {', '.join(shares)}")
    rows = []
    for name, making in chosen.items():
        rows += _judged(name, making, stitches[name], limits)
    record = _record(networks, images, chosen, stitches, limits, names)
    return Judgement(rows, record)


class _Form(NamedTuple):
    """A form of stitching."""

    method: Method
    closed: ClosedForm  # of direct matching
    settings: Settings  # of the training


class _Images(NamedTuple):
    """The images that stitches are made with and measured on."""

    train: BaseImageSet  # of an iterable, the first ones
    epochs: BaseImageSet | IteratedEpochs  # all training images
    test: BaseImageSet
    n_fitting_samples: int | None  # None: by the rule of `match`


class _Networks(NamedTuple):
    """Two networks and their layers."""

    front: Network
    end: Network
    front_layers: list[str]
    end_layers: list[str]


class _MadeStitches(NamedTuple):
    """The stitches of a form."""

    grid: Grid
    matchings: dict[Pair, Matching]  # empty after a training run
    losses: dict[Pair, list[float]]  # of the epochs of a training run


# ---- The gate: options, images and networks


def _chosen(
    forms: str | UserForm | Sequence[str | UserForm], training: Mapping[str, Any]
) -> dict[str, _Form]:
    """Return the forms of stitching by name; a UserError if a form or an option of training is none."""
    if isinstance(forms, str) or callable(forms):
        forms = [forms]
    if not forms:
        raise UserError('forms names nothing; give a form such as "covariance", or several')
    chosen: dict[str, _Form] = {}
    for form in forms:
        name = name_of(form)
        method = Method(name)
        if isinstance(form, str):
            method = Method.of(form)
        if method.n_epochs:
            objective_of(method.name)
        else:
            solver_of(form)
        if name in chosen and chosen[name].closed is not form:
            raise UserError(
                f"two forms have the name {name}; give each function a __name__ of its own"
            )
        chosen[name] = _Form(method, form, training_settings(method.n_epochs, training))
    return chosen


def _check_options(n_fitting_samples: int | None, limits: Limits, names: Sequence[str]) -> None:
    """Raise a UserError if an option is none."""
    if n_fitting_samples is not None and n_fitting_samples < 1:
        raise UserError(
            f"n_fitting_samples is {n_fitting_samples}; give 1 or more, or None for all"
        )
    if not isinstance(limits, Limits):
        raise UserError(f"limits is {limits!r}; give Limits(tolerance=0.05, skill=0.33)")
    judge_stitches([], limits=limits)  # limits out of range raise before the work
    if isinstance(names, str) or len(names) != 2:
        raise UserError(f"names is {names!r}; give a name for each network, (front, end)")
    for name in names:
        if name in NOT_NAMES:
            raise UserError(
                f"names has {name!r}, which stands for weights without a checkpoint in tables; give another name"
            )


def _views(front: nn.Module | Network, end: nn.Module | Network) -> tuple[Network, Network]:
    """Return a new view on each network, or one on both; a UserError if they cannot be judged."""
    views = []
    for side, network in (("front", front), ("end", end)):
        if not isinstance(network, (nn.Module, Network)):
            raise UserError(
                f"{side} is a {type(network).__name__}; give a torch.nn.Module with its weights loaded, in evaluation "
                "mode"
            )
        if any(module.training for module in network.modules()):
            raise UserError(
                f"the {side} network is in training mode, where it is another function in each batch; "
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
    cache = Cache.of_device(of_end.device)  # all forms match on the same images
    front_view, end_view = [view.keeping(cache) for view in views]
    if front_view.module is end_view.module:
        return end_view, end_view
    return front_view, end_view


def _check_classes(train: Tensor, test: Tensor) -> None:
    """Raise a UserError if training images, sorted by class say, lack many classes of the test."""
    classes = set(test.unique().tolist()) - {UNLABELLED}
    missing = classes - set(train.unique().tolist())
    if (train != UNLABELLED).all() and len(missing) > MOST_MISSING * len(classes):
        raise UserError(
            f"the first {len(train)} inputs of train lack {len(missing)} of the {len(classes)} classes of test; "
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
    forms: Mapping[str, _Form],
    *,
    n_fitting_samples: int | None,
) -> _Images:
    """Return training and test images as image sets; a UserError if a form cannot use the images."""
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
    if len(train_set) == at_most:
        _check_classes(train_set.labels, test_set.labels)

    trained = [name for name, form in forms.items() if form.method.n_epochs]
    if trained and (train_set.labels == UNLABELLED).all():
        raise UserError(
            f"{', '.join(trained)}: a training run needs labels; let train give (inputs, labels)"
        )
    epochs: BaseImageSet | IteratedEpochs = train_set
    if not isinstance(train, BaseImageSet):
        epochs = IteratedEpochs(train, name="train", like=like)
    return _Images(train_set, epochs, test_set, n_fitting_samples)


def _image_set(
    images: Images,
    name: str,
    like: Tensor,
    **options: Any,
) -> BaseImageSet:
    """Return images as an image set; arguments and errors as for `IteratedImages`."""
    if isinstance(images, BaseImageSet):
        return CastImages(images, like)
    return IteratedImages(images, name=name, like=like, **options)


def _networks(
    front: Network, end: Network, test: BaseImageSet, layers: tuple[str, str]
) -> _Networks:
    """Prepare views on both networks for the test images; return the views with the named layers."""
    inputs = inputs_of(test.spec)
    for network in (front, end):
        network.image_shape = test.image_shape
        network.n_classes = None
        if inputs is not None:
            network.inputs = inputs
    end.n_classes = _n_classes(end, test)
    front.n_classes = end.n_classes
    _check_front(front, end.n_classes)
    spec = test.spec._replace(n_classes=end.n_classes)
    for network, side in {front: "front", end: "end"}.items():
        network.nondeterminism = nondeterminism_of(network, spec)
        warn_of_probabilities(network, spec, title=f"the {side} network")
    front_layers = front.layers(layers[0])
    end_layers = end.layers(layers[1], of_end=True)
    shape = test.image_shape
    if front is end:
        end = end.channels_first([*front_layers, *end_layers], image_shape=shape)
        return _Networks(end, end, front_layers, end_layers)
    front = front.channels_first(front_layers, image_shape=shape)
    end = end.channels_first(end_layers, image_shape=shape)
    return _Networks(front, end, front_layers, end_layers)


def _n_classes(end: Network, test: BaseImageSet) -> int:
    """Return the number of classes of the end network; a UserError if labels are no classes."""
    output_shape = _output_shape(end, "end")
    if len(output_shape) != 1:
        shape = shape_text(output_shape)
        raise UserError(
            f"the end network gives {shape} an input; {advice_on_positions(output_shape)}it has to give logits "
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
    return n_classes


def _output_shape(network: Network, side: str) -> tuple[int, ...]:
    """Return the shape of the output for one image; a UserError if images cannot be taken."""
    try:
        return network.output_shape
    except UserError:
        raise
    except Exception as error:  # raised by the network's forward
        shape = ", ".join(map(str, network.image_shape or ()))
        raise UserError(f"{side} cannot take inputs (B, {shape}): {str(error)[:300]}") from error


def _check_front(front: Network, n_classes: int) -> None:
    """Warn if the front network seems to give logits of further classes, rather than features."""
    output_shape = _output_shape(front, "front")
    # The output of the last linear layer is taken for logits
    linear = [module for module in front.modules() if isinstance(module, nn.Linear)]
    gives_logits = bool(linear) and output_shape == (linear[-1].out_features,)
    if gives_logits and front.is_encoder:
        warn(
            f"the front network gives {output_shape[0]} outputs, and the end network {n_classes} classes: "
            "the front is taken for an encoder, without an accuracy of its own"
        )


# ---- The stitches


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
    for reason, pairs in grouped(skipped, skipped.__getitem__).items():
        warn(f"not stitched: {listed(pairs)}: {reason}")
    return layers


def _reference(end: Network, layers: Mapping[Pair, StitchingLayer], images: _Images) -> Reference:
    """Return the end network without stitches, and its baselines of skill."""
    options = EvaluationOptions(
        layers=tuple(dict.fromkeys(pair.end_layer for pair in layers)),
        scores=(),
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
    networks: _Networks, layers: Mapping[Pair, StitchingLayer], images: _Images, form: _Form
) -> _MadeStitches:
    """Match or train copies of all layers."""
    views = (networks.front, networks.end)
    copies = copy.deepcopy(dict(layers))
    if form.method.n_epochs:
        grid = Grid(*views, copies, objective=objective_of(form.method.name))
        losses = train_layers(grid, images.epochs, images.test, form.settings)
        return _MadeStitches(grid, {}, losses)
    matchings = match(
        *views,
        copies,
        images.train,
        _batch_size(images.train),
        n_samples=images.n_fitting_samples,
        seed=form.settings.seed,
        form=form.closed,
        cutoff="exact",
    )
    return _MadeStitches(Grid(*views, copies, form=form.method.name), matchings, {})


def _with_scores(
    made: _MadeStitches,
    score: GridScore,
    scores: Mapping[Pair, StitchScores],
    pairs: Sequence[Pair],
) -> dict[Pair, MeasuredStitch]:
    """Return the measurements of the stitches of a form, in the order of `pairs`."""
    chosen = chosen_options(made.grid.layers)
    stitches = {}
    for pair in pairs:
        classes = [score.predictions[key].numpy() for key in (pair, "front", "end", "labels")]
        metrics = score.pairs[pair]
        if pair in made.matchings:
            metrics = with_matching(metrics, made.matchings[pair])
        losses = made.losses.get(pair, [])
        stitches[pair] = MeasuredStitch(
            metrics, Predictions(*classes), scores[pair].skill, losses, chosen[pair]
        )
    return stitches


# ---- The verdicts


def _judged(
    name: str, form: _Form, stitches: Mapping[Pair, MeasuredStitch], limits: Limits
) -> list[JudgedStitch]:
    """Judge the stitches of a form together; return their rows."""
    settings = form.settings
    rates = learning_rates(
        settings.n_epochs, scheduler=settings.scheduler, reduce_lr_epochs=settings.reduce_lr_epochs
    )
    to_judge = []
    for stitch in stitches.values():
        single = Stitches.single(stitch.predictions, stitch.skill)
        to_judge.append(
            single._replace(
                front_accuracy=stitch.metrics.front_accuracy,
                end_accuracy=stitch.metrics.end_accuracy,
                has_converged=has_converged(stitch.losses, rates),
                obstacle=obstacle_of([stitch.metrics], form.method.name),
            )
        )
    verdicts = judge_stitches(to_judge, limits=limits)
    return [
        _row(name, pair, stitch, verdict)
        for (pair, stitch), verdict in zip(stitches.items(), verdicts, strict=True)
    ]


def _row(form: str, pair: Pair, stitch: MeasuredStitch, verdict: Verdict) -> JudgedStitch:
    """Return the row of a stitch."""
    metrics = stitch.metrics
    r2_fit = metrics.r2_fit
    if r2_fit is None:  # of a trained stitch
        r2_fit = math.nan
    return JudgedStitch(
        form,
        *pair,
        verdict.verdict,
        verdict.reason,
        *verdict.accuracy,
        *verdict.accuracy_drop,
        *verdict.skill,
        *stitch.skill.output[:2],
        *verdict.skill_at_end,
        *stitch.skill.end_layer[:2],
        front_accuracy=metrics.front_accuracy,
        end_accuracy=metrics.end_accuracy,
        r2_fit=r2_fit,
        r2_test=metrics.r2_test,
        front_depth=metrics.front_depth,
        end_depth=metrics.end_depth,
        stitching_type=str(stitch.chosen["stitching_type"]),
    )


def _record(
    networks: _Networks,
    images: _Images,
    forms: Mapping[str, _Form],
    stitches: Mapping[str, Mapping[Pair, MeasuredStitch]],
    limits: Limits,
    names: Sequence[str],
) -> Record:
    """Return the record of the rows, with the options of `exec_stitch.py`."""
    gpu = networks.end.example.device.index
    if gpu is None:  # the CPU
        gpu = -1
    options: dict[str, Any] = {
        "train_images_sha256": images.train.fingerprint,
        "test_images_sha256": images.test.fingerprint,
        "gpu": gpu,
        "stitching_type": AUTO,
        "n_pinv_init_samples": images.n_fitting_samples or AUTO,
        "pinv_cutoff": "exact",
        "mod_only_stitch": True,
        "no_save": True,
    }
    for side, network, name in zip(("front", "end"), networks[:2], names, strict=True):
        options[f"{side}_model_path"] = name
        options[f"{side}_model_path_sha256"] = content_of_state(network.state_dict())
        options[f"{side}_model_type"] = type(network.module).__name__
    return Record(
        limits,
        len(images.test),
        (names[0], names[1]),
        {name: form.method for name, form in forms.items()},
        {name: {**options, **_options_of(form)} for name, form in forms.items()},
        {(name, pair): of_form[pair] for name, of_form in stitches.items() for pair in of_form},
    )


def _options_of(form: _Form) -> Options:
    """Return the options of `exec_stitch.py` for a form of stitching."""
    options = form.settings._asdict()
    del options["reduce_lr_unit"]  # which it does not have
    if form.method.n_epochs:
        return {**options, "init": "rand", "objective": form.method.name}
    return {**options, "init": form.method.name, "objective": "task"}
