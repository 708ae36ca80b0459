#!/usr/bin/env python3
"""Measure how similar the representations of two networks are, at full rank or truncated to principal components."""

import sys

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser("Compare layers of two networks by CKA, PWCCA and orthogonal Procrustes, at any ranks.")
    add, rank = options.add_argument, cli.whole_number(0)
    add("model1_path", help=f"checkpoint of the first network: {cli.CHECKPOINT}")
    add("model2_path", help="checkpoint of the second network")
    add("model1_type", type=cli.network, help=cli.NETWORKS)
    add("model2_type", type=cli.network, help="as model1_type")
    add("model1_layer", help="layer of the first network; several with commas between them, or all")
    add("model2_layer", help="layer of the second network; likewise")
    add("-m1r", "--model1-ranks", type=rank, nargs="*", default=None, help="ranks of the first layer; 0, default: full")
    add("-m2r", "--model2-ranks", type=rank, nargs="*", default=None, help="ranks of the second one; 0, default: full")
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
    """Run the experiment; `session` keeps networks, images and features for others of this process."""
    from pathlib import Path

    from src.console import note, progress, warn, warn_once
    from src.datasets import dataset_info
    from src.low_rank import descending
    from src.results.run import Run
    from src.runtime import device_of
    from src.session import Session
    from src.similarity.comparison import Comparison
    from src.similarity.passes import Side, take_statistics
    from src.similarity.report import print_matrices, print_tables, write_files

    # Two networks, their layers, and the images.
    session = session or Session()
    device, spec = device_of(args.gpu), dataset_info(args.dataset, labelled=True).spec
    how = {"session": session, "device": device, "encoder": True}
    model1, first = cli.load_network(args, "model1", spec, **how)
    model2, second = cli.load_network(args, "model2", spec, **how)
    run = Run.beside(args.output, vars(args)) if args.output else None
    one_network = first == second
    model1, layers1 = cli.choose_layers(model1, args.model1_layer, args, image_shape=spec.shape, side="1")
    model2 = model1 if one_network else model2
    model2, layers2 = cli.choose_layers(model2, args.model2_layer, args, image_shape=spec.shape, side="2")
    loading = cli.load_options(args, device)
    test_set = session.dataset(args.dataset, args.dataset_root, train=False, **loading)
    n_images = min(args.n_samples, len(test_set))
    if n_images < args.n_samples:
        warn_once(f"-n {args.n_samples}: there are only {n_images} validation images")
    ranks1, ranks2 = descending(args.model1_ranks), descending(args.model2_ranks)

    # One pass of each network over the images, unless its features are kept.
    images = (args.dataset, str(args.dataset_root), n_images, *loading["interventions"].items(), args.intervention_seed)
    made_with = (*images, args.amp, args.tf32)
    keys = [(name, args.channels_last in (side, "both"), *made_with) for side, name in (("1", first), ("2", second))]
    network1 = model2 if one_network else model1  # the view that has the layout of both
    batches = test_set.batches(args.batch_size, indices=range(n_images))
    statistics = take_statistics(
        Side(network1, layers1, ranks1, title=args.model1_path, key=keys[0]),
        Side(model2, layers2, ranks2, title=args.model2_path, key=keys[1]),
        progress(batches, "activations", -(-n_images // args.batch_size)),
        n_images=n_images,
        metrics=args.metrics,
        alignment=args.alignment,
        device=device,
        kept=session.features,
    )

    # The measures of each pair of layers, at each pair of ranks.
    comparison = Comparison(
        statistics,
        n_permutations=args.n_permutations or 0,
        labels=test_set.labels[:n_images],
        source={
            "model1": args.model1_path,
            "model2": args.model2_path,
            "model1_type": args.model1_type,
            "model2_type": args.model2_type,
            "model1_weights": first.identity,
            "model2_weights": second.identity,
            "dataset": args.dataset,
            "shortcut": args.shortcut,
            "seed": args.seed if first.is_fresh or second.is_fresh else None,
        },
        both_ways=True,
    )
    pairs = list(comparison.rows())
    for rows in pairs:
        if args.verbose:
            note(f"{rows[0].layer1} -- {rows[0].layer2}: samples of CCA and Procrustes: {rows[0].alignment}")
        print_tables(rows, dict.fromkeys(args.metrics))
    rows = [row for of_pair in pairs for row in of_pair]
    print_matrices(rows)
    for line in comparison.warnings():
        warn(line)
    if run:
        write_files(Path(args.output), rows, **cli.figure_options(args))
        run.finish()
        note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), compute, argv)


if __name__ == "__main__":
    sys.exit(main())
