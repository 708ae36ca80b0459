"""Types of options: each reads the text of one, and refuses in one line what the option cannot take."""

import argparse
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from src.errors import UserError

Value = TypeVar("Value")


def checked(read: Callable[[str], Value], is_allowed: Callable[[Value], bool], title: str) -> Callable[[str], Value]:
    """Return the type of an option that takes what `read` reads without a ValueError, and what is allowed."""

    def parse(text: str) -> Value:
        try:
            value = read(text)
        except ValueError:
            value = None
        if value is None or not is_allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {title}")
        return value

    return parse


def whole_number(minimum: int) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number from `minimum` on (and that fits into 63 bits)."""
    return checked(int, lambda number: minimum <= number < 2**63, f"a whole number from {minimum} on")


def whole_number_or(word: str, *, minimum: int) -> Callable[[str], int | str]:
    """Return the type of an option that takes a whole number from `minimum` on, or a word."""
    return lambda text: word if text == word else whole_number(minimum)(text)


def rank(text: str) -> int | None:
    """Read a rank: the type of an option; 0 is the full rank, as in the public code."""
    return whole_number(0)(text) or None


def real_number(
    *, at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf
) -> Callable[[str], float]:
    """Return the type of an option that takes a finite number within bounds."""
    bounds = {" at least": at_least, " above": above, " at most": at_most}
    limits = " and".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))

    def is_allowed(number: float) -> bool:
        return math.isfinite(number) and at_least <= number <= at_most and number > above

    return checked(float, is_allowed, f"a finite number{limits}")


def cutoff(text: str) -> str:
    """Check a cutoff of singular values: the type of an option; equal numbers get one spelling."""
    if text in ("paper", "exact"):
        return text
    return str(checked(float, lambda number: 0 <= number < 1, "paper, exact or a number from 0 up to 1")(text))


def several(names: Collection[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that takes one or more of some names, with commas between them."""

    def parse(text: str) -> list[str]:
        chosen = list(dict.fromkeys(text.split(",")))
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {', '.join(names)})")
        return chosen

    return parse


def output_file(kind: str, *endings: str) -> Callable[[str], str]:
    """Return the type of an option that names a file to write, such as "a figure"; files beside it differ in ending."""

    def parse(text: str) -> str:
        if not text.endswith(endings):
            message = f"{text} must be {kind}; give it a name that ends in {' or '.join(endings)}"
            raise argparse.ArgumentTypeError(message)
        return text

    return parse


csv_file = output_file("a CSV", ".csv")
figure_file = output_file("a figure", ".png", ".pdf")
table_or_figure = output_file("a CSV or a figure", ".csv", ".png", ".pdf")


def dataset(text: str) -> str:
    """Check the name of a data set, in the table or on disk: the type of an option."""
    from src.datasets import dataset_name

    try:
        return dataset_name(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def described(choices: Mapping[str, Any]) -> str:
    """List choices and what they mean, for a help text; a choice is a text or has a `description`."""
    return "; ".join(f"{name}: {getattr(choice, 'description', choice)}" for name, choice in choices.items())
