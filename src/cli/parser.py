"""A parser that reports a mistake in one line, and one way for every script to run and to fail."""

import argparse
import contextlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from src.cli.config_file import set_default, set_defaults
from src.cli.networks import add_derived_options, refuse_code_of_config
from src.console import note
from src.errors import Misfit, UserError, as_user_error


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and reports a mistake in one line, with exit code 2."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
        self.add_argument("--config", help="YAML or JSON file of options, such as the config.txt of a run; "
                          "what is given here as well wins")  # fmt: skip

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """Parse arguments, with defaults from the file of `--config`; end the process where one is wrong."""
        args = sys.argv[1:] if args is None else args
        first = argparse.ArgumentParser(prog=self.prog, add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--config")
        try:
            path = first.parse_known_args(args)[0].config
            from_file = {} if path is None else set_defaults(self, path)
            parsed = super().parse_args(args, namespace)
            refuse_code_of_config(from_file, parsed, args)
            add_derived_options(self, parsed)
        except (argparse.ArgumentError, UserError) as error:
            self.error(str(error))
        return parsed

    def options(self, **values: Any) -> argparse.Namespace:
        """Return what `parse_args` would: these values, by their names in `config.txt`, and defaults for the others."""
        actions = {action.dest: action for action in self._actions}
        for name, value in values.items():
            set_default(actions[name], value)
        return self.parse_args([])

    def words(self, options: argparse.Namespace) -> list[str]:
        """Return the command line that stands for options: positional ones, and those that are not the default."""
        positional, named = [], []
        for action in self._actions:
            value = getattr(options, action.dest, None)
            if not action.option_strings:
                positional += value if isinstance(value, list) else [value]
            elif value is not None and value != _default_of(action):
                named.append(action.option_strings[0])
                if isinstance(value, list):
                    named += value if action.nargs else [",".join(value)]
                elif action.nargs != 0:
                    named.append(value)
        return [*map(str, positional), *map(str, named)]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _default_of(action: argparse.Action) -> Any:
    """Return the default of an option; argparse converts one that is a text."""
    is_text = isinstance(action.default, str) and callable(action.type)
    return action.type(action.default) if is_text else action.default


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=120)

    def _get_help_string(self, action: argparse.Action) -> str:
        if not action.option_strings or action.required or action.const is True:
            return action.help
        return super()._get_help_string(action)


class Terminated(BaseException):
    """Raised on SIGTERM; a BaseException like KeyboardInterrupt, so that `except Exception` lets it pass."""


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raise an exception for SIGINT and SIGTERM while the block runs. A second signal kills the process."""

    def handle(signum: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt if signum == signal.SIGINT else Terminated

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _precision(args: argparse.Namespace) -> contextlib.AbstractContextManager:
    """Apply `--amp` and `--tf32` while the block runs; torch is imported only where one is given."""
    if getattr(args, "amp", "none") == "none" and not getattr(args, "tf32", False):
        return contextlib.nullcontext()
    from src.runtime import precision

    return precision(gpu=args.gpu, amp=args.amp, tf32=args.tf32)


def run(parser: Parser, experiment: Callable[[argparse.Namespace], None], argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the experiment, and turn errors of the user into one line.

    Returns:
        The exit code: 0, 2 for an error of the user, 130 after SIGINT, 143 after SIGTERM, 1 for any other failure.
    """
    args = parser.parse_args(argv)
    try:
        with _signals(), _precision(args):
            experiment(args)
    except (KeyboardInterrupt, Terminated) as stop:
        signum = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        remedy = "; to go on, give the same command with --resume" if hasattr(args, "resume") else ""
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
