"""A parser that reports a mistake in one line, and one way for every script to run and to fail."""

import argparse
import contextlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from src.cli.networks import add_derived_options, is_derived, refuse_code_of_config
from src.console import note
from src.errors import Misfit, UserError, as_user_error, unknown_name
from src.files import read_yaml
from src.results.options import NOT_RECORDED


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=120)

    def _get_help_string(self, action: argparse.Action) -> str:
        has_default = action.default or action.default == 0 and action.default is not False
        return super()._get_help_string(action) if has_default else action.help


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and reports a mistake in one line, with exit code 2."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
        self.add_argument("--config", help="YAML or JSON file of options, such as the config.txt of a run; "
                          "what is given here as well wins")  # fmt: skip

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """Parse arguments, with defaults from the file of `--config`; end the process where one is wrong."""
        args = sys.argv[1:] if args is None else args
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--config")
        try:
            path = first.parse_known_args(args)[0].config
            from_file = {} if path is None else self._set_defaults(path)
            parsed = super().parse_args(args, namespace)
            refuse_code_of_config(from_file, parsed, args)
            add_derived_options(self, parsed)
        except (argparse.ArgumentError, UserError) as error:
            self.error(str(error))
        return parsed

    def _set_defaults(self, path: str) -> dict[str, Any]:
        """Make the options in a file the defaults, and return them.

        `null` and empty texts, as the public code writes them, leave an option as it is. argparse converts and checks.
        """
        actions = {action.dest: action for action in self._actions if action.dest not in (*NOT_RECORDED, "help")}
        given = {str(name): value for name, value in read_yaml(path).items() if value not in (None, "", [])}
        given = {name: value for name, value in given.items() if not is_derived(name)}
        for name, value in given.items():
            if name not in actions:
                raise unknown_name(f"option in {path}", name, actions)
            action = actions[name]
            if action.nargs != 0:
                value = self._get_values(action, _words(action, value))
            elif not isinstance(value, bool):
                raise UserError(f"{path}: {name}: {value!r} is neither true nor false")
            _let_out(action, value)
        return given

    def options(self, **values: Any) -> argparse.Namespace:
        """Return what `parse_args` would: these values, by their names in `config.txt`, and defaults for the others."""
        actions = {action.dest: action for action in self._actions}
        for name, value in values.items():
            _let_out(actions[name], value)
        return self.parse_args([])

    def words(self, options: argparse.Namespace) -> list[str]:
        """Return the command line that stands for options: positional ones, and those that are not the default."""
        positional, named = [], []
        for action in self._actions:
            value, default = getattr(options, action.dest, None), action.default
            if not action.option_strings:
                positional += _words(action, value)
                continue
            if isinstance(default, str):
                default = self._get_value(action, default)  # argparse converts it as well
            if value is not None and value != default:
                named += [action.option_strings[0], *_words(action, value)]
        return [*positional, *named]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _words(action: argparse.Action, value: Any) -> list[str]:
    """Return the words that stand for the value of an option; several names in one have commas between them."""
    if action.nargs == 0:
        return []
    words = [str(each) for each in (value if isinstance(value, list) else [value])]
    return words if action.nargs else [",".join(words)]


def _let_out(action: argparse.Action, value: Any) -> None:
    """Let an option, or a positional argument, be left out; it then has this value."""
    action.default, action.required = value, False
    if not action.option_strings:
        action.nargs = "*" if action.nargs == "+" else "?"


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raise KeyboardInterrupt(signal) for SIGINT and SIGTERM while the block runs. A second signal kills the process.

    `except Exception` lets it pass.
    """

    def stop(signum: int, frame: object) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt(signal.Signals(signum))

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run(parser: Parser, experiment: Callable[[argparse.Namespace], None], argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the experiment, and turn errors of the user into one line.

    Returns:
        The exit code: 0, 2 for an error of the user, 130 after SIGINT, 143 after SIGTERM, 1 for any other failure.
    """
    args = parser.parse_args(argv)
    try:
        with contextlib.ExitStack() as during:
            during.enter_context(_signals())
            if hasattr(args, "tf32"):
                from src.runtime import precision

                during.enter_context(precision(gpu=args.gpu, amp=args.amp, tf32=args.tf32))
            experiment(args)
    except KeyboardInterrupt as stop:
        signum = stop.args[0] if stop.args else signal.SIGINT
        remedy = "; to go on, give the same command with --resume" if hasattr(args, "resume") else ""
        remedy = "; to go on, give the same command again" if hasattr(args, "shard") else remedy
        note(f"{parser.prog}: interrupted by {signum.name}{remedy}")
        return 128 + signum
    except Exception as error:
        known = as_user_error(error)
        if not known:
            traceback.print_exc()
            return 1
        hint = f" (-d is {args.dataset})" if isinstance(known, Misfit) and hasattr(args, "dataset") else ""
        note(f"{parser.prog}: error: {known}{hint}")
        return 2
    return 0
