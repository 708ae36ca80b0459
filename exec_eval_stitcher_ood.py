#!/usr/bin/env python3
"""Evaluate stitching runs: skill, and OOD scores of stitched activations."""

import math
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src import cli, figures, results
from src.core.choices.datasets import dataset_label
from src.core.choices.scores import NONE, SCORES
from src.core.console import counted, listed, note, warn
from src.core.errors import UserError
from src.core.files import durable_together
from src.core.grouping import grouped
from src.core.tensors import content_of_state
from src.results.network_names import NamedNetwork
from src.results.run import Run, claimed
from src.results.spec import recorded_images, short_images

if TYPE_CHECKING:
    from src.core.values import Pair
    from src.datasets.base import InputSet
    from src.models import Network
    from src.ood.reference import EndReference, EvaluationOptions
    from src.results.checkpoints import Session
    from src.results.stitches import EvaluationFiles, Stitch

ROOT = "./data/pytorch"
MAX_DIFFERENCE = 0.25  # in AUROC, of detectors that agree on a stitch
STORE = "models/repr_cls_ood_detectors"


def parser() -> cli.Parser:
    options = cli.Parser(
        "Evaluate a folder of stitching runs. Measures skill, on which verdicts rest: how much better the stitched "
        "network follows the end network within a class than untrained features that are given the class. If there "
        "are OOD detectors of the end layers, also measures how far stitched activations are out of distribution."
    )
    add = options.add_argument
    add("source_dir", help="folder of stitching runs, all of the same two networks")
    cli.add_data(options, batch_size=64)
    cli.add_interventions(options, of_tests=True)
    cli.add_gpu(options)
    add_image_sets(options)
    add_detectors(options)
    add(
        "-ed",
        "--energy-dir",
        type=cli.folder,
        help="folder to write the scores of all inputs to; default: one file in source_dir",
    )
    add("--front-model", help="new path of the front network's checkpoint, if it was moved")
    add("--end-model", help="new path of the end network's checkpoint, if it was moved")
    cli.add_own_types(options)
    return options


def add_image_sets(options: cli.Parser) -> None:
    """Add the options of ID data, sanity-check data, and test inputs that the runs never saw."""
    add = options.add_argument
    add(
        "-idd",
        "--id-dataset",
        type=cli.dataset,
        help="data set whose activations are in distribution (ID); default: the data set of -d",
    )
    add("-iddata", "--id-dataset-root", default=ROOT, help="folder of the ID data set")
    add(
        "-scd",
        "--sanity-check-dataset",
        type=cli.dataset,
        help="data set that detectors should find out of distribution, for a sanity check",
    )
    add(
        "-scdata",
        "--sanity-check-dataset-root",
        default=ROOT,
        help="folder of the data set of -scd",
    )
    add(
        "--other-data",
        action="store_true",
        help="evaluate on other data than those that the runs were stitched on; the tables are kept apart",
    )


def add_detectors(options: cli.Parser) -> None:
    """Add the options of detectors."""
    add = options.add_argument
    add(
        "-detectors",
        "--ood-detector-dir",
        help=f"folder of the trained detectors; default: {STORE}, if it is there",
    )
    add(
        "--detector",
        type=cli.names_of("score", (*SCORES, NONE)),
        help=f"OOD detectors, separated by commas. {cli.described(SCORES)}; or {NONE}. Default: energy, if the "
        "folder of trained detectors is there",
    )


class EvaluationSetup(NamedTuple):
    """The stitches, networks, inputs and table of an evaluation."""

    experiments: (
        "Mapping[str, Sequence[Stitch]]"  # the newest stitches of each experiment, by its title
    )
    stitches: "list[Stitch]"  # of all experiments
    left_out: dict[str, int]  # numbers of runs and stitches that are not evaluated, by the reason
    files: "EvaluationFiles"  # the files to write
    run: Run  # of the table
    session: "Session"  # keeps inputs, networks and the reference
    test_set: "InputSet"
    networks: "Mapping[str, tuple[Network, NamedNetwork]]"  # by side


def main(
    args: Namespace,
    session: "Session | None" = None,
    measured: "tuple[EndReference, results.scoring.Scores] | None" = None,
    *,
    is_claimed: bool = False,
) -> None:
    """Score the stitches, and write the table of skill and scores.

    Args:
        session: shares its networks, inputs and reference with further experiments.
        measured: the reference and scores of stitches; if they are all of the folder, none runs again.
        is_claimed: the caller has claimed the table.
    """
    setup = set_up(args, session)
    with claimed([] if is_claimed else [setup.run]):
        unusable: list[str] = []
        if measured and all(stitch.place in measured[1] for stitch in setup.stitches):
            reference, scores = measured
            check_usable(args, scores, reference, unusable)
        else:
            # The reference: detectors at the end layers, the end network's own scores, and baselines
            front, _ = setup.networks["front"]
            end, end_name = setup.networks["end"]
            pairs = [stitch.pair for stitch in setup.stitches]
            reference = reference_of(end, end_name, args, pairs, setup.test_set, setup.session)

            # The stitches
            grids, unusable = results.scoring.rebuild_grids(
                setup.experiments.values(), front, end, image_shape=setup.test_set.image_shape
            )
            check_usable(args, grids, reference, unusable)
            scores = results.scoring.score_stitches(grids, reference)
        layers = reference.options.layers
        by_depth = sorted(setup.stitches, key=lambda stitch: layers.index(stitch.pair.end_layer))
        scored = [(stitch, scores[stitch.place]) for stitch in by_depth if stitch.place in scores]
        results.scoring.check_scored(scored, other_data=args.other_data, batch_size=args.batch_size)
        rows = write_results(args, setup, scored, reference)
    left_out = {"that cannot be rebuilt": len(unusable), **setup.left_out}
    texts = [f"; left out {n} {what}" for what, n in left_out.items() if n]
    note(f"evaluated {counted(len(scored), 'stitch', 'stitches')}{''.join(texts)}")
    if len(rows) > 1:
        for text in answers(rows):
            note(text)


def set_up(args: Namespace, session: "Session | None") -> EvaluationSetup:
    """Read the stitches, begin the table, and load inputs and networks."""
    # The stitches, and the table that will be written
    session, device, _ = cli.begin(args, session)
    folder = Path(args.source_dir)
    finished, skipped = results.stitches.read_stitches(folder)
    for reason in skipped:
        warn(f"skipped: {reason}")
    results.scoring.check_stitches(finished, folder)
    other_data = dataset_label(args.dataset) if args.other_data else ""
    files = results.stitches.EvaluationFiles(folder, other_data)
    run = Run.beside(files.table, vars(args))
    experiments = results.stitches.newest_by_experiment(finished)
    stitches = list(chain(*experiments.values()))

    # The inputs and the two networks
    test_set = cli.load_split(args, session, device, train=False)
    cli.load_split(args, session, device, train=True)  # for baselines and detectors
    results.scoring.check_images(stitches, vars(args))
    networks = results.scoring.load_networks(
        stitches,
        test_set.spec,
        paths={"front": args.front_model, "end": args.end_model},
        own_types=args.own_types,
        device=device,
        session=session,
    )
    end, end_name = networks["end"]
    session.warn_at_chance(end_name, end, test_set)
    left_out = {
        "that a later run repeats": len(finished) - len(stitches),
        "of unreadable runs": len(skipped),
    }
    return EvaluationSetup(experiments, stitches, left_out, files, run, session, test_set, networks)


def scores_of(args: Namespace) -> tuple[str, ...]:
    """Return the scores of the options; the energy by default, if there is a store."""
    names = args.detector
    if names is None:
        names = ["energy"]
        if args.ood_detector_dir is None and not Path(STORE).exists():
            names = []
            note(f"no OOD detectors in {STORE}: skill is measured alone (--detector, -detectors)")
    return tuple(name for name in names if name != NONE)


def check_usable(
    args: Namespace, stitches: Sized, reference: "EndReference", reasons: Iterable[str]
) -> None:
    """Warn of all that was skipped; raise a UserError if no stitch is left, or none of the detectors
    that the options name.

    Args:
        reasons: for each skipped stitch.
    """
    are_named = args.detector is not None or args.ood_detector_dir is not None
    for reason in reasons:
        warn(f"skipped: {reason}")
    if are_named:
        for reason in reference.missing:
            warn(f"skipped: {reason}")
    elif reference.missing:
        note(f"{listed(reference.missing)}: only skill is measured there")
    if not stitches:
        raise UserError("nothing could be evaluated: no stitch can be read")
    if are_named and reference.options.scores and not reference.detectors:
        raise UserError(
            "no detector could be used: train detectors with exec_train_representation_classifier.py, or "
            "give --detector mahalanobis, which needs no training"
        )


def reference_of(
    end: "Network",
    end_name: NamedNetwork,
    args: Namespace,
    pairs: "Iterable[Pair]",
    test_set: "InputSet",
    session: "Session",
) -> "EndReference":
    """Return the reference for stitches between pairs of layers into the end network; a new one if options have
    changed.

    The session keeps the reference for further folders of stitches.
    """
    from src.ood.reference import make_reference

    layers = sorted({pair.end_layer for pair in pairs}, key=end.depth)
    options = evaluation_options(args, scores_of(args), layers, test_set, session)
    store = Path(args.ood_detector_dir or STORE)

    def make() -> "EndReference":
        trained, missing = results.checkpoints.load_trained(
            results.checkpoints.DetectorStore(store), end, end_name, options
        )
        reference = make_reference(end, options, trained=trained)
        return reference._replace(missing=[*missing, *reference.missing])

    return session.reference(end_name, store, options, make)


def evaluation_options(
    args: Namespace,
    scores: tuple[str, ...],
    layers: Iterable[str],
    test_set: "InputSet",
    session: "Session",
) -> "EvaluationOptions":
    """Return the options of the evaluation, with all inputs."""
    from src.ood.reference import EvaluationOptions

    loading = cli.load_options(args, test_set.device)

    def images_of(name: str | None, root: str, option: str) -> "InputSet | None":
        """Load test inputs of the same shape as the inputs of -d; None without a name."""
        if not name:
            return None
        images = session.dataset(name, root, train=False, **loading)
        images.check_like(test_set, option=option)
        return images

    id_data = images_of(args.id_dataset, args.id_dataset_root, "-idd")
    sanity_data = images_of(args.sanity_check_dataset, args.sanity_check_dataset_root, "-scd")
    train_set = session.dataset(args.dataset, args.dataset_root, train=True, **loading)
    return EvaluationOptions(
        layers=tuple(layers),
        scores=scores,
        train=train_set,
        batch_size=args.batch_size,
        dataset=args.dataset,
        test=test_set,
        id_dataset=args.id_dataset or "",
        id_data=id_data,
        sanity_dataset=args.sanity_check_dataset or "",
        sanity_data=sanity_data,
    )


def write_results(
    args: Namespace,
    setup: EvaluationSetup,
    scored: "results.scoring.Scored",
    reference: "EndReference",
) -> list[dict[str, Any]]:
    """Report skill and the metrics of each score, save them and the scores of all inputs, and finish the
    run of the table.

    What other detectors measured of the same stitches stays in the table.

    Returns:
        The evaluation of each stitch.
    """
    record = {"shortcut": args.shortcut, **short_images(vars(args))}
    rows = results.scoring.evaluation_rows(scored, reference, record, other_data=args.other_data)
    detectors = setup.run.earlier("detectors") | results.scoring.describe_detectors(reference)
    earlier = setup.files.read()
    titles: dict[tuple[str, Pair], str] = {}
    for title, stitches in setup.experiments.items():
        titles |= dict.fromkeys((stitch.place for stitch in stitches), title)
    experiments = grouped((stitch for stitch, _ in scored), lambda stitch: titles[stitch.place])
    setup.run.mark_as_unfinished()
    with durable_together():  # no file is of another evaluation than those beside it
        results.tables.write_table(
            setup.files.table,
            results.tables.EVALUATIONS,
            results.scoring.with_earlier_detectors(rows, earlier),
        )
        figures.matrices.report(
            setup.files.table,
            experiments,
            rows,
            own_scores=reference.id_scores,
            checks=reference.checks,
        )
        results.scoring.save_scores(args.energy_dir, setup.files, scored, reference)
    note_disagreement(rows)
    setup.run.further = {"detectors": detectors}
    setup.run.options |= contents_of(args, setup.networks, reference)
    setup.run.finish()
    return rows


def answers(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the sentences that end an evaluation: the highest skill, and the range of the AUROC by each detector."""
    skills = extremes(rows, "skill")
    if skills:
        yield f"highest skill at the output: {skills[-1]}"
    detectors = {detector for row in rows for detector in results.stitches.by_detector(row)}
    for detector in sorted(detectors):
        aurocs = extremes(rows, f"auroc_{detector}")
        if aurocs:
            yield (
                f"AUROC by {detector} (0.5: as typical as the end network's activations, 1: out of distribution): "
                f"{aurocs[0]} to {aurocs[-1]}"
            )


def extremes(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    """Return the lowest and the highest value of a column, each with the layers of its stitch; [] without values."""
    defined = [row for row in rows if not math.isnan(row.get(column, math.nan))]
    if not defined:
        return []
    texts = []
    for choose in (min, max):
        row = choose(defined, key=lambda row: row[column])
        texts.append(f"{row[column]:.2f} ({row['front_layer']} -> {row['end_layer']})")
    return texts


def note_disagreement(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a note on stitches whose AUROC by one detector is far from that by another."""
    pairs = []
    for row in rows:
        measured = results.stitches.by_detector(row)
        aurocs = [values[f"auroc_{detector}"] for detector, values in measured.items()]
        if len(aurocs) > 1 and max(aurocs) - min(aurocs) > MAX_DIFFERENCE:
            pairs.append(f"{row['front_layer']} -> {row['end_layer']}")
    if pairs:
        note(
            f"detectors differ by more than {MAX_DIFFERENCE} in the AUROC of {len(pairs)} of {len(rows)} stitches "
            f"({listed(pairs)}); no verdict depends on detectors"
        )


def contents_of(
    args: Namespace,
    networks: "Mapping[str, tuple[Network, NamedNetwork]]",
    reference: "EndReference",
) -> dict[str, Any]:
    """Return the contents of the weights, inputs and detectors that the tables are about, by option."""
    from src.ood.detectors import EnergyDetector

    contents: dict[str, Any] = {}
    for side, (_, name) in networks.items():
        contents[f"{side}_model_path_sha256"] = name.weights
    contents |= recorded_images(vars(args))
    options = reference.options
    optional = {"id_dataset": options.id_data, "sanity_check_dataset": options.sanity_data}
    for option, images in optional.items():
        if images is not None:
            contents[f"{option}_sha256"] = images.fingerprint
    detectors = {}
    for score, of_layers in reference.detectors.items():
        for layer, detector in of_layers.items():
            if isinstance(detector, EnergyDetector):
                detectors[f"{score} {layer}"] = content_of_state(detector.network.state_dict())
    if detectors:
        contents["detectors_sha256"] = detectors
    return contents


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
