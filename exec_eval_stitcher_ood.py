#!/usr/bin/env python3
"""Evaluate a folder of stitching runs: are the activations they make out of distribution for the
end network?"""

import sys

from src import cli
from src.choices.scores import SCORES, scores_by_title
from src.user_code import CODE


def parser() -> cli.Parser:
    options = cli.Parser(
        "Evaluate a folder of stitching runs with the OOD detectors of their end layers."
    )
    add = options.add_argument
    root = "./data/pytorch"
    add(
        "source_dir", help="folder that holds one folder for each run, all of the same two networks"
    )
    cli.add_data(options, batch_size=64)
    cli.add_interventions(options, of_tests=True)
    cli.add_gpu(options)
    add("-idd", "--id-dataset", type=cli.dataset, help="ID dataset; default: that of -d")
    add("-iddata", "--id-dataset-root", default=root, help="folder of the ID dataset")
    add(
        "-detectors",
        "--ood-detector-dir",
        default="models/repr_cls_ood_detectors",
        help="folder of the detectors",
    )
    add(
        "-scd",
        "--sanity-check-dataset",
        type=cli.dataset,
        help="dataset that detectors should find OOD, as -d",
    )
    add(
        "-scdata",
        "--sanity-check-dataset-root",
        default=root,
        help="folder of the sanity-check dataset",
    )
    add(
        "--detector",
        type=cli.names_or_code("score", SCORES),
        default="energy",
        help=f"one, or several with commas between them. {cli.described(SCORES)}; or {CODE}, a class of your own",
    )
    add(
        "--validity",
        action="store_true",
        help="measure density, recall and doses with trained detectors alone, too",
    )
    add(
        "--other-data",
        action="store_true",
        help="evaluate on other data than those stitched on, in tables of their own",
    )
    add(
        "-ed",
        "--energy-dir",
        help="folder for the scores of all images; default: one file in source_dir",
    )
    add("--front-model", help="where the front network's checkpoint is now, if it was moved")
    add("--end-model", help="where the end network's checkpoint is now, if it was moved")
    named_here = "FILE.py:FUNCTION of the {} network, whose code runs only if named here"
    add("--front-type", type=cli.network, help=named_here.format("front"))
    add("--end-type", type=cli.network, help="likewise, of the end network")
    cli.add_figure(options)
    return options


def evaluate(args, session=None) -> None:
    """Run the experiment. All experiments of one `session` share its networks, images and
    reference."""
    from pathlib import Path

    from src.console import note, warn
    from src.datasets import dataset_info
    from src.errors import UserError
    from src.ood.evaluation import score_stitches
    from src.runtime import device_of
    from src.session import Session
    from src.stitching.experiments import newest_runs
    from src.stitching.folders import read_runs
    from src.stitching.reloading import (
        check_data,
        check_runs,
        load_networks,
        rebuild_grids,
        with_weights,
    )

    # The runs, and the run of this script that writes the table of each score.
    session = session or Session()
    device = device_of(args.gpu)
    folder = Path(args.source_dir)
    finished, skipped = read_runs(folder)
    check_runs(finished, folder, vars(args))
    dataset_info(args.dataset, labelled=True)
    tables = begin_tables(args)
    runs = newest_runs(finished)
    check_data(args.dataset, runs, other_data=args.other_data, shortcut=args.shortcut)

    # The images and the two networks.
    loading = cli.load_options(args, device)
    test_set = session.dataset(args.dataset, args.dataset_root, train=False, **loading)
    networks = load_networks(runs, vars(args), test_set.spec, device=device, session=session)
    names = {side: name for side, (_, name) in networks.items()}
    runs = [with_weights(run, names) for run in runs]

    # The reference: detectors and validity at each end layer, and the end network's own scores.
    front, _ = networks["front"]
    reference = refer_to(*networks["end"], args, runs, test_set, loading, session)

    # The stitches: accuracies, scores and validity.
    scored_layers = {layer for _, layer in reference.detectors}
    grids, unusable = rebuild_grids(
        runs, front, networks["end"][0], scored_layers, image_shape=test_set.image_shape
    )
    for reason in (*skipped, *reference.missing, *unusable):
        warn(f"skipped: {reason}")
    if not grids:
        raise UserError(
            "nothing could be evaluated: train detectors with exec_train_representation_classifier.py, or give "
            "--detector mahalanobis, which needs no training"
        )
    stitches = score_stitches(grids, reference)

    # The metrics, the report, and the scores of all images.
    write_results(args, stitches, reference, tables, names)
    n_skipped = len(skipped) + len(finished) - len(runs) + len(unusable)
    note(
        f"evaluated {len(stitches)} stitches; skipped {n_skipped} runs and {len(reference.missing)} end layers"
    )


def label_of_other_data(args) -> str:
    """Return the data set that ends the names of tables of `--other-data`; "" without that
    option."""
    from src.choices.datasets import dataset_label

    return dataset_label(args.dataset) if args.other_data else ""


def begin_tables(args) -> dict:
    """Return the run of this script that writes the table of each score, by the title of the
    score."""
    from pathlib import Path

    from src.ood.evaluation_rows import evaluation_file
    from src.results.run import Run

    tables = {}
    for title, score in scores_by_title(args.detector).items():
        path = evaluation_file(Path(args.source_dir), title, other_data=label_of_other_data(args))
        tables[title] = Run.beside(path, vars(args) | {"detector": score})
    return tables


def refer_to(end, end_name, args, runs, test_set, loading, session):
    """Return the reference for stitches into the end network: that of `session` if its options are
    these."""
    from functools import partial

    from src.ood.reference import EvaluationOptions, make_reference
    from src.results.matrices import by_depth, depths_of

    def other_set(name, root, option):
        if not name:
            return None
        data = session.dataset(name, root, train=False, **loading)
        data.check_like(test_set, option=option)
        return data

    rows = [run.row for run in runs]
    options = EvaluationOptions(
        end=end_name,
        layers=tuple(by_depth((row.end_layer for row in rows), depths_of(rows, "end"))),
        scores=tuple(args.detector),
        store=args.ood_detector_dir,
        with_validity=args.validity,
        batch_size=args.batch_size,
        dataset=args.dataset,
        test=test_set,
        id_dataset=args.id_dataset or "",
        id_data=other_set(args.id_dataset, args.id_dataset_root, "-idd"),
        sanity_dataset=args.sanity_check_dataset or "",
        sanity_data=other_set(args.sanity_check_dataset, args.sanity_check_dataset_root, "-scd"),
    )
    if session.reference is None or session.reference.options != options:
        session.reference = None  # its memory is free for the next
        training = partial(session.dataset, args.dataset, args.dataset_root, train=True, **loading)
        session.reference = make_reference(end, options, training)
    return session.reference


def write_results(args, stitches, reference, tables, names) -> None:
    """Print and write the metrics of each score, and the scores of all images; finish the run of
    each table."""
    from pathlib import Path

    from src.ood.evaluation import evaluate_stitches, save_archive, save_arrays, scores_of_images
    from src.ood.evaluation_report import report
    from src.ood.evaluation_rows import scores_file

    evaluations = {}
    for score in tables:
        rows = evaluate_stitches(score, stitches, reference, other_data=args.other_data)
        if rows:  # a detector may be for other layers alone
            evaluations[score] = rows
    other_data = label_of_other_data(args)
    report(
        Path(args.source_dir),
        evaluations,
        reference,
        other_data=other_data,
        **cli.figure_options(args),
    )
    for score in evaluations:
        arrays = scores_of_images(score, stitches, reference)
        if args.energy_dir:
            save_arrays(Path(args.energy_dir, score if len(tables) > 1 else ""), arrays)
        else:
            save_archive(scores_file(Path(args.source_dir), score, other_data=other_data), arrays)
        tables[score].options |= {
            f"{side}_model_path_sha256": name.weights for side, name in names.items()
        }
        tables[score].finish()


def main(argv=None) -> int:
    return cli.run(parser(), evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
