"""What `torch.save` writes, in its zip and its legacy format, read without trust.

Nothing but tensors and plain values is built, and nothing takes more memory than the file has bytes. `torch.load` with
`weights_only` promises the first alone: it allocates what a pickle claims, and believes it where a storage ends.
"""

import io
import math
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.plain_pickle import PlainUnpickler, ordered_dict

LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # magic number and version, a pickle each
STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
DTYPES = [*STORAGES.values(), torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]


class Storage(NamedTuple):
    """Bytes that tensors are views of."""

    dtype: torch.dtype
    content: bytearray


def read_tensors(content: bytes) -> Any:
    """Read a file of torch's: tensors on the CPU and plain values, nested at will.

    Raises:
        pickle.UnpicklingError: it asks for something else.
        Exception: of any kind, as it is damaged or no such file.
    """
    return _read_zip(content) if content.startswith(b"PK\3\4") else _read_legacy(content)


def _read_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # torch stores all members below one folder, and compresses none
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise ValueError("its members are compressed")
        if sum(info.file_size for info in archive.infolist()) > len(content):
            raise ValueError("its members are larger than the file")
        if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
            raise ValueError("it is from a machine of another byte order")
        stored: dict[str, bytearray] = {}

        def find(key: str, size: int) -> bytearray:
            if key not in stored:
                stored[key] = bytearray(archive.read(members[f"data/{key}"]))
            return stored[key]

        return _unpickle(io.BytesIO(archive.read(members["data.pkl"])), find, limit=len(content))


def _read_legacy(content: bytes) -> Any:
    """The file is a row of pickles, of which the last ones list the storages; the contents of these follow."""
    file, stored = io.BytesIO(content), {}

    def find(key: str, size: int) -> bytearray:
        if key not in stored:
            if size + sum(map(len, stored.values())) > len(content):
                raise ValueError("its storages are larger than the file")
            stored[key] = bytearray(size)
        return stored[key]

    def refuse(key: str, size: int) -> bytearray:
        raise ValueError("a storage is where none can be")

    if tuple(_unpickle(file, refuse, limit=0) for _ in LEGACY) != LEGACY:
        raise ValueError("it does not begin as such a file does")
    _unpickle(file, refuse, limit=0)  # the machine that it was written on
    result, keys = _unpickle(file, find, limit=len(content)), _unpickle(file, refuse, limit=0)
    if sorted(keys) != sorted(stored):
        raise ValueError("it lists other storages than it uses")
    for key in keys:
        file.seek(8, io.SEEK_CUR)  # the number of elements once more
        if file.readinto(stored[key]) != len(stored[key]):
            raise EOFError("truncated")
    return result


def _unpickle(file: io.BytesIO, find: Callable[[str, int], bytearray], *, limit: int) -> Any:
    """Read one pickle.

    Args:
        find: the content of the storage of a key, which is to have so many bytes.
        limit: of the number of values in a tensor, which may be a view that repeats what is stored.
    """

    def tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
        shape = torch.Size(size)  # whole numbers
        if math.prod(shape) > limit:
            raise ValueError("a tensor has more values than the file has bytes")
        if not storage.content:
            return torch.empty(shape, dtype=storage.dtype).as_strided(shape, stride, offset)
        return torch.frombuffer(storage.content, dtype=storage.dtype).as_strided(shape, stride, offset)

    def tensor_of(
        storage: Storage,
        offset: int,
        size: tuple,
        stride: tuple,
        gradient: bool,
        hooks: Any,
        dtype: torch.dtype,
        *_: Any,
    ) -> Tensor:
        return tensor(Storage(dtype, storage.content), offset, size, stride)

    def persistent(identity: tuple) -> Storage:
        kind, dtype, key, _, count, *view = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view):
            raise pickle.UnpicklingError("it refers to something else than a storage")
        found = find(str(key), count * dtype.itemsize)
        if len(found) != count * dtype.itemsize:
            raise ValueError("a storage is not as large as the file says")
        return Storage(dtype, found)

    known = {
        "collections.OrderedDict": ordered_dict,
        "collections.Counter": _counter,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor_of,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch.Size": torch.Size,
        "torch.storage.UntypedStorage": torch.uint8,
        **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
        **{str(dtype): dtype for dtype in DTYPES},
    }
    unpickler = PlainUnpickler(file, known, place="a checkpoint", build=_ignore)
    unpickler.persistent_load = persistent
    return unpickler.load()


def _counter(*counts: dict) -> Counter:
    return Counter({key: count for key, count in counts[0].items() if isinstance(count, int)} if counts else {})


def _ignore(built: Any, state: Any) -> None:
    """torch hangs versions of modules on the dictionary of a state; nothing here reads them."""
    if not isinstance(built, OrderedDict):
        raise pickle.UnpicklingError(f"it sets the state of a {type(built).__name__}")
