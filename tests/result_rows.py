"""Rows of results whose values tests choose; the others have usual values."""

from typing import Any

from src.results.records import from_record
from src.results.rows import EvaluationRow, ProbeRow, SimilarityRow, StitchRow

OPTIONS = {  # of a stitching run
    "front_model_path": "a.pt", "end_model_path": "b.pt", "front_model_type": "resnet18", "end_model_type": "resnet18",
    "front_layer": "layer1.0", "end_layer": "layer2.0", "stitching_type": "rc2c_pre", "init": "rand", "seed": 0,
    "front_stitch_rank": None, "front_pinv_rank": None, "dataset": "digits", "n_epochs": 3, "n_pinv_init_samples": 100,
}  # fmt: skip
SCORES = {
    "accuracy": 0.5, "auroc": 0.5, "aupr": 0.5, "fpr95": 0.5, "mean_energy": 1, "mean_id_energy": 2,
    "detector": "energy", "detector_id_data": "digits", "detector_ood_data": "", "id_dataset": "digits",
    "sanity_dataset": "", "folder": "f",
}  # fmt: skip


def stitch_row(**values: Any) -> StitchRow:
    """A row of `grid.csv`, from values by column."""
    return from_record(StitchRow, OPTIONS | {"accuracy": 0.5, "folder": "f"} | values)


def evaluation_row(**values: Any) -> EvaluationRow:
    """A row of `ood_evaluation.csv`, from values by column."""
    return from_record(EvaluationRow, OPTIONS | SCORES | values)


def similarity_row(**values: Any) -> SimilarityRow:
    """A row of a table of similarity, from fields."""
    usual = SimilarityRow(
        "a.pt", "b.pt", "x", "y", None, None, "positions", 10, {}, {}, {}, "resnet18", "resnet18", "digits",
        "auto", None,
    )  # fmt: skip
    return usual._replace(**values)


def probe_row(**values: Any) -> ProbeRow:
    """A row of a table of probes, from fields."""
    return ProbeRow("a.pt", "x", None, 0.5, 0.5, 1.0, 0, 10, "resnet18", "digits", 360)._replace(**values)
