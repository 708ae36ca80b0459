"""What is left to do in a folder of stitching runs, and the state of those that were interrupted."""

import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.report import warn
from src.resuming import StateFile, as_written, differences, read_options, read_state, refuse_other_options
from src.stitching.results import EXPERIMENT
from src.stitching.stitched_model import Pair

# What makes a run another experiment, so that both may be in one folder. Where only other options differ, such as the
# learning rate, a resumed command would not do what it was given, and is refused.
IDENTITY = (*Pair._fields, *(name for name in EXPERIMENT if name != "n_epochs"))
ABSENT = {"objective": "task"}  # what an option that runs of earlier versions do not name was
SUFFIX = ".resume.pt"


def finished_pairs(directory: Path, pairs: Collection[Pair], options: Mapping[str, Any]) -> set[Pair]:
    """The pairs that have a finished run of the given options.

    Raises:
        UserError: a pair has only runs that differ in options other than its identity; names the differences.
    """
    finished, refused = set(), {}
    for config in sorted(Path(directory).glob("*/config.txt")):
        try:
            begun = read_options(config)
        except UserError as error:
            warn(str(error))
            continue
        pair = Pair(str(begun.get("front_layer")), str(begun.get("end_layer")))
        given = as_written({**options, **pair._asdict()})
        if pair not in pairs or not _same_experiment(begun, given):
            continue
        if differences(begun, given):
            refused[pair] = (begun, given, config.parent)
        else:
            finished.add(pair)
    for pair, (begun, given, folder) in refused.items():
        if pair not in finished:
            refuse_other_options(begun, given, where=folder)
    return finished


def new_state(directory: Path, options: Mapping[str, Any]) -> StateFile:
    """The state of runs that begin; the file is not written yet."""
    return StateFile(Path(directory) / f"{uuid.uuid4().hex}{SUFFIX}", options, resume=False)


def find_state(directory: Path, options: Mapping[str, Any]) -> StateFile:
    """The state of interrupted runs of the given options, or a new one where there are none.

    Raises:
        UserError: there are interrupted runs of the same experiment with other options; names the differences.
    """
    given = as_written(options)
    found = []
    for path in sorted(Path(directory).glob(f"*{SUFFIX}")):
        try:
            begun = read_state(path)["options"]
            if _same_experiment(begun, given):
                found.append((bool(differences(begun, given)), path))
        except UserError:
            warn(f"{path} is damaged and was left out")
    return StateFile(min(found)[1], options, resume=True) if found else new_state(directory, options)


def _same_experiment(begun: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    begun, given = ABSENT | dict(begun), ABSENT | dict(given)
    return all(begun.get(name) == given.get(name) for name in IDENTITY)
