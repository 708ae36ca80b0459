"""Image data sets: `load_dataset` gives batches of images with their labels."""

from src.datasets.registry import (
    DATASET_NAMES,
    INTERVENTIONS,
    Loading,
    dataset_info,
    dataset_label,
    dataset_name,
    load_dataset,
)  # fmt: skip

__all__ = ["DATASET_NAMES", "INTERVENTIONS", "Loading", "dataset_info", "dataset_label", "dataset_name", "load_dataset"]
