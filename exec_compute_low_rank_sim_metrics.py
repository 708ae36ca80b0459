#!/usr/bin/env python3
"""Measure how similar the representations of two networks are, at full rank or truncated to
principal components."""

import sys

from src import cli
from src.user_code import title_of


def parser() -> cli.Parser:
    options = cli.Parser(
        "Compare layers of two networks by CKA, PWCCA and orthogonal Procrustes, at any ranks."
    )
    add = options.add_argument
    rank = cli.whole_number(0)
    add("model1_path", help=f"checkpoint of the first network: {cli.CHECKPOINT}")
    add("model2_path", help="checkpoint of the second network")
    add("model1_type", type=cli.network, help=cli.NETWORKS)
    add("model2_type", type=cli.network, help="as model1_type")
    add("model1_layer", help="layer of the first network; several with commas between them, or all")
    add("model2_layer", help="layer of the second network; likewise")
    add(
        "-m1r",
        "--model1-ranks",
        type=rank,
        nargs="*",
        default=None,
        help="ranks of the first layer; 0, default: full",
    )
    add(
        "-m2r",
        "--model2-ranks",
        type=rank,
        nargs="*",
        default=None,
        help="ranks of the second one; 0, default: full",
    )
    cli.add_channels_last(options, "1", "2")
    cli.add_data(options, batch_size=64)
    cli.add_interventions(options, of_tests=True)
    cli.add_gpu(options)
    add("-s", "--seed", type=cli.whole_number(0), default=0, help="seed of fresh weights")
    cli.add_similarity(options)
    add("-o", "--output", type=cli.csv_file, help="CSV to write; a figure goes beside it")
    cli.add_figure(options)
    add("--verbose", action="store_true", help="say how layers are aligned")
    return options


def compute(args, session=None) -> None:
    """Run the experiment. All experiments of one `session` share its networks, images and
    features."""
    from src.datasets import dataset_info
    from src.results.run import Run
    from src.runtime import device_of
    from src.session import Session
    from src.similarity.comparison import Comparison

    # Two networks, their layers, and the images.
    session = session or Session()
    device = device_of(args.gpu)
    spec = dataset_info(args.dataset, labelled=True).spec
    first, second = cli.load_two_networks(
        args, cli.MODEL1, cli.MODEL2, spec, session=session, device=device
    )
    run = Run.beside(args.output, vars(args)) if args.output else None
    loading = cli.load_options(args, device)
    test_set = session.dataset(args.dataset, args.dataset_root, train=False, **loading)
    n_images = count_images(args, test_set)

    # One pass of each network over the images; then the measures of each pair of layers, at each
    # pair of ranks.
    statistics = take_statistics(args, first, second, test_set, n_images, session, device)
    comparison = Comparison(
        statistics,
        n_permutations=args.n_permutations or 0,
        labels=test_set.labels[:n_images],
        source=source_of(args, first.name, second.name),
        both_ways=True,
    )
    rows = print_rows(args, comparison)
    if run:
        write_rows(args, run, rows)


def count_images(args, test_set) -> int:
    """Return how many images are compared; warn if there are fewer than the option says."""
    from src.console import warn_once

    if args.n_samples > len(test_set):
        warn_once(f"-n {args.n_samples}: there are only {len(test_set)} validation images")
    return min(args.n_samples, len(test_set))


def take_statistics(args, first, second, test_set, n_images, session, device):
    """Return the statistics of the layers of both networks, from one pass each unless `session` has
    its features."""
    from src.console import progress
    from src.low_rank import descending
    from src.similarity import passes

    interventions = cli.load_options(args, device)["interventions"].items()
    images = (
        args.dataset,
        str(args.dataset_root),
        n_images,
        *interventions,
        args.intervention_seed,
    )
    made_with = (
        *images,
        args.amp,
        args.tf32,
    )  # what the features of a network depend on beside the network
    sides = [
        passes.Side(
            side.network,
            side.layers,
            descending(ranks),
            title=side.name.path,
            key=(side.name, args.channels_last in (number, "both"), *made_with),
        )
        for side, ranks, number in (
            (first, args.model1_ranks, "1"),
            (second, args.model2_ranks, "2"),
        )
    ]
    batches = test_set.batches(args.batch_size, indices=range(n_images))
    return passes.take_statistics(
        *sides,
        progress(batches, "activations", -(-n_images // args.batch_size)),
        n_images=n_images,
        metrics=args.metrics,
        alignment=args.alignment,
        device=device,
        kept=session.features,
    )


def source_of(args, first, second) -> dict:
    """Return the columns that name the two networks and the images."""
    return {
        "model1": args.model1_path,
        "model2": args.model2_path,
        "model1_type": args.model1_type,
        "model2_type": args.model2_type,
        "model1_weights": first.identity,
        "model2_weights": second.identity,
        "dataset": args.dataset,
        "shortcut": args.shortcut,
        "seed": args.seed if first.is_fresh or second.is_fresh else None,
    }


def print_rows(args, comparison) -> list:
    """Print the tables of all pairs of layers, and what may surprise in them; return their rows."""
    from src.console import note, warn
    from src.similarity.similarity_report import print_matrices, print_tables

    metrics = list(dict.fromkeys(map(title_of, args.metrics)))
    all_rows = []
    for rows in list(comparison.rows()):
        if args.verbose:
            note(
                f"{rows[0].layer1} -- {rows[0].layer2}: samples of CCA and Procrustes: {rows[0].alignment}"
            )
        print_tables(rows, metrics)
        all_rows += rows
    print_matrices(all_rows)
    for line in comparison.warnings():
        warn(line)
    return all_rows


def write_rows(args, run, rows) -> None:
    """Write the table and its figure, and finish the run."""
    from pathlib import Path

    from src.console import note
    from src.similarity.similarity_report import write_files

    write_files(Path(args.output), rows, **cli.figure_options(args))
    run.finish()
    note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), compute, argv)


if __name__ == "__main__":
    sys.exit(main())
