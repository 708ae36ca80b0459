"""Tables as the scripts write them, of values that tests choose; what a test does not name has a
usual value."""

import csv
from pathlib import Path
from typing import Any

from src.core.choices.similarity import MEASURES
from tests.result_rows import probe_row, similarity_row, stitch_row

STITCH = stitch_row(
    front_layer="x", end_layer="y", init="pinv", n_epochs=0, end_accuracy=0.9, n_images=360
)
PROBE = probe_row()
SIMILARITY = similarity_row() | dict.fromkeys(MEASURES, "")


def blank(path: Path, *columns: str) -> None:
    """Empty columns of a table."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    write_table(path, rows[0], *({**row, **dict.fromkeys(columns, "")} for row in rows))


def write_table(path: Path, usual: dict[str, Any], *rows: dict[str, Any]) -> Path:
    """Write a CSV whose rows are the usual one but for what is given; returns its path."""
    assert all(row.keys() <= usual.keys() for row in rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(usual), lineterminator="\n")
        writer.writeheader()
        writer.writerows(usual | row for row in rows)
    return path
