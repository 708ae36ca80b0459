"""Options from a file: `--config` makes its values the defaults, under the names of `config.txt`."""

import argparse
from typing import Any

from src.cli.networks import is_derived
from src.errors import UserError, unknown_name
from src.files import read_yaml
from src.results.options import NOT_RECORDED


def set_defaults(parser: argparse.ArgumentParser, path: str) -> dict[str, Any]:
    """Make the values of a file the defaults of a parser, and return them.

    `null` and empty texts, as the public code writes them, leave an option as it is. argparse converts and checks.

    Raises:
        UserError: the file cannot be read, or has an option that the parser does not know.
        argparse.ArgumentError: an option does not take its value.
    """
    actions = {action.dest: action for action in parser._actions if action.dest not in (*NOT_RECORDED, "help")}
    given = {name: value for name, value in read_yaml(path).items() if value not in (None, "", [])}
    given = {name: value for name, value in given.items() if not is_derived(str(name), actions)}
    for name, value in given.items():
        if name not in actions:
            raise unknown_name(f"option in {path}", str(name), actions)
        set_default(actions[name], _checked(parser, actions[name], value, where=f"{path}: {name}"))
    return given


def set_default(action: argparse.Action, value: Any) -> None:
    """Let an option, or a positional argument, be left out."""
    action.default, action.required = value, False
    if not action.option_strings:
        action.nargs = "*" if action.nargs == "+" else "?"


def _checked(parser: argparse.ArgumentParser, action: argparse.Action, value: Any, *, where: str) -> Any:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"{where}: {value!r} is neither true nor false")
        return value
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, list | dict) for one in values) or (isinstance(value, list) and action.nargs is None):
        raise UserError(f"{where} is not a single value")
    return parser._get_values(action, list(map(str, values)))
