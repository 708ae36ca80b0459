#!/usr/bin/env python3
"""Train a network on labelled images."""

import sys

from src import cli
from src.network_options import NETWORKS, network


def parser() -> cli.Parser:
    options = cli.Parser("Train a network; writes model_<epoch>.pt, training_logs.csv and config.txt.")
    add = options.add_argument
    add("model_type", type=network, help=NETWORKS)
    cli.add_gpu(options)
    cli.add_data(options, batch_size=64)
    cli.add_training(options, n_epochs=100)
    add("-dir", "--save-dir", required=True, help="folder to write to")
    add("-sf", "--save-frequency", type=cli.whole_number(0), default=0,
        help="save every so many epochs, and the last one; 0: the last one only")  # fmt: skip
    add("-epoch-size", "--epoch-size", type=cli.whole_number(1), default=None,
        help="images in an epoch, disjoint from epoch to epoch; default: all, of cifar5m 50,000")  # fmt: skip
    cli.add_resume(options, overwrite=True)
    return options


def train(args) -> None:
    import torch

    from src.console import note
    from src.datasets import dataset_info, load_dataset
    from src.models import build_model
    from src.runs import Run, train_network
    from src.runtime import device_of, seeded
    from src.training import Classification

    settings = cli.settings_of(args)
    run = Run.in_folder(args.save_dir, vars(args))
    if not run.left_to_do(resume=args.resume, overwrite=args.overwrite):
        return
    device, info = device_of(args.gpu), dataset_info(args.dataset, labelled=True)
    placing = cli.placing_of(args, device)
    with seeded(args.seed):
        model = build_model(args.model_type, n_classes=info.n_classes, n_channels=info.image_shape[0],
                            image_shape=info.image_shape)  # fmt: skip
    # Tensor cores want channels last; in float32 the layout is left alone.
    model.to(device, memory_format=torch.channels_last if args.amp == "bf16" else torch.preserve_format)
    train_set = load_dataset(args.dataset, args.dataset_root, train=True, **placing)
    val_set = load_dataset(args.dataset, args.dataset_root, train=False, **placing)
    train_set.epoch_size = args.epoch_size or train_set.epoch_size

    run.claim(resume=args.resume)
    train_network(run, Classification(model), train_set, val_set, settings, save_frequency=args.save_frequency)
    run.finish()
    note(f"wrote {run.folder}")


def main(argv=None) -> int:
    return cli.run(parser(), train, argv)


if __name__ == "__main__":
    sys.exit(main())
