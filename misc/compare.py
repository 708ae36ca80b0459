#!/usr/bin/env python3
"""Compare two networks: stitch both into each other, judge all pairs of layers, and write a page."""

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc import all_pairs
from misc.pairs import options_of
from src import cli, results
from src.core.errors import UserError
from src.core.files import read_csv, write_csv
from src.core.user_code import is_user_code
from src.figures.terms import legend
from src.results.network_names import (
    FEATURES,
    NAME,
    NamedNetwork,
    networks_named_by,
    short_names,
)


def parser() -> cli.Parser:
    options = cli.Parser(
        "Compare two networks: stitch all layers of each to all layers of the other, evaluate the stitches, measure "
        "similarity, judge which layers are functionally similar, and write a table, a figure and an HTML page. After "
        "an interruption, the same command resumes."
    )
    add = options.add_argument
    add("first", help=f"checkpoint of a network: {cli.CHECKPOINT}")
    add("second", help="checkpoint of the other network, as for the first")
    add("type", type=cli.network, help=cli.NETWORKS)
    add(
        "second_type",
        nargs="?",
        type=cli.network,
        help="type of the second network; default: that of the first",
    )
    add(
        "-o",
        "--output",
        required=True,
        type=output_name,
        help="NAME of all outputs: NAME.csv with the verdicts, NAME.png, the page NAME.html, and the folder "
        "results/NAME; an absolute NAME is the folder itself",
    )
    add(
        "-l",
        "--layers",
        default="all",
        help="layers of both networks: names or patterns, separated by commas, or all. For a network of your own, all "
        "stands for its outermost blocks, or, in a plain sequence, the module at the end of each step, such as a ReLU; "
        "misc/list_layers.py lists the layers",
    )
    add(
        "--methods",
        type=all_pairs.method,
        nargs="+",
        default=all_pairs.METHODS,
        metavar="METHOD",
        help="methods of stitching, as for misc/all_pairs.py, such as pinv task:20; default: least squares and "
        "covariance matching",
    )
    cli.add_gpu(options)
    cli.add_data(options, batch_size=None)
    cli.add_training(options, n_epochs=None)
    cli.add_scheduler(options)
    cli.add_matching(options, n_samples="auto", default_cutoff="exact")
    cli.add_similarity(options)
    options.set_defaults(metrics=all_pairs.METRICS)
    cli.add_memory(options)
    options.epilog = legend()
    return options


def output_name(text: str) -> str:
    """Parse the value of -o: the prefix of all files, or the name of a file."""
    for ending in (".csv", ".png", ".html"):
        text = text.removesuffix(ending)
    if not Path(text).name:
        raise ArgumentTypeError(f"{text!r} is not a name; give a name, such as both")
    if ".." in Path(text).parts:
        raise ArgumentTypeError(f"{text!r} has .. in it; give a name, or an absolute path")
    return text


def main(args: Namespace) -> None:
    types = [args.type, args.second_type or args.type]
    networks = [NamedNetwork(args.first, types[0]), NamedNetwork(args.second, types[1])]
    check_networks(*networks)
    check_accuracies(args, *networks)
    table = Path("results", args.output, "networks.csv")
    write_list(networks, table)
    pairs = options_of(
        all_pairs,
        args,
        networks=str(table),
        layers=args.layers,
        stitching_type="auto",
        save_dir=args.output,
        methods=args.methods,
        own_types=list(filter(is_user_code, dict.fromkeys(types))),
    )
    all_pairs.work_and_judge(pairs, f"{args.output}.csv", f"{args.output}.html")


def check_networks(first: NamedNetwork, second: NamedNetwork) -> None:
    """Raise a UserError unless both networks have types that exist and checkpoints that can be read, and
    differ."""
    for network in (first, second):
        if not (all_pairs.is_of_suite(network.type) or is_user_code(network.type)):
            raise all_pairs.unknown_type(network.type)
        if network.is_file and network.type != FEATURES:
            results.checkpoints.load_state(network.path)
    if first.key == second.key:
        raise UserError(
            f"{first.path} and {second.path}, of type {first.type}, have the same weights; give another checkpoint or "
            "another type for one"
        )


def check_accuracies(args: Namespace, *networks: NamedNetwork) -> None:
    """Raise a UserError if both networks are trained, but close to chance accuracy on the test inputs: all
    verdicts would be inconclusive."""
    from src.training.doubts import doubt_about

    is_stitched = args.methods != [all_pairs.NONE]
    if not is_stitched or any(
        network.is_untrained or network.type == FEATURES for network in networks
    ):
        return
    session, device, spec = cli.begin(args)
    options = Namespace(**vars(args))
    images = cli.load_split(options, session, device, train=False)
    doubts = {}
    for network in networks:
        loaded = session.network(network, spec, device=device, encoder=True)
        if loaded.is_encoder:
            return
        doubts[network.title] = doubt_about(loaded, images, network.title)
    if all(doubts.values()):
        texts = "; ".join(f"{title} is {doubt}" for title, doubt in doubts.items())
        raise UserError(
            f"no pair of layers could be judged, as both networks are close to chance: {texts}"
        )


def write_list(networks: Sequence[NamedNetwork], table: Path) -> None:
    """Write the list of both networks, with the names in existing results, if there are any.

    Raises:
        UserError: there are results of other networks.
    """
    folder = table.parent
    names = names_of(*networks)
    if any(folder.rglob("config.txt")) or any(folder.glob("similarity/*.json")):
        if not table.exists():
            raise UserError(f"{folder} has results of other commands; give another -o")
        names = [row["name"] for row in read_csv(table)]
        if not are_of_results(networks, names, folder):
            raise UserError(f"{folder} has results of other networks; give another -o")
    else:
        for unfinished in list(folder.rglob("*.resume.pt")):  # with the options of units
            unfinished.unlink()
    rows = []
    for name, network in zip(names, networks, strict=True):
        path = network.path
        if network.is_file:
            path = str(Path(path).resolve())
        rows.append({"name": name, "path": path, "type": network.type})
    write_csv(table, list(rows[0]), rows)


def are_of_results(networks: Sequence[NamedNetwork], names: Sequence[str], folder: Path) -> bool:
    """Return whether the results in a folder are of these networks, by their names and recorded weights."""
    first, second = names
    recorded = [results.run.options_of_table(folder / "similarity" / f"{first}-{second}.csv")]
    recorded += map(
        results.public.read_options,
        sorted((folder / f"{first} to {second}").rglob(results.public.CONFIG)),
    )
    for options in filter(None, recorded):
        of_results = networks_named_by(options).values()
        return [name.listed_as for name in of_results] == [name.listed_as for name in networks]
    return True


def names_of(first: NamedNetwork, second: NamedNetwork) -> list[str]:
    """Return distinct names for two networks: their names in reports, else their types, else numbers."""
    paths = short_names([first.path, second.path])
    for names in ([path.replace("/", "_") for path in paths], [first.type, second.type]):
        if names[0] != names[1] and all(map(NAME.fullmatch, names)):
            return names
    return ["first", "second"]


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
