"""Files that appear whole or not at all, locks between processes, JSON and CSV."""

import contextlib
import csv
import fcntl
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from src.console import warn
from src.errors import Busy, UserError

FLUSHES = 32  # at a time: a disk writes what waits for it in one step

_batch: dict[Path, Path] | None = (
    None  # names of the files of an open block, by their temporary names
)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; raises what `write_blocks` raises."""
    write_blocks(path, [content])


def write_blocks(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file so that its final name never stands for half of it: write beside, flush, rename.

    On return the file and its name outlast a power cut; inside of `durable_together` at the end of
    that block.

    Raises:
        UserError: the folder is missing, not writable, or full.
    """
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.part"
    with durable_together() as batch:
        try:
            with _writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(temporary, "xb") as file:
                    file.writelines(blocks)
            batch[temporary] = path
        finally:
            if temporary not in batch:
                _remove(temporary)


@contextlib.contextmanager
def durable_together() -> Iterator[dict[Path, Path]]:
    """Flush all files that are written inside to the disk at the end at once, and then give them
    their names.

    Flushed one by one, many small files take most of the time of a small experiment. A file that
    marks others as complete is written after the block. A block inside of another one is a part of
    it.

    Raises:
        UserError: a file cannot be flushed or renamed; files that have no name yet are removed.
    """
    global _batch
    if _batch is not None:
        yield _batch
        return
    _batch = {}
    try:
        yield _batch
        _flush_and_rename(_batch)
    finally:
        for temporary in _batch:
            _remove(temporary)
        _batch = None


def _flush_and_rename(batch: Mapping[Path, Path]) -> None:
    with ThreadPoolExecutor(FLUSHES) as pool:
        list(pool.map(_flush, batch, batch.values()))  # raises the first error
        for temporary, path in batch.items():
            with _writing(path):
                os.replace(temporary, path)
        list(pool.map(_flush_folder, {path.parent for path in batch.values()}))


def _flush(temporary: Path, path: Path) -> None:
    with _writing(path), open(temporary, "rb") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the names of the files in a folder, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free or choose another place"
        ) from error


def write_text(path: Path, content: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON the way the public code does: four blanks of indent, no newline at the end."""
    write_text(path, json.dumps(content, indent=4))


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV with a header; floats keep every digit (Python's repr), what is missing stays
    empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


@contextlib.contextmanager
def readable(path: Path | str, remedy: str) -> Iterator[None]:
    """Turn whatever a missing or damaged file makes a library raise into a UserError that ends with
    the remedy."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else str(error)[:300]
        )
        raise UserError(
            f"cannot read {path}: {reason or type(error).__name__}; {remedy}"
        ) from error


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing, unreadable or not JSON; says which.
    """
    with readable(path, "it is to be JSON: restore or remove it"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def read_yaml(path: Path) -> dict[Any, Any]:
    """Read a mapping of plain values in YAML, or in JSON, which is a part of it.

    Raises:
        UserError: the file is missing, unreadable, or holds something else.
    """
    import yaml

    with readable(path, "it is to be YAML or JSON: lines such as `size: 32`"):
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
        if not isinstance(content, dict | type(None)):  # None where all lines are comments
            raise ValueError(f"it holds no options but {content!r}")
        return content or {}


def locked(path: Path, *, wait: bool = True) -> IO:
    """Keep other processes from locking a file until the returned one is closed, as by `with`, or
    this process ends.

    Raises:
        Busy: another process holds it, and this one is not to wait.
        UserError: the file cannot be created.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise UserError(f"cannot create {path}: {error.strerror or error}") from error
    try:
        # Unlike flock, this is not inherited by processes that decode images.
        fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise Busy(
            f"another run is writing to {path.parent}; wait for it, or choose another folder"
        ) from error
    except OSError as error:  # some network file systems have no locks
        warn(
            f"{path} cannot be locked ({error.strerror}); let one process at a time write to {path.parent}"
        )
        return file
    if not _is_at(path, file):  # the process that held it has removed it meanwhile
        file.close()
        return locked(path, wait=wait)
    return file


def _is_at(path: Path, file: IO) -> bool:
    """Return whether an open file is the one that has this name now."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False
