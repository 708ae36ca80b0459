"""Pieces of files that lie: formats put together by hand, with claims that no writer of them would make."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

MARKER = "code-ran"  # in the working folder, if it did
GIB = 2**30


class Code:
    """What runs when it is unpickled by someone who trusts it."""

    def __reduce__(self):
        return os.system, (f"touch {MARKER}",)


def saved(content: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def array_of_code() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Code()], dtype=object), allow_pickle=True)
    return file.getvalue()


def claiming(shape: tuple[int, ...], *, fortran_order: bool = False) -> bytes:
    """A `.npy` file of a few bytes."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": fortran_order, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(100)


def deflated(n_gib: int, beginning: bytes = b"", *, wrapped: bool = False) -> bytes:
    """A stream that inflates to a beginning and gigabytes of blanks."""
    packer = zlib.compressobj(wbits=15 if wrapped else -15)
    first = packer.compress(beginning) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b" " * 2**24) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (n_gib * GIB // 2**24) + packer.flush()


def zipped(members: dict[str, tuple[bytes, int, int]]) -> bytes:
    """A zip archive of members, each: content as it lies in the file, method of compression, size that is claimed."""
    body, contents = b"", b""
    for name, (content, method, size) in members.items():
        about = struct.pack("<4H3I2H", 0, method, 0, 0x21, 0, len(content), size, len(name), 0)
        contents += b"PK\1\2" + struct.pack("<2H", 20, 20) + about + struct.pack("<3H2I", 0, 0, 0, 0, len(body))
        contents += name.encode()
        body += b"PK\3\4" + struct.pack("<H", 20) + about + name.encode() + content
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(members), len(members), len(contents), len(body), 0)
    return body + contents + end


def stored(content: bytes) -> tuple[bytes, int, int]:
    """A member that claims nothing."""
    return content, zipfile.ZIP_STORED, len(content)


def checkpoint(pickled: bytes) -> bytes:
    """torch's zip format around a pickle, and a storage of four bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", bytes(4))
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
    return file.getvalue()


def tensor_pickle(*, count: int, size: int, stride: int) -> bytes:
    """A state dict of one tensor, which says of itself what it likes."""

    def number(n: int) -> bytes:
        return b"\x8a\x08" + n.to_bytes(8, "little", signed=True)

    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpu" + number(count) + b"tQ"
    arguments = b"(" + storage + b"K\0" + number(size) + b"\x85" + number(stride) + b"\x85\x89}t"
    return b"\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def called(function: str, argument: int) -> bytes:
    """A pickle that calls a function with a number."""
    return (
        b"\x80\2c" + function.replace(" ", "\n").encode() + b"\n\x8a\x08" + argument.to_bytes(8, "little") + b"\x85R."
    )


def matlab(*elements: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x100) + b"IM" + b"".join(elements)


def element(kind: int, content: bytes, *, size: int | None = None) -> bytes:
    padding = bytes(-len(content) % 8) if kind != 15 else b""
    return struct.pack("<II", kind, len(content) if size is None else size) + content + padding


def matrix(shape: tuple[int, ...], content: bytes, *, array_class: int = 9) -> bytes:
    dimensions = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, element(6, struct.pack("<II", array_class, 0)) + dimensions + element(1, b"X") + content)


def png(width: int, height: int) -> bytes:
    """The beginning of an image, and no pixels."""
    chunk = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def image(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def detectors(valid: Path, **changes: object) -> bytes:
    """A table of detectors with other values."""
    ((name, entry),) = json.loads(valid.read_text()).items()
    return json.dumps({name: entry | changes}).encode()
