#!/usr/bin/env python3
"""Judge stitched pairs of layers: similar, accurate only, not matched, or inconclusive; and write the
verdicts as tables, figures and a self-contained page."""

import importlib.util
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli, figures, results
from src.core.choices import on_lost_positions
from src.core.console import counted, listed, note, recorded_warnings, result, warn
from src.core.errors import UserError
from src.core.files import write_text
from src.core.grouping import grouped
from src.core.provenance import provenance
from src.figures.terms import legend
from src.results.network_names import named_by_list
from src.results.spec import RECORDS, TEST

if TYPE_CHECKING:
    from pandas import DataFrame

    from src.results.reports import Comparison
    from src.results.stitches import Stitch
    from src.verdict import Limits

POSITIONS = (
    "Stitches between feature maps or tokens and vectors lose the differences between positions."
)
MAX_LINES = 40  # printed before the answer, of two networks
MAX_LINES_OF_MANY = 60
MAX_WARNINGS = 5  # that are repeated


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
        help="CSV to write. Beside it go the printed text (.md), the figure (.png and .pdf), of two networks points "
        "(_points.png), and with several pairs of "
        "networks, those of networks and groups (_networks.png, _groups.png) and the tables of groups "
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
    """Add the options of the verdicts: the limits, and the correction for multiple tests."""
    add = options.add_argument
    add(
        "--tolerance",
        type=cli.real_number(at_least=0, at_most=100),
        default=5.0,
        help="largest accuracy drop of a similar pair against the end network, in percentage points",
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
    options.epilog = legend()
    add(
        "--pool",
        action="store_true",
        help="count pairs of networks as repetitions of one experiment if they have no network in common",
    )


class Judged(NamedTuple):
    """The results in folders, with the verdicts on them."""

    stitches: Sequence[Any]
    similarities: "DataFrame"  # the frame of tables of similarity
    names: Mapping[Any, Any]  # of all networks
    are_listed: bool  # the names are those of a list; otherwise they are paths
    limits: "Limits"
    frame: "DataFrame"  # of the verdicts
    comparison: "Comparison"  # of the groups of networks
    sensitivity: str  # how many verdicts change with the limits of skill
    warnings: Sequence[str]  # of the runs, and of their comparison

    def text(self, *, has_maps: bool = True) -> str:
        """Return the printed report of verdicts."""
        further = [*self.warnings[:MAX_WARNINGS], self.sensitivity]
        return figures.words.report(
            self.frame, self.limits, self.comparison, further, has_maps=has_maps
        )

    @property
    def answer(self) -> str:
        """The conclusion, in one sentence."""
        return figures.words.answer(self.frame, self.comparison)

    @property
    def measures(self) -> list[str]:
        """The names of the columns of detectors and of measures of similarity."""
        shown = results.frame.similarity_columns(self.similarities)
        auroc = results.tables.AUROC
        return [name for name in self.frame if name.startswith(auroc) or name in shown]


def main(args: Namespace, judged: "Judged | None" = None) -> None:
    """Judge stitches, write the verdict and its page, and print the conclusion.

    Args:
        judged: the verdicts, if they are there already.
    """
    start = datetime.now()
    table = Path(args.output)
    page = None
    if args.page is not None:
        page = table.with_suffix(".html") if args.page is True else Path(args.page)
        results.run.check_output(page, __file__)
    if judged is None:
        judged = judge(args)

    # Without the maps, which the file has, if there are many lines
    text = judged.text()
    most = MAX_LINES if figures.sections.has_two_networks(judged.frame) else MAX_LINES_OF_MANY
    if text.count("\n") < most:
        result(text)
    else:
        result(judged.text(has_maps=False))
        note(f"{table.with_suffix('.md')} has maps of layers")
    write_verdict(args, judged, text, table)
    if page:
        write_page(args, judged, table, page, start=start)
    images = sorted(path.name for path in files_beside(table) if path.suffix == ".png")
    note(f"wrote {listed(filter(None, [table, *images, page]))}")
    result(judged.answer)


def files_beside(table: Path) -> set[Path]:
    """Return the files of the run that wrote a table."""
    return set(results.run.files_of(results.run.record_of(table), __file__))


def judge(args: Namespace) -> Judged:
    """Judge the results in folders; print notes on comparisons of groups."""
    from src.verdict import Limits

    limits = Limits(args.tolerance / 100, args.skill, pairwise=args.pairwise)
    with recorded_warnings() as said:
        stitches = read_folders(args.source_dirs)
        similarities = results.frame.read_similarities(args.similarity)
        networks = args.networks or results.frame.list_in(args.source_dirs)
        of_stitches = chain.from_iterable(stitch.networks for stitch in stitches)
        names = named_by_list(of_stitches, networks)
        if networks:
            order = list(names)
            stitches.sort(key=lambda stitch: list(map(order.index, stitch.network_keys)))
        options: dict[str, Any] = {"limits": limits, "pool": args.pool, "names": names}
        frame = results.frame.judge_stitches(stitches, similarities, **options)
        shown = set(results.frame.similarity_columns(similarities)) & set(frame)
        if len(similarities) and not any(frame[name].notna().any() for name in shown):
            warn("-sim: no row is of the networks, layers and data of these stitches at full rank")
    comparison = results.reports.compare_groups(
        results.reports.of_several_networks(frame),
        [*results.reports.SHARES, *results.reports.STITCHED],
    )
    figures.words.note_on_layers(comparison.groups)
    if comparison.untested:
        note(f"groups that cannot be tested: {listed(comparison.untested, n=1)}")
    halved, raised = (
        results.frame.n_changed(frame, stitches, factor, **options) for factor in (0.5, 1.5)
    )
    sensitivity = (
        f"Sensitivity to the limits of skill: of {counted(len(frame), 'verdict', 'verdicts')}, {halved} would "
        f"change if both limits were halved, and {raised} if both were raised by half."
    )
    recorded = warnings_of(args, stitches)
    further = [text for text in recorded if not any(text in line for line in said)]
    return Judged(
        stitches,
        similarities,
        names,
        bool(networks),
        limits,
        frame,
        comparison,
        sensitivity,
        list(dict.fromkeys([*said, *further])),
    )


def warnings_of(args: Namespace, stitches: "list[Stitch]") -> list[str]:
    """Return the warnings in the records of runs and tables."""
    records = results.stitches.records_behind(stitches, map(Path, args.similarity))
    return [text for record in records for text in record.get("warnings", ())]


def write_verdict(args: Namespace, judged: Judged, text: str, table: Path) -> None:
    """Write the table of verdicts with its text, the tables of groups, the figures and the record.

    Args:
        text: the verdicts in words.
    """
    images = results.stitches.images_of(judged.stitches)
    weights = {"": results.stitches.weights_of(judged.stitches)}
    options = {**vars(args), **images, "stitches_sha256": weights, "output": str(table)}
    run = results.run.Run.beside(table, options, script=__file__)
    with results.run.claimed([run]), run.replacing():
        results.frame.write_frame(table, judged.frame)
        header = f"# Verdict on {len(judged.frame)} stitched pairs of layers"
        made_with = results.run.provenance_in_words(run.provenance(), images[RECORDS[TEST]])
        paragraphs = [header, judged.answer, f"```text\n{text}\n```", legend()]
        content = "\n".join(["\n\n".join(paragraphs), "", *made_with, ""])
        write_text(table.with_suffix(".md"), content)
        groups = judged.comparison.groups
        tests = judged.comparison.tests
        if len(groups):
            means = table.with_name(f"{table.stem}_means.csv")
            results.frame.write_means(means, {"groups": groups})
        if len(tests):
            results.frame.write_frame(table.with_name(f"{table.stem}_tests.csv"), tests)
        draw(table, judged)


def draw(path: Path, judged: Judged) -> None:
    """Draw the verdicts as maps; for two networks also as points, and for several pairs by network and group.

    Args:
        path: of the table.
    """
    frame = judged.frame
    comparison = judged.comparison
    means = comparison.means
    if not judged.are_listed:
        frame = figures.sections.with_short_names(frame)
        means = figures.sections.with_short_names(means.assign(networks=""))
    positions = POSITIONS if on_lost_positions(frame.stitching_type) else ""
    source = figures.matrices.source_of(judged.stitches)
    texts = {"remark": positions, "source": source}

    def beside(name: str) -> Path:
        return path.with_name(f"{path.stem}{name}.png")

    figures.verdicts.draw_verdicts(beside(""), frame, judged.limits, **texts)
    if figures.sections.has_two_networks(frame):
        figures.verdicts.draw_points(beside("_points"), frame, judged.limits)
    if len(means):
        maps = figures.maps.maps_of_networks(means)[:1]
        axes = ("front network", "end network")
        framed = "pairs within a group"
        figures.maps.draw_layers(beside("_networks"), maps, axes=axes, framed=framed, **texts)
    if len(means) and comparison.groups.networks.nunique() > 1:
        remarks = [
            results.reports.on_unlike_types(comparison.tests),
            results.reports.on_unlike_accuracies(frame, comparison.tests),
            positions,
        ]
        texts["remark"] = " ".join(filter(None, remarks))
        figures.groups.draw_groups(beside("_groups"), comparison, judged.limits, **texts)


def write_page(
    args: Namespace, judged: Judged, table: Path, path: Path, *, start: datetime
) -> None:
    """Write the HTML report.

    Args:
        table: of the verdict, with its figures beside it.
        start: of this script.
    """
    if importlib.util.find_spec("matplotlib") is None:
        warn("the page has no figures: matplotlib is not installed")
    title = f"Report on {', '.join(args.source_dirs)}"
    made_with = made_by(judged, args.similarity, start=start)
    parts = parts_of_page(table, judged, made_with, name=path.stem)
    with results.run.outputs(path, __file__):
        write_text(path, figures.page.page(title, parts))
    note(f"wrote {path}")


def made_by(judged: Judged, similarity: Sequence[str], *, start: datetime) -> str:
    """Return the section of the page on networks, images, versions and commands.

    Args:
        similarity: the paths of tables of similarity.
        start: of this script.
    """
    networks = results.stitches.networks_of(judged.stitches, judged.similarities, judged.names)
    trained = [network for network, *_ in networks]
    records = results.stitches.records_behind(judged.stitches, map(Path, similarity), trained)
    commands = results.run.commands_of([*records, provenance(gpu=-1, start=start)])
    images = results.stitches.images_of(judged.stitches)
    return figures.page.made_with(networks, images, commands)


def parts_of_page(table: Path, judged: Judged, made_with: str, *, name: str) -> list[str]:
    """Return the sections of the page in order.

    Args:
        table: of the verdict, with its figures beside it.
        name: of the archive.
    """
    page = figures.page
    words = figures.words
    frame = judged.frame
    groups = judged.comparison.groups
    tests = judged.comparison.tests
    files = files_beside(table)
    images = {path for path in files if path.suffix == ".png"}
    in_order = sorted(images, key=lambda path: (path.stem != table.stem, path.name))
    remarks = [*words.reasons(frame), *words.remarks(frame, judged.limits)]
    return [
        page.paragraphs([judged.answer], kind="conclusion"),
        page.figures(in_order, words.conclusion(frame)),
        page.section(
            "Verdicts",
            page.table(words.counts(frame)),
            page.paragraphs([*remarks, *judged.warnings[:MAX_WARNINGS], judged.sensitivity]),
            page.folded("All pairs of layers", page.pairs(frame, judged.measures)),
        ),
        page.section(
            "Groups of networks",
            *map(page.table, words.tables_of_groups(groups, tests)),
            page.paragraphs(words.lines_on_groups(groups, tests, frame)),
        ),
        page.section("What the verdicts mean", page.meanings(judged.limits)),
        page.section("How it was made", made_with, page.archive(files - images, name)),
    ]


def read_folders(folders: Sequence[str]) -> "list[Stitch]":
    """Read the stitches of all folders with their evaluations; print a note on folders without an
    evaluation."""
    stitches = results.stitches.read_evaluated_stitches(folders)
    if not stitches:
        raise UserError(
            f"{', '.join(folders)}: no finished stitching run; give folders that hold their folders, or folders above "
            "these, such as results/DIR"
        )
    unevaluated = [
        folder
        for folder, of_folder in grouped(stitches, lambda stitch: stitch.folder.parent).items()
        if not any(stitch.evaluation for stitch in of_folder)
    ]
    if unevaluated:
        note(
            f"{listed(unevaluated, n=2)}: skill was not measured, so no stitch can be similar; run "
            "exec_eval_stitcher_ood.py FOLDER -d DATA"
        )
    return stitches


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
