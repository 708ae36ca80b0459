"""A network in a user's file: a function that returns it, named as FILE.py:FUNCTION."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import UserError, unknown_name
from src.networks import file_and_function

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from torch import nn


def user_network(name: str, **options: Any) -> nn.Module:
    """Run the file and call its function with those of the options that it takes by name.

    Raises:
        UserError: there is no such file or function, the file fails, or the function returns no `nn.Module`.
    """
    from torch import nn

    from src.models.network import Network

    path, function = file_and_function(name)
    path = path.expanduser().absolute()
    module = _run(path)
    make = getattr(module, function, None)
    if not callable(make):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"function in {path}", function, names, where="see the file")
    parameters = inspect.signature(make).parameters
    given = {key: value for key, value in options.items() if key in parameters}
    with _failing_in(path):
        network = make(**given)
    network = network.module if isinstance(network, Network) else network
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} returns a {type(network).__name__}; let it return an nn.Module")
    return network


@functools.cache  # two networks may come from one file
def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"user_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as for a script: it may import its neighbours
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        with _failing_in(path):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@contextlib.contextmanager
def _failing_in(path: Path) -> Iterator[None]:
    """Turn whatever the code of a file raises into a UserError, which names the line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
        line = f", line {lines[-1]}" if lines else ""
        raise UserError(
            f"cannot run {path}{line}: {type(error).__name__}: {error}; mend it, or give the right FILE.py:FUNCTION "
            "(of n_classes, n_channels and image_shape it gets those that it takes by name)"
        ) from error
