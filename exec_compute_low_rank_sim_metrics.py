#!/usr/bin/env python3
"""Measure how similar the representations of two networks are, at full rank or truncated to principal components."""

import sys

from src import cli
from src.network_options import CHECKPOINT, NETWORKS, checkpoint, named, network
from src.options import PAPER_SIMILARITIES, SIMILARITIES


def parser() -> cli.Parser:
    options = cli.Parser("Compare layers of two networks by CKA, PWCCA and orthogonal Procrustes, at any ranks.")
    add, rank = options.add_argument, cli.whole_number(1)
    add("model1_path", type=checkpoint, help=f"checkpoint of the first network: {CHECKPOINT}")
    add("model2_path", type=checkpoint, help="checkpoint of the second network")
    add("model1_type", type=network, help=NETWORKS)
    add("model2_type", type=network, help="as model1_type")
    add("model1_layer", help="layer of the first network; several with commas between them, or all")
    add("model2_layer", help="layer of the second network; likewise")
    add("-m1r", "--model1-ranks", type=rank, nargs="*", default=None, help="ranks of the first layer; default: full")
    add("-m2r", "--model2-ranks", type=rank, nargs="*", default=None, help="ranks of the second layer; default: full")
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    add("-n", "--n-samples", type=cli.whole_number(2), default=1000, help="the first so many validation images")
    add("--metrics", nargs="+", choices=tuple(SIMILARITIES), default=list(PAPER_SIMILARITIES), help="what is measured")
    add("-o", "--output", type=cli.csv_file, help="CSV to write; a figure goes beside it")
    add("--verbose", action="store_true", help="say how layers are aligned, and what ranks they have")
    return options


def compute(args) -> None:
    from pathlib import Path

    from src.checkpoints import load_model
    from src.datasets import dataset_info, load_dataset
    from src.report import note, progress, warn
    from src.run_folder import Marks
    from src.runtime import device_of
    from src.similarity import Comparison, reporting

    device, info = device_of(args.gpu), dataset_info(args.dataset, labelled=True)
    image = {"n_classes": info.n_classes, "image_shape": info.image_shape, "device": device}
    models = (args.model1_path, args.model2_path)
    first, second = named(args, "model1"), named(args, "model2")
    same = first == second
    model1 = load_model(**first, **image)
    model2 = model1 if same else load_model(**second, **image)
    layers1, layers2 = model1.layers(args.model1_layer), model2.layers(args.model2_layer)
    test_set = load_dataset(args.dataset, args.dataset_root, train=False, **cli.placing_of(args, device))
    n_images = min(args.n_samples, len(test_set))
    if n_images < args.n_samples:
        warn(f"-n {args.n_samples}: there are only {n_images} validation images")

    # The Morcos value costs nothing once PWCCA is known, so the CSV has it, too.
    metrics = list(dict.fromkeys([*args.metrics, *(["pwcca_morcos"] if "pwcca" in args.metrics else [])]))
    comparison = Comparison(layers1, layers2, n_images=n_images, metrics=metrics, one_network=same)
    network1 = model1.for_inference([*layers1, *(layers2 if same else [])])
    network2 = network1 if same else model2.for_inference(layers2)
    batches = test_set.batches(args.batch_size, indices=range(n_images))
    for images, _ in progress(batches, "activations", -(-n_images // args.batch_size)):
        activations = network1.activations(images, [*layers1, *(layers2 if same else [])])
        comparison.add(activations, activations if same else network2.activations(images, layers2))
    ranks = [reporting.descending(ranks) for ranks in (args.model1_ranks, args.model2_ranks)]
    pairs = list(progress(comparison.rows(*ranks, device=device), "pairs", len(layers1) * len(layers2)))
    if args.verbose:
        note(comparison.summary())
    for rows in pairs:
        if args.verbose:
            note(f"{rows[0].layer1} -- {rows[0].layer2}: samples of CCA and Procrustes: {rows[0].alignment}")
        reporting.print_tables(models, rows, dict.fromkeys(args.metrics))
    for reason, lacking in comparison.undefined.items():
        warn(f"{', '.join(lacking)} nan: {reason}")
    if comparison.n_saturated:
        warn(f"PWCCA of {comparison.n_saturated} pairs is 0 for want of images: fewer than pooled features; raise -n")
    if args.output:
        reporting.write_files(Path(args.output), models, sum(pairs, []), n_images=n_images)
        Marks.beside(args.output).finish(vars(args))
        note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), compute, argv)


if __name__ == "__main__":
    sys.exit(main())
