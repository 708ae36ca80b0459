#!/usr/bin/env python3
"""Write the columns of all tables into misc/docs/files.md, from the types of their rows."""

import inspect
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli
from src.ground.console import note
from src.results.evaluation_rows import EvaluationRow, SkillRow
from src.results.experiments import StitchResult
from src.results.measurements import COLUMNS
from src.results.network_means import MeanRow
from src.results.probe_rows import ProbeRow
from src.results.quantities import QUANTITIES, Quantity
from src.results.similarity_rows import SimilarityRow
from src.results.stitch_rows import StitchRow
from src.results.tables import columns
from src.results.training_rows import EpochRow
from src.results.truth_rows import TruthRow
from src.results.verdict_rows import VerdictRow

PAGE = Path(__file__).parent / "docs" / "files.md"
BEGIN = "<!-- written by misc/columns.py -->"
END = "<!-- end -->"
TABLES = {  # that are read again: what a row is of, and its type, by table
    "tables of stitches": ("stitches: what made them", StitchResult),
    "grid.csv": ("a stitch", StitchRow),
    "ood_evaluation*.csv": ("a stitch and a detector", EvaluationRow),
    "skill.csv": ("a stitch", SkillRow),
    "verdict.csv": ("a pair of layers by a method", VerdictRow),
    "*_groups.csv, curves.csv, *_shares.csv": ("a mean over pairs of networks", MeanRow),
    "similarity": ("two layers and ranks", SimilarityRow),
    "probes": ("a layer and a rank", ProbeRow),
    "ground truth": ("a score of a measure", TruthRow),
    "training_logs.csv": ("an epoch, of several pairs of layers each", EpochRow),
}
FIELD = re.compile(r"    (\w+): [^#]*(?:# (?!noqa)(.*))?")
COMMENT = re.compile(r"    # (.*)")


def comments(kind: type) -> dict[str, str]:
    """Return the comments beside or above the fields of a row type, by name."""
    found = {}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("src."):
            continue
        above = []
        for line in inspect.getsource(base).splitlines():
            if comment := COMMENT.fullmatch(line):
                above.append(comment[1])
                continue
            if field := FIELD.fullmatch(line):
                found[field[1]] = as_text(field[2] or " ".join(above))
            above = []
    return found


def as_text(comment: str) -> str:
    """Return a comment on a field as one on a column."""
    text = re.sub(r"\bNone\b", "empty", comment).removesuffix(".")
    return text[:1].lower() + text[1:]


def line_of_table(name: str, row: str, kind: type) -> str:
    """Return the line of a table: its columns with their comments."""
    comment_on = comments(kind)
    general = columns(StitchResult) if issubclass(kind, StitchResult) else []
    texts = []
    for column in columns(kind):
        is_general = column in general and kind is not StitchResult
        if is_general or column.endswith(("_low", "_high")):
            continue
        text = f"`{column}`"
        if comment_on.get(column) and column not in QUANTITIES:
            text += f" ({comment_on[column]})"
        texts.append(text)
    return f"| `{name}` | {row} | {', '.join(texts)} |"


def line_of_quantity(name: str, quantity: Quantity) -> str:
    """Return the line of a quantity of stitches."""
    source = f"{quantity.measured_by}, derived" if quantity.is_derived else quantity.measured_by
    scale = ""
    if quantity.scale:
        different, similar = quantity.scale
        scale = f"{different:g} → {similar:g}"
        if quantity.is_two_sided:
            scale = f"{different:g} → {(different + similar) / 2:g} ← {similar:g}"
    return f"| `{name}` | {source} | {scale} | {quantity.description} |"


def written() -> str:
    """Return the part of the page between both marks."""
    tables = [line_of_table(name, *table) for name, table in TABLES.items()]
    names = ", ".join(f"`{name}`" for name in COLUMNS)
    tables.append(f"| `*_measurements.csv` | a measurement of two layers | {names} |")
    quantities = [line_of_quantity(*item) for item in QUANTITIES.items()]
    lines = [
        "| table | a row is of | columns |",
        "|---|---|---|",
        *tables,
        "",
        "| quantity of a stitch | measured by | different → similar | |",
        "|---|---|---|---|",
        *quantities,
    ]
    return "\n".join(lines)


def parser() -> cli.Parser:
    return cli.Parser("Write the columns of all tables into misc/docs/files.md.")


def write(args) -> None:
    before, rest = PAGE.read_text().split(f"{BEGIN}\n")
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{written()}\n{END}{after}")
    note(f"wrote {PAGE}")


def main(argv=None) -> int:
    return cli.run(parser(), write, argv)


if __name__ == "__main__":
    sys.exit(main())
