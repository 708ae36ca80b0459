#!/usr/bin/env python3
"""Measure how similar the representations of two networks are, at full rank or truncated to
principal components."""

import math
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import cli, figures, results
from src.core.choices.datasets import dataset_label
from src.core.console import note, progress, result, warn, warn_once
from src.core.errors import UserError
from src.core.user_code import title_of
from src.results.network_names import FEATURES
from src.results.run import Run, claimed
from src.results.spec import ABSENT_IN_TABLES, further_options, short_images

if TYPE_CHECKING:
    import torch

    from src.core.inputs import InputSpec
    from src.datasets.base import InputSet
    from src.results.checkpoints import Session
    from src.results.feature_files import LoadedFeatures
    from src.similarity.comparison import LayerComparison
    from src.similarity.sides import Side, Statistics

    Loaded = cli.LoadedNetwork | results.feature_files.LoadedFeatures


def parser() -> cli.Parser:
    options = cli.Parser(
        "Measure the similarity of layers of two networks by CKA, PWCCA and orthogonal Procrustes, at full rank or "
        "truncated to principal components."
    )
    add_layers(options)
    cli.add_channels_last(options, "1", "2")
    cli.add_data(options, batch_size=64)
    cli.add_interventions(options, of_tests=True)
    cli.add_gpu(options)
    add = options.add_argument
    add(
        "-s",
        "--seed",
        type=cli.integer_from_0,
        default=0,
        help="seed of randomly initialised weights",
    )
    cli.add_similarity(options)
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write; a figure of several rows is drawn beside it",
    )
    add(
        "--verbose",
        action="store_true",
        help="print how layers are aligned and, for several pairs of layers, a table for each pair",
    )
    return options


def add_layers(options: cli.Parser) -> None:
    """Add the two networks, their layers and their ranks."""
    add = options.add_argument
    rank = cli.integer_from_0
    add(
        "model1_path",
        help=f"checkpoint of the first network: {cli.CHECKPOINT}; or an .npz file of features",
    )
    add("model2_path", help="checkpoint of the second network, as for model1_path")
    add(
        "model1_type",
        type=cli.network,
        help=f"{cli.NETWORKS}; or {FEATURES}: the .npz file has an array (N, ...) for each layer, "
        "and ids (N,); misc/save_features.py writes such files",
    )
    add("model2_type", type=cli.network, help="type, as for model1_type")
    add(
        "model1_layer",
        help="layer of the first network; several layers, separated by commas; or all",
    )
    add(
        "model2_layer",
        help="layer of the second network; several layers, separated by commas; or all",
    )
    add(
        "-m1r",
        "--model1-ranks",
        type=rank,
        nargs="*",
        default=None,
        help="numbers of principal components to keep at the first layer; "
        "0, and the default: all components",
    )
    add(
        "-m2r",
        "--model2-ranks",
        type=rank,
        nargs="*",
        default=None,
        help="numbers of principal components to keep at the second layer; "
        "0, and the default: all components",
    )


def main(
    args: Namespace,
    session: "Session | None" = None,
    *,
    at_claim: Callable[[Namespace], None] | None = None,
) -> None:
    """Compare the layers, print the values, and write the table.

    Args:
        session: all experiments of one session share its networks, inputs and features; it gets the
            warnings. Without one they are printed.
        at_claim: takes `args`, whose measures it may change, once no other process writes the table.
    """
    from src.similarity.comparison import LayerComparison

    results.similarities.refuse_names_of_columns(args.metrics)

    # Two networks or files of features, their layers, and the inputs.
    is_alone = session is None
    session, device, spec = cli.begin(args, session)
    first, second = load_sides(args, session, device, spec)
    features = [side for side in (first, second) if not isinstance(side, cli.LoadedNetwork)]
    test_set = None
    if len(features) < 2:
        test_set = cli.load_split(args, session, device, train=False)
    for side in (first, second):
        if test_set is not None and isinstance(side, cli.LoadedNetwork):
            session.warn_at_chance(side.name, side.network, test_set)
    n_images = count_images(args, features, test_set)
    labels = labels_of(features, test_set, n_images)

    # One pass of each network over the inputs; then the measures of each pair of layers, at each
    # pair of ranks.
    runs = [Run.beside(args.output, vars(args), script=__file__)] if args.output else []
    with claimed(runs):
        if at_claim:
            at_claim(args)
        columns = list(dict.fromkeys(map(title_of, args.metrics)))
        statistics = take_statistics(args, first, second, test_set, n_images, session, device)
        comparison = LayerComparison(
            statistics,
            n_permutations=args.n_permutations or 0,
            labels=labels,
        )
        source = source_of(args, first, second, images_columns(args, features), n_images=n_images)
        depths = (relative_depths_of(first), relative_depths_of(second))
        rows = print_rows(comparison, columns, source, depths, is_verbose=args.verbose)
        session.warnings.update(comparison.warnings())
        for line in session.warnings if is_alone else ():
            warn(line)
        for run in runs:
            run.options["metrics"] = args.metrics
            write_rows(args, run, rows)


def load_sides(
    args: Namespace, session: "Session", device: "torch.device", spec: "InputSpec"
) -> "tuple[Loaded, Loaded]":
    """Return the two networks with their layers, or the files of features in their places."""
    sides = (cli.MODEL1, cli.MODEL2)
    loaded: dict[cli.NetworkOptions, Loaded] = {
        side: load_features(args, side)
        for side in sides
        if vars(args)[f"{side.model}_type"] == FEATURES
    }
    named = [side for side in sides if side not in loaded]
    if named:  # together: a network that stands on both sides runs once
        networks = cli.load_networks(args, *named, images=spec, session=session, device=device)
        loaded |= zip(named, networks, strict=True)
    return loaded[cli.MODEL1], loaded[cli.MODEL2]


def load_features(args: Namespace, options: cli.NetworkOptions) -> "LoadedFeatures":
    """Return the features that stand for a network; refuse options that need the network."""
    path = vars(args)[f"{options.model}_path"]
    if args.shortcut is not None:
        raise UserError(f"--shortcut changes images, and {path} holds features; leave it out")
    if args.channels_last in (options.side, "both"):
        raise UserError(
            f"--channels-last {args.channels_last} is of a network, and {path} holds features; "
            "store the features as (N, C, H, W)"
        )
    features = results.feature_files.read_features(path, vars(args)[options.layers])
    setattr(args, f"{options.model}_path_sha256", features.name.weights)
    return features


def count_images(
    args: Namespace,
    features: "Sequence[LoadedFeatures]",
    test_set: "InputSet | None",
) -> int:
    """Return how many inputs are compared; warn if there are fewer than the option says.

    Raises:
        UserError: the features on both sides are of different inputs.
    """
    images = [side.file.images for side in features]
    if test_set is not None:
        of_test_set = results.feature_files.images_of(
            test_set, args.test_images_sha256, dataset=args.dataset
        )
        images.insert(0, of_test_set)
    n_images = min(args.n_samples, *(len(side.ids) for side in images))
    if n_images < args.n_samples != cli.N_COMPARED:
        warn_once(f"-n {args.n_samples}: there are only {n_images} inputs to compare")
    results.feature_files.check_same_images(images[0], images[1:], n_images=n_images)
    return n_images


def labels_of(
    features: "Sequence[LoadedFeatures]",
    test_set: "InputSet | None",
    n_images: int,
) -> "torch.Tensor | None":
    """Return numbers of the classes (n_images,) of the inputs; None for features without labels."""
    import torch

    if test_set is not None:
        return test_set.labels[:n_images]
    for side in features:
        if side.file.images.labels is not None:
            return torch.from_numpy(
                results.feature_files.class_numbers(side.file.images.labels[:n_images])
            )
    return None


def take_statistics(
    args: Namespace,
    first: "Loaded",
    second: "Loaded",
    test_set: "InputSet | None",
    n_images: int,
    session: "Session",
    device: "torch.device",
) -> "Statistics":
    """Return the statistics of the layers of both networks; features that `session` has need no
    pass."""
    import torch

    from src.similarity import measures, sides

    batches: Iterable = ()
    if test_set is not None:
        n_batches = math.ceil(n_images / args.batch_size)
        batches = test_set.batches(args.batch_size, indices=torch.arange(n_images))
        batches = progress(batches, "activations", n_batches)
    return sides.take_statistics(
        side_of(args, first, args.model1_ranks, "1", n_images),
        side_of(args, second, args.model2_ranks, "2", n_images),
        batches,
        n_images=n_images,
        metrics=measures.load_measures(args.metrics),
        alignment=args.alignment,
        device=device,
        cache=session.cache,
    )


def side_of(
    args: Namespace, loaded: "Loaded", ranks: Sequence[int] | None, number: str, n_images: int
) -> "Side":
    """Return a network with its layers, its ranks, and the key of its features."""
    from src.similarity.sides import Side

    # All that features depend on, beside layers, ranks and measures
    key = (
        loaded.name.weights,
        loaded.name.type,
        args.channels_last in (number, "both"),
        getattr(args, "test_images_sha256", ""),  # of two files of features, none
        n_images,
        args.amp,
    )
    return Side(
        loaded.network, loaded.layers, cli.descending(ranks), title=loaded.name.path, key=key
    )


def source_of(
    args: Namespace,
    first: "Loaded",
    second: "Loaded",
    of_images: Mapping[str, Any],
    *,
    n_images: int,
) -> dict[str, Any]:
    """Return the columns of all rows: the two networks, the inputs, and how they are compared.

    Args:
        of_images: the columns of the inputs.
    """
    is_drawn = first.name.is_untrained or second.name.is_untrained
    return {
        "model1": args.model1_path,
        "model2": args.model2_path,
        "model1_type": args.model1_type,
        "model2_type": args.model2_type,
        "model1_weights": first.name.identity,
        "model2_weights": second.name.identity,
        **of_images,
        "n_samples": n_images,
        "alignment_option": args.alignment,
        "n_permutations": args.n_permutations or 0,
        "seed": args.seed if is_drawn else None,
        "further_options": further_options(
            vars(args), results.similarities.IN_COLUMNS, ABSENT_IN_TABLES
        ),
    }


def images_columns(args: Namespace, features: "Sequence[LoadedFeatures]") -> dict[str, Any]:
    """Return the columns of the inputs, from the records of two files of features or from the options."""
    if len(features) == 2:
        return results.feature_files.common_images(features[0].file, features[1].file)
    return {
        "dataset": dataset_label(args.dataset),
        "shortcut": args.shortcut,
        "test_images": short_images(vars(args))["test_images"],
    }


def relative_depths_of(side: "Loaded") -> Mapping[str, float]:
    """Return the relative depths of the layers of a network; of features, the recorded ones."""
    if isinstance(side, cli.LoadedNetwork):
        return side.network.relative_depths(side.layers)
    return side.file.made_with.get("relative_depths", {})


def print_rows(
    comparison: "LayerComparison",
    columns: Sequence[str],
    source: Mapping[str, Any],
    depths: tuple[Mapping[str, float], Mapping[str, float]],
    *,
    is_verbose: bool,
) -> list[dict[str, Any]]:
    """Print the values of all pairs of layers; return their rows.

    Several pairs at full rank are printed as matrices; with `--verbose` their tables are printed as
    well.

    Args:
        columns: of the measures in the tables.
    """
    import pandas as pd

    rows_of_pairs = []
    for compared_layers in comparison.results():
        rows_of_pairs.append(
            [
                results.similarities.record_of(compared, source, depths)
                for compared in compared_layers
            ]
        )
    all_rows = [row for rows in rows_of_pairs for row in rows]
    frame = pd.DataFrame.from_records(all_rows)
    are_matrix = figures.similarities.is_matrix(frame)
    for rows in rows_of_pairs:
        if is_verbose:
            pair = f"{rows[0]['layer1']} -- {rows[0]['layer2']}"
            note(f"{pair}: samples of CCA and Procrustes: {rows[0]['alignment']}")
        if is_verbose or not are_matrix:
            figures.similarities.print_tables(pd.DataFrame.from_records(rows), columns)
    if are_matrix:
        figures.similarities.print_matrices(frame, columns)
        figures.similarities.print_largest(frame, columns)
    return with_used_ranks(all_rows, comparison.statistics)


def with_used_ranks(
    rows: Sequence[dict[str, Any]], statistics: "Statistics"
) -> list[dict[str, Any]]:
    """Return rows with the ranks that were used, of equal ones the first: no layer has more components than
    channels."""
    used: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        rank1 = row["rank1"] and statistics.layers1[row["layer1"]].width(row["rank1"])
        rank2 = row["rank2"] and statistics.layers2[row["layer2"]].width(row["rank2"])
        if (rank1, rank2) != (row["rank1"], row["rank2"]):
            warn_once(
                "some ranks are above the number of channels, and the table has the rank that was used"
            )
        key = (row["layer1"], row["layer2"], rank1, rank2)
        used.setdefault(key, row | {"rank1": rank1, "rank2": rank2})
    return list(used.values())


def write_rows(args: Namespace, run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Write the table and its figure, finish the run, and end with the most similar layers."""
    import pandas as pd

    path = Path(args.output)
    frame = pd.DataFrame.from_records(rows)
    measures = results.similarities.measured_in(frame)
    with run.replacing():
        results.tables.write_table(path, results.tables.SIMILARITIES, rows)
        if len(rows) > 1:
            figures.similarities.draw(path.with_suffix(".png"), frame, measures)
    note(f"wrote {args.output}")
    if figures.similarities.is_matrix(frame):
        result(figures.similarities.answer(frame, measures))


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
