#!/usr/bin/env python3
"""Evaluate a folder of stitching runs: are the activations they make out of distribution for the end network?"""

import sys

from src import cli


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
    add("-ed", "--energy-dir", default="results/energies", help="folder for the energies of all images")
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
    from src.report import note, progress, warn
    from src.runs import Run
    from src.runtime import device_of
    from src.stitching.results import natural_order, newest_of_each_pair, read_runs

    device, store, folder = device_of(args.gpu), DetectorStore(args.ood_detector_dir), Path(args.source_dir)
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
    detectors, missing = store.load_all(source_of(end_path), ends, **image)
    runs = {pair: run for pair, run in runs.items() if pair.end_layer in detectors}
    grids, unusable = evaluation.grids_of(runs, front, end, image_shape=test_set.image_shape)

    def passing(data, title):
        return progress(data.batches(args.batch_size), title, data.n_batches(args.batch_size))

    for reason in (*skipped, *missing, *unusable):
        warn(f"skipped: {reason}")
    if not grids:
        sys.exit("nothing could be evaluated")
    stitches, sanity, rows = {}, {}, []
    for grid in grids:
        stitches |= evaluation.evaluate_stitches(grid, detectors, passing(test_set, "stitched activations"))
    id_set = test_set
    if args.id_dataset:
        id_set = load_dataset(args.id_dataset, args.id_dataset_root, train=False, **placing)
        id_set.check_like(test_set, option="-idd")
    id_energies = evaluation.energies_of(end, detectors, passing(id_set, "ID activations"))
    if args.sanity_check_dataset:
        other = load_dataset(args.sanity_check_dataset, args.sanity_check_dataset_root, train=False, **placing)
        other.check_like(test_set, option="-scd")
        for layer, energies in evaluation.energies_of(end, detectors, passing(other, "sanity check")).items():
            sanity[layer] = ood_metrics(id_energies[layer], energies)
            reporting.write_energies(
                Path(args.energy_dir, layer, f"{dataset_label(args.sanity_check_dataset)}.npy"), energies
            )
    for layer in detectors:
        into = {pair: stitch for pair, stitch in stitches.items() if pair.end_layer == layer}
        rows += reporting.report_layer(layer, id_energies[layer], sanity.get(layer), into, runs)
        for pair, stitch in into.items():
            reporting.write_energies(Path(args.energy_dir, layer, f"{pair.front_layer}.npy"), stitch.energies)
    reporting.finish(folder, rows, front, end, sanity, args.sanity_check_dataset)
    Run.beside(folder / "ood_evaluation.csv", vars(args)).finish()
    note(f"evaluated {len(rows)} stitches; skipped {len(skipped) + len(unusable)} runs and {len(missing)} end layers")


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
