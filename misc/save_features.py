#!/usr/bin/env python3
"""Save activations of a network to a file, which can replace the network in comparisons."""

import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import __version__, cli, results
from src.core.console import counted, note, progress, warn_once
from src.results.run import Run, claimed

if TYPE_CHECKING:
    from src.datasets.base import InputSet
    from src.models.stored import StoredActivations


def parser() -> cli.Parser:
    options = cli.Parser(
        "Save the activations of layers of a network in an .npz file, with ids and labels of the inputs and a "
        "record of the network. exec_compute_low_rank_sim_metrics.py takes the file in the place of the network."
    )
    add = options.add_argument
    add("model_path", help=cli.CHECKPOINT)
    add("model_type", type=cli.network, help=cli.NETWORKS)
    add("layers", help="layers: names or patterns, separated by commas, or all")
    cli.add_channels_last(options)
    cli.add_data(options, batch_size=64)
    cli.add_interventions(options, of_tests=True)
    cli.add_gpu(options)
    add(
        "-s",
        "--seed",
        type=cli.integer_from_0,
        default=0,
        help="seed of randomly initialised weights",
    )
    add(
        "-n",
        "--n-samples",
        type=cli.integer_from(2),
        default=cli.N_COMPARED,
        help="number of validation inputs, the first ones, whose features are saved",
    )
    add("-o", "--output", type=cli.features_file, required=True, help=".npz file to write")
    return options


def main(args: Namespace) -> None:
    """Compute the features of a network, and write them to a file."""
    # The network, its layers, and the inputs
    session, device, spec = cli.begin(args)
    (model,) = cli.load_networks(args, cli.SAVED, images=spec, session=session, device=device)
    results.feature_files.check_names(model.layers)
    test_set = cli.load_split(args, session, device, train=False)
    n_images = min(args.n_samples, len(test_set))
    if n_images < args.n_samples != cli.N_COMPARED:
        warn_once(f"-n {args.n_samples}: there are only {n_images} validation inputs")

    # One pass, and the file
    run = Run.beside(args.output, vars(args), script=__file__)
    with claimed([run]):
        activations = take_activations(args, model, test_set, n_images)
        images = results.feature_files.images_of(
            test_set, args.test_images_sha256, dataset=args.dataset
        )
        with run.replacing():
            results.feature_files.write_features(
                args.output, activations, images, made_with(args, model)
            )
    n_layers = counted(len(model.layers), "layer", "layers")
    note(f"wrote {args.output}: {n_layers}, {n_images} inputs")


def take_activations(
    args: Namespace, model: cli.LoadedNetwork, test_set: "InputSet", n_images: int
) -> "StoredActivations":
    """Compute the activations of the layers for the first inputs."""
    import torch

    from src.similarity.sides import record_activations

    batches = test_set.batches(args.batch_size, indices=torch.arange(n_images))
    n_batches = math.ceil(n_images / args.batch_size)
    return record_activations(
        model.network, model.layers, progress(batches, "activations", n_batches), n_images
    )


def made_with(args: Namespace, model: cli.LoadedNetwork) -> dict[str, Any]:
    """Return the record of how features were made: network, layers and data."""
    depths = model.network.relative_depths(model.layers)
    return {
        "network": args.model_path,
        "type": args.model_type,
        "weights": model.name.weights,
        "seed": model.name.seed,
        "dataset": args.dataset,
        "shortcut": args.shortcut,
        "relative_depths": depths,
        "version": __version__,
    }


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
