#!/usr/bin/env python3
"""Stitch layers of one network to layers of another, by direct matching or by task loss matching."""

import sys

from src import cli
from src.network_options import CHECKPOINT, NETWORKS, add_channels_last, checkpoint, choose, named, network
from src.options import C2T_CLS_TOKENS, INITS, MATCHED_INITS, STITCHING_TYPES, T2C_CLS_TOKENS, UPSAMPLE_MODES
from src.stitching.objectives import OBJECTIVES


def parser() -> cli.Parser:
    options = cli.Parser("Stitch one pair of layers, several, or all; writes a folder for each pair.")
    add, positive = options.add_argument, cli.whole_number(1)
    add("front_model_path", type=checkpoint, help=f"checkpoint of the network it starts as: {CHECKPOINT}")
    add("end_model_path", type=checkpoint, help="checkpoint of the network that it ends as")
    add("front_model_type", type=network, help=NETWORKS)
    add("end_model_type", type=network, help="as front_model_type")
    add("front_layer", help="layer to stitch from; several with commas between them, or all")
    add("end_layer", help="layer to stitch to; several with commas between them, or all")
    add("stitching_type", choices=STITCHING_TYPES, help="rc2c_pre for convolutional layers, t2t for transformers")
    cli.add_gpu(options)
    cli.add_data(options, batch_size=256)
    cli.add_training(options, n_epochs=30)
    add("-dir", "--save-dir", default="", help="folder in results/ to write to")
    add("--no-save", action="store_true", help="do not save the stitched model (all else is saved)")
    add("--mod-only-stitch", action="store_true", help="train and save the stitching layer only")
    add("--no-predictions", action="store_true", help="do not keep the predicted classes of all test images")
    add("-i", "--init", choices=INITS, default="rand", help=f"start of the stitching layer: {cli.described(INITS)}")
    add("--objective", choices=OBJECTIVES, default="task", help=f"what is trained on: {cli.described(OBJECTIVES)}")
    add("-pinv-samples", "--pinv-init-samples", dest="n_pinv_init_samples", type=positive, default=100,
        help="training images used for direct matching")  # fmt: skip
    add("-l1", "--l1-coef", type=cli.real_number(at_least=0), default=0.0, help="weight of the l1 norm in the loss")
    add("-c2t-cls", "--c2t-cls-token", choices=C2T_CLS_TOKENS, default=None, help="CLS token that c2t makes")
    add("-t2c-cls", "--t2c-cls-token", choices=T2C_CLS_TOKENS, default=None, help="what t2c does with the CLS token")
    add("-upsample", "--upsample-mode", choices=UPSAMPLE_MODES, default="bilinear", help="how sizes are matched")
    add_channels_last(options, "front", "end")
    add("--front-stitch-rank", type=cli.rank, default=None, help="retained rank of the source, in each batch")
    cli.add_resume(options)
    add("--front-pinv-rank", type=cli.rank, default=None, help="retained rank of the source in direct matching")
    return options


def stitch(args) -> None:
    from pathlib import Path

    from src.checkpoints import load_model
    from src.console import progress, warn
    from src.datasets import dataset_info, load_dataset
    from src.runtime import device_of
    from src.stitching import Grid, build_layers, check_options, matching_batches
    from src.stitching.reporting import update_grid
    from src.stitching.runs import StitchingRuns
    from src.training import train

    settings, device, directory = cli.settings_of(args), device_of(args.gpu), Path("results", args.save_dir)
    info, placing = dataset_info(args.dataset, labelled=True), cli.placing_of(args, device)
    image = {"n_classes": info.n_classes, "image_shape": info.image_shape, "device": device}
    starts, ends = named(args, "front_model"), named(args, "end_model")
    front, ins = choose(load_model(**starts, **image), args.front_layer, args, "front", image_shape=info.image_shape)
    end = front if starts == ends else load_model(**ends, **image)
    end, outs = choose(end, args.end_layer, args, "end", image_shape=info.image_shape)
    front = end if starts == ends else front
    layers, skipped = build_layers(
        front, end, ins, outs, args.stitching_type, image_shape=info.image_shape, seed=args.seed, init=args.init,
        upsample_mode=args.upsample_mode, c2t_cls_token=args.c2t_cls_token, t2c_cls_token=args.t2c_cls_token,
    )  # fmt: skip
    check_options(vars(args), layers, (front, end))
    # All pairs share the frozen networks; where the networks' statistics move, each pair has networks of its own.
    frozen = args.mod_only_stitch or args.n_epochs == 0
    groups = [layers] if frozen else [{pair: layer} for pair, layer in layers.items()]
    every = [StitchingRuns(directory, group, options=vars(args), resume=args.resume) for group in groups]
    todo = [runs for runs in every if runs.layers]
    if todo:
        splits = (True, False) if args.init in MATCHED_INITS or args.n_epochs else (False,)
        *_, test_set = sets = [load_dataset(args.dataset, args.dataset_root, train=t, **placing) for t in splits]
    for runs in todo:
        grid = Grid(front, end, runs.layers, objective=OBJECTIVES[args.objective],
                    front_rank=args.front_stitch_rank, l1_coef=args.l1_coef, frozen=frozen)  # fmt: skip
        matched = {}
        if args.init in MATCHED_INITS:
            batches = matching_batches(sets[0], args.n_pinv_init_samples, args.batch_size, seed=args.seed,
                                       hold_out=args.init == "ridge")  # fmt: skip
            matched = grid.match(*batches, form=args.init, rank=args.front_pinv_rank)
        for history, state in train(grid, sets[0], test_set, settings, state=runs.state):
            runs.log(history, state)
        batches = progress(test_set.batches(args.batch_size), "evaluating", test_set.n_batches(args.batch_size))
        runs.finish(grid.evaluate(batches), matched, whole_networks=None if frozen else (grid.front, grid.end))
    update_grid(directory, create=len(layers) > 1)
    for reason in skipped:
        warn(f"not stitched: {reason}")


def main(argv=None) -> int:
    return cli.run(parser(), stitch, argv)


if __name__ == "__main__":
    sys.exit(main())
