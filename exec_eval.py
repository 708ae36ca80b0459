#!/usr/bin/env python3
"""Measure the accuracy of a network on the test images of a dataset."""

import sys

from src import cli
from src.network_options import CHECKPOINT, NETWORKS, checkpoint, named, network


def parser() -> cli.Parser:
    options = cli.Parser("Print the accuracy of a network on the test images of a dataset.")
    options.add_argument("model_path", type=checkpoint, help=CHECKPOINT)
    options.add_argument("model_type", type=network, help=NETWORKS)
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    return options


def evaluate(args) -> None:
    from src.checkpoints import load_model
    from src.console import progress, result
    from src.datasets import dataset_info, load_dataset
    from src.runtime import device_of
    from src.training import accuracy

    device, info = device_of(args.gpu), dataset_info(args.dataset, labelled=True)
    image = {"n_classes": info.n_classes, "image_shape": info.image_shape}
    model = load_model(**named(args, "model"), **image, device=device)
    test_set = load_dataset(args.dataset, args.dataset_root, train=False, **cli.placing_of(args, device))
    batches = progress(test_set.batches(args.batch_size), "evaluating", test_set.n_batches(args.batch_size))
    result(f"Clean accuracy: {accuracy(model, batches, device=device):.2%}")


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
