#!/usr/bin/env python3
"""Measure how similar the representations of two networks are, at full rank or truncated to principal components."""

import sys

from src import cli
from src.network_options import CHECKPOINT, NETWORKS, add_channels_last, checkpoint, choose, named, network
from src.options import ALIGNMENTS
from src.similarity.measures import MEASURES, PAPER


def parser() -> cli.Parser:
    options = cli.Parser("Compare layers of two networks by CKA, PWCCA and orthogonal Procrustes, at any ranks.")
    add, rank = options.add_argument, cli.whole_number(0)
    add("model1_path", type=checkpoint, help=f"checkpoint of the first network: {CHECKPOINT}")
    add("model2_path", type=checkpoint, help="checkpoint of the second network")
    add("model1_type", type=network, help=NETWORKS)
    add("model2_type", type=network, help="as model1_type")
    add("model1_layer", help="layer of the first network; several with commas between them, or all")
    add("model2_layer", help="layer of the second network; likewise")
    add("-m1r", "--model1-ranks", type=rank, nargs="*", default=None, help="ranks of the first layer; 0, default: full")
    add("-m2r", "--model2-ranks", type=rank, nargs="*", default=None, help="ranks of the second one; 0, default: full")
    add_channels_last(options, "1", "2")
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    add("-n", "--n-samples", type=cli.whole_number(2), default=1000, help="the first so many validation images")
    add("--metrics", nargs="+", choices=tuple(MEASURES), default=list(PAPER), metavar="MEASURE",
        help=cli.described(MEASURES))  # fmt: skip
    add("--alignment", choices=ALIGNMENTS, default="auto", help="samples of CCA and Procrustes. auto, as the paper's "
        "code: positions of maps of equal shape, otherwise images; pool: images; positions: positions")  # fmt: skip
    add("--permutations", dest="n_permutations", type=cli.whole_number(19), default=None,
        help="so many permutations of images, such as 200, for p-values and calibrated values")  # fmt: skip
    add("-o", "--output", type=cli.csv_file, help="CSV to write; a figure goes beside it")
    cli.add_figure(options)
    add("--verbose", action="store_true", help="say how layers are aligned, and what ranks they have")
    return options


def compute(args) -> None:
    from pathlib import Path

    from src.checkpoints import load_model
    from src.console import note, progress, warn
    from src.datasets import dataset_info, load_dataset
    from src.low_rank import descending
    from src.runs import Run
    from src.runtime import device_of
    from src.similarity import Comparison, reporting

    device, info = device_of(args.gpu), dataset_info(args.dataset, labelled=True)
    image = {"n_classes": info.n_classes, "image_shape": info.image_shape, "device": device}
    first, second = named(args, "model1"), named(args, "model2")
    same = first == second
    model1 = load_model(**first, **image)
    model2 = model1 if same else load_model(**second, **image)
    model1, layers1 = choose(model1, args.model1_layer, args, "1", image_shape=info.image_shape)
    model2, layers2 = choose(model1 if same else model2, args.model2_layer, args, "2", image_shape=info.image_shape)
    model1 = model2 if same else model1
    test_set = load_dataset(args.dataset, args.dataset_root, train=False, **cli.placing_of(args, device))
    n_images = min(args.n_samples, len(test_set))
    if n_images < args.n_samples:
        warn(f"-n {args.n_samples}: there are only {n_images} validation images")

    ranks1, ranks2 = (descending(ranks) for ranks in (args.model1_ranks, args.model2_ranks))
    comparison = Comparison(
        layers1, layers2, n_images=n_images, metrics=args.metrics, ranks1=ranks1, ranks2=ranks2, one_network=same,
        alignment=args.alignment, n_permutations=args.n_permutations or 0, describe=args.verbose,
    )  # fmt: skip
    network1 = model1.for_inference([*layers1, *(layers2 if same else [])])
    network2 = network1 if same else model2.for_inference(layers2)
    batches = test_set.batches(args.batch_size, indices=range(n_images))
    for images, _ in progress(batches, "activations", -(-n_images // args.batch_size)):
        activations = network1.activations(images, [*layers1, *(layers2 if same else [])])
        comparison.add(activations, activations if same else network2.activations(images, layers2))
    source = {"model1": args.model1_path, "model2": args.model2_path, "model1_type": args.model1_type,
              "model2_type": args.model2_type, "dataset": args.dataset}  # fmt: skip
    pairs = [[row._replace(**source) for row in rows]
             for rows in progress(comparison.rows(device=device), "pairs", len(layers1) * len(layers2))]  # fmt: skip
    if args.verbose:
        note(comparison.summary())
    for rows in pairs:
        if args.verbose:
            note(f"{rows[0].layer1} -- {rows[0].layer2}: samples of CCA and Procrustes: {rows[0].alignment}")
        reporting.print_tables(rows, dict.fromkeys(args.metrics))
    for line in comparison.warnings():
        warn(line)
    if args.output:
        reporting.write_files(Path(args.output), sum(pairs, []), **cli.figure_of(args))
        Run.beside(args.output, vars(args)).finish()
        note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), compute, argv)


if __name__ == "__main__":
    sys.exit(main())
