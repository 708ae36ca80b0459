"""The options of runs, as `config.txt` keeps them: written, read back and compared. Importing this
spares torch."""

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.files import read_json, write_json
from src.network_names import FRESH, content_of
from src.results.weights import changed, names_of

NOT_RECORDED = (
    "config",
    "resume",
    "overwrite",
)  # a `config.txt` with them would not repeat the run
PLACES = ("save_dir", "source_dir", "output")  # where a run lies, which is no property of it
FREE = (  # options that do not change the results of a run
    *PLACES, "gpu", "n_workers", "prefetch_factor", "verbose", "print_freq", "title", "pdf",
)  # fmt: skip
EMPTY = {
    "scheduler": "none",
    "front_stitch_rank": None,
    "front_pinv_rank": None,
}  # for "" and 0 of the public code


def as_written(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that say what a run is, as `read_options` reads them back from its
    `config.txt`."""
    return json.loads(
        json.dumps({name: value for name, value in options.items() if name not in NOT_RECORDED})
    )


def write_options(path: Path, options: Mapping[str, Any]) -> None:
    """Write the `config.txt` of a run of these options."""
    write_json(path, as_written(options))


def read_options(path: Path) -> dict[str, Any]:
    """Read a `config.txt`, this suite's or the public code's."""
    options = read_json(path)
    if not isinstance(options, dict):
        raise UserError(f"{path} holds no options; remove its folder")
    return options | {
        name: value for name, value in EMPTY.items() if name in options and not options[name]
    }


def differences(begun: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Describe how the options of two runs differ; empty if those that both have, and that matter,
    agree.

    Not those of the content of a user's file: the state of an interrupted run and the checkpoints
    tell whether the networks that it builds are still the same."""
    names = [
        name
        for name in begun
        if name in given and name not in FREE and not name.endswith("_sha256")
    ]
    differing = [name for name in names if not _is_same(name, begun, given)]
    return ", ".join(
        f"{name} was {reprlib.repr(begun[name])}, now {given[name]!r}" for name in differing
    )


def refuse_other_options(
    begun: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    where: Path,
    remedy: str = "give the same ones, or start anew without --resume",
) -> None:
    """Raise a UserError that names the differences if the options of a run, or its networks, are
    not those given."""
    titles = changed(begun, given)
    if titles:
        raise UserError(f"{where} is of a run with earlier weights of {names_of(titles)}; {remedy}")
    differing = differences(begun, given)
    if differing:
        raise UserError(f"{where} is of a run with other options ({differing}); {remedy}")


def _is_same(name: str, begun: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Compare two values of an option; paths are the same if they name one place, or files of the
    same content.

    The content of a checkpoint is the recorded one.
    """
    weights = [options.get(f"{name}_sha256") for options in (begun, given)]
    if all(weights) and name.endswith("_path"):
        return (
            weights[0] == weights[1] or begun[name] == given[name] == FRESH
        )  # type and seed are options themselves
    one, other = begun[name], given[name]
    if not (isinstance(one, str) and isinstance(other, str)):
        return one == other
    if os.path.normpath(one) == os.path.normpath(other):
        return True
    return os.path.isfile(one) and os.path.isfile(other) and content_of(one) == content_of(other)
