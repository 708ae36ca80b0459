#!/usr/bin/env python3
"""Evaluate a folder of stitching runs: are the activations they make out of distribution for the end network?"""

import sys

from src import cli
from src.choices.scores import SCORES


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
    add("--validity", action="store_true", help="measure density and recall with trained detectors alone, too")
    add(
        "--other-data",
        action="store_true",
        help="evaluate on other data than those stitched on, in tables of their own",
    )
    add("-ed", "--energy-dir", help="folder for the scores of all images; default: one in source_dir")
    add("--front-model", help="where the front network's checkpoint is now, if it was moved")
    add("--end-model", help="where the end network's checkpoint is now, if it was moved")
    own = "FILE.py:FUNCTION of the {} network, whose code runs only if named here"
    add("--front-type", type=cli.network, help=own.format("front"))
    add("--end-type", type=cli.network, help="likewise, of the end network")
    cli.add_figure(options)
    return options


def evaluate(args, loaded=None) -> None:
    """Run the experiment; `loaded` keeps the networks and the images for others of this process."""
    from pathlib import Path

    from src.console import note, progress, warn
    from src.datasets import dataset_info, dataset_label
    from src.loaded import Loaded
    from src.ood import evaluation
    from src.ood.evaluated import evaluation_file
    from src.ood.fitting import make_detectors
    from src.ood.networks import check_data, check_runs, load_networks
    from src.ood.rebuilding import rebuild_grids
    from src.ood.report import report
    from src.ood.store import DetectorStore
    from src.ood.validity import choose_images
    from src.results.experiments import newest_runs
    from src.results.matrices import natural_order
    from src.results.run import Run
    from src.runtime import device_of
    from src.stitching.folders import read_runs

    # The runs, the images and the two networks.
    loaded = loaded or Loaded()
    device, folder = device_of(args.gpu), Path(args.source_dir)
    finished, skipped = read_runs(folder)
    check_runs(finished, folder)
    dataset_info(args.dataset, labelled=True)
    runs = newest_runs(finished)
    check_data(args.dataset, runs, other_data=args.other_data)
    loading = cli.load_options(args, device)
    test_set = loaded.dataset(args.dataset, args.dataset_root, train=False, **loading)
    networks = load_networks(runs, vars(args), test_set.spec, device=device, loaded=loaded)

    def batches_of(data, title, indices=None, batch_size=args.batch_size):
        n = -(-(len(data) if indices is None else len(indices)) // batch_size)
        return progress(data.batches(batch_size, indices=indices), title, n)

    def training_batches(n_images):
        data = loaded.dataset(args.dataset, args.dataset_root, train=True, **loading)
        return batches_of(data, "training activations", data.permutation(0)[:n_images])

    def test_batches(name, root, option):
        data = loaded.dataset(name, root, train=False, **loading) if name else test_set
        data.check_like(test_set, option=option)
        return batches_of(data, f"activations of {option}")

    # A detector for each end layer, what training images look like there, and the stitches into these layers. The
    # detectors, and what follows from them and the end network alone, are those of any other front network.
    layers = natural_order(run.row.end_layer for run in runs)
    options = [f"{name} {value}" for name, value in vars(args).items() if not name.startswith(("source_dir", "front"))]
    of_end = (networks.end_name, *layers, *options)
    detectors, references, missing = loaded.last(
        "detectors",
        of_end,
        lambda: make_detectors(
            args.detector,
            networks,
            layers,
            test_set.spec,
            store=DetectorStore(args.ood_detector_dir),
            all_in_store=bool(args.sanity_check_dataset),
            with_validity=args.validity,
            training_batches=training_batches,
            id_data=args.dataset,
        ),
    )
    grids, unusable = rebuild_grids(runs, networks, detectors, image_shape=test_set.image_shape)
    for reason in (*skipped, *missing, *unusable):
        warn(f"skipped: {reason}")
    if not grids:
        sys.exit("nothing could be evaluated: train detectors with exec_train_representation_classifier.py, or give "
                 "--detector mahalanobis, which needs no training")  # fmt: skip

    # What the end network's own activations show of the detectors, then the scores and the validity of all stitches.
    order, sample = choose_images(test_set)
    size = max(args.batch_size, 2)  # each image is mixed with another one
    own_batches = batches_of(test_set, "own activations", order, size) if references else ()
    examined, unmeasured = loaded.last(
        "examination", of_end, lambda: evaluation.examine(networks.end, detectors, references, own_batches)
    )
    for reason in unmeasured:
        warn(f"skipped: {reason}")
    stitches = evaluation.score_stitches(
        grids, detectors, references, examined.validity, lambda: batches_of(test_set, "stitched activations"),
        sample=sample,
    )  # fmt: skip
    id_batches = test_batches(args.id_dataset, args.id_dataset_root, "-idd")
    own = loaded.last("own scores", of_end, lambda: evaluation.score_network(networks.end, detectors, id_batches))
    other, checked = {}, args.sanity_check_dataset or ""
    if checked:
        other_batches = test_batches(checked, args.sanity_check_dataset_root, "-scd")
        other = evaluation.score_network(networks.end, detectors, other_batches)

    # The metrics, the report, and the scores of all images.
    data = evaluation.DataNames(args.dataset, args.other_data, args.id_dataset or "", checked)
    evaluations = {
        name: evaluation.evaluate(
            name, detectors[name], stitches[name], own[name], other.get(name, {}), examined.sights[name], data
        )
        for name in detectors
        if stitches[name]  # the others have detectors for other layers alone
    }
    other_data = dataset_label(args.dataset) if args.other_data else ""
    report(folder, evaluations, n_images=len(test_set), other_data=other_data, **cli.figure_options(args))
    for name in evaluations:
        table = evaluation_file(folder, name, other_data=other_data)
        into = folder / table.stem.replace("ood_evaluation", "energies")
        if args.energy_dir:
            into = Path(args.energy_dir, name) if len(detectors) > 1 else Path(args.energy_dir)
        evaluation.save_scores(into, evaluations[name], sanity_name=checked and dataset_label(checked))
        Run.beside(table, vars(args) | {"detector": name}).finish()
    n_evaluated = len({stitch.run.folder for of_score in stitches.values() for stitch in of_score})
    n_skipped = len(skipped) + len(finished) - len(runs) + len(unusable)
    note(f"evaluated {n_evaluated} stitches; skipped {n_skipped} runs and {len(missing)} end layers")


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
