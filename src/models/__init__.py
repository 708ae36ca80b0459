"""The networks of the suite, built by name. Importing this does not import torch."""

from src.models.registry import MODEL_NAMES, build_model

__all__ = ["MODEL_NAMES", "build_model"]
