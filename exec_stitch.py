#!/usr/bin/env python3
"""Stitch layers of one network to layers of another, by direct matching or by task loss matching."""

import sys

from src import cli
from src.models import MODEL_NAMES
from src.options import C2T_CLS_TOKENS, INITS, STITCHING_TYPES, T2C_CLS_TOKENS, UPSAMPLE_MODES


def parser() -> cli.Parser:
    options = cli.Parser("Stitch one pair of layers, several, or all; writes a folder for each pair.")
    add, positive = options.add_argument, cli.whole_number(1)
    add("front_model_path", help="checkpoint of the network that the stitched one starts as")
    add("end_model_path", help="checkpoint of the network that it ends as")
    add("front_model_type", help=f"one of {', '.join(MODEL_NAMES)}")
    add("end_model_type", help="as front_model_type")
    add("front_layer", help="layer to stitch from; several with commas between them, or all")
    add("end_layer", help="layer to stitch to; several with commas between them, or all")
    add("stitching_type", choices=STITCHING_TYPES, help="rc2c_pre for convolutional layers, t2t for transformers")
    cli.add_gpu(options)
    cli.add_data(options, batch_size=256)
    cli.add_training(options, n_epochs=30)
    add("-dir", "--save-dir", default="", help="folder in results/ to write to")
    add("--no-save", action="store_true", help="do not save the stitched model (logs and summary are saved)")
    add("--mod-only-stitch", action="store_true", help="train and save the stitching layer only")
    add("-i", "--init", choices=INITS, default="rand", help="start of the stitching layer; pinv: direct matching")
    add("-pinv-samples", "--pinv-init-samples", dest="n_pinv_init_samples", type=positive, default=100,
        help="training images used for direct matching")  # fmt: skip
    add("-l1", "--l1-coef", type=cli.real_number(at_least=0), default=0, help="weight of the l1 norm in the loss")
    add("-c2t-cls", "--c2t-cls-token", choices=C2T_CLS_TOKENS, default=None, help="CLS token that c2t makes")
    add("-t2c-cls", "--t2c-cls-token", choices=T2C_CLS_TOKENS, default=None, help="what t2c does with the CLS token")
    add("-upsample", "--upsample-mode", choices=UPSAMPLE_MODES, default="bilinear", help="how sizes are matched")
    add("--front-stitch-rank", type=cli.rank, default=None, help="retained rank of the source, in each batch")
    cli.add_resume(options)
    add("--front-pinv-rank", type=cli.rank, default=None, help="retained rank of the source in direct matching")
    return options


def stitch(args) -> None:
    from copy import deepcopy
    from pathlib import Path

    from src.checkpoints import load_model
    from src.datasets import dataset_info, load_dataset
    from src.report import progress, warn
    from src.runtime import device_of
    from src.stitching import Grid, build_layers, matching_samples
    from src.stitching.results import update_grid
    from src.stitching.runs import StitchingRuns
    from src.training import accuracy, train

    settings, device, directory = cli.settings_of(args), device_of(args.gpu), Path("results", args.save_dir)
    info, placing = dataset_info(args.dataset, labelled=True), cli.placing_of(args, device)
    image = {"n_classes": info.n_classes, "image_shape": info.image_shape, "device": device}
    front = load_model(args.front_model_path, args.front_model_type, **image)
    same = (args.front_model_path, args.front_model_type) == (args.end_model_path, args.end_model_type)
    end = front if same else load_model(args.end_model_path, args.end_model_type, **image)
    layers, misfits = build_layers(
        front, end, front.layers(args.front_layer), end.layers(args.end_layer), args.stitching_type,
        image_shape=info.image_shape, seed=args.seed, init=args.init, upsample_mode=args.upsample_mode,
        c2t_cls_token=args.c2t_cls_token, t2c_cls_token=args.t2c_cls_token,
    )  # fmt: skip
    # All pairs share the frozen networks; where the networks' statistics move, each pair has networks of its own.
    frozen = args.mod_only_stitch or args.n_epochs == 0
    parts = [layers] if frozen else [{pair: layer} for pair, layer in layers.items()]
    every = [StitchingRuns(directory, part, options=vars(args), resume=args.resume) for part in parts]
    todo = [runs for runs in every if runs.layers]
    if todo:
        test_set = load_dataset(args.dataset, args.dataset_root, train=False, **placing)
        train_set = test_set  # never used where nothing is matched or trained
        if args.init == "pinv" or args.n_epochs:
            train_set = load_dataset(args.dataset, args.dataset_root, train=True, **placing)
    for runs in todo:
        networks = (front, end) if frozen else (deepcopy(front), deepcopy(end))
        grid = Grid(*networks, runs.layers, front_rank=args.front_stitch_rank, l1_coef=args.l1_coef, frozen=frozen)
        errors = {}
        if args.init == "pinv":
            samples = matching_samples(train_set, args.n_pinv_init_samples, seed=args.seed)
            errors = grid.match(train_set.batches(args.batch_size, indices=samples), rank=args.front_pinv_rank)
        for history, state in train(grid, train_set, test_set, settings, state=runs.state):
            runs.log(history, state)
        batches = progress(test_set.batches(args.batch_size), "evaluating", test_set.n_batches(args.batch_size))
        scores = grid.evaluate(batches)
        if not frozen:  # the networks alone are those that were given, not those whose statistics moved
            own = [accuracy(network, test_set.batches(args.batch_size), device=device) for network in (front, end)]
            scores = scores._replace(front_accuracy=own[0], end_accuracy=own[1])
        runs.finish(scores, errors, whole_networks=None if frozen else networks)
    update_grid(directory, create=len(layers) > 1)
    for reason in misfits:
        warn(f"not stitched: {reason}")


def main(argv=None) -> int:
    return cli.run(parser(), stitch, argv)


if __name__ == "__main__":
    sys.exit(main())
