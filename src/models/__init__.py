"""The networks of the suite, built by name, and `Network`, which cuts any of them. Importing this spares torch."""

from typing import TYPE_CHECKING, Any

from src.models.registry import MODEL_NAMES, build_model

if TYPE_CHECKING:
    from src.models.network import Network

__all__ = ["MODEL_NAMES", "Network", "build_model"]


def __getattr__(name: str) -> Any:
    if name == "Network":  # looked up when it is asked for, since it needs torch
        from src.models.network import Network

        return Network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
