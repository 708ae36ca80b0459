"""Tables as the scripts write them, of values that tests choose; what a test does not name has a usual value."""

import csv
from pathlib import Path
from typing import Any

from src.choices.measures import MEASURES

STITCH = {
    "front_layer": "x", "end_layer": "y", "stitching_type": "rc2c_pre", "init": "pinv", "front_stitch_rank": "",
    "front_pinv_rank": "", "seed": 0, "accuracy": 0.5, "front_accuracy": 0.9, "end_accuracy": 0.9,
    "matching_error": 0.1, "representation_difference": 0.2, "folder": "t", "front_model_path": "a.pt",
    "end_model_path": "b.pt", "front_model_type": "resnet18", "end_model_type": "resnet18", "dataset": "digits",
    "objective": "task", "n_epochs": 0, "n_pinv_init_samples": 100, "agreement": 0.5, "kappa": 0.4, "n_images": 360,
    "pinv_cutoff": "paper", "n_matched": 100, "matching_rank": 17, "r2_matched": 0.5, "r2_test": 0.5, "control": "",
}  # fmt: skip
PROBE = {
    "model": "a.pt", "layer": "x", "rank": "", "accuracy": 0.5, "train_accuracy": 0.5, "loss": 1, "seed": 0,
    "epochs": 10, "model_type": "resnet18", "dataset": "digits", "n_images": 360,
}  # fmt: skip
SIMILARITY = {
    "model1": "a.pt", "model2": "b.pt", "layer1": "x", "layer2": "y", "rank1": "", "rank2": "",
    "alignment": "positions", "n_samples": 10, "model1_type": "resnet18",
    "model2_type": "resnet18", "dataset": "digits", "alignment_option": "auto", "n_permutations": "", "seed": "",
    **dict.fromkeys(MEASURES, ""),
}  # fmt: skip


def write_table(path: Path, usual: dict[str, Any], *rows: dict[str, Any]) -> Path:
    """Write a CSV whose rows are the usual one but for what is given; returns its path."""
    assert all(row.keys() <= usual.keys() for row in rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(usual), lineterminator="\n")
        writer.writeheader()
        writer.writerows(usual | row for row in rows)
    return path
