"""Image data sets: `load_dataset` gives batches of images with their labels."""

from src.datasets.base import Loading
from src.datasets.registry import dataset_info, load_dataset

__all__ = ["Loading", "dataset_info", "load_dataset"]
