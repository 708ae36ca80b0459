"""The networks of the suite, built by name, and `Network`, which cuts any of them. Importing this spares torch."""

from typing import TYPE_CHECKING

from src.doors import lazy_names
from src.models.registry import MODEL_NAMES, build_model

if TYPE_CHECKING:
    from src.models.network import Network

__all__ = ["MODEL_NAMES", "Network", "build_model"]
__getattr__ = lazy_names(__name__, {"Network": "network"})
