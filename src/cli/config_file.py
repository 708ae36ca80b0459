"""Options from a file: `--config` puts them in front of those of the command line, under the names of `config.txt`."""

import argparse

from src.cli.networks import is_derived
from src.errors import UserError, unknown_name
from src.files import read_yaml
from src.results.options import NOT_RECORDED


def words_of(parser: argparse.ArgumentParser, path: str) -> list[str]:
    """Turn the options in a file into words of a command line; positional ones become defaults of the parser.

    `null` and empty texts, as the public code writes them, leave an option as it is. argparse converts and checks.

    Raises:
        UserError: the file cannot be read, or has an option that the parser does not know.
    """
    actions = {action.dest: action for action in parser._actions if action.dest not in (*NOT_RECORDED, "help")}
    words, lists = [], []
    for name, value in read_yaml(path).items():
        if is_derived(str(name), actions):
            continue
        if name not in actions:
            raise unknown_name(f"option in {path}", str(name), actions)
        action, several = actions[name], actions[name].nargs in ("*", "+")
        values = [one for one in (value if isinstance(value, list) else [value]) if one is not None and one != ""]
        if any(isinstance(one, list | dict) for one in values) or (isinstance(value, list) and not several):
            raise UserError(f"{path}: {name} is not a single value")
        if not values:
            continue
        if not action.option_strings:
            action.default, action.nargs = str(value), "?"
        elif several:
            lists += [action.option_strings[-1], *map(str, values)]
        elif action.nargs != 0:
            words.append(f"{action.option_strings[-1]}={value}")
        elif value is True:
            words.append(action.option_strings[-1])
        elif value is not False:
            raise UserError(f"{path}: {name}: {value!r} is neither true nor false")
    return [*lists, "--config", path, *words]  # a list ends where the next option begins
