#!/usr/bin/env python3
"""Bring stitching runs of version 2.0.0.dev0, a folder a pair, into runs of the present form.

The old folders stay as they are.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Bring stitching runs of version 2.0.0.dev0, which had a folder a pair of layers, into runs with all pairs of "
        "a call. The old folders stay as they are; evaluate the new ones again."
    )
    add = options.add_argument
    add("source_dir", help="folder of the old runs; those of all folders below are brought as well")
    add("-o", "--output", required=True, help="new folder to write to, with the same folders below")
    add(
        "--networks",
        help="list of networks of the misc/all_pairs.py that wrote the old folder: runs in METHOD/A-B go to "
        "'A to B/METHOD', where it finds them now, and tables of similarity and probes are copied",
    )
    return options


def bring(args) -> None:
    from src.ground.console import note
    from src.ground.errors import UserError
    from src.results.exchange import copy_tables, earlier_calls, import_run, present_place
    from src.results.network_list import read_networks

    source = Path(args.source_dir)
    target = Path(args.output)
    if target.exists():
        raise UserError(f"-o {target} exists; give a new folder")
    networks = []
    if args.networks:
        networks = read_networks(args.networks)
    calls = earlier_calls(source)
    if not calls:
        raise UserError(f"{source} has no run of version 2.0.0.dev0, nor has a folder below it")
    for folders in calls:
        place = present_place(folders[0].parent.relative_to(source), networks)
        import_run(folders, target / place)
    if networks:
        copy_tables(source, target)
    n_folders = sum(map(len, calls))
    note(f"wrote {len(calls)} runs of {n_folders} folders to {target}")


def main(argv=None) -> int:
    return cli.run(parser(), bring, argv)


if __name__ == "__main__":
    sys.exit(main())
