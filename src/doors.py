"""One mechanism for tables whose rows name their function, and for names that a package offers.

A row holds "module.function"; the function is imported when it is first needed. So importing a table, as the parsers of
all scripts do, spares torch.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def resolve(package: str, name: str) -> Any:
    """Import what a row names.

    Args:
        package: the package of the table, such as "src.datasets".
        name: "module.attribute" within it.
    """
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(f"{package}.{module}"), attribute)


def offers(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package (PEP 562).

    Args:
        names: by public name, the module of the package that defines it.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package} has no attribute {name}")
        return resolve(package, f"{names[name]}.{name}")

    return find
