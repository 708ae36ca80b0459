#!/usr/bin/env python3
"""Train a network on labelled images."""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from src import cli, results
from src.core.console import note
from src.core.errors import UserError
from src.core.tensors import save_state
from src.results.run import Run

if TYPE_CHECKING:
    import torch

    from src.core.inputs import InputSpec
    from src.datasets.base import InputSet
    from src.models import Network
    from src.training import Classification, Settings


def parser() -> cli.Parser:
    options = cli.Parser(
        "Train a network; writes model_<epoch>.pt, training_logs.csv and config.txt."
    )
    add = options.add_argument
    add("model_type", type=cli.network, help=cli.NETWORKS)
    cli.add_gpu(options)
    cli.add_data(options, batch_size=64)
    cli.add_training(options, n_epochs=100)
    cli.add_optimizer(options)
    cli.add_clipping(options)
    cli.add_interventions(options)
    add("-dir", "--save-dir", type=cli.folder, required=True, help="folder to write to")
    add(
        "-sf",
        "--save-frequency",
        type=cli.integer_from_0,
        default=0,
        help="number of epochs between two saved networks; the network of the last epoch is saved in any case. 0: "
        "only that network",
    )
    add(
        "-epoch-size",
        "--epoch-size",
        type=cli.integer_from_1,
        default=None,
        help="number of inputs in an epoch; each epoch continues where the last one ended. Default: all inputs; "
        "50,000 of cifar5m",
    )
    cli.add_resume(options, overwrite=True)
    return options


def main(args: Namespace) -> None:
    """Train the network of the options."""
    import torch

    from src.models.determinism import warn_of_probabilities
    from src.training import Classification

    # The network
    settings = cli.training_settings(args)
    session, device, spec = cli.begin(args)
    model = make_network(args.model_type, spec, seed=args.seed, device=device)
    if args.amp == "bf16":  # tensor cores need channels last
        model.to(device, memory_format=torch.channels_last)
    warn_of_probabilities(model, spec, title="the network")

    # The inputs
    train_set = cli.load_split(args, session, device, train=True, seed=args.seed)
    test_set = cli.load_split(args, session, device, train=False)
    args.image_spec = spec.record()
    if args.epoch_size is not None:
        if args.epoch_size > len(train_set):
            raise UserError(
                f"-epoch-size {args.epoch_size} is more than the {len(train_set)} training inputs; give at most so many"
            )
        train_set.epoch_size = args.epoch_size

    # The training
    run = Run(args.save_dir, vars(args))
    if not run.skip_if_finished(resume=args.resume, overwrite=args.overwrite):
        train_in(run, Classification(model), train_set, test_set, settings, args=args)


def make_network(
    model_type: str, spec: "InputSpec", *, seed: int, device: "torch.device"
) -> "Network":
    """Build a network for the inputs of a data set, with weights drawn by a seed, on the device."""
    from src.core.seeds import seeded
    from src.models import build_model, inputs_of

    with seeded(seed):
        model = build_model(
            model_type,
            n_classes=spec.n_classes,
            n_channels=spec.shape[0],
            image_shape=spec.shape,
            inputs=inputs_of(spec),
        )
    return model.to(device)


def train_in(
    run: Run,
    task: "Classification",
    train_set: "InputSet",
    test_set: "InputSet",
    settings: "Settings",
    *,
    args: Namespace,
) -> None:
    """Train the network of a task; write checkpoints and logs to the folder of a run."""
    cli.claim(run, args)
    scores = results.run.train_network(
        run, task, train_set, test_set, settings, save_frequency=args.save_frequency
    )
    if args.n_epochs == 0:
        save_state(run.folder / "model_0.pt", task.head.state_dict())
    run.finish()
    note(f"wrote {run.folder}{cli.accuracy_of(scores)}")


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
