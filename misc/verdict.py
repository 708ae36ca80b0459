#!/usr/bin/env python3
"""Judge stitched pairs of layers: similar, accurate only, not matched, or inconclusive; and write one page
with the verdicts, for a reader who has nothing else."""

import importlib.util
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
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
        "names instead of paths, and compare the groups. Default: networks.csv in the folder, if there is one",
    )
    add_judging(options)
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        default="verdict.csv",
        help="CSV to write. Beside it go the printed text (.md), the figure (.png and .pdf) and, with several pairs of "
        "networks, the figures of networks and groups (_networks.png, _groups.png) and the tables of groups "
        "(_means.csv, _tests.csv)",
    )
    add(
        "--page",
        nargs="?",
        const=True,
        type=cli.html_file,
        metavar="FILE.html",
        help="write one page of HTML as well, with the verdicts, the figures, the groups and the provenance; it needs "
        "no other file. Default: beside the CSV",
    )
    return options


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
    frame: Any  # of the verdicts
    comparison: Any  # of the groups of networks
    sensitivity: str  # how many verdicts change with the limits of skill

    def text(self, *, has_maps: bool) -> str:
        """Return the verdicts in words."""
        from src.figures.words import report

        groups = self.comparison.groups
        tests = self.comparison.tests
        text = report(self.verdicts, self.limits, groups, tests, has_maps=has_maps)
        return f"{text}\n\n{self.sensitivity}"


def main(args: Namespace, judged: "Judged | None" = None) -> None:
    """Judge stitches, and write the verdict and its page.

    Args:
        judged: the verdicts, if they are there already.
    """
    from src.core.console import note, result
    from src.figures.sections import parts_of, sections_of
    from src.results.run import check_output

    start = datetime.now()
    table = Path(args.output)
    page = None
    if args.page is not None:
        page = table.with_suffix(".html") if args.page is True else Path(args.page)
        check_output(page, __file__)
    if judged is None:
        judged = judge(args)

    # The report, without maps if there are many pairs of architectures
    sections = sections_of(judged.verdicts)
    parts = parts_of(sections)
    has_maps = len(parts) == len(sections) or len(judged.names) == 2
    text = judged.text(has_maps=has_maps)
    result(text)
    if not has_maps:
        note(
            f"{table.with_suffix('.md')} has maps of layers, for each method and pair of architectures"
        )
    write_verdict(args, judged, judged.text(has_maps=True), table)
    note(f"wrote {table}, and beside it its text (.md) and its figures")
    if page:
        write_page(args, judged, table, page, start=start)


def judge(args) -> Judged:
    """Return the results of the folders with the verdicts; note the limits of comparisons of groups."""
    from src.core.console import listed, note
    from src.figures.words import note_on_layers
    from src.results.frame import frame_of, list_in
    from src.results.named_networks import named_by_list, order_in
    from src.results.reports import SHARES, STITCHED, compare_groups, of_several_networks
    from src.results.verdicts import judge_stitches, n_changed

    stitches, similarities = read_results(args)
    limits = limits_of(args)
    networks = args.networks or list_in(args.source_dirs)
    names = named_by_list(
        (network for stitch in stitches for network in stitch.row.networks), networks
    )
    if networks:
        order = order_in(names)
        stitches.sort(key=lambda stitch: order(stitch.row))
    verdicts = judge_stitches(stitches, similarities, limits=limits, pool=args.pool, names=names)
    if similarities:
        check_similarities(similarities, verdicts)
    frame = frame_of(verdicts, (), names)
    comparison = compare_groups(of_several_networks(frame), [*SHARES, *STITCHED])
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
        bool(networks),
        limits,
        verdicts,
        frame,
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
    from src.results.frame import write_frame
    from src.results.run import Run, claimed

    images = origin.images_of(judged.stitches)
    options = {**vars(args), **images, "output": str(table)}
    run = Run.beside(table, options, script=__file__)
    with claimed([run]), run.replacing():
        write_frame(table, judged.frame)
        header = f"# Verdict on {len(judged.verdicts)} stitched pairs of layers"
        made_with = origin.describe(images, run.provenance())
        lines = [header, "", "```text", text, "```", "", *made_with, ""]
        write_text(table.with_suffix(".md"), "\n".join(lines))
        write_groups(table, judged.comparison)
        draw(table, judged)


def write_groups(table: Path, comparison) -> None:
    """Write the means and the tests of groups beside a table, where there are some."""
    from src.results.frame import write_frame, write_means

    if len(comparison.groups):
        write_means(table.with_name(f"{table.stem}_means.csv"), {"groups": comparison.groups})
    if len(comparison.tests):
        write_frame(table.with_name(f"{table.stem}_tests.csv"), comparison.tests)


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
    from src.results.reports import on_unlike_types

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
    if len(judged.comparison.groups):
        means = of_networks(judged.comparison.means)
        beside = path.with_name(f"{path.stem}_networks.png")
        draw_networks(beside, means, are_paths=not judged.are_listed, **texts)
        if len({row.groups for row in means}) > 1:
            beside = path.with_name(f"{path.stem}_groups.png")
            groups = list(of_means(judged.comparison.groups))
            tests = list(judged.comparison.tests.itertuples())
            draw_groups(beside, means, groups, tests, **texts)


def write_page(args, judged: Judged, table: Path, path: Path, *, start: datetime) -> None:
    """Write the page.

    Args:
        table: of the verdict, with its figures beside it.
        start: of this script.
    """
    from src.core.console import note, warn
    from src.core.files import write_text
    from src.figures.page import page
    from src.results.run import outputs

    if importlib.util.find_spec("matplotlib") is None:
        warn("the page has no figures: matplotlib is not installed")
    title = f"Report on {', '.join(args.source_dirs)}"
    made_with = made_by(judged, args.similarity, start=start)
    parts = parts_of_page(table, judged, made_with, name=path.stem)
    with outputs(path, __file__):
        write_text(path, page(title, parts))
    note(f"wrote {path}")


def made_by(judged, similarity, *, start: datetime) -> str:
    """Return the part of the page on networks, images, versions and commands.

    Args:
        similarity: the paths of tables of similarity.
        start: of this script.
    """
    from src.core.provenance import provenance
    from src.figures import page
    from src.results import origin

    networks = origin.networks_of(judged.stitches, judged.similarities, judged.names)
    commands = origin.commands_of(origin.files_of(judged.stitches, map(Path, similarity), networks))
    own_command = origin.Command.of(provenance(gpu=-1, start=start))
    return page.made_with(networks, origin.images_of(judged.stitches), [*commands, own_command])


def parts_of_page(table: Path, judged, made_with: str, *, name: str) -> list[str]:
    """Return the parts of the page in their order.

    Args:
        table: of the verdict, with its figures beside it.
        name: of the archive.
    """
    from src.figures import page, words
    from src.figures.sections import sections_of
    from src.results.reports import on_unlike_types
    from src.results.run import files_of, record_of

    rows = judged.verdicts
    groups = judged.comparison.groups
    tests = judged.comparison.tests
    conclusion = words.conclusion(rows)
    files = files_of(record_of(table), __file__)
    images = {path for path in files if path.suffix == ".png"}
    of_groups = {path for path in images if path.stem.startswith(f"{table.stem}_groups")}
    remarks = [*words.reasons(rows), *words.remarks(rows, judged.limits)]
    return [
        page.paragraphs([conclusion], kind="conclusion"),
        page.paragraphs(filter(None, [on_unlike_types(tests)])),
        page.figures(of_groups),
        page.figures(images - of_groups, conclusion),
        page.terms(judged.limits),
        page.section(
            "Verdicts",
            page.table(words.counts(sections_of(rows))),
            page.paragraphs(remarks),
            page.pairs(rows),
        ),
        page.section(
            "Groups of networks",
            *map(page.table, words.tables_of_groups(groups, tests)),
            page.paragraphs(words.lines_on_groups(groups, tests)),
        ),
        page.section("How it was made", made_with, page.archive(files - images, name)),
    ]


def read_results(args) -> tuple:
    """Return the stitches with their evaluations, and the similarities; warn of changed weights and of
    results on different images."""
    from src.results.collected import read_similarities
    from src.results.experiments import warn_of_several

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
    from src.results.evaluation import read_evaluated_stitches

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


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
