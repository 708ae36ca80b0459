"""Files made to do harm: to run code, or to claim or to unpack to more than a machine has."""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
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


def array(content: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, content, allow_pickle=True)
    return file.getvalue()


def claiming(shape: tuple[int, ...], *, dtype: str = "|u1", order: bool = False) -> bytes:
    """A `.npy` file of a few bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": order, "shape": shape})
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
    return b"\x80\2c" + function.replace(" ", "\n").encode() + b"\n\x8a\x08" + argument.to_bytes(8, "little") + b"\x85R."


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


def traps(folder: Path) -> dict[str, Trap]:
    """All of them, by what they try."""
    code = Code()
    made: dict[str, Trap] = {}

    def add(reader: str, file: str, said: str, **contents: bytes) -> None:
        for name, content in contents.items():
            made[f"{reader}: {name}"] = Trap(reader, file, content, said)

    more = "holds more than tensors, or is damaged"
    add("checkpoint, zip", "m.pt", more, code=saved({"a": code}), buffer=checkpoint(called("__builtin__ bytearray", HUGE)),
        tensor=checkpoint(called("torch FloatTensor", HUGE)), sparse=saved({"a": torch.eye(3).to_sparse()}),
        quantised=saved({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
        meta=saved({"a": torch.zeros(10**12, device="meta")}),
        deep_key=checkpoint(b"\x80\2}K\1" + b"\x85" * 10**6 + b"K\2s."))  # fmt: skip
    add("checkpoint, legacy", "m.pt", more, code=saved({"a": code}, zipped=False), plain=pickle.dumps({"a": code}))
    add("checkpoint, zip", "m.pt", "is damaged or no checkpoint at all",
        storage=checkpoint(tensor_pickle(count=HUGE, size=HUGE, stride=1)),
        view=checkpoint(tensor_pickle(count=1, size=HUGE, stride=0)),
        outside=checkpoint(tensor_pickle(count=1, size=4, stride=1)),
        negative=checkpoint(tensor_pickle(count=1, size=-4, stride=1)),
        bomb=zipped({"a__data.pkl": (deflated(4), 8, 2**32 - 1)}),
        stored_twice=zipped({"a__data.pkl": (b"x", 0, 2**32 - 1)}))  # fmt: skip
    add("checkpoint, zip", "m.pt", "does not fit small_cnn", memo=checkpoint(b"\x80\2}r\xff\xff\xff\x7f."))
    add("state", "a.resume.pt", more, code=saved({"options": code}))
    add("state", "a.resume.pt", "does not say where a run stands", tensors=saved({"options": {"seed": torch.ones(2)}}),
        list=saved([1]), none=saved({"options": None}))  # fmt: skip
    options = "neither YAML nor JSON"
    add("options in YAML", "options", options, code=f"seed: !!python/object/apply:os.system ['touch {MARKER}']".encode(),
        laughs=b"a: &a [x, x]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b"*%c, " % (c - 1) * 9) for c in range(98, 123)),
        merges=b"a: &a {k: v}\n" + b"".join(b"%c: &%c {<<: [%s]}\n" % (c, c, b"*%c, " % (c - 1) * 9) for c in range(98, 123)),
        deep=b"[" * 50_000, binary=b"\xff\xfe\x00", number=b"seed: " + b"9" * 5000)  # fmt: skip
    add("run folders", "2024-01-01/config.txt", "is not valid JSON", deep=b"[" * 10**6, number=b"9" * 5000)
    add("run folders", "2024-01-01/config.txt", "is no folder of a stitching run", list=b"[1]",
        layer=b'{"front_layer": 3, "end_layer": [], "stitching_type": {}, "init": null, "front_stitch_rank": 1, '
              b'"front_pinv_rank": 1, "seed": 1}')  # fmt: skip
    add("run folders", "2024-01-01/metrics.json", "is no folder of a stitching run", number=b'{"accuracy": 1%s}' % (b"0" * 999))
    add("tables", "grid.csv", "grid.csv", nul=b"\0" * 99, field=b'"' + b"x" * 10**6, bytes=b"\xff")
    meta = folder / "detector table" / "store" / "meta.json"
    add("detector table", "store/meta.json", "lacks a shape as required_input_shape",
        shape=detectors(meta, required_input_shape=[10**9, 10**9]), float=detectors(meta, required_input_shape=[1e300, 3]))  # fmt: skip
    add("detector table", "store/meta.json", "does not fit the detector repr_cls_vit_gigantic",
        gigantic=detectors(meta, model_type="repr_cls_vit_gigantic"))  # fmt: skip
    add("detector table", "store/meta.json", "lacks a name as model_type", list=detectors(meta, model_type=["x"]))

    unreadable = "cannot be read as cifar10"
    add("cifar10", "cifar-10-batches-py/data_batch_1", unreadable, code=pickle.dumps({"data": code}),
        memo=b"\x80\4}r\xff\xff\xff\x7f.", bytes=b"\x80\5\x8e" + struct.pack("<Q", 2**40) + b".",
        buffer=b"\x80\5\x96" + struct.pack("<Q", HUGE) + b".", frame=b"\x80\4\x95" + struct.pack("<Q", 2**40) + b".",
        array=called("numpy ndarray", HUGE), objects=pickle.dumps({"data": np.array([None]), "labels": [1]}))  # fmt: skip
    unreadable = "cannot be read as svhn"
    cell = matrix((2**15, 2**15), b"", array_class=1)
    add("svhn", "train_32x32.mat", unreadable, cell=matlab(cell), claim=matlab(element(14, b"", size=2**32 - 1)),
        bomb=matlab(element(15, deflated(4, struct.pack("<II", 14, 2**32 - 8), wrapped=True))),
        shape=matlab(matrix((32, 32, 3, 2**31 - 1), element(2, b"\0" * 8))), older=b"\0" * 200)  # fmt: skip

    file, header = "300K_random_images.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 3 * GIB)
    add("300K images", file, "Python objects", objects=array(np.array([code], dtype=object)))
    add("300K images", file, "truncated", claim=claiming((HUGE, 32, 32, 3)))
    add("300K images", file, "Fortran order", fortran=claiming((1, 32, 32, 3), order=True))
    add("300K images", file, "no header", header=header)
    objects = array(np.array([code], dtype=object))
    add("cifar5m", "cifar5m_part0.npz", "cannot be read",
        objects=zipped({"X.npy": stored(objects), "Y.npy": stored(objects)}),
        header=zipped({"X.npy": (deflated(3, header), 8, 2**32 - 1), "Y.npy": stored(b"")}))  # fmt: skip
    files = sorted(path.relative_to(folder / "imagenet") for path in (folder / "imagenet").glob("v*/**/*.*"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    for reader in ("imagenet", "imagenet_mem"):
        add(reader, str(files[0]), "cannot be decoded", bomb=png(100_000, 100_000), large=png(10_000, 10_000), program=eps,
            narrow=image(1, 60_000), wide=image(60_000, 1), none=png(0, 0))  # fmt: skip
    return made
