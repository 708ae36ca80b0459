#!/usr/bin/env python3
"""Write a report of stitches and similarities as one page of HTML, for a reader who has nothing
else."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.collect_results import drawn_depths, names_of, rows_of_similarity, tables_of_similarity
from misc.verdict import add_judging, limits_of
from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Write one page of HTML with the verdicts, the maps, the groups and the provenance of an experiment. It has "
        "all tables and figures in it, and needs neither network nor other files."
    )
    add = options.add_argument
    add(
        "source_dirs",
        nargs="+",
        help="folders of stitching runs, or above them, such as results/DIR of misc/all_pairs.py; with all evaluations "
        "and all tables similarity/*.csv below",
    )
    add(
        "-sim",
        "--similarity",
        nargs="+",
        default=[],
        help="further CSV files of exec_compute_low_rank_sim_metrics.py",
    )
    add(
        "--networks",
        help="list of networks as for misc/all_pairs.py, with their names and groups",
    )
    add_judging(options)
    add("--title", default="", help="title of the page; default: the folders")
    cli.add_style(options)
    add(
        "-o",
        "--output",
        type=cli.html_file,
        default="report.html",
        help="file to write, .html",
    )
    return options


class Results(NamedTuple):
    """The contents of the folders."""

    runs: Sequence[Any]
    similarities: Sequence[Any]
    tables: Sequence[Path]  # of the similarities
    names: Mapping[Any, Any]  # of all networks


class Judged(NamedTuple):
    """The verdicts, with comparisons of groups of networks by verdicts and by measures."""

    limits: Any
    verdicts: Sequence[Any]
    by_verdicts: Any
    by_measures: Any


def report(args) -> None:
    from src.collected.best_matches import best_matches
    from src.collected.corresponding import correspondence_of
    from src.ground.console import note, warn
    from src.ground.files import write_text
    from src.ground.html_page import page, paragraph
    from src.reports import experiment_page as sections
    from src.runs.outputs import outputs

    start = datetime.now()
    results = results_of(args)
    runs, similarities, _, names = results
    judged = judge(args, results)
    measured = (runs, similarities, names, correspondence_of(runs, similarities, names))
    matches = best_matches(*measured)
    subject = sections.subject(runs, similarities, names)
    output = Path(args.output)
    if importlib.util.find_spec("matplotlib") is None:
        warn("the page has no figures: matplotlib is not installed")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_verdicts(folder, results, judged)
        write_similarities(folder, similarities)
        write_matches(folder, measured, matches, judged.limits)
        lead = [paragraph(subject), sections.archive(folder, output.stem)]
        parts = parts_of_page(folder, results, judged, matches, start=start)
        title = args.title or f"Report on {', '.join(args.source_dirs)}"
        with outputs(output, __file__):
            write_text(output, page(title, lead, parts))
    note(f"wrote {output}")


def results_of(args) -> Results:
    """Return the newest runs below all folders, the rows of all tables of similarity with the paths
    of these tables, and the names of the networks."""
    from src.ground.errors import UserError
    from src.runs.evaluations import read_evaluated_runs
    from src.runs.folders import newest_runs
    from src.tables.image_records import warn_of_several

    runs = read_evaluated_runs(args.source_dirs, recursive=True)
    tables = list(map(Path, args.similarity))
    for folder in map(Path, args.source_dirs):
        tables += tables_of_similarity(folder)
    similarities = rows_of_similarity(tables)
    if not runs and not similarities:
        raise UserError(
            f"{', '.join(args.source_dirs)}: no finished stitching run and no table similarity/*.csv below; give "
            "folders that hold some, such as results/DIR"
        )
    warn_of_several([*(run.row for run in runs), *similarities])
    runs = newest_runs(runs)
    return Results(runs, similarities, tables, names_of(args, runs, similarities))


def judge(args, results: Results) -> Judged:
    """Return the verdicts on the runs, and the comparisons of groups of networks."""
    from src.collected.between_groups import compare_groups, values_of_verdicts
    from src.collected.measurements import layer_values
    from src.collected.verdicts import judge_runs

    runs, similarities, _, names = results
    limits = limits_of(args)
    verdicts = judge_runs(runs, similarities, limits=limits, pool=args.pool, names=names)
    by_verdicts = compare_groups(values_of_verdicts(verdicts, names.values()))
    of_measures = layer_values([], similarities, names) if len(names) > 2 else []
    return Judged(limits, verdicts, by_verdicts, compare_groups(of_measures))


def parts_of_page(folder: Path, results: Results, judged: Judged, matches, *, start: datetime):
    """Return the sections of the page in their order.

    Args:
        folder: of the figures.
        start: of this script.
    """
    from src.collected import record
    from src.ground.provenance import provenance
    from src.reports import experiment_page as sections

    runs, similarities, tables, names = results
    limits, verdicts, by_verdicts, by_measures = judged
    networks = record.networks_of(runs, similarities, names)
    commands = record.commands_of(record.files_of(runs, tables, networks))
    own_command = record.command_of([provenance(gpu=-1, start=start)])
    groups = [*by_verdicts.groups, *by_measures.groups]
    tests = [*by_verdicts.tests, *by_measures.tests]
    maps = ("verdict.png", "verdict_[0-9]*.png", "verdict_numbers*.png")
    return [
        sections.results(verdicts, limits),
        sections.figures("Maps", folder, *maps),
        sections.groups(folder, groups, tests),
        sections.figures("Similarity of all layers", folder, "similarity*.png"),
        sections.figures("Corresponding layers, over depth", folder, "curves*.png"),
        sections.matches(matches),
        sections.networks(networks),
        sections.methods(runs),
        sections.for_paper(runs, similarities, limits, commands, own_command),
        sections.pairs(verdicts),
        sections.made_with([*commands, own_command], record.images_of(runs)),
    ]


def write_verdicts(folder: Path, results: Results, judged: Judged) -> None:
    """Write the files of misc/verdict.py."""
    from src.collected.sections import parts_of, sections_of
    from src.ground.console import silenced
    from src.reports import verdict_report

    path = folder / "verdict.csv"
    limits, rows, by_verdicts, _ = judged
    groups, tests, *_ = by_verdicts
    if rows:
        sections = sections_of(rows)
        lines = verdict_report.sentences(rows, sections, limits, tests)
        with silenced():
            verdict_report.write_tables(path, rows, lines, groups=groups, tests=tests)
            verdict_report.draw(
                path,
                parts_of(sections),
                limits,
                runs=results.runs,
                names=results.names,
                comparison=by_verdicts,
            )


def write_similarities(folder: Path, similarities) -> None:
    """Write the table of similarity, with its maps if it is of one pair of networks."""
    from src.ground.console import silenced
    from src.reports import similarity_report
    from src.tables.similarity_rows import SimilarityRow
    from src.tables.tables import write_table

    if not similarities:
        return
    if len({row.network_keys for row in similarities}) > 1:
        write_table(folder / "similarity.csv", SimilarityRow, similarities)
        return
    with silenced():
        similarity_report.write_files(folder / "similarity.csv", similarities)


def write_matches(folder: Path, measured, matches, limits) -> None:
    """Write the table of best matches, and for several pairs of networks the curves over depth."""
    from src.collected.over_depth import depth_rows
    from src.figures.depth import draw_depth
    from src.figures.shown import of_depths
    from src.ground.console import silenced
    from src.reports import match_report
    from src.tables.tables import write_table
    from src.tables.truth_rows import DepthRow

    if matches:
        match_report.write_files(folder / "best_matches.csv", matches)
    names = measured[2]
    rows = depth_rows(*measured)
    if rows and len(names) > 2:
        with silenced():
            write_table(folder / "curves.csv", DepthRow, rows)
            draw_depth(folder / "curves.png", list(of_depths(drawn_depths(rows, []))), limits)


def main(argv=None) -> int:
    return cli.run(parser(), report, argv)


if __name__ == "__main__":
    sys.exit(main())
