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
    add("--detector", type=cli.several(SCORES), default="energy",
        help=f"one, or several with commas between them. {cli.described(SCORES)}")  # fmt: skip
    add("-ed", "--energy-dir", help="folder for the scores of all images; default: one in source_dir")
    add("--front-model", help="where the front network's checkpoint is now, if it was moved")
    add("--end-model", help="where the end network's checkpoint is now, if it was moved")
    add("--front-type", type=network, help="FILE.py:FUNCTION of the front network, whose code runs only if named here")
    add("--end-type", type=network, help="likewise, of the end network")
    cli.add_figure(options)
    return options


def evaluate(args) -> None:
    from pathlib import Path

    from src.console import note, progress, result, warn
    from src.datasets import dataset_info, dataset_label, load_dataset
    from src.ood import evaluation, reporting, results
    from src.ood.networks import load_networks
    from src.ood.scorers import make_scorers
    from src.runs import Run
    from src.runtime import device_of
    from src.stitching.results import newest_of_each_pair, read_runs

    device, folder = device_of(args.gpu), Path(args.source_dir)
    finished, skipped = read_runs(folder)
    options, runs = evaluation.common_options(finished, folder), newest_of_each_pair(finished)
    dataset_info(args.dataset, labelled=True)
    placing = cli.placing_of(args, device)
    test_set = load_dataset(args.dataset, args.dataset_root, train=False, **placing)
    image = {"n_classes": test_set.n_classes, "image_shape": test_set.image_shape, "device": device}
    front, end, source = load_networks(options, runs, vars(args), **image)

    def passing(data, title, **order):
        return progress(data.batches(args.batch_size, **order), title, data.n_batches(args.batch_size))

    def training_batches():
        data = load_dataset(args.dataset, args.dataset_root, train=True, **placing)
        return passing(data, "training activations", indices=data.permutation(0))

    def energies_of(name, root, option):
        data = load_dataset(name, root, train=False, **placing) if name else test_set
        data.check_like(test_set, option=option)
        return evaluation.energies_of(end, scorers, passing(data, f"activations of {option}"))

    scorers, missing = make_scorers(args.detector, args.ood_detector_dir, source, end, runs, training_batches,
                                    others=bool(args.sanity_check_dataset), id_data=args.dataset, **image)  # fmt: skip
    grids, unusable = evaluation.grids_of(runs, front, end, scorers, image_shape=test_set.image_shape)
    for reason in (*skipped, *missing, *unusable):
        warn(f"skipped: {reason}")
    if not grids:
        sys.exit("nothing could be evaluated")
    stitches = evaluation.evaluate_stitches(grids, scorers, lambda: passing(test_set, "stitched activations"))
    own = energies_of(args.id_dataset, args.id_dataset_root, "-idd")
    checked, other = args.sanity_check_dataset, {}
    if checked:
        other = energies_of(checked, args.sanity_check_dataset_root, "-scd")
    data = {"dataset": args.dataset, "id_dataset": args.id_dataset or args.dataset, "sanity_dataset": checked or ""}
    checks, texts = {}, cli.figure_of(args)
    for name in filter(stitches.get, scorers):  # the others have detectors for other layers alone
        if len(scorers) > 1:
            result(f"DETECTOR: {name}")
        into = results.energy_folder(name, folder, args.energy_dir, of_several=len(scorers) > 1)
        checks[name] = results.check(own[name], other.get(name, {}), into, name=checked and dataset_label(checked))
        rows = results.rows_of(scorers[name], own[name], checks[name], stitches[name], data | {"detector": name}, into)
        reporting.report(folder, rows, (front, end), own[name], checks[name], runs, n_images=len(test_set), **texts)
    for name, table in reporting.write_results(folder, checks).items():
        Run.beside(table, vars(args) | {"detector": name}).finish()
    n_evaluated = len({stitch.run.folder for of_detector in stitches.values() for stitch in of_detector})
    n_skipped = len(skipped) + len(finished) - len(runs) + len(unusable)
    note(f"evaluated {n_evaluated} stitches; skipped {n_skipped} runs and {len(missing)} end layers")


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
