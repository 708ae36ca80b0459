"""Types of options: functions that convert the text of an option, or raise an error of one line."""

import argparse
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from src.core.choices.models import MODEL_NAMES
from src.core.errors import unknown_name
from src.core.user_code import CODE, absolute, is_user_code
from src.results.network_names import DEFAULT, UNTRAINED

# Endings of checkpoints and of files of features
CHECKPOINT_ENDINGS = (".pt", ".pth", ".tar", ".ckpt", ".npz")

Value = TypeVar("Value")


def checked(
    read: Callable[[str], Value], is_allowed: Callable[[Value], bool], title: str
) -> Callable[[str], Value]:
    """Return the type of an option that checks its values.

    Args:
        read: raises a ValueError for a text that is no value.
        title: what the option takes, for the error, such as "an integer".
    """

    def parse(text: str) -> Value:
        refusal = argparse.ArgumentTypeError(f"{text!r} is not {title}")
        try:
            value = read(text)
        except ValueError:
            raise refusal from None
        if not is_allowed(value):
            raise refusal
        return value

    return parse


def integer_from(minimum: int) -> Callable[[str], int]:
    """Return the type of an option that takes an integer from `minimum` on."""
    return checked(int, lambda number: number >= minimum, f"an integer from {minimum} on")


def rank(text: str) -> int | None:
    """Read a rank; 0 is the full rank, as in the public code, and becomes None."""
    number = integer_from_0(text)
    return None if number == 0 else number


def number_of_samples(text: str) -> int | str:
    """Read a number of inputs, or auto."""
    if text == "auto":
        return text
    return integer_from_1(text)


def descending(ranks: Sequence[int] | None) -> list[int | None]:
    """Return the distinct ranks of an option in descending order, full rank (None) first.

    An option writes full rank as 0, or as an empty list. Example: [4, 0, 64, 4] -> [None, 64, 4].
    """
    distinct = set(ranks or [0])
    truncated = sorted(distinct - {0}, reverse=True)
    if 0 in distinct:
        return [None, *truncated]
    return [*truncated]


def real_number(
    *, at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf
) -> Callable[[str], float]:
    """Return the type of an option that takes a finite number within bounds."""
    bounds = {"at least": at_least, "above": above, "at most": at_most}
    texts = [f" {word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]

    def is_allowed(number: float) -> bool:
        return at_least <= number <= at_most and above < number < math.inf

    return checked(float, is_allowed, f"a finite number{' and'.join(texts)}")


_share = checked(float, lambda number: 0 <= number < 1, "paper, exact or a number from 0 up to 1")


def cutoff(text: str) -> str:
    """Read a cutoff of singular values; equal numbers become equal texts."""
    if text in ("paper", "exact"):
        return text
    return str(_share(text))


def scheduler(text: str) -> str:
    """Read the name of a scheduler; the public code writes none as an empty text."""
    return text or "none"


def network(text: str) -> str:
    """Read the type of a network; the path of a user's file becomes absolute."""
    if text in MODEL_NAMES:
        return text
    if text in (UNTRAINED, DEFAULT) or text.endswith(CHECKPOINT_ENDINGS):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a checkpoint, not a type such as small_cnn; where there are two networks, both "
            "checkpoints come before both types"
        )
    return absolute(text)


def name_or_code(
    noun: str, names: Collection[str], *, has_code: bool = True
) -> Callable[[str], str]:
    """Return the type of an option that takes one of `names`, or the name of user code.

    The path of a user's file becomes absolute.

    Args:
        noun: for what the option names, for the error.
        has_code: user code is allowed.
    """
    known = list(names)
    if has_code:
        known.append(CODE)

    def parse(text: str) -> str:
        if text in names:
            return text
        if not (has_code and is_user_code(text)):
            raise argparse.ArgumentTypeError(str(unknown_name(noun, text, known)))
        return absolute(text)

    return parse


def names_of(
    noun: str, names: Collection[str], *, has_code: bool = False
) -> Callable[[str], list[str]]:
    """Return the type of an option that takes several names as `name_or_code` does, each once, separated by
    commas."""
    parse = name_or_code(noun, names, has_code=has_code)

    def read(text: str) -> list[str]:
        texts = filter(None, map(str.strip, text.split(",")))
        return list(dict.fromkeys(map(parse, texts)))

    return read


def output_file(*endings: str) -> Callable[[str], str]:
    """Return the type of an option that names a file to write, with one of the endings."""
    return checked(
        str, lambda text: text.endswith(endings), f"a name ending in {' or '.join(endings)}"
    )


def folder(text: str) -> str:
    """Read the name of a folder to write to, which need not exist."""
    if not text:
        raise argparse.ArgumentTypeError("the name of a folder is missing; . is the working folder")
    for path in (Path(text), *Path(text).parents):
        if os.path.isfile(path):
            raise argparse.ArgumentTypeError(f"{path} is a file; give a folder")
    return text


def results_folder(text: str) -> str:
    """Read the name of a folder below `results/`, or an absolute path."""
    if ".." in Path(text).parts:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not below results/; give a name such as dm, or an absolute path"
        )
    folder(str(Path("results", text)))
    return text


# Types of many options
integer_from_0 = integer_from(0)
integer_from_1 = integer_from(1)
real_from_0 = real_number(at_least=0)
real_above_0 = real_number(above=0)
csv_file = output_file(".csv")
features_file = output_file(".npz")
html_file = output_file(".html")


def described(choices: Mapping[str, Any]) -> str:
    """Return choices, which are descriptions or rows of a table that have one, as a help text."""
    texts = []
    for name, choice in choices.items():
        texts.append(f"{name}: {getattr(choice, 'description', choice)}")
    return "; ".join(texts)
