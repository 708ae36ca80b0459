"""Types of options: each reads the text of one, and refuses in one line what the option cannot
take."""

import argparse
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from src.errors import unknown_name
from src.network_names import file_and_function, is_user_network
from src.user_code import CODE, absolute, is_user_code

Value = TypeVar("Value")


def checked(
    read: Callable[[str], Value], is_allowed: Callable[[Value], bool], title: str
) -> Callable[[str], Value]:
    """Return the type of an option that takes what `read` reads without a ValueError, and what is
    allowed."""

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
    """Return the type of an option that takes a whole number from `minimum` on."""
    return checked(int, lambda number: number >= minimum, f"a whole number from {minimum} on")


def rank(text: str) -> int | None:
    """Read a rank: the type of an option; 0 is the full rank, as in the public code."""
    return whole_number(0)(text) or None


def real_number(
    *, at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf
) -> Callable[[str], float]:
    """Return the type of an option that takes a finite number within bounds."""
    bounds = {" at least": at_least, " above": above, " at most": at_most}
    limits = " and".join(
        f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)
    )
    return checked(
        float,
        lambda number: at_least <= number <= at_most and above < number < math.inf,
        f"a finite number{limits}",
    )


def cutoff(text: str) -> str:
    """Check a cutoff of singular values: the type of an option; equal numbers get one spelling."""
    if text in ("paper", "exact"):
        return text
    return str(
        checked(float, lambda number: 0 <= number < 1, "paper, exact or a number from 0 up to 1")(
            text
        )
    )


def network(text: str) -> str:
    """Read the name of a network: the type of an option; the path of a user's file becomes
    absolute."""
    if not is_user_network(text):
        return text
    file, function = file_and_function(text)
    return f"{file.expanduser().absolute()}:{function}"


def name_or_code(kind: str, names: Collection[str]) -> Callable[[str], str]:
    """Return the type of an option that takes one of some names, or the name of user code, whose
    path becomes absolute.

    Args:
        kind: what the option names, for the error.
    """

    def parse(text: str) -> str:
        if text not in names and not is_user_code(text):
            raise argparse.ArgumentTypeError(str(unknown_name(kind, text, [*names, CODE])))
        return absolute(text)

    return parse


def names_or_code(kind: str, names: Collection[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that takes several names as `name_or_code` does, with commas
    between them."""
    parse = name_or_code(kind, names)
    return lambda text: list(dict.fromkeys(parse(name) for name in text.split(",")))


def several(names: Collection[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that takes one or more of some names, with commas between
    them."""
    title = f"one or several of {', '.join(names)} with commas between them"
    return checked(
        lambda text: list(dict.fromkeys(text.split(","))),
        lambda chosen: set(chosen) <= set(names),
        title,
    )


def output_file(*endings: str) -> Callable[[str], str]:
    """Return the type of an option that names a file to write; files beside it differ from it in
    their endings."""
    return checked(
        str, lambda text: text.endswith(endings), f"a name that ends in {' or '.join(endings)}"
    )


csv_file = output_file(".csv")
figure_file = output_file(".png", ".pdf")
table_or_figure = output_file(".csv", ".png", ".pdf")


def described(choices: Mapping[str, Any]) -> str:
    """List choices and what they mean, for a help text; a choice is a text or has a
    `description`."""
    return "; ".join(
        f"{name}: {getattr(choice, 'description', choice)}" for name, choice in choices.items()
    )
