"""Folders of stitching runs as the scripts write them, with predictions and evaluations of
choice."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from src.ood.identifying import shares_of
from src.runs.evaluations import with_evaluations
from src.runs.folders import StitchingRun, read_runs
from src.tables.evaluation_rows import (
    EvaluationRow,
    IdentificationRow,
    evaluation_file,
    way_file,
)
from src.tables.tables import read_table, write_table
from src.values import StitchValidity
from tests import result_rows

N, N_CLASSES = 1000, 10
LABELS = np.arange(N) % N_CLASSES
N_IDENTIFIED = 1000  # test images with a foil
IDENTIFIED = {"y": 0.99, "z": 0.97, "output": 0.95}  # by layer of the way
VALID = StitchValidity(0.9, 0.8, 0.1, 1.0, 0.9, 0.05)
OPTIONS = result_rows.OPTIONS | {
    "front_model_path": "f.pt",
    "end_model_path": "g.pt",
    "front_layer": "x",
    "end_layer": "y",
    "init": "pinv",
    "n_epochs": 0,
    "objective": "task",
    "gpu": -1,
}
METRICS = {
    "front_accuracy": 0.9,
    "kappa": 0.5,
    "agreement": 0.75,
    "matching_error": None,
    "representation_difference": 0.25,
    "n_images": N,
}


def predicted(n_right: int) -> np.ndarray:
    """Right on the first images, and on the others the next class."""
    return np.where(np.arange(N) < n_right, LABELS, (LABELS + 1) % N_CLASSES)


def write_run(
    folder: Path, name: str, *, n_right: int, n_end_right: int = 950, metrics=(), **options
) -> Path:
    """A finished run whose stitch and end network are right on so many test images."""
    path = folder / f"2025-01-01_00-00-00.{name}"
    path.mkdir(parents=True)
    measured = METRICS | {"accuracy": n_right / N, "end_accuracy": n_end_right / N} | dict(metrics)
    (path / "metrics.json").write_text(json.dumps(measured))
    (path / "summary.txt").write_text(f"Clean accuracy: {n_right / N}\n")
    arrays = {
        "stitched": predicted(n_right),
        "end": predicted(n_end_right),
        "front": LABELS,
        "labels": LABELS,
    }
    np.savez_compressed(
        path / "predictions.npz", **{k: v.astype(np.int16) for k, v in arrays.items()}
    )
    (path / "config.txt").write_text(json.dumps(OPTIONS | options))
    return path


def write_evaluation(
    folder: Path,
    aurocs: dict[str, float],
    *,
    detector: str = "energy",
    validity: StitchValidity | None = VALID,
    identified: Mapping[str, float] | None = IDENTIFIED,
) -> None:
    """The evaluation of runs by a detector: AUROCs with intervals of ± 0.01, and one validity and
    one way for all of them."""
    columns: dict[str, object] = {}
    if validity:
        columns |= validity._asdict()
    if identified:
        lost_at = min(identified, key=identified.__getitem__)
        columns |= {"identification": identified[lost_at], "lost_at": lost_at}
    rows = [
        result_rows.evaluation_row(
            auroc=auroc,
            auroc_low=auroc - 0.01,
            auroc_high=auroc + 0.01,
            detector=detector,
            folder=f"2025-01-01_00-00-00.{run}",
            **columns,
        )
        for run, auroc in aurocs.items()
    ]
    write_table(evaluation_file(folder, detector), EvaluationRow, rows)
    write_way(folder, dict.fromkeys(aurocs, identified or {}))


def write_way(folder: Path, shares_of_run: Mapping[str, Mapping[str, float]]) -> None:
    """The shares of identified images of runs, by layer; other runs keep what they have."""
    folders = {f"2025-01-01_00-00-00.{run}": shares for run, shares in shares_of_run.items()}
    rows = []
    if way_file(folder).exists():
        rows = [
            row
            for row in read_table(way_file(folder), IdentificationRow)
            if row.folder not in folders
        ]
    for name, shares in folders.items():
        identified = {}
        for layer, share in shares.items():
            identified[layer] = np.full(N_IDENTIFIED, share)
            if not np.isnan(share):
                identified[layer] = np.arange(N_IDENTIFIED) < round(share * N_IDENTIFIED)
        for layer, interval in shares_of(identified).items():
            rows.append(IdentificationRow(name, "x", "y", layer, *interval, N_IDENTIFIED))
    write_table(way_file(folder), IdentificationRow, rows)


def runs_of(folder: Path) -> list[StitchingRun]:
    """The runs of a folder with their evaluations."""
    runs, skipped = read_runs(folder)
    assert not skipped
    return with_evaluations(runs)
