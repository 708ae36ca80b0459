#!/usr/bin/env python3
"""Stitch layers of a front network to layers of an end network.

The stitches are made by direct matching or by task loss matching.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src import cli, figures, results
from src.core.choices import (
    AUTO,
    C2T_CLS_TOKENS,
    KINDS,
    STARTS,
    STITCHING_TYPES,
    T2C_CLS_TOKENS,
    UPSAMPLE_MODES,
)
from src.core.choices.stitching import INITS, OBJECTIVES
from src.core.console import is_silent, listed, progress, result, warn
from src.core.grouping import grouped
from src.core.user_code import CODE

if TYPE_CHECKING:
    import torch

    from src.core.values import Pair
    from src.datasets.base import InputSet
    from src.models import Network
    from src.results.checkpoints import Session
    from src.results.stitch_runs import GridRun
    from src.results.stitches import Stitch
    from src.stitching import Grid, Matching
    from src.stitching.grid import GridMetrics
    from src.stitching.layers import StitchingLayer
    from src.stitching.objectives import Objective
    from src.training import Settings


def parser() -> cli.Parser:
    """Return the parser of the options of this script."""
    options = cli.Parser(
        "Stitch layers of a front network to layers of an end network: one pair of layers, several pairs, or all "
        "pairs. Writes one folder below results/."
    )
    add = options.add_argument
    add("front_model_path", help=f"checkpoint of the front network: {cli.CHECKPOINT}")
    add("end_model_path", help="checkpoint of the end network, as for front_model_path")
    add("front_model_type", type=cli.network, help=cli.NETWORKS)
    add("end_model_type", type=cli.network, help="type, as for front_model_type")
    add(
        "front_layer",
        help="layer of the front network to stitch from; several layers, separated by commas; or all",
    )
    add(
        "end_layer",
        help="layer of the end network to stitch to; several layers, separated by commas; or all",
    )
    add(
        "stitching_type",
        choices=(*STITCHING_TYPES, AUTO),
        help="type of the stitching layer. rc2c_pre: for convolutional layers; t2t: for "
        "transformers; auto: the type that fits each pair of layers. Names consist of the letters of source and "
        f"target ({', '.join(f'{letter}: {kind}' for letter, kind in KINDS.items())}): c2t maps a feature map "
        "to tokens",
    )
    cli.add_gpu(options)
    cli.add_data(options, batch_size=256)
    cli.add_interventions(options, of_tests=True)
    cli.add_training(options, n_epochs=30)
    cli.add_optimizer(options)
    cli.add_clipping(options)
    cli.add_matching(options, n_samples=100, default_cutoff="paper")  # as the paper
    cli.add_channels_last(options, "front", "end")
    cli.add_resume(options)
    add_files(options)
    add_method(options)
    add_shapes(options)
    add_ranks(options)
    return options


def add_files(options: cli.Parser) -> None:
    """Add the options of the files to write."""
    add = options.add_argument
    add(
        "-dir",
        "--save-dir",
        type=cli.results_folder,
        default="",
        help="folder below results/ to write to, or an absolute path",
    )
    add("--no-save", action="store_true", help="do not save the stitched network")
    add(
        "--mod-only-stitch",
        action="store_true",
        help="train and save the stitching layer only; both networks stay frozen",
    )


def add_method(options: cli.Parser) -> None:
    """Add the options of stitching methods."""
    add = options.add_argument
    add(
        "-i",
        "--init",
        type=cli.name_or_code("initial layer", INITS),
        default="rand",
        help=f"initial stitching layer; with -e 0 it is the result. {cli.described(INITS)}; or {CODE}, a "
        "closed-form solver of your own",
    )
    add(
        "--objective",
        type=cli.name_or_code("objective", OBJECTIVES),
        default="task",
        help=f"training loss. {cli.described(OBJECTIVES)}; or {CODE}, a loss of your own",
    )
    add(
        "-l1",
        "--l1-coef",
        type=cli.real_from_0,
        default=0.0,
        help="weight of the l1 norm of the stitching layer in the loss",
    )


def add_shapes(options: cli.Parser) -> None:
    """Add the options of how the shapes of activations are matched."""
    add = options.add_argument
    add(
        "-c2t-cls",
        "--c2t-cls-token",
        choices=C2T_CLS_TOKENS,
        default=None,
        help="how c2t makes the CLS token. pool: the mean of the tokens; learn: a learned token",
    )
    add(
        "-t2c-cls",
        "--t2c-cls-token",
        choices=T2C_CLS_TOKENS,
        default=None,
        help="how t2c uses the CLS token. drop: not at all; add: it is added to the other tokens; "
        "only: it replaces the other tokens",
    )
    add(
        "-upsample",
        "--upsample-mode",
        choices=UPSAMPLE_MODES,
        default="bilinear",
        help="interpolation for resizing feature maps",
    )


def add_ranks(options: cli.Parser) -> None:
    """Add the options that truncate the front activations."""
    add = options.add_argument
    add(
        "--front-stitch-rank",
        type=cli.rank,
        default=None,
        help="number of principal components of the front activations of each batch to keep; 0, and the default: "
        "all components",
    )
    add(
        "--front-pinv-rank",
        type=cli.rank,
        default=None,
        help="number of principal components of the front activations to keep in direct matching; 0, and the "
        "default: all components",
    )


class Setup(NamedTuple):
    """The networks, inputs, options and runs of an experiment."""

    front: "Network"
    end: "Network"
    train_set: Any  # a `InputSet`; None if nothing is matched or trained
    test_set: "InputSet"
    settings: "Settings"  # of the training
    objective: "Objective"
    groups: "list[GridRun]"  # of pairs that run together
    skipped: "dict[Pair, str]"  # the reason by pair that cannot be stitched


def main(args: Namespace, session: "Session | None" = None) -> None:
    """Stitch all pairs of layers, measure the stitches, and write their runs.

    Args:
        session: experiments of one session share networks and inputs.
    """
    setup = set_up(args, session)
    stitches: list[Stitch] = []
    for runs in setup.groups:
        if runs.layers:
            grid, matched = make_stitches(args, runs, setup)
            score = evaluate(grid, setup.test_set, args.batch_size)
            stitches += finish(runs, grid, score, matched)
    conclude(args, setup, stitches)


def set_up(args: Namespace, session: "Session | None") -> Setup:
    """Load networks and inputs, and begin the runs."""
    from src.stitching import chosen_options
    from src.stitching.closed_forms import solver_of
    from src.stitching.objectives import objective_of

    # Two networks, and a stitching layer for each pair of their layers
    objective = objective_of(args.objective)
    if args.init not in STARTS:
        solver_of(args.init)  # code of the user's that fails does so before the work
    session, device, spec = cli.begin(args, session)
    settings = cli.training_settings(args)
    front, end = cli.load_networks(
        args, cli.FRONT, cli.END, images=spec, session=session, device=device
    )
    layers, skipped = stitching_layers(args, front, end, spec.shape)
    results.stitch_runs.check_options(vars(args), layers, front.network, end.network)

    # The inputs, whose fingerprints are a part of the spec
    train_set, test_set = load_images(args, session, device)
    chosen = chosen_options(layers) if args.stitching_type == AUTO else {}
    groups = begin_runs(args, layers, chosen)
    if any(runs.layers for runs in groups):
        session.warn_at_chance(end.name, end.network, test_set, is_end=True)
    return Setup(
        front.network, end.network, train_set, test_set, settings, objective, groups, skipped
    )


def stitching_layers(
    args: Namespace, front: cli.LoadedNetwork, end: cli.LoadedNetwork, image_shape: Sequence[int]
) -> "tuple[dict[Pair, StitchingLayer], dict[Pair, str]]":
    """Build a stitching layer for each pair of a front layer and an end layer.

    Returns:
        The stitching layers by pair, and the reason by pair that cannot be stitched.
    """
    from src.stitching import build_layers

    return build_layers(
        front.network,
        end.network,
        front.layers,
        end.layers,
        args.stitching_type,
        image_shape=image_shape,
        seed=args.seed,
        is_identity=args.init == "eye",
        upsample_mode=args.upsample_mode,
        c2t_cls_token=args.c2t_cls_token,
        t2c_cls_token=args.t2c_cls_token,
    )


def is_frozen(args: Namespace) -> bool:
    """Return whether both networks stay unchanged, with their BatchNorm statistics."""
    return args.mod_only_stitch or args.n_epochs == 0


def load_images(
    args: Namespace, session: "Session", device: "torch.device"
) -> "tuple[InputSet | None, InputSet]":
    """Return the training inputs, None if nothing is matched or trained, and the test inputs."""
    train_set = None
    if args.init not in STARTS or args.n_epochs:
        train_set = cli.load_split(args, session, device, train=True)
    return train_set, cli.load_split(args, session, device, train=False)


def begin_runs(
    args: Namespace, layers: "Mapping[Pair, StitchingLayer]", chosen: "Mapping[Pair, Any]"
) -> "list[GridRun]":
    """Return the runs of all pairs; with `--resume`, of the pairs that remain.

    All pairs share frozen networks. If BatchNorm statistics move, each pair needs copies of the
    networks, and runs by itself.

    Args:
        chosen: by pair, the options that `auto` chose.
    """
    directory = Path("results", args.save_dir)
    if is_frozen(args) or len(layers) == 1:
        runs_of_groups = [results.stitch_runs.GridRun(directory, layers, vars(args), chosen=chosen)]
    else:
        call = results.stitch_runs.FolderOfCall(directory)
        runs_of_groups = [
            results.stitch_runs.GridRun(
                directory, {pair: layer}, vars(args), chosen=chosen, call=call
            )
            for pair, layer in layers.items()
        ]
    if args.resume:
        results.stitch_runs.resume(directory, runs_of_groups)
    return runs_of_groups


def make_stitches(
    args: Namespace, runs: "GridRun", setup: Setup
) -> "tuple[Grid, dict[Pair, Matching]]":
    """Match and train the stitches of a run on shared passes; return the grid, and the matching of each pair."""
    from src.stitching import Grid
    from src.training import train

    runs.start = datetime.now()
    grid = Grid(
        setup.front,
        setup.end,
        runs.layers,
        objective=setup.objective,
        front_rank=args.front_stitch_rank,
        l1_coef=args.l1_coef,
        form="" if args.n_epochs else args.init,
        frozen=is_frozen(args),
    )
    matched = match(args, setup, runs.layers)
    if args.n_epochs:
        images = (setup.train_set, setup.test_set)
        for history, state in train(grid, *images, setup.settings, state=runs.state):
            runs.log(history, state)
    return grid, matched


def match(
    args: Namespace, setup: Setup, layers: "Mapping[Pair, StitchingLayer]"
) -> "dict[Pair, Matching]":
    """Fit stitching layers by the closed-form solver of `--init`; return the matching of each pair.

    It is {} if `--init` is no solver.
    """
    from src.stitching import match

    if args.init in STARTS:
        return {}
    n_samples = args.n_pinv_init_samples
    if n_samples == "auto":
        n_samples = None
    return match(
        setup.front,
        setup.end,
        layers,
        setup.train_set,
        args.batch_size,
        n_samples=n_samples,
        seed=args.seed,
        form=args.init,
        rank=args.front_pinv_rank,
        cutoff=args.pinv_cutoff,
    )


def evaluate(grid: "Grid", test_set: "InputSet", batch_size: int) -> "GridMetrics":
    """Measure the stitches on the test inputs."""
    n_batches = test_set.n_batches(batch_size)
    return grid.evaluate(progress(test_set.batches(batch_size), "evaluating", n_batches))


def finish(
    runs: "GridRun",
    grid: "Grid",
    score: "GridMetrics",
    matched: "Mapping[Pair, Matching]",
) -> "list[Stitch]":
    """Write the folder of the run, with the figure of a grid; return the stitches."""
    whole_networks = None
    if not grid.frozen:
        whole_networks = (grid.front, grid.end)
    stitches = runs.write(score, matched, whole_networks=whole_networks)
    if runs.folder and len(stitches) > 1:
        figures.matrices.draw_grid(runs.folder / "grid.png", stitches)
    runs.finish()
    return stitches


def conclude(args: Namespace, setup: Setup, stitches: "Sequence[Stitch]") -> None:
    """Print the accuracy of a single stitch or the matrix of several, and the pairs that could not be stitched."""
    if len(stitches) > 1 and not is_silent():
        accuracies = figures.matrices.matrix_of(stitches, "accuracy")
        figures.maps.print_values("accuracy of the stitched network", accuracies)
    else:
        for stitch in stitches:
            is_named = stitch.pair == (args.front_layer, args.end_layer)
            title = "" if is_named else f"{stitch.pair}: "
            result(f"{title}Clean accuracy: {stitch.record['accuracy']:.2%}")
    for reason, pairs in grouped(setup.skipped, setup.skipped.__getitem__).items():
        warn(f"not stitched: {listed(pairs)}: {reason}")


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
