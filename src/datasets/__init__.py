"""Image data sets: `load_dataset` gives batches of images in [0, 1] with their labels."""

from src.datasets.registry import DATASET_NAMES, Loading, dataset_info, labelled_info, load_dataset, load_labelled

__all__ = ["DATASET_NAMES", "Loading", "dataset_info", "labelled_info", "load_dataset", "load_labelled"]
