"""Image data sets: `load_dataset` returns a set that yields batches of images and labels."""

from src.datasets.base import Loading
from src.datasets.registry import dataset_info, load_dataset

__all__ = ["Loading", "dataset_info", "load_dataset"]
