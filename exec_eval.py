#!/usr/bin/env python3
"""Measure the accuracy of a network on the test inputs of a data set."""

import sys
from argparse import Namespace

from src import cli
from src.core.console import result, warn


def parser() -> cli.Parser:
    options = cli.Parser("Print the accuracy of a network on the test inputs of a data set.")
    options.add_argument("model_path", help=cli.CHECKPOINT)
    options.add_argument("model_type", type=cli.network, help=cli.NETWORKS)
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    return options


def main(args: Namespace) -> None:
    """Print the accuracy of the network."""
    from src.training import Classification, evaluate
    from src.training.doubts import beside_chance

    session, device, spec = cli.begin(args)
    model = session.network(cli.named_network(args, "model"), spec, device=device)
    test_set = cli.load_split(args, session, device, train=False)
    batches = cli.batches_of(test_set, args.batch_size)
    (measured,) = evaluate(Classification(model), batches).values()
    result(f"Clean accuracy: {measured.accuracy:.2%}")
    n_images = int((test_set.labels >= 0).sum())
    doubt = beside_chance(measured.accuracy, n_images, test_set.labels)
    if doubt:
        warn(f"the accuracy is {doubt}")


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
