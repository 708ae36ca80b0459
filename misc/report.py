#!/usr/bin/env python3
"""Write one page of HTML with the verdicts on stitches, for a reader who has nothing else."""

import importlib.util
import sys
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc import verdict
from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Write one page of HTML with the verdicts, the figures, the groups and the provenance of an experiment. It has "
        "all tables and figures in it, and needs neither network nor other files. Beside it go the files of "
        "misc/verdict.py."
    )
    verdict.add_sources(options)
    verdict.add_judging(options)
    add = options.add_argument
    add(
        "-o",
        "--output",
        type=cli.html_file,
        default="report.html",
        help="file to write, .html",
    )
    return options


def report(args, judged=None, table: Path | None = None) -> None:
    """Write the page.

    Args:
        judged: the verdicts, if they are there already.
        table: the CSV of these verdicts, if it is written already; else it goes beside the page.
    """
    from src.core.console import note, warn
    from src.core.files import write_text
    from src.figures.page import page
    from src.results.outputs import check_output, outputs

    start = datetime.now()
    output = Path(args.output)
    check_output(output, __file__)
    if judged is None:
        judged = verdict.judge(args)
    if table is None:
        table = output.with_suffix(".csv")
        verdict.write_verdict(args, judged, judged.text(has_maps=True), table)
    if importlib.util.find_spec("matplotlib") is None:
        warn("the page has no figures: matplotlib is not installed")
    title = f"Report on {', '.join(args.source_dirs)}"
    made_with = made_by(judged, args.similarity, start=start)
    parts = parts_of_page(table, judged, made_with, name=output.stem)
    with outputs(output, __file__):
        write_text(output, page(title, parts))
    note(f"wrote {output}")


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
    from src.results.between_groups import on_unlike_types
    from src.results.outputs import files_of, record_of

    rows = judged.verdicts
    groups, tests, *_ = judged.comparison
    conclusion = words.conclusion(rows)
    files = files_of(record_of(table), str(verdict.__file__))
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


def main(argv=None) -> int:
    return cli.run(parser(), report, argv)


if __name__ == "__main__":
    sys.exit(main())
