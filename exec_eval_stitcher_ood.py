#!/usr/bin/env python3
"""Evaluate a folder of stitching runs: are the activations they make out of distribution for the end network?"""

import sys

from src import cli
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
    add("--detector", choices=tuple(SCORES), default="energy", help="; ".join(
        f"{name}: {score.description}" for name, score in SCORES.items()))  # fmt: skip
    add("-ed", "--energy-dir", help="folder for the scores of all images; default: energies in source_dir")
    add("--front-model", help="where the front network's checkpoint is now, if it was moved")
    add("--end-model", help="where the end network's checkpoint is now, if it was moved")
    return options


def evaluate(args) -> None:
    from pathlib import Path

    from src.checkpoints import load_model
    from src.datasets import dataset_info, dataset_label, load_dataset
    from src.errors import UserError
    from src.ood import evaluation, ood_metrics, reporting
    from src.ood.detectors import DetectorStore, source_of
    from src.ood.scorers import fitted_scorers, stored_scorers
    from src.report import note, progress, warn
    from src.run_folder import Marks
    from src.runtime import device_of
    from src.stitching.results import natural_order, newest_of_each_pair, read_runs

    device, folder = device_of(args.gpu), Path(args.source_dir)
    found, skipped = read_runs(folder)
    if not found:
        raise UserError(f"{folder} holds no finished stitching run; give the folder that holds their folders")
    placing = cli.placing_of(args, device)
    options, runs = evaluation.common_options(found), newest_of_each_pair(found)
    dataset_info(args.dataset, labelled=True)
    test_set = load_dataset(args.dataset, args.dataset_root, train=False, **placing)
    image = {"n_classes": test_set.n_classes, "image_shape": test_set.image_shape, "device": device}
    front_path = evaluation.network_path(options, "front", args.front_model)
    end_path = evaluation.network_path(options, "end", args.end_model)
    front = load_model(front_path, options["front_model_type"], **image)
    end = load_model(end_path, options["end_model_type"], **image)
    ends = natural_order(pair.end_layer for pair in runs)

    def passing(data, title, **order):
        return progress(data.batches(args.batch_size, **order), title, data.n_batches(args.batch_size))

    if args.detector == "energy":
        scorers, missing = stored_scorers(DetectorStore(args.ood_detector_dir), source_of(end_path), ends, **image)
    else:
        train_set = load_dataset(args.dataset, args.dataset_root, train=True, **placing)
        batches = passing(train_set, "training activations", indices=train_set.permutation(0))
        scorers, missing = fitted_scorers(args.detector, end, ends, batches, id_data=args.dataset)
    runs = {pair: run for pair, run in runs.items() if pair.end_layer in scorers}
    grids, unusable = evaluation.grids_of(runs, front, end, image_shape=test_set.image_shape)
    for reason in (*skipped, *missing, *unusable):
        warn(f"skipped: {reason}")
    if not grids:
        sys.exit("nothing could be evaluated")
    stitches, sanity, rows = {}, {}, []
    for grid in grids:
        stitches |= evaluation.evaluate_stitches(grid, scorers, passing(test_set, "stitched activations"))
    id_set = test_set
    if args.id_dataset:
        id_set = load_dataset(args.id_dataset, args.id_dataset_root, train=False, **placing)
        id_set.check_like(test_set, option="-idd")
    id_energies = evaluation.energies_of(end, scorers, passing(id_set, "ID activations"))
    energies = Path(args.energy_dir or folder / reporting.energy_folder(args.detector))
    if args.sanity_check_dataset:
        other = load_dataset(args.sanity_check_dataset, args.sanity_check_dataset_root, train=False, **placing)
        other.check_like(test_set, option="-scd")
        for layer, values in evaluation.energies_of(end, scorers, passing(other, "sanity check")).items():
            sanity[layer] = ood_metrics(id_energies[layer], values)
            reporting.write_energies(energies / layer / f"{dataset_label(args.sanity_check_dataset)}.npy", values)
    made_with = {name: options[name] for name in evaluation.SAME} | {"detector": args.detector}
    made_with |= {"dataset": args.dataset, "id_dataset": args.id_dataset or args.dataset}
    made_with |= {"sanity_dataset": args.sanity_check_dataset or ""}
    for layer, scorer in scorers.items():
        into = {pair: stitch for pair, stitch in stitches.items() if pair.end_layer == layer}
        data = {"detector_id_data": scorer.id_data, "detector_ood_data": scorer.ood_data}
        rows += reporting.report_layer(layer, id_energies[layer], sanity.get(layer), into, runs, made_with | data)
        for pair, stitch in into.items():
            reporting.write_energies(energies / layer / f"{pair.front_layer}.npy", stitch.energies)
    table = reporting.finish(folder, rows, front, end, sanity, args.detector)
    Marks.beside(table).finish(vars(args))
    note(f"evaluated {len(rows)} stitches; skipped {len(skipped) + len(unusable)} runs and {len(missing)} end layers")


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
