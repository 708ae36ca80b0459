#!/usr/bin/env python3
"""Score which measure can be believed, on networks that differ by construction."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.all_pairs import check_types
from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Score all measures that misc/all_pairs.py has measured of networks that differ by"
        " construction: do they tell groups of networks, differences of outputs, layers by depth,"
        " and impostors from true fronts?"
    )
    add = options.add_argument
    add(
        "source_dirs",
        nargs="+",
        help="folders that misc/all_pairs.py has written to, each with all pairs of a test",
    )
    add(
        "networks",
        help="the list of networks; groups are named such as label_noise:0.5, test and strength;"
        " clean; impostor:KIND; similar:KIND",
    )
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        default="scores.csv",
        help="CSV to write; table and figure go beside it",
    )
    add(
        "--own-types",
        type=cli.network,
        nargs="+",
        default=[],
        metavar="FILE.py:FUNCTION",
        help="types in the list that are a user's code, which runs only if named here",
    )
    cli.add_gpu(options)
    cli.add_data(options, batch_size=512)
    add(
        "--intervention-seed",
        type=cli.whole_number(0),
        default=0,
        help="that of the dots on test images",
    )
    return options


def score_measures(args) -> None:
    from src.collected.truth_tables import read_tables
    from src.ground.console import note, result
    from src.ground.errors import UserError
    from src.ground.grouping import grouped
    from src.reports.truth_report import sentences, sentences_on_dots, write_scores
    from src.runs.session import Session
    from src.tables.network_list import read_networks
    from src.tables.tables import write_table
    from src.tables.truth_rows import DotsRow

    # Networks, and what was measured of them
    networks = read_networks(args.networks)
    check_types(args, networks)
    session = Session()
    weights = weights_of(args, networks, session)
    tables_of_folders = [
        read_tables(Path(folder), networks, weights) for folder in args.source_dirs
    ]

    # Have the networks with a shortcut learned it? That comes before any score.
    path = Path(args.output)
    dots = dots_learned(args, networks, session, seed=tables_of_folders[0].seed)
    if dots:
        write_table(path.with_name(f"{path.stem}_dots.csv"), DotsRow, dots)
        result("\n".join(sentences_on_dots(dots)))

    # Scores of the folders that share fresh weights and test images
    rows = []
    settings = grouped(tables_of_folders, lambda tables: (tables.seed, tables.shortcut))
    for tables_of_setting in settings.values():
        rows += score_rows(args, tables_of_setting, networks, session)
    if not rows:
        raise UserError(
            f"{', '.join(args.source_dirs)}: no test has all pairs; let misc/all_pairs.py finish"
            " first"
        )
    write_scores(path, rows)
    result("\n".join(sentences(rows)))
    note(f"wrote {path}")


def score_rows(args, tables_of_setting, networks, session) -> list:
    """Score all measures of tables with one seed of fresh weights and one shortcut."""
    from src.collected.truth_protocol import score
    from src.ground_truth.outputs import baselines, differences, pass_over

    # One pass a network gives its outputs and the baselines of all layers.
    shortcut, seed = tables_of_setting[0].shortcut, tables_of_setting[0].seed
    images = images_of(args, session, shortcut=shortcut)
    for tables in tables_of_setting:
        check_images(args, tables, session.fingerprint(images))
    layers = list(dict.fromkeys(layer for tables in tables_of_setting for layer in tables.layers))
    loaded = load_networks(args, networks, session, seed=seed)
    passes = [
        pass_over(network, images.batches(args.batch_size), layers, name=listed.name)
        for listed, network in zip(networks, loaded, strict=True)
    ]
    outputs = differences(passes)
    baselines_of_layers = baselines(passes)

    rows = []
    groups = [network.group or "" for network in networks]
    for tables in tables_of_setting:
        places = [layers.index(layer) for layer in tables.layers]
        baselines_of_tables = {
            name: values[:, :, places][..., places] for name, values in baselines_of_layers.items()
        }
        measures = tables.values | baselines_of_tables
        rows += score(tables._replace(values=measures), groups, outputs)
    if shortcut is None:
        return rows
    return [replace(row, test=f"{row.test}_dots") for row in rows]


def load_networks(args, networks, session, *, seed) -> list:
    """Load all networks of the list; fresh weights are drawn with the seed of the tables."""
    from src.datasets import dataset_info
    from src.ground.runtime import device_of

    device = device_of(args.gpu)
    spec = dataset_info(args.dataset, labelled=True).spec
    return [session.network(network.named(seed=seed), spec, device=device) for network in networks]


def weights_of(args, networks, session) -> dict[str, str]:
    """Return the SHA-256 of the weights of all networks of the list, by name."""
    from src.datasets import dataset_info
    from src.ground.runtime import device_of

    device = device_of(args.gpu)
    spec = dataset_info(args.dataset, labelled=True).spec
    return {
        network.name: session.weights(network.named(), spec, device=device) for network in networks
    }


def images_of(args, session, *, shortcut=None):
    """Load the test images; a shortcut draws dots on the images at random, whatever the class."""
    from src.ground.runtime import device_of

    options = cli.load_options(args, device_of(args.gpu))
    options["interventions"] = {"shortcut": shortcut}
    options["intervention_seed"] = args.intervention_seed
    return session.dataset(args.dataset, args.dataset_root, train=False, **options)


def check_images(args, tables, fingerprint: str) -> None:
    """Raise a UserError if tables recorded other test images than those of the options."""
    from src.ground.errors import UserError
    from src.tables.image_records import are_same

    if not are_same(tables.test_images, fingerprint):
        raise UserError(
            f"-d {args.dataset}: the tables were made on other test images; give the data set and"
            " the --intervention-seed of misc/all_pairs.py, or let it make the tables again with"
            " --redo-changed"
        )


def dots_learned(args, networks, session, *, seed) -> list:
    """Measure networks that were trained with a shortcut; return a row for each.

    A row has three accuracies: with dots that tell the class, without dots, with random dots.
    """
    from src.datasets import interventions
    from src.ground_truth.outputs import pass_over
    from src.tables.truth_rows import DotsRow

    with_shortcut = [network for network in networks if "shortcut:" in (network.group or "")]
    if not with_shortcut:
        return []
    plain = images_of(args, session)
    dots_seed = args.intervention_seed
    true = interventions.shortcut(plain, 1.0, train=True, seed=dots_seed)
    drawn = interventions.shortcut(plain, 0.0, train=False, seed=dots_seed)
    rows = []
    loaded = load_networks(args, with_shortcut, session, seed=seed)
    for listed, network in zip(with_shortcut, loaded, strict=True):
        accuracies = [
            pass_over(network, images.batches(args.batch_size), [], name=listed.name).accuracy
            for images in (true, plain, drawn)
        ]
        rows.append(DotsRow(listed.name, listed.group, *accuracies))
    return rows


def main(argv=None) -> int:
    return cli.run(parser(), score_measures, argv)


if __name__ == "__main__":
    sys.exit(main())
