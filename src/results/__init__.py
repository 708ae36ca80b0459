"""Reads and writes results: runs, tables, and the frame of results from which reports are computed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.results.frame import read

__all__ = ["read"]


def __getattr__(name: str) -> Any:
    """Import `read` lazily, so that scripts that stitch do not load pandas."""
    if name == "read":
        from src.results.frame import read

        return read
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
