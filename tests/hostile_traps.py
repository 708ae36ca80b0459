"""Files made to do harm: to run code, or to claim or to unpack to more than a machine has."""

import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tests.hostile_formats import (
    GIB,
    MARKER,
    Code,
    array_of_code,
    called,
    checkpoint,
    claiming,
    deflated,
    detectors,
    element,
    image,
    matlab,
    matrix,
    png,
    saved,
    stored,
    tensor_pickle,
    zipped,
)  # fmt: skip

HUGE = 2**33


class Trap(NamedTuple):
    """A file in place of a valid one, in the folder of one of the `READERS`."""

    reader: str
    file: str
    content: bytes
    said: str  # in the error


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
            "copies": b"\x80\2]c_codecs\nencode\nq\x000X\0\0\x10\0"
            + b"a" * 2**20
            + b"q\x010X\6\0\0\0latin1q\x020"
            + b"h\0h\1h\2\x86Ra" * 5000
            + b".",
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
