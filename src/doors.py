"""Functions and classes that a table or a package names, imported when first used: reading a table spares torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def resolve(package: str, place: str) -> Any:
    """Import what a row of a table names.

    Args:
        package: name of the package.
        place: "module.name", below the package.

    Example: resolve("src.datasets", "folders.load_folder").
    """
    module, name = place.rsplit(".", 1)
    return getattr(import_module(f"{package}.{module}"), name)


def lazy_names(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` (PEP 562) of a package, whose public names are imported when first used.

    Args:
        package: name of the package.
        places: the module of the package that defines each public name.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package} has no attribute {name}")
        return resolve(package, f"{places[name]}.{name}")

    return find
