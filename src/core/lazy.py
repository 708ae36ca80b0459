"""Packages that import their modules when they are used."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def when_used(package: str, **modules: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose modules are imported when they are first used (PEP 562).

    Args:
        modules: the modules of further attributes of the package, by attribute.
    """

    def attribute(name: str) -> Any:
        if name in modules:
            return getattr(import_module(f"{package}.{modules[name]}"), name)
        module = f"{package}.{name}"
        if find_spec(module) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(module)

    return attribute
