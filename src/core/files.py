"""Atomic writing of files, locks between processes, and reading and writing of JSON, YAML, CSV and arrays.

Atomic means that a file stands under its name whole or not at all, even after a power cut.
"""

import contextlib
import csv
import fcntl
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from src.core.console import warn
from src.core.errors import Busy, UserError

if TYPE_CHECKING:
    import numpy as np

N_FLUSHES = 32  # at a time: a disk writes all waiting files in one step

Batch = dict[Path, Path]  # final names of written files, by their temporary names
_batch: Batch | None = None  # files of the `durable_together` block that is open now


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically; errors as `new_file`."""
    with new_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be written by the block; it appears under its name whole, after the block.

    The block writes a temporary file, which is flushed and renamed. Behind the block the file and its
    name outlast a power cut. Within `durable_together` they do so at the end of that block.

    Raises:
        UserError: the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.part"
    with durable_together() as batch:
        try:
            with _writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(temporary, "xb") as file:
                    yield file
            batch[temporary] = path
        finally:
            if temporary not in batch:
                _remove(temporary)


@contextlib.contextmanager
def durable_together() -> Iterator[Batch]:
    """Flush and rename all files that the block writes in one step, at the end of the block.

    Many small files flushed singly would take most of the time of a small experiment. A file that
    marks an experiment as complete is to be written after the block. A block inside another block
    is a part of it.

    Yields:
        The final names of the files written so far, by their temporary names.
    Raises:
        UserError: a file cannot be flushed or renamed. Files not yet renamed are removed.
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


def _flush_and_rename(batch: Batch) -> None:
    with ThreadPoolExecutor(N_FLUSHES) as pool:
        list(pool.map(_flush, batch, batch.values()))  # list() raises the first error
        for temporary, path in batch.items():
            with _writing(path):
                os.replace(temporary, path)
        list(pool.map(_flush_folder, {path.parent for path in batch.values()}))


def _flush(temporary: Path, path: Path) -> None:
    with _writing(path), open(temporary, "rb") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the names of the files in a folder, on file systems that can do it."""
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
    """Turn an OSError of the block into a UserError about writing a file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space, or choose another folder"
        ) from error


def write_text(path: Path, content: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically, laid out as by the public code: indent of 4, no newline at the end."""
    write_text(path, json.dumps(content, indent=4))


def write_arrays(
    path: Path, arrays: "Mapping[str, np.ndarray]", *, is_compressed: bool = True
) -> None:
    """Write arrays as an `.npz` file atomically."""
    import numpy as np

    save = np.savez_compressed if is_compressed else np.savez
    with new_file(path) as file:
        save(file, **dict(arrays))  # type: ignore[arg-type]  # numpy's stubs know no names


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV with a header atomically; a missing value is empty, floats keep every digit.

    Raises:
        UserError: as `new_file`.
        ValueError: a row has a key that is no column.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """Return the rows of a CSV with a header, by column."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@contextlib.contextmanager
def readable(path: Path | str, remedy: str) -> Iterator[None]:
    """Turn any exception of a block that reads a file into a UserError about that file.

    Libraries raise all kinds of exceptions on missing and damaged files. A UserError of the block
    stays.

    Args:
        path: names the file in the message.
        remedy: what the user can do; ends the message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error)[:300] or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8 text"
        raise UserError(f"cannot read {path}: {reason}; {remedy}") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; a UserError if it cannot be read or is not JSON."""
    with readable(path, "restore the file, which has to be JSON, or remove it"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def read_yaml(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML or JSON file; {} if the file holds comments only.

    Raises:
        UserError: the file is missing or unreadable, or holds something else than a mapping.
    """
    import yaml

    with readable(path, "write YAML or JSON, with lines such as `size: 32`"):
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise ValueError(f"it holds {content!r} instead of options")
        return content


# The locked files of this process, with its number, which a fork does not share. The system asks no
# process about its own locks, and closing any file of that path opens them.
_HELD: "WeakKeyDictionary[IO, int]" = WeakKeyDictionary()


def locked(path: Path, *, wait: bool = True) -> IO:
    """Lock a file for this process, and return it open.

    The lock holds until the returned file is closed (use it in a `with`), or this process ends. On
    a file system without locks there is a warning and no lock.

    Args:
        path: the lock file, which is created if it is missing.
        wait: wait while another process holds the lock.
    Raises:
        Busy: this process holds the lock; or another one does, and `wait` is false.
        UserError: the file cannot be created.
    """
    path = Path(path)
    busy = Busy(f"another run is writing to {path.parent}; wait for it, or choose another folder")
    if any(pid == os.getpid() and _is_at(path, held) for held, pid in _HELD.items()):
        raise busy
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.absolute(), "a")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise UserError(
            f"cannot create {path}: {error.strerror or error}; choose another folder"
        ) from error
    operation = fcntl.LOCK_EX
    if not wait:
        operation |= fcntl.LOCK_NB
    try:
        # Unlike flock, this lock is not inherited by the worker processes that decode images
        fcntl.lockf(file, operation)
    except BlockingIOError as error:
        file.close()
        raise busy from error
    except OSError as error:  # some network file systems have no locks
        warn(
            f"{path} cannot be locked ({error.strerror}); "
            f"let one process at a time write to {path.parent}"
        )
        return file
    if not _is_at(path, file):  # the process that held the lock has removed the file
        file.close()
        return locked(path, wait=wait)
    _HELD[file] = os.getpid()
    return file


@contextlib.contextmanager
def locks_released() -> Iterator[None]:
    """Release the locks that the block takes, at its end, and remove their files: an error leaves locks behind."""
    before = set(_HELD)
    try:
        yield
    finally:
        for file in set(_HELD) - before:
            if _HELD[file] == os.getpid() and _is_at(Path(file.name), file):
                os.unlink(file.name)
            file.close()


def _is_at(path: Path, file: IO) -> bool:
    """Return whether an open file still stands under its path."""
    with contextlib.suppress(OSError, ValueError):  # the path does not exist, or the file is closed
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False
