#!/usr/bin/env python3
"""Evaluate a folder of stitching runs: are the activations they make out of distribution for the end network?"""

import sys

from src import cli
from src.ood.registry import SCORES


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
    add(
        "--detector",
        type=cli.several(SCORES),
        default="energy",
        help=f"one, or several with commas between them. {cli.described(SCORES)}",
    )
    add("-ed", "--energy-dir", help="folder for the scores of all images; default: one in source_dir")
    add("--front-model", help="where the front network's checkpoint is now, if it was moved")
    add("--end-model", help="where the end network's checkpoint is now, if it was moved")
    own = "FILE.py:FUNCTION of the {} network, whose code runs only if named here"
    add("--front-type", type=cli.network, help=own.format("front"))
    add("--end-type", type=cli.network, help="likewise, of the end network")
    cli.add_figure(options)
    return options


def evaluate(args) -> None:
    from pathlib import Path

    from src.console import note, progress, warn
    from src.datasets import dataset_info, dataset_label, load_dataset
    from src.ood import evaluation
    from src.ood.networks import check_runs, load_networks
    from src.ood.report import report
    from src.ood.store import DetectorStore
    from src.results.experiments import newest_runs
    from src.results.folders import evaluation_file, read_runs
    from src.results.run import Run
    from src.runtime import device_of

    # The runs, the images and the two networks.
    device, folder = device_of(args.gpu), Path(args.source_dir)
    finished, skipped = read_runs(folder)
    check_runs(finished, folder)
    runs = newest_runs(finished)
    dataset_info(args.dataset, labelled=True)
    if other_data := {run.row.experiment.dataset for run in runs} - {args.dataset, None}:
        warn(f"-d {args.dataset}: these runs were stitched on {', '.join(sorted(other_data))}; the verdict leaves out "
             "evaluations on other data")  # fmt: skip
    loading = cli.load_options(args, device)
    test_set = load_dataset(args.dataset, args.dataset_root, train=False, **loading)
    networks = load_networks(runs, vars(args), test_set.spec, device=device)

    def batches_of(data, title, **order):
        return progress(data.batches(args.batch_size, **order), title, data.n_batches(args.batch_size))

    def training_batches():
        data = load_dataset(args.dataset, args.dataset_root, train=True, **loading)
        return batches_of(data, "training activations", indices=data.permutation(0))

    def test_batches(name, root, option):
        data = load_dataset(name, root, train=False, **loading) if name else test_set
        data.check_like(test_set, option=option)
        return batches_of(data, f"activations of {option}")

    # A detector for each end layer, and the stitches into these layers.
    detectors, missing = evaluation.make_detectors(
        args.detector,
        networks,
        [run.row.pair.end_layer for run in runs],
        test_set.spec,
        store=DetectorStore(args.ood_detector_dir),
        all_in_store=bool(args.sanity_check_dataset),
        training_batches=training_batches,
        id_data=args.dataset,
    )
    grids, unusable = evaluation.rebuild_grids(runs, networks, detectors, image_shape=test_set.image_shape)
    for reason in (*skipped, *missing, *unusable):
        warn(f"skipped: {reason}")
    if not grids:
        sys.exit("nothing could be evaluated: train detectors with exec_train_representation_classifier.py, or give "
                 "--detector mahalanobis, which needs no training")  # fmt: skip

    # The scores of stitched activations, of the end network's own, and of those of the sanity-check data.
    stitches = evaluation.score_stitches(grids, detectors, lambda: batches_of(test_set, "stitched activations"))
    own_batches = test_batches(args.id_dataset, args.id_dataset_root, "-idd")
    own, other = evaluation.score_network(networks.end, detectors, own_batches), {}
    checked = args.sanity_check_dataset or ""
    if checked:
        other_batches = test_batches(checked, args.sanity_check_dataset_root, "-scd")
        other = evaluation.score_network(networks.end, detectors, other_batches)

    # The metrics, the report, and the scores of all images.
    data = {"dataset": args.dataset, "id_dataset": args.id_dataset or args.dataset, "sanity_dataset": checked}
    evaluations = {
        name: evaluation.evaluate(name, detectors[name], stitches[name], own[name], other.get(name, {}), data)
        for name in detectors
        if stitches[name]  # the others have detectors for other layers alone
    }
    report(folder, evaluations, n_images=len(test_set), **cli.figure_options(args))
    for name in evaluations:
        into = folder / ("energies" if name == "energy" else f"energies_{name}")
        if args.energy_dir:
            into = Path(args.energy_dir, name) if len(detectors) > 1 else Path(args.energy_dir)
        evaluation.save_scores(into, evaluations[name], sanity_name=checked and dataset_label(checked))
        Run.beside(evaluation_file(folder, name), vars(args) | {"detector": name}).finish()
    n_evaluated = len({stitch.run.folder for of_score in stitches.values() for stitch in of_score})
    n_skipped = len(skipped) + len(finished) - len(runs) + len(unusable)
    note(f"evaluated {n_evaluated} stitches; skipped {n_skipped} runs and {len(missing)} end layers")


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
