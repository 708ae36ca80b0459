"""Rows and tables of results whose values tests choose; the others have usual values."""

import csv
from pathlib import Path
from typing import Any

from src.core.choices.similarity import MEASURES
from src.core.values import Null
from src.results.stitches import Stitch, stitch_of_record, with_empty
from src.results.tables import EVALUATIONS, PROBES, SIMILARITIES, columns

OPTIONS = {  # of a stitching run
    "front_model_path": "a.pt", "end_model_path": "b.pt", "front_model_type": "resnet18", "end_model_type": "resnet18",
    "front_layer": "layer1.0", "end_layer": "layer2.0", "stitching_type": "rc2c_pre", "init": "rand", "seed": 0,
    "front_stitch_rank": None, "front_pinv_rank": None, "dataset": "digits", "n_epochs": 3, "n_pinv_init_samples": 100,
}  # fmt: skip
MEASURED = {"accuracy": 0.5, "end_accuracy": float("nan"), "folder": "f"}
SKILL = {
    "correlation": 0.75, "baseline": 0.5, "skill": 0.5, "skill_low": 0.45, "skill_high": 0.55,
    "correlation_at_end": 0.75, "baseline_at_end": 0.5, "skill_at_end": 0.5, "skill_at_end_low": 0.45,
    "skill_at_end_high": 0.55, "n_images": 360, "n_classes": 10, "width": 64, "n_copies": 1, "rows_per_channel": 50.0,
}  # fmt: skip
SCORES = {
    "auroc": 0.5, "aupr": 0.5, "fpr95": 0.5, "mean_energy": 1.0, "mean_id_energy": 2.0,
}  # fmt: skip


def stitch_row(**values: Any) -> dict[str, Any]:
    """A record of `grid.csv`, from values by column."""
    return with_empty(OPTIONS | MEASURED | values)


def stitch(**values: Any) -> Stitch:
    """A stitch in a table, from values by column."""
    return stitch_of_record(stitch_row(**values))


def evaluation_row(*, detector: str = "energy", **values: Any) -> dict[str, Any]:
    """A record of `evaluation.csv`, from values by column; those of `SCORES` are of the detector."""
    names = columns(EVALUATIONS)
    of_row = {name: value for name, value in values.items() if name in names}
    scores = SCORES | {name: value for name, value in values.items() if name not in names}
    usual = {"front_layer": "layer1.0", "end_layer": "layer2.0", "folder": "f", "dataset": "digits"}
    of_detector = {f"{name}_{detector}": value for name, value in scores.items()}
    return dict.fromkeys(names) | SKILL | usual | of_row | of_detector


def similarity_row(*, nulls: dict[str, Null] | None = None, **values: Any) -> dict[str, Any]:
    """A record of a table of similarity, from values by column, and nulls of permutations of all images by
    measure."""
    usual = {
        "model1": "a.pt", "model2": "b.pt", "layer1": "x", "layer2": "y", "alignment": "positions", "n_samples": 10,
        "model1_type": "resnet18", "model2_type": "resnet18", "dataset": "digits", "alignment_option": "auto",
        "further_options": "{}",
    }  # fmt: skip
    of_nulls = {
        f"{name}_{part}": value
        for name, null in (nulls or {}).items()
        for part, value in null._asdict().items()
    }
    return dict.fromkeys(columns(SIMILARITIES)) | usual | values | of_nulls


def probe_row(**values: Any) -> dict[str, Any]:
    """A record of a table of probes, from values by column."""
    usual = {
        "model": "a.pt", "layer": "x", "accuracy": 0.5, "train_accuracy": 0.5, "loss": 1.0, "seed": 0, "epochs": 10,
        "model_type": "resnet18", "dataset": "digits", "n_images": 360, "further_options": "{}",
    }  # fmt: skip
    return dict.fromkeys(columns(PROBES)) | usual | values


# ---- Tables


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
