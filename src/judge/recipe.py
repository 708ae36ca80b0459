"""Stitches two networks and judges which of their layers are similar, in one call from Python.

    rows = judge(front, end, train_batches, test_batches, layers="layer*", forms=["covariance", "pinv"])
    print(rows)
    rows.frame, rows.matrix("skill", form="pinv"), rows.figure()

It runs the same functions as `misc/compare.py`. No file is read, and none is written but by
`rows.to_csv(path)` and `rows.save(folder)`.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from src.core.choices import AUTO, Options
from src.core.console import counted, listed, note, warn
from src.core.grouping import grouped
from src.core.precision import full_precision
from src.core.tensors import content_of_state
from src.core.values import LOW_ACCURACY, MeasuredStitch, Pair, Predictions
from src.datasets.base import InputSet
from src.datasets.iterated import IteratedInputs
from src.judge import gate
from src.judge.gate import ChosenMethod, Images, JudgedInputs, JudgedNetworks, LayersOfBoth, Methods
from src.judge.judgement import Judgement, Record
from src.models import Network
from src.ood.evaluation import OodEvaluation, measure_grids
from src.ood.reference import EndReference, EvaluationOptions, make_reference
from src.statistics.convergence import has_converged, learning_rates
from src.stitching import Grid, Matching, build_layers, chosen_options, match
from src.stitching.grid import GridMetrics
from src.stitching.layers import StitchingLayer
from src.stitching.matching import with_matching
from src.stitching.objectives import objective_of
from src.stitching.training import BATCH_SIZE, train_layers
from src.training.doubts import QUESTION
from src.verdict import Limits, Stitches, Verdict, obstacle_of
from src.verdict import judge as verdicts_of

__all__ = ["Judgement", "judge"]

DEFAULT_METHODS = ("pinv", "covariance")


@torch.inference_mode(False)  # a training run needs gradients
@torch.no_grad()
def judge(
    front: nn.Module | Network,
    end: nn.Module | Network,
    train: Images,
    test: Images,
    *,
    layers: LayersOfBoth = None,
    forms: Methods = DEFAULT_METHODS,
    n_fitting_samples: int | None = None,
    seed: int = 0,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    names: tuple[str, str] = ("front", "end"),
    **training: Any,
) -> Judgement:
    """Stitch layers of two networks by closed-form solvers or by training, and judge which layers are
    functionally similar.

    The stitching layer of a pair is fitted to activations of training images, without any cutoff
    but rounding; or it is randomly initialised and trained on an objective. Accuracy and skill are measured on test
    images; baselines of skill need training images as well. The tests of all pairs of a method are corrected together.
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
        forms: methods of stitching. Closed-form solvers of `FORMS` in `src.core.choices.stitching`, or your own: a
            function (see `UserSolver`), or FILE.py:FUNCTION. Or objectives of `OBJECTIVES` with their
            epochs, such as "task:10", or FILE.py:FUNCTION:10 of your own.
        n_fitting_samples: training images used for fitting, drawn from the first 2,000 that `train` gives, or
            from the first `n_fitting_samples` if that is more; from all images of an image set of this
            suite. None: 50 rows a channel of the front layer (`-pinv-samples auto`), of an image set
            or of the first 10,000 that `train` gives.
        seed: of randomly initialised stitching layers, and of the order of the images of an image set.
        limits: of the verdict.
        names: of both networks, in tables and figures; not "-" and "DEFAULT".
        training: how to train, as `exec_stitch.py` does with the defaults `optimizer="adam"`,
            `learning_rate=0.001`, `weight_decay=1e-5`, `scheduler="none"` (or "cosine"),
            `reduce_lr_epochs=()`, `grad_clip=None`, and for image sets `batch_size=256`.

    Returns:
        A row for each method and pair of layers.

    Raises:
        UserError: a network is in training mode, lacks the layers, or gives no logits for these
            labels; the networks differ in type or device; images cannot be passed over again, or
            the first training images lack classes; a method, `n_fitting_samples`, a name or an option of
            training is invalid; images have a size that a network does not take; or a training run
            diverges.
    """
    methods = gate.methods_of(forms, {"seed": seed, **training})
    gate.check_options(n_fitting_samples, limits, names)
    front, end = gate.views_of(front, end)
    images = gate.images_of(train, test, end.example, methods, n_fitting_samples=n_fitting_samples)
    networks = gate.networks_of(front, end, images, layers)

    with full_precision(end.example.device):
        # A layer for each pair, and the end network without stitches
        stitching_layers = _stitching_layers(networks, images.test.image_shape, seed=seed)
        reference = _reference(networks.end, stitching_layers, images)

        # Stitches by each method, measured in one pass of the test images
        fitted = {}
        for name, chosen in methods.items():
            pairs = counted(len(stitching_layers), "pair of layers", "pairs of layers")
            note(f"judge: stitches {pairs} by {name}")
            fitted[name] = _fitted(networks, stitching_layers, images, chosen)
        n_inputs = counted(len(images.test), "test input", "test inputs")
        note(f"judge: measures accuracy, skill and its baselines on {n_inputs}")
        measured = measure_grids({name: fitted[name].grid for name in fitted}, reference)
    stitches = {
        name: _measured(fitted[name], *measured[name], list(stitching_layers)) for name in fitted
    }
    _tell_accuracies(stitches, names)

    # Verdicts, of the pairs of each method together
    rows = []
    for name, chosen in methods.items():
        rows += _judged(name, chosen, stitches[name], limits)
    return Judgement(rows, _record(networks, images, methods, stitches, limits, names))


class _FittedStitches(NamedTuple):
    """The stitches of one method."""

    grid: Grid
    matchings: dict[Pair, Matching]  # empty after a training run
    losses: dict[Pair, list[float]]  # of the epochs of a training run


# ---- The stitches


def _stitching_layers(
    networks: JudgedNetworks, image_shape: Sequence[int], *, seed: int
) -> dict[Pair, StitchingLayer]:
    """Initialise a stitching layer for each pair of layers; warn of pairs that cannot be stitched."""
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


def _reference(
    end: Network, layers: Mapping[Pair, StitchingLayer], images: JudgedInputs
) -> EndReference:
    """Prepare the evaluation of stitches into the end network, with its baselines of skill."""
    options = EvaluationOptions(
        layers=tuple(dict.fromkeys(pair.end_layer for pair in layers)),
        scores=(),
        train=images.train,
        batch_size=_batch_size(images.test),
        dataset="",
        test=images.test,
    )
    return make_reference(end, options, trained={})


def _batch_size(images: InputSet) -> int:
    """Return the batch size of an image set."""
    if isinstance(images, IteratedInputs):
        return images.batch_size
    return BATCH_SIZE


def _fitted(
    networks: JudgedNetworks,
    layers: Mapping[Pair, StitchingLayer],
    images: JudgedInputs,
    chosen: ChosenMethod,
) -> _FittedStitches:
    """Fit copies of all stitching layers by a closed-form solver or by training."""
    views = (networks.front, networks.end)
    copies = copy.deepcopy(dict(layers))
    if chosen.method.n_epochs:
        grid = Grid(*views, copies, objective=objective_of(chosen.method.name))
        losses = train_layers(grid, images.train, images.test, chosen.settings)
        return _FittedStitches(grid, {}, losses)
    matchings = match(
        *views,
        copies,
        images.train,
        _batch_size(images.train),
        n_samples=images.n_fitting_samples,
        seed=chosen.settings.seed,
        form=chosen.solver,
        cutoff="exact",
    )
    return _FittedStitches(Grid(*views, copies, form=chosen.method.name), matchings, {})


def _measured(
    fitted: _FittedStitches,
    metrics: GridMetrics,
    evaluations: Mapping[Pair, OodEvaluation],
    pairs: Sequence[Pair],
) -> dict[Pair, MeasuredStitch]:
    """Return the measurements of the stitches of one method, in the order of `pairs`."""
    chosen = chosen_options(fitted.grid.layers)
    stitches = {}
    for pair in pairs:
        classes = [metrics.predictions[key].numpy() for key in (pair, "front", "end", "labels")]
        of_pair = metrics.pairs[pair]
        if pair in fitted.matchings:
            of_pair = with_matching(of_pair, fitted.matchings[pair])
        losses = fitted.losses.get(pair, [])
        stitches[pair] = MeasuredStitch(
            of_pair, Predictions(*classes), evaluations[pair].skill, losses, chosen[pair]
        )
    return stitches


# ---- The verdicts


def _tell_accuracies(
    stitches: Mapping[str, Mapping[Pair, MeasuredStitch]], names: Sequence[str]
) -> None:
    """Print the accuracies of both networks without stitching."""
    of_any_method = next(iter(stitches.values()))
    metrics = next(iter(of_any_method.values())).metrics
    accuracies = (metrics.front_accuracy, metrics.end_accuracy)
    shares = [f"{name} {accuracy:.1%}" for name, accuracy in zip(names, accuracies, strict=True)]
    question = ""
    if any(accuracy < LOW_ACCURACY for accuracy in accuracies):  # that of an encoder is NaN
        question = f"; one is below {LOW_ACCURACY:.0%}: {QUESTION}"
    note(f"judge: accuracies of the networks alone: {', '.join(shares)}{question}")


def _judged(
    name: str, chosen: ChosenMethod, stitches: Mapping[Pair, MeasuredStitch], limits: Limits
) -> list[dict[str, Any]]:
    """Judge the stitches of one method together; return their rows."""
    settings = chosen.settings
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
                obstacle=obstacle_of([stitch.metrics], chosen.method.name),
            )
        )
    verdicts = verdicts_of(to_judge, limits=limits)
    return [
        _row(name, pair, stitch, verdict)
        for (pair, stitch), verdict in zip(stitches.items(), verdicts, strict=True)
    ]


def _row(method: str, pair: Pair, stitch: MeasuredStitch, verdict: Verdict) -> dict[str, Any]:
    """Return the row of a stitch with its verdict and measurements, by column."""
    metrics = stitch.metrics
    at_end, output, *_ = stitch.skill
    return {
        "method": method,
        **pair._asdict(),
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        **verdict.numbers,
        "correlation": output.correlation,
        "baseline": output.baseline,
        "correlation_at_end": at_end.correlation,
        "baseline_at_end": at_end.baseline,
        "front_accuracy": metrics.front_accuracy,
        "end_accuracy": metrics.end_accuracy,
        "r2_fit": metrics.r2_fit,  # None of a trained stitch
        "r2_test": metrics.r2_test,
        "front_depth": metrics.front_depth,
        "end_depth": metrics.end_depth,
        "front_relative_depth": metrics.front_relative_depth,
        "end_relative_depth": metrics.end_relative_depth,
        "stitching_type": stitch.chosen["stitching_type"],
    }


def _record(
    networks: JudgedNetworks,
    images: JudgedInputs,
    methods: Mapping[str, ChosenMethod],
    stitches: Mapping[str, Mapping[Pair, MeasuredStitch]],
    limits: Limits,
    names: Sequence[str],
) -> Record:
    """Return the record of how the rows were made, with the options of `exec_stitch.py`."""
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
        {name: chosen.method for name, chosen in methods.items()},
        {name: {**options, **_options_of(chosen)} for name, chosen in methods.items()},
        {
            (name, pair): stitch
            for name, of_method in stitches.items()
            for pair, stitch in of_method.items()
        },
    )


def _options_of(chosen: ChosenMethod) -> Options:
    """Return the options of `exec_stitch.py` for a method of stitching."""
    options = chosen.settings._asdict()
    del options["reduce_lr_unit"]  # which it does not have
    if chosen.method.n_epochs:
        return {**options, "init": "rand", "objective": chosen.method.name}
    return {**options, "init": chosen.method.name, "objective": "task"}
