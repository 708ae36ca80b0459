"""The files that a command writes beside its `-o`: they replace files that it wrote before, and
nothing else.

A record beside them, `NAME.run.json`, names the script and its files. This module does not import torch.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from src.core.console import listed
from src.core.errors import UserError
from src.core.files import durable_together, read_json, write_json
from src.core.provenance import provenance

BESIDE_TABLES = (".png", ".pdf")  # endings of the figure of a table


@contextlib.contextmanager
def outputs(path: str | Path, script: str) -> Iterator[None]:
    """Write the files of a command that keeps no run; arguments and errors as for `replacing`.

    Args:
        path: of `-o`.
        script: the file of the script.
    """
    start = datetime.now()
    with replacing(record_of(path), script, lambda: provenance(gpu=-1, start=start)):
        yield


def record_of(path: str | Path) -> Path:
    """Return the path of the record beside a file that `-o` names."""
    if Path(path).suffix == ".html":  # a table of this name has a record of its own
        return Path(path).with_suffix(".html.run.json")
    return Path(path).with_suffix(".run.json")


def check_output(path: str | Path, script: str) -> None:
    """Raise a UserError if the file of `-o`, or the figure beside it, exists, and the script did
    not write it."""
    paths = [Path(path), Path(path).with_suffix(".png")]
    if Path(path).suffix == ".html":
        paths = paths[:1]
    refuse_others(paths, files_of(record_of(path), script))


@contextlib.contextmanager
def replacing(
    record: Path,
    script: str,
    content: Callable[[], Mapping[str, object]],
    config: Path | None = None,
) -> Iterator[None]:
    """Let the files that the block writes appear in one step, with their record.

    Files of an earlier call that the block does not write are removed.

    Args:
        record: the path of the record.
        script: the file of the script.
        content: gives the content of the record, but for script and files.
        config: the options of the run, which the caller writes behind the block.

    Raises:
        UserError: a file exists that the script did not write. No file has changed.
    """
    before = files_of(record, script)
    further = {record} if config is None else {record, config}
    with durable_together() as batch:
        yield
        written = {*batch.values(), *further}
        refuse_others(written, before)
        names = sorted(os.path.relpath(path, record.parent) for path in written)
        write_json(record, {**content(), "script": Path(script).name, "files": names})
        for temporary in list(batch)[:-1]:  # the record is renamed first: no file is without it
            batch[temporary] = batch.pop(temporary)
        for path in before - _absolute(batch.values()):  # the options among them
            path.unlink(missing_ok=True)


def files_of(record: Path, script: str) -> set[Path]:
    """Return the files that a script wrote earlier, by its record; empty without such a record."""
    if not record.is_file():
        return set()
    content = read_json(record)
    if content.get("script") != Path(script).name:
        return set()
    return _absolute(record.parent / name for name in content["files"])


def refuse_others(paths: Iterable[Path], before: set[Path]) -> None:
    """Raise a UserError for files that exist and are not of an earlier call.

    Args:
        paths: of files to write.
        before: from `files_of`.
    """
    foreign = sorted(str(path) for path in paths if path.exists() and path.absolute() not in before)
    if foreign:
        raise UserError(
            f"{listed(foreign)}: not written by an earlier call of this script, which replaces no other files; "
            "give another -o, or move them"
        )


def _absolute(paths: Iterable[Path]) -> set[Path]:
    return {path.absolute() for path in paths}
