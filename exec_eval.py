#!/usr/bin/env python3
"""Measure the accuracy of a network on the test images of a dataset."""

import sys

from src import cli
from src.models import MODEL_NAMES


def parser() -> cli.Parser:
    options = cli.Parser("Print the accuracy of a network on the test images of a dataset.")
    options.add_argument("model_path", help="checkpoint (a state dict)")
    options.add_argument("model_type", help=f"one of {', '.join(MODEL_NAMES)}")
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    return options


def evaluate(args) -> None:
    from src import training
    from src.checkpoints import load_model
    from src.datasets import load_labelled
    from src.report import progress, result
    from src.runtime import device_of

    device = device_of(args.gpu)
    test_set = load_labelled(args.dataset, args.dataset_root, train=False, device=device)
    model = load_model(args.model_path, args.model_type, n_classes=test_set.n_classes,
                       image_shape=test_set.image_shape, device=device)  # fmt: skip
    batches = progress(test_set.batches(args.batch_size), "evaluating", test_set.n_batches(args.batch_size))
    (score,) = training.evaluate(training.Classification(model), batches, device=device)
    result(f"Clean accuracy: {score.accuracy:.2%}")


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
