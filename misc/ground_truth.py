#!/usr/bin/env python3
"""Which measure can be believed? Scores measures on networks that differ by construction."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.all_pairs import check_types
from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Score all measures that misc/all_pairs.py has measured of networks that differ by construction: do they tell "
        "groups of networks, differences of outputs, layers by depth, and impostors from true fronts?"
    )
    add = options.add_argument
    add(
        "source_dirs",
        nargs="+",
        help="folders that misc/all_pairs.py has written to, each with all pairs of a test",
    )
    add("networks", help="the list of networks; groups are named such as label_noise:0.5, test and strength; clean; "
        "impostor:KIND; similar:KIND")  # fmt: skip
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        default="scores.csv",
        help="CSV to write; table and figure go beside it",
    )
    add("--own-types", type=cli.network, nargs="+", default=[], metavar="FILE.py:FUNCTION",
        help="types in the list that are a user's code, which runs only if named here")  # fmt: skip
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
    from src.console import note, result
    from src.errors import UserError
    from src.ground_truth.outputs import baselines, differences, pass_over
    from src.ground_truth.protocol import score
    from src.ground_truth.tables import read_tables
    from src.ground_truth.truth_report import sentences, sentences_on_dots, write_scores
    from src.ground_truth.truth_rows import DotsRow
    from src.results.network_list import read_networks
    from src.results.tables import write_table
    from src.session import Session

    listed, path = read_networks(args.networks), Path(args.output)
    check_types(args, listed)
    session = Session()
    weights = weights_of(args, listed, session)
    sources = [read_tables(Path(folder), listed, weights) for folder in args.source_dirs]

    # Networks with a shortcut have learned it, before anything is scored.
    dots = dots_learned(
        args, listed, networks_of(args, listed, session, seed=sources[0].seed), session
    )
    if dots:
        write_table(path.with_name(f"{path.stem}_dots.csv"), DotsRow, dots)
        result("\n".join(sentences_on_dots(dots)))

    rows = []
    layers = list(dict.fromkeys(layer for tables in sources for layer in tables.layers))
    for shortcut, seed in dict.fromkeys((tables.shortcut, tables.seed) for tables in sources):
        images = images_of(args, session, shortcut=shortcut)
        networks = networks_of(args, listed, session, seed=seed)
        passed = [
            pass_over(network, images.batches(args.batch_size), layers) for network in networks
        ]
        outputs = differences(passed)
        of_layers = baselines(passed)
        for tables in (
            tables for tables in sources if (tables.shortcut, tables.seed) == (shortcut, seed)
        ):
            at = [layers.index(layer) for layer in tables.layers]
            of_tables = {name: values[:, :, at][..., at] for name, values in of_layers.items()}
            measured = tables._replace(values=tables.values | of_tables)
            scored = score(measured, [network.group or "" for network in listed], outputs)
            rows += [
                replace(row, test=f"{row.test}_dots") if shortcut is not None else row
                for row in scored
            ]
    if not rows:
        raise UserError(
            f"{', '.join(args.source_dirs)}: no test has all pairs; let misc/all_pairs.py finish first"
        )
    write_scores(path, rows)
    result("\n".join(sentences(rows)))
    note(f"wrote {path}")


def networks_of(args, listed, session, *, seed) -> list:
    """Load all networks of the list; fresh ones have the seed of the tables."""
    from src.datasets import dataset_info
    from src.runtime import device_of

    device, spec = device_of(args.gpu), dataset_info(args.dataset, labelled=True).spec
    return [session.network(network.named(seed=seed), spec, device=device) for network in listed]


def weights_of(args, listed, session) -> dict[str, str]:
    """Return the SHA-256 of the weights of all networks of the list, by their names in it."""
    from src.datasets import dataset_info
    from src.runtime import device_of

    device, spec = device_of(args.gpu), dataset_info(args.dataset, labelled=True).spec
    return {
        network.name: session.weights(network.named(), spec, device=device) for network in listed
    }


def images_of(args, session, *, shortcut=None):
    """Return the test images, with dots that tell nothing where there is a shortcut."""
    from src.runtime import device_of

    loading = cli.load_options(args, device_of(args.gpu))
    changes = {"interventions": {"shortcut": shortcut}, "intervention_seed": args.intervention_seed}
    return session.dataset(args.dataset, args.dataset_root, train=False, **loading | changes)


def dots_learned(args, listed, networks, session) -> list:
    """Return the accuracies, with and without dots, of all networks that were trained with a
    shortcut."""
    from src.datasets import interventions
    from src.ground_truth.outputs import pass_over
    from src.ground_truth.truth_rows import DotsRow

    chosen = [
        each for each in zip(networks, listed, strict=True) if "shortcut:" in (each[1].group or "")
    ]
    if not chosen:
        return []
    plain, seed, rows = images_of(args, session), args.intervention_seed, []
    true = interventions.shortcut(plain, 1.0, train=True, seed=seed)
    drawn = interventions.shortcut(plain, 0.0, train=False, seed=seed)
    for network, row in chosen:
        found = (
            pass_over(network, images.batches(args.batch_size), []).accuracy
            for images in (true, plain, drawn)
        )
        rows.append(DotsRow(row.name, row.group, *found))
    return rows


def main(argv=None) -> int:
    return cli.run(parser(), score_measures, argv)


if __name__ == "__main__":
    sys.exit(main())
