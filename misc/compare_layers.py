#!/usr/bin/env python3
"""Compare layers of many networks: curves over depth, or for each layer the most similar one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli

MAX_TABLES = 12  # of best matches of layers that are printed


def parser() -> cli.Parser:
    options = cli.Parser(
        "Draw curves over depth: how well corresponding layers of two networks can be stitched, and how similar they "
        "are. These are layers of the same name, in networks of different types those of nearest relative depth. The "
        "curves are means with intervals over all stitches and all tables similarity/*.csv below a folder."
    )
    add = options.add_argument
    add("source_dir", help="folder of stitching runs, or above them")
    add(
        "--best-matches",
        action="store_true",
        help="find instead, for each layer of a network, the most similar layer of each other network, by each measure "
        "and by the accuracy and skill of stitches; say how often it is the corresponding one",
    )
    add(
        "--quantities",
        nargs="+",
        default=[],
        metavar="NAME",
        help="show only these quantities, such as accuracy, cka or 'direct matching'; without it, curves have no "
        "accuracies, and the first measure of similarity",
    )
    add(
        "--networks",
        help="list of networks as for misc/all_pairs.py, with their names and groups: each pair of groups has a line",
    )
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write, with the figure of curves or the shares of best matches beside it. Default: curves.csv or "
        "best_matches.csv in source_dir",
    )
    return options


def compare(args) -> None:
    from src.results.collected import collect
    from src.results.corresponding import correspondence_of
    from src.results.spec import NETWORKS, refuse_several

    collected = collect(Path(args.source_dir), args.networks)
    refuse_several(collected.similarities, args.source_dir)
    measured = collected.measurements(apart_from=(*NETWORKS, "seed"))
    correspondence = correspondence_of(measured)
    if args.best_matches:
        find_best_matches(args, measured, correspondence)
    else:
        draw_curves(args, measured, correspondence, collected)


def draw_curves(args, measured, correspondence, collected) -> None:
    from src.core.console import listed, note
    from src.core.errors import UserError
    from src.figures.curves import draw_depth
    from src.figures.pages import on_data, writing
    from src.figures.shown import of_means
    from src.results.network_means import MeanRow
    from src.results.over_depth import depth_rows, groups_without_curves, on_architectures
    from src.results.pair_kinds import counted
    from src.results.tables import write_table
    from src.verdict import Limits

    rows = depth_rows(measured, correspondence)
    if not rows:
        raise UserError(
            f"{args.source_dir} has neither a stitch of a layer to the corresponding layer of another network, nor a "
            "table of similarity of two networks in a folder similarity"
        )
    without_curves = groups_without_curves(measured, correspondence)
    if without_curves:
        note(f"no curves, as no layers correspond: {listed(without_curves)}")
    sources = [on_architectures(measured), on_data(counted(collected.pairs), collected.images)]
    table = Path(args.output or Path(args.source_dir, "curves.csv"))
    with writing(table, __file__, is_named=bool(args.output)):
        write_table(table, MeanRow, rows)
        draw_depth(
            table.with_suffix(".png"),
            list(of_means(drawn_depths(rows, args.quantities))),
            Limits(),
            source=" ".join(filter(None, sources)),
        )
    note(f"wrote {table}; its figure is beside it")


def drawn_depths(rows, quantities):
    """Return the rows that the figure shows: of the chosen quantities; without a choice all but
    accuracies, which differ between end networks, and of the measures of similarity the first."""
    from src.results.chosen import chosen_rows
    from src.results.measurements import SIMILARITY

    if quantities:
        return chosen_rows(rows, quantities, lambda row: (row.quantity, row.method))
    measures = [row.quantity for row in rows if row.method == SIMILARITY]
    left_out = {"accuracy", *measures} - set(measures[:1])
    return [row for row in rows if row.quantity not in left_out]


def find_best_matches(args, measured, correspondence) -> None:
    from src.core.console import note, result, table
    from src.core.errors import UserError
    from src.core.files import write_csv
    from src.figures.pages import writing
    from src.results import best_matches as matches
    from src.results.chosen import chosen_rows
    from src.results.network_means import MeanRow
    from src.results.tables import write_table

    rows = matches.best_matches(measured, correspondence)
    if not rows:
        raise UserError(
            f"{args.source_dir} has no stitches of two trained networks, and no table of their similarity in a folder "
            "similarity"
        )
    shown = chosen_rows(rows, args.quantities, lambda row: (row.best.quantity, row.best.method))
    of_layers = list(matches.tables_of_layers(shown).items())
    for title, matrix in [*of_layers[:MAX_TABLES], *matches.tables_of_shares(shown).items()]:
        table(title, *matrix)
        result()
    if len(of_layers) > MAX_TABLES:
        note(
            f"{MAX_TABLES} of {len(of_layers)} tables of layers are printed; the CSV has all best matches"
        )
    path = Path(args.output or Path(args.source_dir, "best_matches.csv"))
    shares = path.with_name(f"{path.stem}_shares.csv")
    with writing(path, __file__, is_named=bool(args.output)):
        records = [match.record for match in rows]
        write_csv(path, list(records[0]), records)
        write_table(shares, MeanRow, matches.match_shares(rows))
    note(f"wrote {path}, and {shares.name} beside it")


def main(argv=None) -> int:
    return cli.run(parser(), compare, argv)


if __name__ == "__main__":
    sys.exit(main())
