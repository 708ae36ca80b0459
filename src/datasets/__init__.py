"""Data sets of images, tokens and vectors, loaded by name."""

from src.datasets.base import Loading
from src.datasets.registry import dataset_info, load_dataset

__all__ = ["Loading", "dataset_info", "load_dataset"]
