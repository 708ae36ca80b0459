"""Image data sets: `load_dataset` gives batches of images with their labels."""

from src.datasets.interventions import INTERVENTIONS, intervene
from src.datasets.registry import (
    DATASET_NAMES,
    Loading,
    dataset_info,
    dataset_label,
    dataset_name,
    load_dataset,
)

__all__ = [
    "DATASET_NAMES",
    "INTERVENTIONS",
    "Loading",
    "dataset_info",
    "dataset_label",
    "dataset_name",
    "intervene",
    "load_dataset",
]
