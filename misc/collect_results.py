#!/usr/bin/env python3
"""Collect the accuracies of a folder of stitching runs, ours or the public code's, as matrix, CSV
and heat map."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli

MAX_TABLES = 12  # of best matches of layers that are printed


def parser() -> cli.Parser:
    options = cli.Parser(
        "Print the accuracy matrix of a folder of stitching runs; write it as CSV and heat map. With two folders, "
        "print both matrices and the difference, second minus first."
    )
    add = options.add_argument
    add("source_dir", help="folder of stitching runs, or above them")
    add(
        "other_dir",
        nargs="?",
        help="second folder, to compare with the first one; both folders must then hold a single experiment",
    )
    add(
        "end_type",
        nargs="?",
        type=cli.network,
        help="with three arguments they are those of the public code: the folder, and the types of the front and the "
        "end network that the runs must have",
    )
    add(
        "-r",
        "--recursive",
        action="store_true",
        help="include the runs in all folders below, as for a folder that holds none itself. Write "
        "grid_measurements.csv as well: a row for each measurement of two layers, from all stitches and from all "
        "tables similarity/*.csv",
    )
    add(
        "--pool",
        action="store_true",
        help="for intervals, count pairs of networks as repetitions if they have no network in common",
    )
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write, with the figure beside it. Default: grid.csv in source_dir; with two folders, nothing is "
        "written",
    )
    cli.add_figure(options)
    add_many_networks(options)
    return options


def add_many_networks(options: cli.Parser) -> None:
    """Add the options for runs on many networks."""
    add = options.add_argument
    add(
        "--curves",
        action="store_true",
        help="draw curves over depth instead: how well corresponding layers of two networks can be stitched, and how "
        "similar they are. These are layers of the same name, in networks of different types those of nearest relative "
        "depth. The curves are means with intervals over all stitches and all tables similarity/*.csv below "
        "source_dir. CSV and figure: curves.csv in source_dir",
    )
    add(
        "--best-matches",
        action="store_true",
        help="find instead, for each layer of a network, the most similar layer of each other network, by each measure "
        "and by the accuracy and skill of stitches; say how often it is the corresponding one. CSV: "
        "best_matches.csv in source_dir, with the shares beside it",
    )
    add(
        "--quantities",
        nargs="+",
        default=[],
        metavar="NAME",
        help="with --curves or --best-matches, show only these quantities, such as accuracy, cka or 'direct matching'; "
        "without it, curves have no accuracies, and the first measure of similarity",
    )
    add(
        "--networks",
        help="list of networks as for misc/all_pairs.py, with their names and groups. With --curves or --best-matches, "
        "each pair of groups has a line; with -r, grid_groups.csv and grid_group_tests.csv compare the groups",
    )


def collect(args) -> None:
    from src.ground.errors import UserError

    of_many = args.curves or args.best_matches
    if args.end_type:
        types = (cli.network(args.other_dir), args.end_type)
        check_types(Path(args.source_dir), types, recursive=args.recursive or of_many)
        args.other_dir = None
    if args.quantities and not of_many:
        raise UserError(
            "--quantities chooses what --curves and --best-matches show; give one of them, or leave it out"
        )
    if of_many and (args.other_dir or args.pool):
        raise UserError(
            "--curves and --best-matches take one folder, and all pairs of networks in it; leave out the other "
            "folder and --pool"
        )
    if args.curves and args.best_matches:
        raise UserError("--curves and --best-matches are two reports; give one of them")
    if args.curves:
        draw_curves(args)
    elif args.best_matches:
        find_best_matches(args)
    elif args.other_dir:
        compare_folders(args)
    else:
        collect_accuracies(args)


def check_types(source_dir: Path, types, *, recursive: bool) -> None:
    """Raise a UserError if the networks of runs in a folder have types that differ from `types`, of
    the front and the end network."""
    from src.ground.errors import UserError
    from src.results.folders import folders_meant, read_runs

    runs = []
    for folder in [source_dir] if recursive else folders_meant(source_dir):
        runs_of_folder, _ = read_runs(folder, recursive=recursive)
        runs += runs_of_folder
    recorded = {(run.row.front_model_type, run.row.end_model_type) for run in runs}
    if recorded and recorded != {types}:
        pairs = " or ".join(sorted(f"{front} to {end}" for front, end in recorded))
        raise UserError(
            f"{source_dir} has stitches of {pairs}, not of {' to '.join(types)}; leave the types out"
        )


def measured_in(args):
    """Return the newest runs, the rows of similarity, the names of the networks, and which layers
    correspond, for reports over all pairs of networks below a folder."""
    from src.results.corresponding import correspondence_of
    from src.results.evaluations import read_evaluated_runs
    from src.results.folders import newest_runs
    from src.results.image_records import refuse_several, warn_of_several

    source_dir = Path(args.source_dir)
    runs = newest_runs(read_evaluated_runs([source_dir], recursive=True))
    similarities = similarities_of(source_dir)
    refuse_several(similarities, source_dir)
    warn_of_several([*(run.row for run in runs), *similarities])
    names = names_of(args, runs, similarities)
    return runs, similarities, names, correspondence_of(runs, similarities, names)


def draw_curves(args) -> None:
    from src.figures.curves import draw_depth
    from src.figures.pages import on_data
    from src.figures.shown import of_depths
    from src.ground.console import listed, note
    from src.ground.errors import UserError
    from src.results.depth_rows import DepthRow
    from src.results.over_depth import depth_rows, groups_without_curves
    from src.results.tables import write_table
    from src.verdict import Limits

    measured = measured_in(args)
    rows = depth_rows(*measured)
    if not rows:
        raise UserError(
            f"{args.source_dir} has neither a stitch of a layer to the corresponding layer of another network, nor a "
            "table of similarity of two networks in a folder similarity"
        )
    table = Path(args.output or Path(args.source_dir, "curves.csv"))
    without_curves = groups_without_curves(*measured)
    if without_curves:
        note(f"no curves, as no layers correspond: {listed(without_curves)}")
    runs, similarities, *_ = measured
    images = {(run.row.dataset, run.row.n_images) for run in runs}
    images = images or {(row.dataset, row.n_samples) for row in similarities}
    with writing(args, table):
        write_table(table, DepthRow, rows)
        draw_depth(
            table.with_suffix(".png"),
            list(of_depths(drawn_depths(rows, args.quantities))),
            Limits(),
            title=args.title,
            source=on_data(len({run.row.network_keys for run in runs}), images),
        )
    note(f"wrote {table}; its figure is beside it")


def drawn_depths(rows, quantities):
    """Return the rows that the figure shows: of the chosen quantities; without a choice all but
    accuracies, which differ between end networks, and of the measures of similarity the first."""
    from src.results.chosen import chosen_rows
    from src.results.quantities import QUANTITIES

    if quantities:
        return chosen_rows(rows, quantities, lambda row: (row.quantity, row.line))
    of_stitches = {quantity.title for quantity in QUANTITIES.values()}
    measures = [row.line for row in rows if row.quantity not in of_stitches]
    return [
        row
        for row in rows
        if row.quantity != "accuracy" and (row.quantity in of_stitches or row.line == measures[0])
    ]


def find_best_matches(args) -> None:
    from src.ground.console import note, result, table
    from src.ground.errors import UserError
    from src.results import best_matches as matches
    from src.results.chosen import chosen_rows
    from src.results.tables import write_table

    rows = matches.best_matches(*measured_in(args))
    if not rows:
        raise UserError(
            f"{args.source_dir} has no stitches of two trained networks, and no table of their similarity in a folder "
            "similarity"
        )
    shown = chosen_rows(rows, args.quantities, lambda row: (row.measure, row.method))
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
    with writing(args, path):
        write_table(path, matches.BestMatchRow, rows)
        write_table(shares, matches.MatchShareRow, matches.match_shares(rows))
    note(f"wrote {path}, and {shares.name} beside it")


def compare_folders(args) -> None:
    """Print and write the accuracies of two folders, and their difference."""
    from src.figures.matrices import compare
    from src.ground.errors import UserError
    from src.results.evaluations import read_evaluated_runs
    from src.results.folders import newest_runs

    if args.networks:
        raise UserError("--networks names the networks of one folder; leave out the second folder")
    folders = [str(Path(args.source_dir)), str(Path(args.other_dir))]
    rows_of_folders = []
    for folder in folders:
        runs = newest_runs(read_evaluated_runs([folder], recursive=args.recursive))
        refuse_empty(Path(folder), runs)
        rows_of_folders.append([run.row for run in runs])
    if not args.output:
        compare(folders, rows_of_folders, title=args.title)
        return
    path = Path(args.output)
    with writing(args, path):
        compare(folders, rows_of_folders, path, title=args.title)


def collect_accuracies(args) -> None:
    """Print the matrices of a folder, and write its tables."""
    from src.ground.errors import UserError
    from src.results.evaluations import read_evaluated_runs
    from src.results.folders import folders_meant, is_run, newest_runs
    from src.results.image_records import warn_of_several

    source_dir = Path(args.source_dir)
    if is_run(source_dir) and not args.output:
        raise UserError(f"{source_dir} is a run, whose grid.csv stays as it is; give -o")
    if folders_meant(source_dir) != [source_dir]:
        args.recursive = True
    similarities = similarities_of(source_dir) if args.recursive else []
    runs = read_evaluated_runs([source_dir], recursive=args.recursive)
    if not similarities:
        refuse_empty(source_dir, runs)
    newest = newest_runs(runs)
    warn_of_several([*(run.row for run in runs), *similarities])
    names = names_of(args, newest, similarities)
    path = Path(args.output or source_dir / "grid.csv")
    with writing(args, path):
        if args.recursive:
            write_measurements(args, path, newest, similarities, names)
        if runs:
            write_accuracies(args, path, runs, newest, names)


def writing(args, path: Path):
    """Return a context for writing a table and what stands beside it.

    In the folder of the runs, without -o, the names are the suite's own.
    """
    from contextlib import nullcontext

    from src.figures.pages import remove_figure
    from src.results.outputs import outputs

    if args.output:
        return outputs(path, __file__)
    remove_figure(path, start=2)  # pages of an earlier call
    return nullcontext()


def write_measurements(args, path: Path, runs, similarities, names) -> None:
    """Write the table of all measurements, and with a list of networks the tables of its groups."""
    from src.ground.console import note
    from src.results.between_groups import compare_groups, note_on_layers
    from src.results.measurements import MeasurementRow, layer_values, measurement_rows
    from src.results.tables import write_table
    from src.results.verdict_rows import GroupRow, GroupTestRow

    measurements = path.with_name(f"{path.stem}_measurements.csv")
    runs, similarities = on_named_images(runs, similarities)
    rows = list(measurement_rows(runs, similarities, names))
    write_table(measurements, MeasurementRow, rows)
    note(f"wrote {measurements}")
    if args.networks:
        groups, tests, *_ = compare_groups(layer_values(runs, similarities, names))
        write_table(path.with_name(f"{path.stem}_groups.csv"), GroupRow, groups)
        write_table(path.with_name(f"{path.stem}_group_tests.csv"), GroupTestRow, tests)
        note(f"wrote {path.stem}_groups.csv and {path.stem}_group_tests.csv beside it")
        note_on_layers(groups)


def on_named_images(runs, similarities):
    """Return runs and rows of similarity; different images of one data set have different names."""
    from dataclasses import replace

    from src.results.image_records import told_apart

    rows = told_apart([*(run.row for run in runs), *similarities])
    named_runs = [replace(run, row=row) for run, row in zip(runs, rows, strict=False)]
    return named_runs, rows[len(runs) :]


def write_accuracies(args, path: Path, runs, newest, names) -> None:
    """Print the matrices of a folder, and write its table of runs, its figure and its intervals.

    Args:
        runs: all of them.
        newest: the newest of repeated runs.
    """
    from src.figures.grids import write_grid
    from src.ground.console import note, table
    from src.ground.files import write_csv
    from src.results.grid_matrices import printed_matrices
    from src.results.tables import to_record
    from src.results.verdict_rows import interval_columns
    from src.results.verdicts import judge_runs

    # With a list, experiments are called by the names of the networks.
    listed_names = names if args.networks else None
    for title, matrix in printed_matrices([run.row for run in newest], listed_names).items():
        table(title, *matrix)

    write_grid(path, [run.row for run in runs], title=args.title, names=listed_names)

    intervals = path.with_name(f"{path.stem}_intervals.csv")
    records = [to_record(row) for row in judge_runs(newest, pool=args.pool, names=names)]
    header = interval_columns()
    rows = [{name: record[name] for name in header} for record in records]
    write_csv(intervals, header, rows)
    note(f"wrote {intervals}")


def refuse_empty(source_dir: Path, runs) -> None:
    """Raise a UserError if a folder gave no runs."""
    from src.ground.errors import UserError

    if not runs:
        raise UserError(
            f"{source_dir} holds no finished stitching run; give the folder that holds their folders, or a folder "
            "above it"
        )


def similarities_of(source_dir: Path):
    """Return the rows of all tables of similarity below a folder."""
    return rows_of_similarity(tables_of_similarity(source_dir))


def tables_of_similarity(source_dir: Path) -> list[Path]:
    """Return the paths of all tables of similarity below a folder."""
    from src.results.network_list import SIMILARITY

    return sorted(source_dir.rglob(f"{SIMILARITY}/*.csv"))


def rows_of_similarity(tables):
    """Return the rows of tables of similarity; warn of rows of weights that have changed since."""
    from src.results.changes import options_beside_tables, warn_of_earlier, warn_of_earlier_code
    from src.results.similarity_rows import SimilarityRow
    from src.results.tables import read_table

    rows = [row for table in tables for row in read_table(table, SimilarityRow)]
    warn_of_earlier((row.networks for row in rows), kind="row")
    warn_of_earlier_code(options_beside_tables(tables), kind="table")
    return rows


def names_of(args, runs, similarities):
    """Return the names and groups of all networks, from the list if there is one."""
    from src.results.named_networks import named_by_list

    networks = [network for result in (*runs, *similarities) for network in networks_of(result)]
    return named_by_list(networks, args.networks)


def networks_of(result):
    """Return both networks of a stitching run or of a row of similarity."""
    return result.row.networks if hasattr(result, "row") else result.networks


def main(argv=None) -> int:
    return cli.run(parser(), collect, argv)


if __name__ == "__main__":
    sys.exit(main())
