"""Options from a file: `--config` gives defaults to a parser, in YAML or JSON, under the names of `config.txt`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.errors import UserError, unknown_name

MAX_BYTES = 2**16  # of a file of options; a larger one is something else
NOT_RECORDED = ("config", "resume")  # what a run's config.txt leaves out: it would not repeat the run


def recorded(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say what a run is, as its `config.txt` holds them."""
    return {name: value for name, value in options.items() if name not in NOT_RECORDED}


def take_defaults(parser: argparse.ArgumentParser, path: str) -> None:
    """Let the options in a file be the defaults of a parser; what is required and given there no longer is.

    An empty value (`null`, or an empty text as in the public code's files) leaves an option as it is.

    Raises:
        UserError: the file cannot be read, is no mapping, or has an option or a value that the parser does not know.
    """
    actions = {action.dest: action for action in parser._actions if action.dest not in (*NOT_RECORDED, "help")}
    for name, value in _read(path).items():
        if name not in actions:
            raise unknown_name(f"option in {path}", name, actions)
        if value is None or value == "" or value == [None]:
            continue
        action = actions[name]
        try:
            action.default = _converted(action, value)
        except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
            raise UserError(f"{path}: {name}: {error or f'{value!r} is not allowed'}") from error
        action.required = False
        if not action.option_strings:
            action.nargs = "?"


def _read(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(Path(path).expanduser(), "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"--config {path} has more than {MAX_BYTES} bytes: not a file of options")
        options = _parsed(content.decode())
        if isinstance(options, dict):
            options = {str(name): value for name, value in options.items()}
    except OSError as error:
        raise UserError(f"cannot read --config {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError, MemoryError, OverflowError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--config {path} is neither YAML nor JSON: {reason}") from error
    if not isinstance(options, dict):
        raise UserError(f"--config {path} holds no options; write lines such as `learning_rate: 0.01`")
    return options


def _parsed(text: str) -> Any:
    """What YAML says, of plain values alone and without references, which can make a few lines fill the memory."""
    import yaml

    class Loader(yaml.SafeLoader):  # builds plain values alone
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it refers to its own parts (*…), which options have no use for")
            return super().compose_node(parent, index)

    return yaml.load(text, Loader)


def _converted(action: argparse.Action, value: Any) -> Any:
    """A value as if it had been given on the command line."""
    if action.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise ValueError(f"{_short(value)} is neither true nor false")
        return value
    if action.nargs in ("*", "+"):
        items = value if isinstance(value, list) else [value]
        return [_converted_one(action, item) for item in items]
    return _converted_one(action, value)


def _converted_one(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{_short(value)} is not a single value")
    converted = (action.type or str)(str(value))
    if action.choices is not None and converted not in action.choices:
        raise ValueError(f"{_short(value)} is not among {', '.join(map(str, action.choices))}")
    return value if value == converted else converted  # 0 stays 0, and is not written down as 0.0


def _short(value: Any) -> str:
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else repr(value)[:100]
