"""Types of options: each reads the text of one and refuses what the option cannot take."""

import argparse
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from src.errors import UserError


def whole_number(minimum: int) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number from `minimum` on (and that fits into 63 bits)."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if not minimum <= number < 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} on")
        return number

    return parse


def described(choices: Mapping[str, Any]) -> str:
    """List choices and what they mean, for a help text; a choice is a text or has a `description`."""
    return "; ".join(f"{name}: {getattr(choice, 'description', choice)}" for name, choice in choices.items())


def output_file(kind: str, *endings: str) -> Callable[[str], str]:
    """Return the type of an option that names a file to write; files beside it differ in their ending.

    Args:
        kind: what it is to be, such as "a figure".
    """

    def parse(text: str) -> str:
        if not text.endswith(endings):
            message = f"{text} must be {kind}; give it a name that ends in {' or '.join(endings)}"
            raise argparse.ArgumentTypeError(message)
        return text

    return parse


csv_file = output_file("a CSV", ".csv")
figure_file = output_file("a figure", ".png", ".pdf")
table_or_figure = output_file("a CSV or a figure", ".csv", ".png", ".pdf")


def rank(text: str) -> int | None:
    """Read a rank: the type of an option; 0 is the full rank, as in the public code."""
    return whole_number(0)(text) or None


def several(names: Collection[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that takes one or more of some names, with commas between them."""

    def parse(text: str) -> list[str]:
        chosen = list(dict.fromkeys(text.split(",")))
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {', '.join(names)})")
        return chosen

    return parse


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Return the type of an option that takes a name in any case; what is unknown is left for `choices` to refuse."""
    return lambda text: next((name for name in names if name.lower() == text.lower()), text)


def whole_number_or(word: str, *, minimum: int) -> Callable[[str], int | str]:
    """Return the type of an option that takes a whole number from `minimum` on, or a word."""
    return lambda text: word if text == word else whole_number(minimum)(text)


def cutoff(text: str) -> str:
    """Check a cutoff of singular values: the type of an option; equal numbers get one spelling."""
    if text in ("paper", "exact"):
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not paper, exact or a number from 0 up to 1")
    return str(number)


def real_number(
    *, at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf
) -> Callable[[str], float]:
    """Return the type of an option that takes a finite number within bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < at_least or number <= above or number > at_most:
            bounds = {" at least": at_least, " above": above, " at most": at_most}
            limits = " and".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite number{limits}")
        return number

    return parse


def dataset(text: str) -> str:
    """Check the name of a data set, in the table or on disk: the type of an option."""
    from src.datasets import dataset_name

    try:
        return dataset_name(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def dataset_help() -> str:
    """List what such an option can name."""
    from src.datasets import DATASET_NAMES

    return f"one of {', '.join(DATASET_NAMES)}, a folder of images, or an .npz file"
