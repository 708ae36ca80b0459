"""The error that a user can mend, and how a wrong name is reported."""

import difflib
from collections.abc import Iterable

MAX_LENGTH = 4000


class UserError(Exception):
    """What was given, what is allowed and what to do, in one line; scripts print it and exit with code 2.

    What the line quotes may come from a stranger's file: it is cut, and what does not print is escaped.
    """

    def __init__(self, line: str):
        line = line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH // 2]} … {line[-MAX_LENGTH // 2 :]}"
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among `known`: the close ones first, then all of them."""
    known = list(known)
    close = difflib.get_close_matches(given, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UserError(f"unknown {kind} {given!r}; {hint}known: {', '.join(known)}")
