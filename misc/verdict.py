#!/usr/bin/env python3
"""Judge stitched pairs of layers: similar, accurate only, not matched, or inconclusive; and write the
verdicts as tables, figures and a self-contained page."""

import importlib.util
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli, figures, results
from src.core.choices import on_lost_positions
from src.core.console import counted, listed, note, recorded_warnings, result, warn
from src.core.errors import UserError
from src.core.files import write_text
from src.core.grouping import grouped
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
    limits: Any
    frame: Any  # of the verdicts
    comparison: Any  # of the groups of networks
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
        from src.figures.words import answer

        return answer(self.frame, self.comparison)

    @property
    def measures(self) -> list[str]:
        """The names of the columns of detectors and of measures of similarity."""
        shown = results.frame.similarity_columns(self.similarities)
        return [
            name for name in self.frame if name.startswith(results.tables.AUROC) or name in shown
        ]


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
    has_maps = text.count("\n") < most
    result(text if has_maps else judged.text(has_maps=False))
    if not has_maps:
        note(f"{table.with_suffix('.md')} has maps of layers")
    write_verdict(args, judged, text, table)
    if page:
        write_page(args, judged, table, page, start=start)
    images = sorted(
        path.name
        for path in results.run.files_of(results.run.record_of(table), __file__)
        if path.suffix == ".png"
    )
    written = [table, *images, *([page] if page else [])]
    note(f"wrote {listed(written)}")
    result(judged.answer)


def judge(args: Namespace) -> Judged:
    """Judge the results in folders; print notes on comparisons of groups."""
    with recorded_warnings() as said:
        stitches, similarities = read_results(args)
        names, are_listed = names_of(args, stitches)
        limits = limits_of(args)
        frame = verdicts_of(args, stitches, similarities, limits, names)
    comparison = results.reports.compare_groups(
        results.reports.of_several_networks(frame),
        [*results.reports.SHARES, *results.reports.STITCHED],
    )
    figures.words.note_on_layers(comparison.groups)
    if comparison.untested:
        note(f"groups that cannot be tested: {listed(comparison.untested, n=1)}")
    sensitivity = sensitivity_of(args, stitches, frame, limits, names)
    recorded = [
        text for text in warnings_of(args, stitches) if not any(text in line for line in said)
    ]
    warnings = list(dict.fromkeys([*said, *recorded]))
    return Judged(
        stitches, similarities, names, are_listed, limits, frame, comparison, sensitivity, warnings
    )


def names_of(args: Namespace, stitches: "list[Stitch]") -> tuple[Any, bool]:
    """Return the names of all networks, and whether a list names these; sort stitches in the order of the
    list."""
    networks = args.networks or results.frame.list_in(args.source_dirs)
    names = named_by_list((network for stitch in stitches for network in stitch.networks), networks)
    if networks:
        order = list(names)
        stitches.sort(key=lambda stitch: list(map(order.index, stitch.network_keys)))
    return names, bool(networks)


def verdicts_of(
    args: Namespace,
    stitches: "list[Stitch]",
    similarities: "DataFrame",
    limits: "Limits",
    names: Mapping[Any, Any],
) -> Any:
    """Return the frame of verdicts."""
    frame = results.frame.judge_stitches(
        stitches, similarities, limits=limits, pool=args.pool, names=names
    )
    if len(similarities):
        check_similarities(similarities, frame)
    return frame


def sensitivity_of(
    args: Namespace,
    stitches: "list[Stitch]",
    frame: "DataFrame",
    limits: "Limits",
    names: Mapping[Any, Any],
) -> str:
    """Return the sentence on how many verdicts depend on the limits of skill."""
    changes = [
        results.frame.n_changed(frame, stitches, factor, limits=limits, pool=args.pool, names=names)
        for factor in (0.5, 1.5)
    ]
    n_verdicts = counted(len(frame), "verdict", "verdicts")
    return (
        f"Sensitivity to the limits of skill: of {n_verdicts}, {changes[0]} would change if both limits were halved, "
        f"and {changes[1]} if both were raised by half."
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
        lines = [
            header,
            "",
            judged.answer,
            "",
            "```text",
            text,
            "```",
            "",
            legend(),
            "",
            *made_with,
            "",
        ]
        write_text(table.with_suffix(".md"), "\n".join(lines))
        write_groups(table, judged.comparison)
        draw(table, judged)


def write_groups(table: Path, comparison: "Comparison") -> None:
    """Write the means and the tests of groups to files beside a table, if there are any."""
    if len(comparison.groups):
        results.frame.write_means(
            table.with_name(f"{table.stem}_means.csv"), {"groups": comparison.groups}
        )
    if len(comparison.tests):
        results.frame.write_frame(table.with_name(f"{table.stem}_tests.csv"), comparison.tests)


def draw(path: Path, judged: Judged) -> None:
    """Draw the verdicts as maps; for two networks also as points, and for several pairs by network and group.

    Args:
        path: of the table.
    """
    frame = judged.frame if judged.are_listed else figures.sections.with_short_names(judged.frame)
    groups = judged.comparison.groups
    tests = judged.comparison.tests
    positions = POSITIONS if on_lost_positions(frame.stitching_type) else ""
    source = figures.matrices.source_of(judged.stitches)
    texts = {"remark": positions, "source": source}
    figures.verdicts.draw_verdicts(path.with_suffix(".png"), frame, judged.limits, **texts)
    if figures.sections.has_two_networks(frame):
        figures.verdicts.draw_points(
            path.with_name(f"{path.stem}_points.png"), frame, judged.limits
        )
    if len(groups):
        maps = figures.maps.maps_of_networks(
            judged.comparison.means, are_paths=not judged.are_listed
        )
        axes = ("front network", "end network")
        beside = path.with_name(f"{path.stem}_networks.png")
        figures.maps.draw_layers(
            beside, maps[:1], axes=axes, framed="pairs within a group", **texts
        )
        if groups.networks.nunique() > 1:
            beside = path.with_name(f"{path.stem}_groups.png")
            remarks = [
                results.reports.on_unlike_types(tests),
                results.reports.on_unlike_accuracies(frame, tests),
                positions,
            ]
            texts["remark"] = " ".join(filter(None, remarks))
            figures.groups.draw_groups(beside, judged.comparison, judged.limits, **texts)


def write_page(
    args: Namespace, judged: Judged, table: Path, path: Path, *, start: datetime
) -> None:
    """Write the HTML report.

    Args:
        table: of the verdict, with its figures beside it.
        start: of this script.
    """
    from src.figures.page import page

    if importlib.util.find_spec("matplotlib") is None:
        warn("the page has no figures: matplotlib is not installed")
    title = f"Report on {', '.join(args.source_dirs)}"
    made_with = made_by(judged, args.similarity, start=start)
    parts = parts_of_page(table, judged, made_with, name=path.stem)
    with results.run.outputs(path, __file__):
        write_text(path, page(title, parts))
    note(f"wrote {path}")


def made_by(judged: Judged, similarity: Sequence[str], *, start: datetime) -> str:
    """Return the section of the page on networks, images, versions and commands.

    Args:
        similarity: the paths of tables of similarity.
        start: of this script.
    """
    from src.core.provenance import provenance
    from src.figures import page

    networks = results.stitches.networks_of(judged.stitches, judged.similarities, judged.names)
    trained = [network for network, *_ in networks]
    records = results.stitches.records_behind(judged.stitches, map(Path, similarity), trained)
    commands = results.run.commands_of([*records, provenance(gpu=-1, start=start)])
    return page.made_with(networks, results.stitches.images_of(judged.stitches), commands)


def parts_of_page(table: Path, judged: Judged, made_with: str, *, name: str) -> list[str]:
    """Return the sections of the page in order.

    Args:
        table: of the verdict, with its figures beside it.
        name: of the archive.
    """
    from src.figures import page, words

    frame = judged.frame
    groups, tests = judged.comparison.groups, judged.comparison.tests
    files = results.run.files_of(results.run.record_of(table), __file__)
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


def read_results(args: Namespace) -> tuple:
    """Read the stitches with their evaluations, and the similarities; warn of changed weights and of results on
    different images."""
    stitches = read_folders(args.source_dirs)
    similarities = results.similarities.read_similarities(args.similarity)
    return stitches, similarities


def check_similarities(similarities: "DataFrame", frame: "DataFrame") -> None:
    """Warn if tables of similarity were given, but match no verdict."""
    shown = set(results.frame.similarity_columns(similarities))
    if not any(frame[name].notna().any() for name in shown & set(frame)):
        warn("-sim: no row is of the networks, layers and data of these stitches at full rank")


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


def limits_of(args: Namespace) -> "Limits":
    """Return the limits of the verdict in the options, as shares."""
    from src.verdict import Limits

    return Limits(args.tolerance / 100, args.skill, pairwise=args.pairwise)


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
