"""A parser that reports a mistake in one line, and one way for every script to run and to fail."""

import argparse
import contextlib
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NoReturn

from src.console import note
from src.errors import Misfit, UserError, as_user_error, unknown_name
from src.files import read_yaml
from src.network_names import content_of
from src.results.options import NOT_RECORDED
from src.user_code import absolute, is_user_code, source_of

HARMLESS = (  # how warnings begin that no user has to see
    "This DataLoader will create",  # more workers than cores
    "Grad strides do not match bucket view strides",
)
# Endings of options that may name code of a user
NAMES_CODE = ("_type", "arch", "own_types", "metrics", "detector", "objective", "methods")
EPOCHS = re.compile(r":\d+$")  # behind an objective
DERIVED = (
    "_sha256",
    "_path_seed",
    "stitching_option",
)  # endings of entries of a `config.txt` that are no options


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=120)

    def _get_help_string(self, action: argparse.Action) -> str:
        has_default = action.default or action.default == 0 and action.default is not False
        return super()._get_help_string(action) if has_default else action.help


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and reports a mistake in one line, with exit code
    2."""

    def __init__(self, description: str):
        super().__init__(
            description=description, formatter_class=_HelpFormatter, allow_abbrev=False
        )
        self.add_argument("--config", help="YAML or JSON file of options, such as the config.txt of a run; "
                          "what is given here as well wins")  # fmt: skip

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse arguments, with defaults from the file of `--config`; end the process where one is
        wrong.

        The result also has the SHA-256 of users' files that options name networks of.
        """
        args = sys.argv[1:] if args is None else args
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--config")
        try:
            path = first.parse_known_args(args)[0].config
            from_file = [] if path is None else self._set_defaults(path)
            parsed = super().parse_args(args, namespace)
            words = {part for word in args for part in (word, word.partition("=")[2])}
            codes = {code for word in words for code in code_in(word)}
            for name, value in list(vars(parsed).items()):
                if name.endswith(NAMES_CODE) and code_in(value):
                    if name in from_file:
                        _refuse_unnamed(name, code_in(value), codes)
                    setattr(parsed, f"{name}_sha256", _digests(value))
        except (argparse.ArgumentError, UserError) as error:
            self.error(str(error))
        return parsed

    def _set_defaults(self, path: str) -> list[str]:
        """Make the options in a file the defaults, and return their names; argparse converts and
        checks them.

        `null` and empty texts, as the public code writes them, leave an option as it is.
        """
        actions = {
            action.dest: action
            for action in self._actions
            if action.dest not in (*NOT_RECORDED, "help")
        }
        given = {
            str(name): value
            for name, value in read_yaml(path).items()
            if value not in (None, "", [])
        }
        given = {name: value for name, value in given.items() if not name.endswith(DERIVED)}
        for name, value in given.items():
            if name not in actions:
                raise unknown_name(f"option in {path}", name, actions)
            action = actions[name]
            if action.nargs == 0 and not isinstance(value, bool):
                raise UserError(f"{path}: {name}: {value!r} is neither true nor false")
            action.default = (
                value if action.nargs == 0 else self._get_values(action, _words(action, value))
            )
            action.required = False
            if not action.option_strings:
                action.nargs = "*" if action.nargs == "+" else "?"
        return list(given)

    def words(self, options: argparse.Namespace) -> list[str]:
        """Return the command line that stands for options: positional ones, and those that are not
        the default."""
        positional, named = [], []
        for action in self._actions:
            value = getattr(options, action.dest, None)
            if not action.option_strings:
                positional += _words(action, value)
            elif value is not None and value != action.default:
                named += [action.option_strings[0], *_words(action, value)]
        return [*positional, *named]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def code_in(value: Any) -> list[str]:
    """Return the names of user code in the value of an option: a text or several, which may have
    commas between names and epochs behind them. Paths are absolute."""
    texts = value if isinstance(value, list) else [value]
    names = [name for text in texts for name in (text, *str(text).split(","))]
    codes = [absolute(EPOCHS.sub("", str(name))) for name in names]
    return list(dict.fromkeys(filter(is_user_code, codes)))


def _refuse_unnamed(option: str, codes: Sequence[str], named: Collection[str]) -> None:
    """Raise a UserError if a file of options has code that the command line does not name."""
    for code in codes:
        if code not in named:
            raise UserError(
                f"{option} {code} stands in the file of --config alone, and a file of options does "
                "not run code; name it on the command line as well"
            )


def _digests(value: Any) -> str | dict[str, str]:
    """Return the SHA-256 of the file of user code, of several by their names."""
    digests = {code: content_of(source_of(code)) for code in code_in(value)}
    return digests if isinstance(value, list) else digests[code_in(value)[0]]


def _words(action: argparse.Action, value: Any) -> list[str]:
    """Return the words that stand for the value of an option; several names in one have commas
    between them."""
    if action.nargs == 0:
        return []
    words = [str(each) for each in (value if isinstance(value, list) else [value])]
    return words if action.nargs else [",".join(words)]


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raise KeyboardInterrupt(signal) for SIGINT and SIGTERM while the block runs. A second signal
    kills the process.

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


def run(
    parser: Parser,
    experiment: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, run the experiment, and turn errors of the user into one line.

    Returns:
        The exit code: 0, 2 for an error of the user, 130 after SIGINT, 143 after SIGTERM, 1 for any other failure.
    """
    args = parser.parse_args(argv)
    try:
        with contextlib.ExitStack() as during:
            during.enter_context(_signals())
            during.enter_context(warnings.catch_warnings())
            for text in HARMLESS:
                warnings.filterwarnings("ignore", text)
            if hasattr(args, "tf32"):
                from src.runtime import precision

                during.enter_context(precision(gpu=args.gpu, amp=args.amp, tf32=args.tf32))
            experiment(args)
    except KeyboardInterrupt as stop:
        signum = stop.args[0] if stop.args else signal.SIGINT
        remedy = (
            "; to go on, give the same command with --resume" if hasattr(args, "resume") else ""
        )
        remedy = "; to go on, give the same command again" if hasattr(args, "shard") else remedy
        note(f"{parser.prog}: interrupted by {signum.name}{remedy}")
        return 128 + signum
    except Exception as error:
        known = as_user_error(error)
        if not known:
            traceback.print_exc()
            return 1
        is_of_data = isinstance(known, Misfit) and hasattr(args, "dataset")
        line = known.on(args.dataset) if is_of_data else str(known)
        note(f"{parser.prog}: error: {line}")
        return 2
    return 0
