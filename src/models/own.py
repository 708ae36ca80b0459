"""A network of one's own: a function in a Python file, named as FILE.py:FUNCTION."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import UserError, unknown_name

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn


def is_own(name: str) -> bool:
    """Return whether a name has the form FILE.py:FUNCTION."""
    file, _, function = name.rpartition(":")
    return file.endswith(".py") and function.isidentifier()


def split_own(name: str) -> tuple[Path, str]:
    """File and function of a name of this form."""
    file, _, function = name.rpartition(":")
    return Path(file), function


def sha256_of(name: str) -> str:
    """Return the SHA-256 of the file that a network of one's own is from.

    Raises:
        UserError: it cannot be read.
    """
    file, _ = split_own(name)
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}; give FILE.py:FUNCTION") from error


def own_network(name: str, **options: Any) -> nn.Module:
    """Run the file and call its function with those of the options that it takes by name.

    Raises:
        UserError: there is no such file or function, the file fails, or the function returns no `nn.Module`.
    """
    from torch import nn

    path, function = split_own(name)
    module = _run(path.expanduser().absolute())
    make = getattr(module, function, None)
    if not callable(make):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"function in {path}", function, names)
    parameters = inspect.signature(make).parameters
    network = make(**{key: value for key, value in options.items() if key in parameters})
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} returns a {type(network).__name__}; let it return an nn.Module")
    return network


@functools.cache  # two networks may come from one file
def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as for a script: it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (OSError, ImportError, SyntaxError) as error:
        raise UserError(f"cannot run {path}: {error}; mend it, or give the right FILE.py:FUNCTION") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
