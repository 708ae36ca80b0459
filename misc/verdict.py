#!/usr/bin/env python3
"""Judge stitched pairs of layers: similar, accurate only, not matched, or inconclusive."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli

POSITIONS = "Between a vector and positions, what lies in the positions does not pass."


def parser() -> cli.Parser:
    options = cli.Parser(
        "Judge which stitched pairs of layers are functionally similar, and how sure that is. Similar pairs keep the "
        "accuracy of the end network, and follow it within a class."
    )
    add_sources(options)
    add_judging(options)
    add = options.add_argument
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        default="verdict.csv",
        help="CSV to write. Beside it go the printed text (.md), the figure (.png, .pdf, and .txt with the caption) "
        "and, with several pairs of networks, the figures of networks and groups (_networks.png, _groups.png) and the "
        "tables of groups (_groups.csv, _group_tests.csv)",
    )
    return options


def add_sources(options: cli.Parser) -> None:
    """Add the options of the folders and tables to read."""
    add = options.add_argument
    add(
        "source_dirs",
        nargs="+",
        help="folders of stitching runs, or above them, such as results/DIR of misc/all_pairs.py; which "
        "exec_eval_stitcher_ood.py has evaluated, else no pair is similar",
    )
    add(
        "-sim",
        "--similarity",
        nargs="+",
        default=[],
        help="CSV files of exec_compute_low_rank_sim_metrics.py, whose values are shown beside the verdicts",
    )
    add(
        "--networks",
        help="list of networks as for misc/all_pairs.py (CSV with name, path, type and optionally group): show "
        "names instead of paths, and compare the groups",
    )


def add_judging(options: cli.Parser) -> None:
    """Add the options that decide the verdicts: the limits, and the tests that are made together."""
    add = options.add_argument
    add(
        "--tolerance",
        type=cli.real_number(at_least=0, at_most=100),
        default=5.0,
        help="points of accuracy that a similar pair may lose against the end network",
    )
    add(
        "--skill",
        type=cli.real_number(at_least=0, at_most=1),
        default=0.33,
        help="skill at the output that a similar pair has at least: 0 is that of untrained features that are "
        "given the class, 1 that of the end network itself",
    )
    add(
        "--pairwise",
        action="store_true",
        help="test each pair of layers by itself, without the correction for many tests (false discovery rate)",
    )
    add(
        "--pool",
        action="store_true",
        help="count pairs of networks as repetitions of one experiment if they have no network in common",
    )


class Judged(NamedTuple):
    """The results in folders, with verdicts."""

    stitches: Sequence[Any]
    similarities: Sequence[Any]
    names: Mapping[Any, Any]  # of all networks
    are_listed: bool  # the names are those of a list; otherwise captions name checkpoints
    limits: Any
    verdicts: Sequence[Any]
    comparison: Any  # of the groups of networks
    sensitivity: str  # how many verdicts change with the limits of skill

    def text(self, *, has_maps: bool) -> str:
        """Return the verdicts in words."""
        from src.figures.words import report

        groups, tests, *_ = self.comparison
        text = report(self.verdicts, self.limits, groups, tests, has_maps=has_maps)
        return f"{text}\n\n{self.sensitivity}"


def give_verdict(args, judged: "Judged | None" = None) -> None:
    """Judge stitches, and write the verdict.

    Args:
        judged: the verdicts, if they are there already.
    """
    from src.core.console import note, result
    from src.figures.sections import parts_of, sections_of

    if judged is None:
        judged = judge(args)

    # The report, without maps if there are many pairs of architectures
    sections = sections_of(judged.verdicts)
    parts = parts_of(sections)
    has_maps = len(parts) == len(sections) or len(judged.names) == 2
    text = judged.text(has_maps=has_maps)
    result(text)
    if not has_maps:
        note("misc/report.py has maps of layers, for each method and pair of architectures")
    write_verdict(args, judged, text, Path(args.output))
    note(f"wrote {args.output}, and beside it its text (.md) and its figures")


def judge(args) -> Judged:
    """Return the results of the folders with the verdicts; note the limits of comparisons of groups."""
    from src.core.console import listed, note
    from src.results.between_groups import compare_groups, note_on_layers, values_of_verdicts
    from src.results.named_networks import named_by_list, order_in
    from src.results.verdicts import judge_stitches, n_changed

    stitches, similarities = read_results(args)
    limits = limits_of(args)
    names = named_by_list(
        (network for stitch in stitches for network in stitch.row.networks), args.networks
    )
    if args.networks:
        order = order_in(names)
        stitches.sort(key=lambda stitch: order(stitch.row))
    verdicts = judge_stitches(stitches, similarities, limits=limits, pool=args.pool, names=names)
    if similarities:
        check_similarities(similarities, verdicts)
    comparison = compare_groups(values_of_verdicts(verdicts, names.values()))
    if comparison.groups:
        note_on_layers(comparison.groups)
    if comparison.untested:
        note(f"groups that cannot be tested: {listed(comparison.untested, n=1)}")
    changes = [
        n_changed(verdicts, stitches, factor, limits=limits, pool=args.pool, names=names)
        for factor in (0.5, 1.5)
    ]
    sensitivity = (
        f"Of {len(verdicts)} verdicts, {changes[0]} change if both limits of skill are halved, and {changes[1]} if "
        "they are raised by half."
    )
    return Judged(
        stitches,
        similarities,
        names,
        bool(args.networks),
        limits,
        verdicts,
        comparison,
        sensitivity,
    )


def write_verdict(args, judged: Judged, text: str, table: Path) -> None:
    """Write the table, and beside it its text, the tables of groups, the figures and the record.

    Args:
        text: the verdicts in words.
    """
    from src.core.files import write_text
    from src.results import origin
    from src.results.run import Run, claimed
    from src.results.tables import write_table
    from src.results.verdict_rows import VerdictRow

    images = origin.images_of(judged.stitches)
    options = {**vars(args), **images, "output": str(table)}
    run = Run.beside(table, options, script=__file__)
    with claimed([run]), run.replacing():
        write_table(table, VerdictRow, judged.verdicts)
        header = f"# Verdict on {len(judged.verdicts)} stitched pairs of layers"
        made_with = origin.describe(images, run.provenance())
        lines = [header, "", "```text", text, "```", "", *made_with, ""]
        write_text(table.with_suffix(".md"), "\n".join(lines))
        if judged.comparison.groups:
            write_groups(table, judged.comparison)
        draw(table, judged)


def write_groups(path: Path, comparison) -> None:
    """Write the tables of groups and of tests beside a table."""
    from src.core.files import write_csv
    from src.results.between_groups import COLUMNS
    from src.results.network_means import MeanRow
    from src.results.tables import write_table

    write_table(path.with_name(f"{path.stem}_groups.csv"), MeanRow, comparison.groups)
    records = [test.record for test in comparison.tests]
    if records:
        write_csv(path.with_name(f"{path.stem}_group_tests.csv"), COLUMNS, records)


def draw(path: Path, judged: Judged) -> None:
    """Draw the evidence, and with several pairs of networks the networks and their groups.

    Args:
        path: of the table.
    """
    from src.choices import on_lost_positions
    from src.figures.dots import draw_groups
    from src.figures.evidence import NETWORKS, draw_evidence
    from src.figures.maps import draw_networks
    from src.figures.matrices import source_of
    from src.figures.shown import of_means, of_networks
    from src.results.between_groups import on_unlike_types

    rows = judged.verdicts
    names = list({(row.front_network, row.end_network) for row in rows})
    networks = names[0] if judged.are_listed and len(names) == 1 else NETWORKS
    stitches = [stitch.row for stitch in judged.stitches]
    remarks = [on_unlike_types(judged.comparison.tests)]
    if on_lost_positions(row.stitching_type for row in stitches):
        remarks.append(POSITIONS)
    texts: dict[str, Any] = {
        "remark": " ".join(filter(None, remarks)),
        "source": source_of(stitches),
    }
    draw_evidence(path.with_suffix(".png"), rows, judged.limits, networks=networks, **texts)
    if judged.comparison.groups:
        means = of_networks(judged.comparison.means)
        beside = path.with_name(f"{path.stem}_networks.png")
        draw_networks(beside, means, are_paths=not judged.are_listed, **texts)
        if len({row.groups for row in means}) > 1:
            beside = path.with_name(f"{path.stem}_groups.png")
            groups = list(of_means(judged.comparison.groups))
            draw_groups(beside, means, groups, judged.comparison.tests, **texts)


def read_results(args) -> tuple:
    """Return the stitches with their evaluations, and the similarities; warn of changed weights and of
    results on different images."""
    from src.results.collected import read_similarities
    from src.results.spec import warn_of_several

    stitches = read_folders(args.source_dirs)
    similarities = read_similarities(args.similarity)
    warn_of_several([*(stitch.row for stitch in stitches), *similarities])
    return stitches, similarities


def check_similarities(similarities, verdicts) -> None:
    """Warn if no verdict has a value of the similarities."""
    from src.core.console import warn
    from src.results.verdicts import similarity_columns

    shown = set(similarity_columns(row.values for row in similarities))
    if not any(shown & set(row.further) for row in verdicts):
        warn("-sim: no row is of the networks, layers and data of these stitches at full rank")


def read_folders(folders):
    """Return the stitches of all folders with their evaluations; note folders that were not evaluated."""
    from src.core.console import listed, note
    from src.core.errors import UserError
    from src.core.grouping import grouped
    from src.results.evaluations import read_evaluated_stitches

    stitches = read_evaluated_stitches(folders)
    if not stitches:
        raise UserError(
            f"{', '.join(folders)}: no finished stitching run; give folders that hold their folders, or folders above "
            "these, such as results/DIR"
        )
    unevaluated = [
        folder
        for folder, of_folder in grouped(stitches, lambda stitch: stitch.folder.parent).items()
        if not any(stitch.skill for stitch in of_folder)
    ]
    if unevaluated:
        note(
            f"{listed(unevaluated, n=2)}: skill was not measured, so no stitch can be similar; run "
            "exec_eval_stitcher_ood.py FOLDER -d DATA"
        )
    return stitches


def limits_of(args):
    """Return the limits of a verdict, as shares."""
    from src.verdict import Limits

    return Limits(args.tolerance / 100, args.skill, pairwise=args.pairwise)


def main(argv=None) -> int:
    return cli.run(parser(), give_verdict, argv)


if __name__ == "__main__":
    sys.exit(main())
