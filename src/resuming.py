"""Where a run stands: one file beside its results, from the first epoch until the run is done."""

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.checkpoints import load_tensors, save_tensors
from src.config_file import recorded
from src.errors import UserError
from src.files import read_json

SINGLE = (str, int, float, bool, type(None))  # what a value of an option is, or the items of a list of them
# Options that may differ when a run goes on: they do not change what it computes.
FREE = ("gpu", "n_workers", "prefetch_factor", "verbose", "print_freq", "rank", "dist_url", "dist_backend")


class StateFile:
    """What a run needs to go on after it was killed.

    Args:
        path: of the file.
        options: the options of the run; only a run of the same options may go on from the file.
        resume: go on from the file if it is there. Otherwise what it says does not count.
        writes: False for all but the first of several processes that train together.
    Raises:
        UserError: the file is damaged, or of a run with other options; names the difference.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], *, resume: bool, writes: bool = True):
        self.path, self.options, self.writes = Path(path), as_written(options), writes
        self.content: dict[str, Any] = {}
        if resume and self.path.exists():
            self.content = read_state(self.path)
            refuse_other_options(self.content["options"], self.options, where=self.path)

    @property
    def reached(self) -> int:
        """The number of the training that is under way or was the last one, of those that share the file; -1: none."""
        reached = self.content.get("stage", -1)
        if not isinstance(reached, int):
            raise UserError(f"{self.path} does not say where a run stands; remove it and start anew")
        return reached

    def write(self, **content: Any) -> None:
        """Replace some of the content; what it holds besides stays."""
        self.content |= content
        if self.writes:
            save_tensors(self.path, {**self.content, "options": self.options})

    def remove(self) -> None:
        """Remove the file: the run is done."""
        self.path.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """The content of a state file.

    Raises:
        UserError: it is damaged, or does not say which options it is for.
    """
    content = load_tensors(path)
    if not isinstance(content, dict) or not are_options(content.get("options")):
        raise UserError(f"{path} does not say where a run stands; remove it and start anew")
    return content


def as_written(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are read back from a run's `config.txt`."""
    return json.loads(json.dumps(recorded(options)))


def refuse_other_options(begun: Mapping[str, Any], given: Mapping[str, Any], *, where: Path) -> None:
    """Compare the options of a run with those that it is to go on with.

    Raises:
        UserError: they differ in more than what may change; names the differences.
    """
    said = differences(begun, given)
    if said:
        raise UserError(
            f"{where} is of a run with other options ({said}); give the same ones, or start anew without --resume"
        )


def read_options(path: Path) -> dict[str, Any]:
    """The options in a run's `config.txt`.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    options = read_json(path)
    if not are_options(options):
        raise UserError(f"{path} holds no options; remove its folder")
    return options


def are_options(content: Any) -> bool:
    """Whether something that was read is a table of options: names with single values or lists of them."""
    return isinstance(content, dict) and all(
        isinstance(name, str)
        and all(isinstance(item, SINGLE) for item in (value if isinstance(value, list) else [value]))
        for name, value in content.items()
    )


def differences(begun: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """How the options of two runs differ, in words; empty if those that both have, and that matter, agree."""
    names = [
        name for name in begun if name in given and name not in FREE and _plain(begun[name]) != _plain(given[name])
    ]
    return ", ".join(f"{name} was {reprlib.repr(begun[name])}, now {given[name]!r}" for name in names)


def _plain(value: Any) -> Any:
    """An option's value; a path without what does not count in it, as in `models//a/`."""
    return os.path.normpath(value) if isinstance(value, str) else value
