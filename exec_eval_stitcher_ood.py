#!/usr/bin/env python3
"""Evaluate a folder of stitching runs: are the activations they make out of distribution for the end network?"""

import sys

from src import cli
from src.network_options import network
from src.ood.scores import SCORES


def parser() -> cli.Parser:
    options = cli.Parser("Evaluate a folder of stitching runs with the OOD detectors of their end layers.")
    add, root = options.add_argument, "./data/pytorch"
    add("source_dir", help="folder that holds one folder for each run, all of the same two networks")
    cli.add_data(options, batch_size=64)
    cli.add_gpu(options)
    add("-idd", "--id-dataset", type=cli.dataset, help="ID dataset; default: that of -d")
    add("-iddata", "--id-dataset-root", default=root, help="folder of the ID dataset")
    add("-detectors", "--ood-detector-dir", default="models/repr_cls_ood_detectors", help="folder of the detectors")
    add("-scd", "--sanity-check-dataset", type=cli.dataset, help="dataset that detectors should find OOD, as -d")
    add("-scdata", "--sanity-check-dataset-root", default=root, help="folder of the sanity-check dataset")
    add("--detector", choices=tuple(SCORES), default="energy", help=cli.described(SCORES))
    add("-ed", "--energy-dir", help="folder for the scores of all images; default: energies in source_dir")
    add("--front-model", help="where the front network's checkpoint is now, if it was moved")
    add("--end-model", help="where the end network's checkpoint is now, if it was moved")
    add("--front-type", type=network, help="FILE.py:FUNCTION of the front network, whose code runs only if named here")
    add("--end-type", type=network, help="likewise, of the end network")
    return options


def evaluate(args) -> None:
    from pathlib import Path

    from src.console import note, progress, warn
    from src.datasets import dataset_info, dataset_label, load_dataset
    from src.ood import evaluation, reporting
    from src.ood.detectors import DetectorStore
    from src.ood.networks import load_networks
    from src.ood.scorers import fitted_scorers, stored_scorers
    from src.runs import Run
    from src.runtime import device_of
    from src.stitching.results import natural_order, newest_of_each_pair, read_runs

    device, folder = device_of(args.gpu), Path(args.source_dir)
    finished, skipped = read_runs(folder)
    placing = cli.placing_of(args, device)
    options, runs = evaluation.common_options(finished, folder), newest_of_each_pair(finished)
    dataset_info(args.dataset, labelled=True)
    test_set = load_dataset(args.dataset, args.dataset_root, train=False, **placing)
    image = {"n_classes": test_set.n_classes, "image_shape": test_set.image_shape, "device": device}
    front, end, source = load_networks(options, runs, vars(args), **image)
    ends = natural_order(pair.end_layer for pair in runs)

    def passing(data, title, **order):
        return progress(data.batches(args.batch_size, **order), title, data.n_batches(args.batch_size))

    def like_test_set(name, data_root, option):
        images = load_dataset(name, data_root, train=False, **placing)
        images.check_like(test_set, option=option)
        return images

    if args.detector == "energy":
        scorers, missing = stored_scorers(DetectorStore(args.ood_detector_dir), source, ends,
                                          others=bool(args.sanity_check_dataset), **image)  # fmt: skip
    else:
        train_set = load_dataset(args.dataset, args.dataset_root, train=True, **placing)
        batches = passing(train_set, "training activations", indices=train_set.permutation(0))
        scorers, missing = fitted_scorers(args.detector, end, ends, batches, id_data=args.dataset)
    grids, unusable = evaluation.grids_of(runs, front, end, scorers, image_shape=test_set.image_shape)
    for reason in (*skipped, *missing, *unusable):
        warn(f"skipped: {reason}")
    if not grids:
        sys.exit("nothing could be evaluated")
    stitches, sanity, rows = {}, {}, []
    energies = Path(args.energy_dir or folder / reporting.energy_folder(args.detector))
    for grid in grids:
        stitches |= evaluation.evaluate_stitches(grid, scorers, passing(test_set, "stitched activations"))
    id_set = like_test_set(args.id_dataset, args.id_dataset_root, "-idd") if args.id_dataset else test_set
    id_energies = evaluation.energies_of(end, scorers, passing(id_set, "ID activations"))
    if args.sanity_check_dataset:
        other = like_test_set(args.sanity_check_dataset, args.sanity_check_dataset_root, "-scd")
        check_energies = evaluation.energies_of(end, scorers, passing(other, "sanity check"))
        sanity = reporting.check(id_energies, check_energies, energies, name=dataset_label(args.sanity_check_dataset))
    made_with = evaluation.made_with(options, args.detector, args.dataset, args.id_dataset, args.sanity_check_dataset)
    for layer, scorer in scorers.items():
        into = {pair: stitch for pair, stitch in stitches.items() if pair.end_layer == layer}
        scores = (id_energies[layer], sanity.get(layer), into)
        rows += reporting.rows_of(*scores, runs, made_with | scorer.data, energies / layer)
    table = reporting.finish(folder, rows, front, end, id_energies, sanity, runs.values(), n_images=len(test_set))
    Run.beside(table, vars(args)).finish()
    note(f"evaluated {len(rows)} stitches; skipped {len(skipped) + len(unusable)} runs and {len(missing)} end layers")


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
