#!/usr/bin/env python3
"""Stitch and compare all pairs of many networks, as the single scripts do, with everything loaded once.

Any number of processes may work on one folder. A process claims a pair before it works on it, and
finished pairs are skipped."""

import argparse
import difflib
import hashlib
import itertools
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc import verdict
from misc.pairs import (
    REMEDY,
    Unit,
    layers_of,
    options_of,
    probing_unit,
    run_units,
    similarity_unit,
    stitching_unit,
    with_record,
)
from src import cli, figures, results
from src.core.choices import AUTO, STITCHING_TYPES, UPSAMPLE_MODES
from src.core.choices.models import MODEL_NAMES
from src.core.choices.scores import SCORES
from src.core.choices.similarity import SIMILARITY
from src.core.choices.stitching import FORMS, OBJECTIVES, Method
from src.core.console import listed, note, recorded_warnings
from src.core.errors import Busy, UserError, unknown_name
from src.core.grouping import grouped
from src.core.user_code import CODE, file_and_function, is_user_code, title_of
from src.results.network_names import (
    FEATURES,
    NamedNetwork,
    networks_named_by,
    read_networks,
    tell_groups,
)
from src.results.run import Run, check_output
from src.results.spec import RECORDS, described, recorded_images
from src.results.tables import FIRST_LINE

if TYPE_CHECKING:
    import torch

    from src.core.inputs import InputSpec
    from src.results.checkpoints import Session
    from src.results.network_names import NamedNetwork

METRICS = ["cka_debiased", "pwcca", "procrustes"]  # CKA itself is biased where images are few
METHODS = ["pinv", "covariance"]
NONE = "none"  # as a method: stitch nothing; as a detector: use none


def parser() -> cli.Parser:
    options = cli.Parser(
        "Stitch all ordered pairs of a list of networks, evaluate whether the stitched activations are out of "
        "distribution, and measure the similarity of all pairs. The results equal those of the single scripts."
    )
    add = options.add_argument
    add_networks(options)
    add(
        "-dir",
        "--save-dir",
        type=cli.results_folder,
        required=True,
        help="folder below results/ to write to, or an absolute path",
    )
    add(
        "--methods",
        type=method,
        nargs="+",
        default=METHODS,
        metavar="METHOD",
        help=f"methods of stitching: closed-form solvers ({', '.join(FORMS)}, or {CODE}); objectives with their "
        f"epochs, such as task:10 ({', '.join(OBJECTIVES)}, or {CODE}:EPOCHS); or none: stitch nothing. Default: least "
        "squares and covariance matching",
    )
    add_work(options)
    add_sharing(options)
    cli.add_gpu(options)
    cli.add_data(options, batch_size=None)
    cli.add_interventions(options, of_tests=True)
    cli.add_training(options, n_epochs=None)
    cli.add_optimizer(options)
    cli.add_matching(options, n_samples="auto", default_cutoff="exact")
    add(
        "-upsample",
        "--upsample-mode",
        choices=UPSAMPLE_MODES,
        default="bilinear",
        help="interpolation for resizing feature maps",
    )
    cli.add_similarity(options)
    options.set_defaults(metrics=METRICS)
    cli.add_memory(options)
    return options


def add_networks(options: cli.Parser) -> None:
    """Add the arguments of networks, layers and stitching type."""
    add = options.add_argument
    add(
        "networks",
        help="CSV with the columns name, path, type, and optionally group, layers, depths and training; paths, also "
        "of FILE.py:FUNCTION, are relative to the folder of the CSV. "
        f"The type {FEATURES} stands for an .npz file of features, which is compared and not stitched",
    )
    add(
        "layers",
        nargs="?",
        default="all",
        help="layers of the networks without an entry in the column layers: names or patterns, separated by commas, "
        "or all",
    )
    add(
        "stitching_type",
        nargs="?",
        choices=(*STITCHING_TYPES, AUTO),
        default=AUTO,
        help="type of the stitching layers. auto: the type that fits each pair of layers; rc2c_pre: for convolutional "
        "layers; t2t: for transformers",
    )


def add_work(options: cli.Parser) -> None:
    """Add the options for end networks, evaluation, comparison and probes."""
    add = options.add_argument
    add(
        "--ends",
        nargs="+",
        metavar="NAME",
        help="stitch only into the networks of these names, and compare only pairs with one of them; default: all",
    )
    untrained = [name for name, score in SCORES.items() if not score.is_trained]
    add(
        "--detector",
        type=cli.names_of("score", (*untrained, NONE)),
        default=NONE,
        help=f"OOD detector: {', '.join(untrained)} or {NONE}",
    )
    add("--no-similarity", action="store_true", help="do not measure similarity")
    add(
        "--no-verdict",
        action="store_true",
        help="write no verdict and no page when the last unit of work is finished",
    )
    add(
        "--probes",
        type=cli.integer_from_1,
        metavar="EPOCHS",
        help="number of epochs of linear probes, which are trained on all networks with -b, -lr and -wd; default: "
        "no probes",
    )
    add(
        "--figures",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also draw figures of each pair, which takes as long as everything else where networks are small; "
        "default: tables only",
    )
    cli.add_own_types(options)


def add_sharing(options: cli.Parser) -> None:
    """Add the options that divide the work among processes."""
    add = options.add_argument
    add(
        "--shard",
        type=shard,
        default="1/1",
        metavar="I/N",
        help="work only on the I-th of N shares of all pairs; a pair stays in its share when networks are added",
    )


def method(text: str) -> str:
    """Validate the name of a method of stitching; the `type` of an argparse option."""
    if text == NONE:
        return text
    try:
        return str(Method.of(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def shard(text: str) -> tuple[int, int]:
    """Parse a share such as 1/3; the `type` of an argparse option."""
    number, _, n = text.partition("/")
    if not (number.isdecimal() and n.isdecimal() and 1 <= int(number) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 1/3")
    return int(number), int(n)


def main(args: Namespace) -> None:
    name = name_of_outputs(args.save_dir)
    work_and_judge(args, f"{name}_verdict.csv", f"{name}.html")


def name_of_outputs(save_dir: str) -> str:
    """Return the first part of the names of the verdict and the page: in the working directory, or beside an absolute
    folder."""
    folder = Path(save_dir)
    if folder.is_absolute():
        return str(folder)
    return "_".join(folder.parts)


def work_and_judge(args: Namespace, table: str, page: str) -> None:
    """Stitch and compare all unfinished pairs of the list; then write the verdict, its figure and the page, if
    no other process is still working.

    Args:
        table: the CSV of the verdict.
        page: the page of HTML.
    """
    if not args.no_verdict and methods_of(args):
        check_output(table, str(verdict.__file__))
        check_output(page, str(verdict.__file__))
    with recorded_warnings() as said:
        units = make_results(args, table)
    if args.no_verdict:
        return
    if all(unit.is_table for unit in units):
        name_next_commands(args, units)
    else:
        judge_all(args, units, table, page, said)


def name_next_commands(args: Namespace, units: Sequence[Unit]) -> None:
    """Print the commands that compare networks, if nothing was stitched."""
    if any(unit.kind == SIMILARITY for unit in units):
        folder = Path("results", args.save_dir)
        note(
            f"no stitches, so no verdict; misc/collect_results.py {folder} --networks {args.networks} draws curves "
            "over depth and compares groups"
        )


def judge_all(
    args: Namespace, units: Sequence[Unit], table: str, page: str, said: list[str]
) -> None:
    """Write the verdict on the stitches of all units, its figure and the page, if all are finished.

    Args:
        said: the warnings of the work, which the text and the page repeat.
    """
    n_left = sum(not unit.run.is_finished for unit in units)
    if n_left:
        note(
            f"{n_left} of {len(units)} units of work are not finished: the process that finishes the last one writes "
            "the verdict"
        )
        return
    folder = Path("results", args.save_dir)
    if any(unit.has_other_options() for unit in units):
        note(f"no verdict: {folder} has units of other options; {REMEDY}")
        return
    sources = {
        "source_dirs": [str(folder)],
        "networks": args.networks,
        "similarity": sorted(str(unit.place) for unit in units if unit.kind == SIMILARITY),
    }
    options = options_of(verdict, args, **sources, output=table, page=page)
    judged = verdict.judge(options)
    further = [line for line in judged.warnings if not any(text in line for text in said)]
    judged = judged._replace(warnings=[*dict.fromkeys(said), *further])
    note(f"{folder} has the stitches")
    try:
        verdict.main(options, judged)
    except Busy:
        note("another process writes the verdict")


def make_results(args: Namespace, table: str) -> list[Unit]:
    """Stitch and compare all unfinished pairs of the list; return all units of work, including those of other
    shares.

    Args:
        table: the CSV of the verdict, which must not be of other inputs.
    """
    from src.core.cache import Cache
    from src.core.device import device_of
    from src.datasets import dataset_info

    # The units of this share, which record their weights and images.
    networks = read_networks(args.networks, seed=args.seed)
    check_types(args.networks, networks, args.own_types)
    check_ends(args, networks)
    check_code(args)
    tell_groups(args.networks, networks)
    device = device_of(args.gpu)
    session = results.checkpoints.Session(Cache.of_device(device, args.memory))
    spec = dataset_info(args.dataset, labelled=True).spec
    units = units_of(args, networks)
    share = [unit for unit in units if is_in_share(unit, *args.shard)]
    weights = {}
    for network in networks_of(share):
        weights[network.path, network.type] = session.weights(network, spec, device=device)
    images = {
        splits: fingerprints_of(splits, args, session, device)
        for splits in dict.fromkeys(unit.splits for unit in share)
    }
    share = [with_record(unit, weights, images[unit.splits]) for unit in share]

    if not args.no_verdict:
        check_inputs(table, share)

    # The units that are not finished.
    unfinished = unfinished_units(share)

    # A network that cannot be loaded or lacks its layers, and features of other images, show before
    # hours of work.
    check_feature_files(args, networks_of(unfinished), session, device)
    check_layers(args, unfinished, session, spec, device)

    # The work.
    note(f"{len(unfinished)} of {len(share)} units of work are left to do")
    with figures.pages.left_out(not args.figures):
        run_units(unfinished, session)
    return units


def check_inputs(table: str, units: Sequence[Unit]) -> None:
    """Raise a UserError if the table has verdicts on networks or images that differ from those of the units."""
    stitchings = [vars(unit.stitching) for unit in units if not unit.is_table]
    if not stitchings:
        return
    inputs = {
        name: sorted({stitching[name] for stitching in stitchings}) for name in RECORDS.values()
    }
    pairs = [networks_named_by(stitching).values() for stitching in stitchings]
    weights = {" → ".join(network.key[0] for network in pair) for pair in pairs}
    options = {**inputs, "stitches_sha256": sorted(weights)}
    Run.beside(table, options, script=str(verdict.__file__)).check_output()


def networks_of(units: Sequence[Unit]) -> list[NamedNetwork]:
    """Return the distinct networks of units."""
    return list(dict.fromkeys(network for unit in units for network in unit.networks))


def fingerprints_of(
    splits: Iterable[bool], args: Namespace, session: "Session", device: "torch.device"
) -> dict[str, str]:
    """Return the fingerprints of images by option.

    Args:
        splits: False for the test images, True for the training images.
    """
    images = argparse.Namespace(**vars(args))
    for train in splits:
        cli.load_split(images, session, device, train=train)
    return recorded_images(vars(images))


def unfinished_units(units: Sequence[Unit]) -> list[Unit]:
    """Return the units that are not finished.

    Raises:
        UserError: units are of other networks, code, images or options.
    """
    written_of = {unit.place: unit.run.options_on_disk() for unit in units}
    differences = {unit.place: unit.difference(written_of[unit.place]) for unit in units}
    of_other_runs = [place for place, differing in differences.items() if differing]
    if of_other_runs:
        first = described(differences[of_other_runs[0]])
        raise UserError(
            f"{len(of_other_runs)} of {len(units)} units of work are of other runs ({first}); "
            f"{REMEDY}, or remove {listed(of_other_runs, n=3)}"
        )
    return [unit for unit in units if not unit.is_finished(written_of[unit.place])]


def check_feature_files(
    args: Namespace, networks: Sequence[NamedNetwork], session: "Session", device: "torch.device"
) -> None:
    """Raise a UserError if files of features have different images.

    The images are those of the networks in the list, or else those of the file that has the most.
    """
    files = [network for network in networks if network.is_features]
    images = [results.feature_files.read_feature_file(network.path).images for network in files]
    if not images:
        return
    reference = max(images, key=lambda of_file: len(of_file.ids))
    if len(files) < len(networks):
        options = argparse.Namespace(**vars(args))
        test_set = cli.load_split(options, session, device, train=False)
        reference = results.feature_files.images_of(
            test_set, options.test_images_sha256, dataset=args.dataset
        )
    results.feature_files.check_same_images(reference, images, n_images=args.n_samples)


def check_layers(
    args: Namespace,
    units: Sequence[Unit],
    session: "Session",
    spec: "InputSpec",
    device: "torch.device",
) -> None:
    """Load all networks of the units, and raise a UserError for layers that they lack.

    Raises:
        UserError: a network cannot be loaded; or the layers that the list or the command line names
            do not fit networks.
    """
    ends = {unit.networks[1] for unit in units if not unit.is_table}
    networks = networks_of(units)
    loaded = {
        network: session.network(network, spec, device=device, encoder=True)
        for network in networks
        if not network.is_features
    }
    misfits = {}
    inferred = {}  # the layers that `all` stands for, by type
    for network in networks:
        layers = layers_of(network, args)
        try:
            if network.is_features:
                chosen = results.feature_files.read_features(network.path, layers).layers
            else:
                chosen = loaded[network].layers(layers, of_end=network in ends)
                if layers == "all" and not getattr(loaded[network].module, "block_names", ()):
                    inferred[network.type] = chosen
            check_depths(network, chosen)
        except UserError as error:
            misfits[network.name] = str(error)
    for model_type, chosen in inferred.items():
        note(
            f"{model_type}: all stands for {listed(chosen)}; misc/list_layers.py lists all layers, to choose others"
        )
    if misfits:
        texts = [
            f"{listed(group)}: {text}" for text, group in grouped(misfits, misfits.get).items()
        ]
        raise UserError(
            f"the layers do not fit {len(misfits)} of {len(networks)} networks ({'; '.join(texts)}); name layers that "
            "they have, or give misc/all_pairs.py a list with a column layers, which has the layers of each network"
        )


def check_depths(network: NamedNetwork, layers: Sequence[str]) -> None:
    """Raise a UserError if the list gives depths for a network, but not for all layers."""
    depths = network.relative_depths
    missing = [layer for layer in layers if layer not in depths]
    if depths and missing:
        raise UserError(f"the column depths lacks {listed(missing)}; it has {listed(depths)}")


def check_types(table: str, networks: Sequence[NamedNetwork], own_types: Sequence[str]) -> None:
    """Raise a UserError if a list of networks has a type that does not exist, or a user's code without
    `--own-types`."""
    named = {title_of(kind): as_in_list(kind, table) for kind in own_types}
    unnamed: dict[str, None] = {}
    for line, network in enumerate(networks, start=FIRST_LINE):
        kind = network.type
        if kind in own_types or is_of_suite(kind):
            continue
        place = f"{table}, line {line}, column type"
        meant = difflib.get_close_matches(title_of(kind), named, n=1)
        if meant:
            raise UserError(
                f"{place}: unknown type {as_in_list(kind, table)!r}; did you mean {named[meant[0]]}?"
            )
        if not is_user_code(kind):
            raise UserError(f"{place}: {unknown_type(kind)}")
        unnamed[kind] = None
    if unnamed:
        raise UserError(
            f"{table} lists types that are a user's own code, which runs only if the command line gives it; add "
            "--own-types "
            f"{' '.join(unnamed)} as well"
        )


def is_of_suite(kind: str) -> bool:
    """Return whether a type is one of the suite, without a user's code."""
    return kind in (*MODEL_NAMES, FEATURES) or kind.startswith("tv_")


def unknown_type(kind: str) -> UserError:
    """Return the error to raise for a type that does not exist."""
    where = f"give a type of the suite, tv_NAME of torchvision, or {CODE}"
    return unknown_name("type", kind, MODEL_NAMES, where=where)


def as_in_list(kind: str, table: str) -> str:
    """Return a type as written in a list, where paths are relative to the folder of the list."""
    if not is_user_code(kind):
        return kind
    file, function = file_and_function(kind)
    return f"{os.path.relpath(file, Path(table).parent)}:{function}"


def check_ends(args: Namespace, networks: Sequence[NamedNetwork]) -> None:
    """Raise a UserError if `--ends` names a network that the list lacks."""
    names = [network.name for network in networks]
    unknown = [name for name in args.ends or () if name not in names]
    if unknown:
        raise UserError(
            f"--ends: {args.networks} has no {', '.join(unknown)}; give names of its list, such as "
            f"{listed(names, n=3)}"
        )


def check_code(args: Namespace) -> None:
    """Load measures, closed-form solvers and objectives from the user's code, so that errors are raised before
    long computations."""
    from src.similarity.measures import load_measures
    from src.stitching.closed_forms import solver_of
    from src.stitching.objectives import objective_of

    load_measures(args.metrics)
    for method in methods_of(args):
        if method.n_epochs:
            objective_of(method.name)
        else:
            solver_of(method.name)


def methods_of(args: Namespace) -> list[Method]:
    """Return the distinct methods of stitching."""
    return [Method.of(text) for text in dict.fromkeys(args.methods) if text != NONE]


def units_of(args: Namespace, networks: Sequence[NamedNetwork]) -> list[Unit]:
    """Return all units of work, grouped by end network, as these units share its detectors. Files of features
    are only compared."""
    ends = [network for network in networks if not args.ends or network.name in args.ends]
    models = [network for network in networks if not network.is_features]
    units = [
        stitching_unit((front, end), method, args, args.save_dir)
        for end, front, method in itertools.product(ends, models, methods_of(args))
        if front != end and end in models
    ]
    if not args.no_similarity:
        pairs = [pair for pair in itertools.combinations(networks, 2) if set(pair) & set(ends)]
        units += [similarity_unit(pair, args, args.save_dir) for pair in pairs]
    if args.probes:
        units += [probing_unit(network, args.probes, args, args.save_dir) for network in models]
    return units


def is_in_share(unit: Unit, number: int, n_shares: int) -> bool:
    """Return whether a unit belongs to a share; the share depends only on the names of its
    networks."""
    names = "\n".join(network.name for network in unit.networks)
    return int(hashlib.sha256(names.encode()).hexdigest(), 16) % n_shares == number - 1


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
