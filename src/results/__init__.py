"""Results on disk: runs, tables, and the one frame that reports are made of."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.results.frame import read

__all__ = ["read"]


def __getattr__(name: str) -> Any:
    """Import `read` when it is used: what stitches does not load pandas."""
    if name == "read":
        from src.results.frame import read

        return read
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
