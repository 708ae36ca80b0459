"""Public names of a package that are imported when they are first asked for: importing the package spares torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package.

    Args:
        places: by public name, the module of the package that defines it.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package} has no attribute {name}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return find
