"""Members of `.npz` archives as places to map: in place when stored, or unpacked beside the archive, once."""

import math
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from src import files, report
from src.datasets.npy_files import Header, Place, file_place, header_at, read_header
from src.errors import UserError

BLOCK = 2**20  # bytes held in memory while unpacking
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., lengths of the name and of the extra field
ENCRYPTED = 1
DAMAGES = (ValueError, KeyError, OSError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)


class Member(NamedTuple):
    """An array of an archive."""

    archive: Path
    name: str

    @property
    def unpacked(self) -> Path:
        """Where the array lies once unpacked: `part.npz` and `X` give `part_X.npy`, beside the archive."""
        return self.archive.with_name(f"{self.archive.stem}_{self.name}.npy")

    @property
    def file(self) -> Path:
        """The archive, or the unpacked array where the archive was removed since."""
        return self.archive if self.archive.is_file() or not self.unpacked.is_file() else self.unpacked

    def info(self) -> zipfile.ZipInfo | None:
        """What the archive says of the array; None: there is no archive, only the unpacked array.

        Raises:
            ValueError: the archive is truncated or none at all, is encrypted, or has no such member.
        """
        if self.file == self.unpacked:
            return None
        try:
            with zipfile.ZipFile(self.archive) as archive:
                members = {info.filename: info for info in archive.infolist()}
        except zipfile.BadZipFile as error:
            raise ValueError(f"truncated, or no .npz: {error}") from error
        if f"{self.name}.npy" not in members:
            raise ValueError(f"it holds no {self.name}, but {', '.join(members) or 'nothing'}")
        info = members[f"{self.name}.npy"]
        if info.flag_bits & ENCRYPTED:
            raise ValueError("it is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is not compressed as numpy does it")
        return info

    def header(self) -> Header:
        """Read the header of the array, wherever it lies; raises what `info` and `read_header` raise."""
        info = self.info()
        if info is None:
            return header_at(file_place(self.unpacked))
        with zipfile.ZipFile(self.archive) as archive, archive.open(info) as stream:
            return read_header(stream, size=info.file_size)

    def place(self) -> Place | None:
        """Where the array can be mapped; None: it has to be unpacked first.

        Raises:
            ValueError: the archive ends before the array does; or as `info`.
        """
        info = self.info()
        if info is None:
            return file_place(self.unpacked)
        if info.compress_type == zipfile.ZIP_STORED:
            return _stored_place(self.archive, info)
        if self.unpacked.is_file():
            unpacked, archive = self.unpacked.stat(), self.archive.stat()
            if unpacked.st_size == info.file_size and unpacked.st_mtime >= archive.st_mtime:
                return file_place(self.unpacked)
        return None  # or unpacked from an archive that this one has replaced


def places(members: Sequence[Member]) -> list[Place]:
    """Where the arrays can be mapped, after those that are compressed were unpacked, once and for all.

    Processes that want the same wait for the first. An array appears whole or not at all.

    Raises:
        UserError: there is no room for the unpacked arrays, or the folder is not writable; or an archive is damaged.
    """
    pending = [member for member in members if member.place() is None]
    if pending:
        folder = pending[0].archive.parent
        with files.locked(folder / ".unpacking.lock"):
            _unpack_all([member for member in pending if member.place() is None], folder)
    return [member.place() for member in members]


def _stored_place(archive: Path, info: zipfile.ZipInfo) -> Place:
    with open(archive, "rb") as file:
        file.seek(info.header_offset)
        signature, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    offset = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
    if signature != b"PK\3\4" or offset + info.file_size > archive.stat().st_size:
        raise ValueError(f"{info.filename} is not where the list of contents says")
    return Place(archive, offset, info.file_size)


def _unpack_all(members: Sequence[Member], folder: Path) -> None:
    for member in members:
        _partial(member).unlink(missing_ok=True)  # of a process that was killed; it takes room
    needed = sum(member.info().file_size for member in members)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: no room to unpack {', '.join(member.unpacked.name for member in members)}: "
            f"{needed} bytes are needed, {free} are free, {needed - free} are missing; free them and run again"
        )
    if members:
        report.note(f"unpacking {needed / 2**30:.2f} GiB of arrays in {folder}; this is done once")
    for member in members:
        _unpack(member)


def _partial(member: Member) -> Path:
    return member.unpacked.with_name(f".{member.unpacked.name}.part")


def _unpack(member: Member) -> None:
    """Write the bytes of a compressed member, which are those of a `.npy` file, beside its archive."""
    unfinished = _partial(member)
    try:
        with zipfile.ZipFile(member.archive) as archive, open(unfinished, "wb") as file:
            info = member.info()
            with archive.open(info) as stream:
                n_blocks = math.ceil(info.file_size / BLOCK)
                for block in report.progress(_blocks(stream), member.unpacked.name, n_blocks, unit="MiB"):
                    file.write(block)
            if file.tell() != info.file_size:
                raise ValueError(f"{file.tell()} bytes instead of {info.file_size}")
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, member.unpacked)
    except DAMAGES as error:
        raise UserError(
            f"cannot unpack {member.name} of {member.archive} into {member.unpacked} ({error}); "
            "if the archive is damaged, fetch it again"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """The rest of a stream; at its end the checksum is compared."""
    return iter(partial(stream.read, BLOCK), b"")
