"""The argument parser of all scripts, and the function that runs a script and returns its exit code."""

import argparse
import contextlib
import difflib
import functools
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from src.core.console import note
from src.core.errors import Misfit, UserError, as_user_error, unknown_name
from src.core.files import locks_released, read_yaml
from src.core.user_code import code_in, digest_of
from src.results.spec import NOT_RECORDED

# Beginnings of warnings that no user has to see
HARMLESS = (
    "This DataLoader will create",  # more workers than cores
    "Grad strides do not match bucket view strides",
)
# Endings of options that may name code of a user
NAMES_CODE = ("_type", "arch", "own_types", "metrics", "detector", "objective", "init", "methods")
# Endings of entries of a `config.txt` that are no options
DERIVED = ("_sha256", "stitching_option", "c2t_cls_option", "image_spec")

# Options that --help shows first, in this order, and options that it shows last
FREQUENT = (
    "dataset gpu save_dir output layers layer_names methods init n_epochs objective mod_only_stitch learning_rate "
    "scheduler batch_size n_pinv_init_samples pinv_cutoff seed model_type finetune_id_dataset finetune_ood_dataset "
    "detector metrics n_samples alignment ranks model1_ranks model2_ranks networks similarity own_types resume"
).split()
RARE = (
    "n_workers prefetch_factor amp bf16 reduce_lr_epochs grad_clip l1_coef upsample_mode c2t_cls_token "
    "t2c_cls_token channels_last epoch_size save_frequency no_save id_dataset "
    "id_dataset_root sanity_check_dataset_root energy_dir front_model end_model "
    "finetune_id_dataset_root finetune_ood_dataset_root m_in m_out score dummy "
    "dummy_size print_freq figures memory config"
).split()


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of an option, unless it is None, False, "" or empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default and isinstance(action.default, list):
            words = " ".join(map(str, action.default))
            return f"{action.help} (default: {words})"
        is_number = isinstance(action.default, int | float) and action.default is not False
        if action.default or is_number:
            return super()._get_help_string(action)
        return action.help


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults, and reports a mistake in one line (exit code 2)."""

    def __init__(self, description: str):
        formatter = functools.partial(_HelpFormatter, max_help_position=36, width=120)
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False)
        self.add_argument(
            "--config",
            help="YAML or JSON file of options, such as the config.txt of a run or the .json of a table; options "
            "on the command line override it",
        )

    def parse_args(  # type: ignore[override]  # the overloads of argparse have a second namespace
        self, args: Iterable[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Parse arguments, with defaults from the file of `--config`; exit if one is wrong.

        An option that names user code gets a neighbour `..._sha256`: the content of its file.
        """
        words = sys.argv[1:] if args is None else list(args)
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--config")
        try:
            path = first.parse_known_args(words)[0].config
            from_file = []
            if path is not None:
                from_file = self._set_defaults(Path(path))
            self._refuse_mistyped(words)
            parsed = super().parse_args(words, namespace)
            for name, value in vars(parsed).items():
                setattr(parsed, name, _flat(value))
            _record_code(parsed, from_file, words)
        except (argparse.ArgumentError, UserError) as error:
            self.error(str(error))
        return parsed

    def _set_defaults(self, path: Path) -> list[str]:
        """Make options in a file the defaults, but for null and empty texts; return their names."""
        actions = {}
        for action in self._actions:
            if action.dest not in (*NOT_RECORDED, "help"):
                actions[action.dest] = action
        names = []
        content = read_yaml(path)
        for key, value in content.get("options", content).items():  # of a table, or alone
            name = str(key)
            if value in (None, "", []) or name.endswith(DERIVED):
                continue
            if name not in actions:
                raise unknown_name(f"option in {path}", name, actions)
            self._set_default(actions[name], value, path)
            names.append(name)
        return names

    def _set_default(self, action: argparse.Action, value: object, path: Path) -> None:
        """Make a value in a file the default of an option, which then is not required."""
        if action.nargs == 0:  # a switch
            if not isinstance(value, bool):
                raise UserError(f"{path}: {action.dest}: {value!r} is neither true nor false")
            action.default = value
        else:
            values = self._get_values(action, _words(action, value))
            action.default = _flat(values)
        action.required = False
        if not action.option_strings:
            action.nargs = "*" if action.nargs == "+" else "?"

    def format_help(self) -> str:
        """Return the help: first the options that most runs need, last the rare ones."""
        sections: dict[str, list[argparse.Action]] = {
            "arguments": [],
            "most runs need": [],
            "further options": [],
            "rarely needed": [],
        }
        for action in self._actions:
            sections[_section_of(action)].append(action)
        sections["most runs need"].sort(key=lambda action: FREQUENT.index(action.dest))
        formatter = self.formatter_class(prog=f"{self.prog} [options]")
        needed = [
            action for action in self._actions if action.required or not action.option_strings
        ]
        formatter.add_usage(None, needed, [])
        formatter.add_text(self.description)
        for title, actions in sections.items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def values(self, shared: Mapping[str, object], **chosen: object) -> argparse.Namespace:
        """Return options of values: chosen ones, or else shared ones, or else the defaults.

        Args:
            shared: options of another script. Those that this script lacks or takes as arguments are
                left out.
        """
        values: dict[str, object] = {}
        for action in self._actions:
            if action.default is argparse.SUPPRESS:  # --help
                continue
            values[action.dest] = action.default
            if isinstance(action.default, str):
                values[action.dest] = self._get_value(action, action.default)
            if action.option_strings and shared.get(action.dest) is not None:
                values[action.dest] = shared[action.dest]
        parsed = argparse.Namespace(**values | chosen)
        _record_code(parsed, [], [])
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print the mistake in one line, and exit."""
        self.exit(2, f"{self.prog}: error: {message}{self._advice_on(message)}\n")

    def _advice_on(self, message: str) -> str:
        """Return the remedy for a message of argparse about missing or unknown arguments; "" for others."""
        names = [action.dest for action in self._actions if not action.option_strings]
        order = " ".join([self.prog, *names, "[options]"])
        missing = re.match("the following arguments are required: (.*)", message)
        if missing and any(name in names for name in missing[1].split(", ")):
            return f"; write {order}, as an option with several values takes all words behind it"
        unknown = re.match("unrecognized arguments: (.*)", message)
        if unknown and unknown[1].startswith("-"):
            return f"; {self._similar(unknown[1].split()[0])}--help lists all options"
        if unknown:
            return f"; write {order}"
        return ""

    def _similar(self, word: str) -> str:
        """Return a question that suggests options similar to a word; "" if there are none."""
        options = [name for action in self._actions for name in action.option_strings]
        close = difflib.get_close_matches(word, options, cutoff=0.7)
        return f"did you mean {' or '.join(close)}? " if close else ""

    def _refuse_mistyped(self, words: Iterable[str]) -> None:
        """Raise a UserError for a word such as -dri, which argparse takes for -d with the value ri."""
        options = {name for action in self._actions for name in action.option_strings}
        for word in words:
            is_split = (
                re.fullmatch("-[a-z][a-z-]+", word) and word not in options and word[:2] in options
            )
            if is_split and self._similar(word):
                raise UserError(
                    f"unknown option {word}; {self._similar(word)}--help lists all options"
                )


def _section_of(action: argparse.Action) -> str:
    """Return the title of the part of the help that an option stands in."""
    if not action.option_strings:
        return "arguments"
    if action.dest in RARE:
        return "rarely needed"
    return "most runs need" if action.dest in FREQUENT else "further options"


def _record_code(
    parsed: argparse.Namespace, from_file: Collection[str], words: Sequence[str]
) -> None:
    """Add the SHA-256 of user code to its options; a UserError if only --config names it."""
    options = vars(parsed)
    for name in [name for name in options if name.endswith(NAMES_CODE)]:
        is_list = isinstance(options[name], list)
        texts = options[name] if is_list else [options[name]]
        codes = code_in(texts)
        if name in from_file:
            _refuse_unnamed(name, codes, words)
        digests = {code: digest_of(code) for code in codes}
        if codes and is_list:
            options[f"{name}_sha256"] = digests
        elif codes:
            options[f"{name}_sha256"] = digests[codes[0]]


def _refuse_unnamed(option: str, codes: Sequence[str], words: Sequence[str]) -> None:
    """Raise a UserError if a file of options has code that the command line does not name."""
    values_in_words = [word.partition("=")[2] for word in words]
    named = code_in([*words, *values_in_words])
    for code in codes:
        if code not in named:
            raise UserError(
                f"{option} {code} is given by the file of --config only, and a file of options does not run code; "
                "give it on the command line as well"
            )


def _flat(value: object) -> object:
    """Return a list of lists of names, from words with commas between names, as one list."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [name for names in value for name in names]
    return value


def _words(action: argparse.Action, value: object) -> list[str]:
    """Return the words of a value; several of an option that takes one are joined by commas."""
    if action.nargs == 0:
        return []
    values = value if isinstance(value, list) else [value]
    words = [str(item) for item in values]
    if action.nargs:
        return words
    return [",".join(words)]


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raise KeyboardInterrupt(signal) for SIGINT and SIGTERM; a second signal kills the process."""

    def stop(number: int, frame: object) -> NoReturn:
        for stopping in handlers:
            signal.signal(stopping, signal.SIG_DFL)
        raise KeyboardInterrupt(signal.Signals(number))

    handlers = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handlers[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run(
    parser: Parser,
    experiment: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, run the experiment, and print a UserError as one line.

    Returns:
        The exit code: 0; 2 for an error of the user; 130 after SIGINT, 143 after SIGTERM; 1 for any
        other failure.
    """
    args = parser.parse_args(argv)
    try:
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(_signals())
            contexts.enter_context(locks_released())
            contexts.enter_context(warnings.catch_warnings())
            for text in HARMLESS:
                warnings.filterwarnings("ignore", text)
            if "amp" in args:
                from src.core.precision import precision

                contexts.enter_context(precision(gpu=args.gpu, amp=args.amp))
            experiment(args)
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        note(f"{parser.prog}: interrupted by {number.name}{_how_to_resume(args)}")
        return 128 + number
    except Exception as error:
        user_error = as_user_error(error)
        if user_error is None:
            traceback.print_exc()
            return 1
        line = str(user_error)
        if isinstance(user_error, Misfit) and "dataset" in args:
            line = user_error.on(args.dataset)
        note(f"{parser.prog}: error: {line}")
        return 2
    return 0


def _how_to_resume(args: argparse.Namespace) -> str:
    """Return the advice on resuming an interrupted experiment."""
    if "shard" in args:
        return "; to resume, give the same command again"
    keeps_state = vars(args).get("output", "") is not None  # a table's lies beside it
    if "resume" in args and keeps_state:
        return "; to resume, give the same command with --resume"
    return ""
