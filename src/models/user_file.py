"""A network in a user's file: a function that returns it, named as FILE.py:FUNCTION."""

import functools
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from torch import nn

from src.errors import UserError, unknown_name
from src.models.network import Network
from src.network_names import file_and_function


def user_network(name: str, **options: Any) -> nn.Module:
    """Run the file and call its function with those of the options that it takes by name.

    Raises:
        UserError: there is no such file or function, the file fails, or the function returns no `nn.Module`.
    """
    path, function = file_and_function(name)
    path = path.expanduser().absolute()
    try:
        contents = _run(path)
        if callable(make := contents.get(function)):
            takes = inspect.signature(make).parameters
            network = make(**{key: value for key, value in options.items() if key in takes})
    except (Exception, SystemExit) as error:  # whatever the code of the file raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
        line = f", line {lines[-1]}" if lines else ""
        raise UserError(
            f"cannot run {path}{line}: {type(error).__name__}: {error}; mend it, or give the right FILE.py:FUNCTION "
            "(of n_classes, n_channels and image_shape it gets those that it takes by name)"
        ) from error
    if not callable(make):
        names = [key for key, value in contents.items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"function in {path}", function, names, where="see the file")
    network = network.module if isinstance(network, Network) else network
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} returns a {type(network).__name__}; let it return an nn.Module")
    return network


@functools.cache  # two networks may come from one file
def _run(path: Path) -> dict[str, Any]:
    """Run a file and return its names; as a script it may import its neighbours."""
    spec = importlib.util.spec_from_file_location(f"user_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return vars(module)
