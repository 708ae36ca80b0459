#!/usr/bin/env python3
"""Compare two networks: stitch both into each other, judge all pairs of layers, and write one page."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc import all_pairs
from misc.pairs import options_of
from src import cli
from src.ground.user_code import is_user_code


def parser() -> cli.Parser:
    options = cli.Parser(
        "Compare two networks: stitch all layers of each to all layers of the other, evaluate the stitches, measure "
        "similarity, judge which layers are functionally similar, and write a table, a figure and one page. The same "
        "command goes on after an interruption."
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
        help="NAME of what is written: NAME.csv with the verdicts, NAME.png, the page NAME.html, and results/NAME",
    )
    add(
        "-l",
        "--layers",
        default="all",
        help="layers of both networks: names or patterns with commas between them, or all",
    )
    add(
        "--methods",
        type=all_pairs.method,
        nargs="+",
        default=all_pairs.METHODS,
        metavar="METHOD",
        help="methods of stitching, as for misc/all_pairs.py, which also has the options of trainings; default: least "
        "squares and covariance matching",
    )
    cli.add_gpu(options)
    cli.add_data(options, batch_size=None)
    cli.add_matching(options, n_samples="auto", default_cutoff="exact")
    cli.add_similarity(options)
    cli.add_memory(options)
    cli.add_style(options)
    return options


def compare(args) -> None:
    table = Path("results", args.output, "networks.csv")
    write_list(args, table)
    types = dict.fromkeys((args.type, args.second_type or args.type))
    own_types = [kind for kind in types if is_user_code(kind)]
    pairs = options_of(
        all_pairs,
        args,
        networks=str(table),
        layers=args.layers,
        stitching_type="auto",
        save_dir=args.output,
        methods=args.methods,
        own_types=own_types,
    )
    all_pairs.work_and_judge(pairs, f"{args.output}.csv", f"{args.output}.html")


def write_list(args, table: Path) -> None:
    """Write the list of both networks, unless it is there.

    Raises:
        UserError: another list is there.
    """
    from src.ground.errors import UserError
    from src.ground.files import read_csv, write_csv

    checkpoints = [args.first, args.second]
    types = [args.type, args.second_type or args.type]
    rows = []
    for name, checkpoint, kind in zip(names_of(*checkpoints), checkpoints, types, strict=True):
        path = checkpoint
        if Path(checkpoint).is_file():  # otherwise it is no path, such as DEFAULT
            path = str(Path(checkpoint).resolve())
        rows.append({"name": name, "path": path, "type": kind})
    if table.exists() and read_csv(table) != rows:
        raise UserError(f"{table} is of other networks; give another -o")
    write_csv(table, list(rows[0]), rows)


def names_of(first: str, second: str) -> list[str]:
    """Return the names of two checkpoints: of the files, of their folders where these differ, or else
    numbers."""
    paths = [Path(first), Path(second)]
    for names in ([path.stem for path in paths], [path.parent.name for path in paths]):
        if names[0] != names[1] and all(map(is_name, names)):
            return names
    return ["first", "second"]


def is_name(text: str) -> bool:
    """Return whether a text may be the name of a network in a list."""
    from src.results.network_list import NAME

    return NAME.fullmatch(text) is not None


def main(argv=None) -> int:
    return cli.run(parser(), compare, argv)


if __name__ == "__main__":
    sys.exit(main())
