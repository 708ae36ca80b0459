"""The networks of the suite, built by name, and `Network`, which cuts any of them. Importing this spares torch."""

from src.models.registry import MODEL_NAMES, build_model

__all__ = ["MODEL_NAMES", "Network", "build_model"]


def __getattr__(name: str):
    if name != "Network":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from src.models.network import Network

    return Network
