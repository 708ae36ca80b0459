"""Files made to do harm: to run code, or to claim or to unpack to more than a machine has."""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

MARKER = "code-ran"  # in the working folder, if it did
GIB = 2**30
HUGE = 2**33


class Trap(NamedTuple):
    """A file in place of a valid one, in the folder of one of the `READERS`."""

    reader: str
    file: str
    content: bytes
    said: str  # in the error


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


Row = tuple[str, str, str, dict[str, bytes]]  # reader, file, what the error says, contents by what they try


def checkpoints() -> Iterator[Row]:
    """Files in torch's formats: code, other objects, claims of memory, members that inflate."""
    yield (
        "checkpoint, zip",
        "m.pt",
        "holds more than tensors, or is damaged",
        {
            "code": saved({"a": Code()}),
            "buffer": checkpoint(called("__builtin__ bytearray", HUGE)),
            "tensor": checkpoint(called("torch FloatTensor", HUGE)),
            "quantised": checkpoint(called("torch QInt8Storage", 1)),
            "sparse": saved({"a": torch.eye(3).to_sparse()}),
            "meta": saved({"a": torch.zeros(10**12, device="meta")}),
            "deep key": checkpoint(b"\x80\2}K\1" + b"\x85" * 10**6 + b"K\2s."),
        },
    )
    yield (
        "checkpoint, legacy",
        "m.pt",
        "holds more than tensors, or is damaged",
        {
            "code": saved({"a": Code()}, zipped=False),
            "code in a plain pickle": pickle.dumps({"a": Code()}),
        },
    )
    yield (
        "checkpoint, zip",
        "m.pt",
        "is damaged or no checkpoint at all",
        {
            "storage": checkpoint(tensor_pickle(count=HUGE, size=HUGE, stride=1)),
            "view that repeats": checkpoint(tensor_pickle(count=1, size=HUGE, stride=0)),
            "view outside": checkpoint(tensor_pickle(count=1, size=4, stride=1)),
            "negative size": checkpoint(tensor_pickle(count=1, size=-4, stride=1)),
            "bomb": zipped({"a/data.pkl": (deflated(4), zipfile.ZIP_DEFLATED, 2**32 - 1)}),
            "member": zipped({"a/data.pkl": (b"x", zipfile.ZIP_STORED, 2**32 - 1)}),
        },
    )
    yield "checkpoint, zip", "m.pt", "does not fit small_cnn", {"memo": checkpoint(b"\x80\2}r\xff\xff\xff\x7f.")}
    yield "state", "a.resume.pt", "holds more than tensors, or is damaged", {"code": saved({"options": Code()})}
    yield (
        "state",
        "a.resume.pt",
        "does not say where a run stands",
        {
            "tensors": saved({"options": {"seed": torch.ones(2)}}),
            "list": saved([1]),
            "none": saved({"options": None}),
        },
    )


def texts(meta: Path) -> Iterator[Row]:
    """YAML, JSON and CSV: code, references to references, deep nesting, huge numbers, values of other kinds."""
    letters = range(ord("b"), ord("z"))
    yield "options in YAML", "options", "neither YAML nor JSON", {
        "code": f"seed: !!python/object/apply:os.system ['touch {MARKER}']".encode(),
        "laughs": b"a: &a [x]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b"*%c, " % (c - 1) * 9) for c in letters),
        "merges": b"a: &a {}\n" + b"".join(b"%c: &%c {<<: [%s]}\n" % (c, c, b"*%c, " % (c - 1) * 9) for c in letters),
        "deep": b"[" * 50_000,
        "binary": b"\xff\xfe\x00",
        "number": b"seed: " + b"9" * 5000,
            "name": b"0x" + b"f" * 9000 + b": 1",
    }  # fmt: skip
    yield "run folders", "2024-01-01/config.txt", "is not valid JSON", {"deep": b"[" * 10**6, "number": b"9" * 5000}
    numbers = b'"front_stitch_rank": 1, "front_pinv_rank": 1, "seed": 1'
    yield (
        "run folders",
        "2024-01-01/config.txt",
        "is no folder of a stitching run",
        {"layers": b'{"front_layer": 3, "end_layer": "a\\u0000", "stitching_type": "x", "init": null, %s}' % numbers},
    )
    yield (
        "run folders",
        "2024-01-01/config.txt",
        "holds no options",
        {"list": b"[1]", "nested": b'{"init": {"a": 1}}'},
    )
    yield (
        "run folders",
        "2024-01-01/metrics.json",
        "is no folder of a stitching run",
        {"number": b'{"accuracy": 1%s}' % (b"0" * 999)},
    )
    yield "tables", "grid.csv", "grid.csv", {"nul": bytes(99), "field": b'"' + b"x" * 10**6, "bytes": b"\xff"}
    yield (
        "detector table",
        "store/meta.json",
        "lacks a shape as required_input_shape",
        {
            "huge shape": detectors(meta, required_input_shape=[10**9, 10**9]),
            "shape of fractions": detectors(meta, required_input_shape=[1e300, 3]),
        },
    )
    yield (
        "detector table",
        "store/meta.json",
        "does not fit the detector repr_cls_vit_gigantic",
        {"huge network": detectors(meta, model_type="repr_cls_vit_gigantic")},
    )
    yield "detector table", "store/meta.json", "lacks a name as model_type", {"list": detectors(meta, model_type=["x"])}


def datasets() -> Iterator[Row]:
    """Pickles, MATLAB files and arrays: code, objects, claims of memory, members that inflate."""
    yield (
        "cifar10",
        "cifar-10-batches-py/data_batch_1",
        "cannot be read as cifar10",
        {
            "code": pickle.dumps({"data": Code()}),
            "memo": b"\x80\4}r\xff\xff\xff\x7f.",
            "bytes": b"\x80\5\x8e" + struct.pack("<Q", 2**40) + b".",
            "buffer": b"\x80\5\x96" + struct.pack("<Q", HUGE) + b".",
            "frame": b"\x80\4\x95" + struct.pack("<Q", 2**40) + b".",
            "array": called("numpy ndarray", HUGE),
            "objects": pickle.dumps({"data": np.array([None]), "labels": [1]}),
        },
    )
    yield (
        "svhn",
        "train_32x32.mat",
        "cannot be read as svhn",
        {
            "cells": matlab(matrix((2**15, 2**15), b"", array_class=1)),
            "element": matlab(element(14, b"", size=2**32 - 1)),
            "bomb": matlab(element(15, deflated(4, struct.pack("<II", 14, 2**32 - 8), wrapped=True))),
            "shape": matlab(matrix((32, 32, 3, 2**31 - 1), element(2, bytes(8)))),
            "other version": bytes(200),
        },
    )
    file, header, objects = "300K_random_images.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 3 * GIB), array_of_code()
    yield "300K images", file, "Python objects", {"code": objects}
    yield "300K images", file, "truncated", {"shape": claiming((HUGE, 32, 32, 3))}
    yield "300K images", file, "Fortran order", {"order": claiming((1, 32, 32, 3), fortran_order=True)}
    yield "300K images", file, "no header", {"header": header}
    inflating = (deflated(3, header), zipfile.ZIP_DEFLATED, 2**32 - 1)
    yield (
        "cifar5m",
        "cifar5m_part0.npz",
        "cannot be read",
        {
            "code": zipped({"X.npy": stored(objects), "Y.npy": stored(objects)}),
            "header that inflates": zipped({"X.npy": inflating, "Y.npy": stored(b"")}),
        },
    )


def images(file: str) -> Iterator[Row]:
    """Images of too many pixels, images that a transform would enlarge to as many, and a program."""
    for reader in ("imagenet", "imagenet_mem"):
        yield (
            reader,
            file,
            "cannot be decoded",
            {
                "bomb": png(100_000, 100_000),
                "large": png(10_000, 10_000),
                "none": png(0, 0),
                "narrow": image(1, 60_000),
                "wide": image(60_000, 1),
                "program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n",
            },
        )


def traps(folder: Path) -> dict[str, Trap]:
    """All traps by name, for the valid files of all readers in a folder."""
    meta = folder / "detector table" / "store" / "meta.json"
    file = min((folder / "imagenet").glob("validation_data/*/*.JPEG")).relative_to(folder / "imagenet")
    rows = (*checkpoints(), *texts(meta), *datasets(), *images(str(file)))
    return {
        f"{reader}: {name}": Trap(reader, path, content, said)
        for reader, path, said, contents in rows
        for name, content in contents.items()
    }
