#!/usr/bin/env python3
"""Score which measure can be believed, on networks that differ by construction."""

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.all_pairs import check_types
from src import cli
from src.choices.similarity import MEASURES, measures_of
from src.ground.user_code import CODE


def parser() -> cli.Parser:
    options = cli.Parser(
        "Score all measures that misc/all_pairs.py has measured of networks that differ by"
        " construction: do they tell groups of networks, differences of outputs, layers by depth,"
        " and impostors from true fronts? --metrics does so for another measure in a minute."
    )
    add = options.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folders that misc/all_pairs.py has written to, each with all pairs of a test, and"
        " last the list of networks; groups are named such as label_noise:0.5, test and strength;"
        " clean; impostor:KIND; similar:KIND. With --metrics: a folder of --freeze",
    )
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write; table and figure go beside it. Default: scores.csv; with --metrics,"
        " nothing is written",
    )
    add(
        "--truths",
        metavar="FILE",
        help="CSV with the columns front, end and one for each truth: what two networks of the group clean share,"
        " such as misc/mechanisms.py writes. A measure is scored by its rank correlation with each",
    )
    add_frozen(options)
    cli.add_own_types(options)
    cli.add_gpu(options)
    cli.add_data(options, batch_size=512)
    cli.add_memory(options)
    add(
        "--intervention-seed",
        type=cli.whole_from_0,
        default=0,
        help="that of the dots on test images",
    )
    return options


def add_frozen(options: cli.Parser) -> None:
    """Add the options that keep a run, and that score another measure on it."""
    add = options.add_argument
    add(
        "--freeze",
        metavar="FOLDER",
        help="also write the features of all networks to this folder, for --metrics",
    )
    add(
        "--pooled",
        action="store_true",
        help="with --freeze, keep averages of features over positions, which take less room",
    )
    add(
        "--metrics",
        "--score",
        type=cli.names_or_code("measure", MEASURES),
        metavar="MEASURE",
        help="score only these measures, on the CPU, on a folder of --freeze: several with commas"
        f" between them, of {', '.join(MEASURES)}, or {CODE}, a function of your own",
    )


def work(args) -> None:
    from src.ground.errors import UserError

    if args.pooled and not args.freeze:
        raise UserError("--pooled is of --freeze; give a folder to freeze to, or leave it out")
    if args.metrics:
        if args.freeze or len(args.sources) != 1:
            raise UserError(
                "--metrics takes one folder, which --freeze has written; give nothing else"
            )
        score_frozen(args)
    else:
        if len(args.sources) == 1:
            raise UserError(
                f"{args.sources[0]} stands alone; give folders of misc/all_pairs.py and then the"
                " list of networks, or a folder of --freeze with --metrics"
            )
        score_tables(args)


def score_tables(args) -> None:
    """Score all measures in the tables of all pairs."""
    from src.figures.truth import shown_rows, table_of, write_scores
    from src.ground.console import note, result
    from src.ground.errors import UserError
    from src.ground.files import write_csv
    from src.ground.grouping import grouped
    from src.ground_truth.frozen_truth import FEATURES, FrozenTest, write_frozen
    from src.ground_truth.truth_protocol import clean_networks, score
    from src.ground_truth.truth_tables import read_tables, read_truths
    from src.results.network_list import read_networks, tell_groups
    from src.results.outputs import outputs

    # Networks, and what was measured of them
    *folders, table = args.sources
    networks = read_networks(table)
    groups = [network.group or "" for network in networks]
    check_groups(table, groups)
    check_trainings(table, networks)
    check_types(table, networks, args.own_types)
    tell_groups(table, networks)
    truths = {}
    if args.truths:
        names = [network.name for network in networks]
        truths = read_truths(args.truths, names, clean_networks(groups))
    loader = Loader(args)
    weights = {network.name: loader.weights(network) for network in networks}
    tables_of_folders = [read_tables(Path(folder), networks, weights) for folder in folders]

    # Have the networks with a shortcut learned it? That comes before any score.
    path = Path(args.output or "scores.csv")
    dots = measure_dots(networks, loader, seed=tables_of_folders[0].seed)

    # Scores of the folders that share fresh weights and test images
    rows = []
    tests = []
    settings = grouped(tables_of_folders, lambda tables: (tables.seed, tables.shortcut))
    for tables_of_setting in settings.values():
        setting = setting_of(tables_of_setting, networks, loader)
        for name in setting.outputs.keys() & truths.keys():
            raise UserError(f"{args.truths}: {name} is the name of a test; rename the column")
        outputs_and_truths = setting.outputs | truths
        for tables in tables_of_setting:
            numbers = setting.numbers_at(tables.layers)
            rows += score(tables.with_baselines(numbers), groups, outputs_and_truths)
            if args.freeze:
                test = FrozenTest(
                    features=features_of_tables(args, tables, setting),
                    pairs=tables.pairs([network.name for network in networks]),
                    groups=groups,
                    layers=tables.layers,
                    outputs=outputs_and_truths,
                    numbers=numbers,
                    alignment=tables.alignment,
                    shortcut=tables.shortcut,
                    is_pooled=args.pooled,
                )
                tests.append(test)
    if not rows:
        raise UserError(
            f"{', '.join(folders)}: no test has all pairs; let misc/all_pairs.py finish first, and"
            " give at least four clean networks, or three layers"
        )
    with outputs(path, __file__):
        write_scores(path, rows)
        if dots:
            write_csv(path.with_name(f"{path.stem}_dots.csv"), list(dots[0]), dots)
    result(table_of(rows))
    note(f"wrote {path}")
    if args.freeze:
        with outputs(Path(args.freeze, FEATURES), __file__):
            write_frozen(Path(args.freeze), tests, shown_rows(rows))
        note(f"wrote {args.freeze}")


def check_groups(table: str, groups: Sequence[str]) -> None:
    """Raise a UserError if no groups of a list have the names of a test."""
    from src.ground.console import listed
    from src.ground.errors import UserError
    from src.ground_truth.truth_protocol import has_tests

    if not has_tests(groups):
        names = listed(dict.fromkeys(group for group in groups if group))
        raise UserError(
            f"{table}: no groups are named like a test (clean, or two strengths such as shortcut:0"
            f" and shortcut:1); it has {names or 'none'}"
        )


def check_trainings(table: str, networks) -> None:
    """Raise a UserError if a list has checkpoints of one training, which are one network."""
    from src.ground.errors import UserError
    from src.ground.grouping import grouped
    from src.results.trained_with import training_of

    files = [network for network in networks if network.named().is_file]
    by_training = grouped(files, lambda network: network.training or training_of(network.named()))
    for first, *others in by_training.values():
        if others:
            raise UserError(
                f"{table}: {first.name} and {others[0].name} are checkpoints of one training, and one network; list "
                "one of them"
            )


def score_frozen(args) -> None:
    """Score measures on the features of a folder, and print the best measures so far."""
    from src.figures.truth import print_beside, write_scores
    from src.ground.console import note
    from src.ground.errors import UserError
    from src.ground_truth.frozen_truth import read_frozen, read_scores
    from src.ground_truth.truth_protocol import clean_networks, score
    from src.results.outputs import outputs
    from src.similarity.many import similarities_of_pairs

    folder = Path(args.sources[0])
    tests = read_frozen(folder)
    earlier_scores = read_scores(folder)
    rows = []
    for test in tests:
        names = list(test.features)
        values = similarities_of_pairs(
            test.features,
            test.pairs,
            args.metrics,
            layers=test.layers,
            across_layers=[names[place] for place in clean_networks(test.groups)],
            alignment=test.alignment,
            gigabytes=args.memory,
        )
        rows += score(test.tables(values), test.groups, test.outputs)
    if not rows:
        raise UserError(
            f"--metrics {','.join(args.metrics)}: no test of {folder} has values of all its pairs;"
            " give a measure that is defined for them"
        )
    warn_of_pooled(folder, tests, args.metrics)
    print_beside(rows, earlier_scores)
    if args.output:
        with outputs(args.output, __file__):
            write_scores(Path(args.output), rows)
        note(f"wrote {args.output}")


def warn_of_pooled(folder: Path, tests, metrics: Sequence[str]) -> None:
    """Warn of measures that pooled features do not give the values of whole layers."""
    from src.ground.console import listed, warn

    columns = list(measures_of(metrics))
    names = dict.fromkeys(chain.from_iterable(test.of_whole_layers(columns) for test in tests))
    if names:
        warn(
            f"{folder} has averages over positions (--pooled), and the best measures so far were"
            f" measured on whole layers; not comparable with them: {listed(names)}"
        )


class Loader:
    """Loads networks and test images as the options say, each once."""

    def __init__(self, args):
        from src.datasets import dataset_info
        from src.ground.runtime import device_of
        from src.results.session import Session

        self.args = args
        self.session = Session()
        self.device = device_of(args.gpu)
        self.spec = dataset_info(args.dataset, labelled=True).spec

    def network(self, listed, *, seed, layers=()):
        """Return a network of the list.

        Args:
            seed: of fresh weights.
            layers: have activations (B, C, H, W), as where measures compare them. The network need
                not have all of these layers.
        """
        network = self.session.network(listed.named(seed=seed), self.spec, device=self.device)
        existing = [layer for layer in layers if layer in network.layer_names]
        return network.channels_first(existing, image_shape=self.spec.shape)

    def weights(self, listed) -> str:
        """Return the SHA-256 of the weights of a network of the list."""
        return self.session.weights(listed.named(), self.spec, device=self.device)

    def images(self, *, shortcut=None):
        """Return the test images.

        Args:
            shortcut: 0 draws dots on the images at random, whatever the class.
        """
        options = cli.load_options(self.args, self.device)
        options["interventions"] = {"shortcut": shortcut}
        options["intervention_seed"] = self.args.intervention_seed
        return self.session.dataset(
            self.args.dataset, self.args.dataset_root, train=False, **options
        )

    def pass_over(self, listed, network, images, layers=()):
        """Return outputs and numbers of a network on images."""
        from src.ground_truth.outputs import pass_over

        return pass_over(network, images.batches(self.args.batch_size), layers, name=listed.name)


class Setting(NamedTuple):
    """All networks of the list on the test images of some tables."""

    networks: dict[str, Any]  # N, by name
    images: Any
    layers: list[str]  # of all these tables
    outputs: dict[str, Any]  # (N, N), differences of outputs
    numbers: Any  # (3, N, layers), of the baselines

    def numbers_at(self, layers):
        """Return the numbers of the baselines at some of the layers, (3, N, L)."""
        return self.numbers[:, :, [self.layers.index(layer) for layer in layers]]


def features_of_tables(args, tables, setting: Setting) -> dict[str, dict[str, Any]]:
    """Return the activations of the networks that tables compare, by network and layer.

    They are of the images that measures of similarity were measured on.
    """
    from src.ground_truth.outputs import features_of

    compared = set(chain.from_iterable(tables.pairs(list(setting.networks))))
    places = range(min(tables.n_images, len(setting.images)))
    features = {}
    for name, network in setting.networks.items():
        layers = tables.layers if name in compared else []
        batches = setting.images.batches(args.batch_size, indices=places)
        features[name] = features_of(network, batches, layers, pooled=args.pooled)
    return features


def setting_of(tables_of_setting, networks, loader: Loader) -> Setting:
    """Pass the test images through all networks, once for all tables of a setting."""
    from src.ground_truth.outputs import baseline_numbers, differences

    first = tables_of_setting[0]
    images = loader.images(shortcut=first.shortcut)
    for tables in tables_of_setting:
        check_images(loader, tables, images)
    layers = list(dict.fromkeys(layer for tables in tables_of_setting for layer in tables.layers))
    loaded = {
        network.name: loader.network(network, seed=first.seed, layers=layers)
        for network in networks
    }
    passes = [
        loader.pass_over(network, loaded[network.name], images, layers) for network in networks
    ]
    return Setting(loaded, images, layers, differences(passes), baseline_numbers(passes))


def check_images(loader: Loader, tables, images) -> None:
    """Raise a UserError if tables recorded test images that differ from the images of the options."""
    from src.ground.errors import UserError
    from src.results.image_records import are_same

    if not are_same(tables.test_images, images.fingerprint):
        raise UserError(
            f"-d {loader.args.dataset}: the tables were made on other test inputs; give the data"
            " set and the --intervention-seed of misc/all_pairs.py, or remove the tables and let it make them again"
        )


def measure_dots(networks, loader: Loader, *, seed) -> list:
    """Measure networks that were trained with a shortcut; print and return their accuracies.

    A row has three accuracies: with dots that tell the class, without dots, with random dots.
    """
    from src.datasets import interventions
    from src.figures.truth import DOTS, on_dots
    from src.ground.console import result

    with_shortcut = [network for network in networks if "shortcut:" in (network.group or "")]
    if not with_shortcut:
        return []
    plain = loader.images()
    dots_seed = loader.args.intervention_seed
    true = interventions.shortcut(plain, 1.0, train=True, seed=dots_seed)
    drawn = interventions.shortcut(plain, 0.0, train=False, seed=dots_seed)
    images_of = dict(zip(DOTS, (true, plain, drawn), strict=True))
    rows = []
    for listed in with_shortcut:
        network = loader.network(listed, seed=seed)
        row = {"network": listed.name, "group": listed.group}
        for kind, images in images_of.items():
            row[kind] = loader.pass_over(listed, network, images).accuracy
        rows.append(row)
    result("\n".join(on_dots(rows)))
    return rows


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
