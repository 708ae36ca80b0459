"""What `torch.save` writes, in its zip and its legacy format, read without trust.

Nothing but tensors and plain values is built, and nothing takes more memory than the file has bytes. `torch.load` with
`weights_only` promises the first alone, and not before version 2.6: a pickle can have it allocate what it likes.
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

        pickled = io.BytesIO(archive.read(members["data.pkl"]))
        return _TensorUnpickler(pickled, find, limit=len(content)).load()


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

    if tuple(_TensorUnpickler(file, refuse, limit=0).load() for _ in LEGACY) != LEGACY:
        raise ValueError("it does not begin as such a file does")
    _TensorUnpickler(file, refuse, limit=0).load()  # the machine that it was written on
    result = _TensorUnpickler(file, find, limit=len(content)).load()
    keys = [str(key) for key in _TensorUnpickler(file, refuse, limit=0).load()]
    if sorted(keys) != sorted(stored):
        raise ValueError("it lists other storages than it uses")
    for key in keys:
        file.seek(8, io.SEEK_CUR)  # the number of elements once more
        if file.readinto(stored[key]) != len(stored[key]):
            raise EOFError("truncated")
    return result


class _TensorUnpickler(PlainUnpickler):
    """Reads one pickle of a file of torch's.

    Args:
        find: the content of the storage of a key, which is to have so many bytes.
        limit: of the number of values in a tensor, which may be a view that repeats what is stored.
    """

    place = "a checkpoint"

    def __init__(self, file: io.BytesIO, find: Callable[[str, int], bytearray], *, limit: int):
        super().__init__(file)
        self.find, self.limit = find, limit
        self.known = KNOWN | {
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor_v3": self.tensor_of_type,
        }

    def persistent_load(self, identity: tuple) -> Storage:
        """The storage that a pickle refers to."""
        kind, dtype, key, _, count, *view = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view):
            raise pickle.UnpicklingError("it refers to something else than a storage")
        size = count * dtype.itemsize
        content = self.find(str(key), size)
        if len(content) != size:
            raise ValueError("a storage is not as large as the file says")
        return Storage(dtype, content)

    def tensor(self, storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
        """A view of a storage; raises where it reaches beyond its end."""
        shape = torch.Size(size)  # whole numbers
        if math.prod(shape) > self.limit:
            raise ValueError("a tensor has more values than the file has bytes")
        dtype, content = storage
        values = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return values.as_strided(shape, stride, offset)

    def tensor_of_type(
        self,
        storage: Storage,
        offset: int,
        size: tuple,
        stride: tuple,
        _: bool,
        hooks: dict,
        dtype: torch.dtype,
        *__: Any,
    ) -> Tensor:
        """The same for types that have no storage of their own."""
        return self.tensor(Storage(dtype, storage.content), offset, size, stride)

    def set_state(self, built: Any, state: Any) -> None:
        """torch hangs versions of modules on the dictionary of a state, attributes on tensors; nothing reads them."""
        if not isinstance(built, OrderedDict | Tensor):
            super().set_state(built, state)


def _counter(*counts: dict) -> Counter:
    return Counter({key: count for key, count in counts[0].items() if isinstance(count, int)} if counts else {})


def _as_it_is(data: Tensor, *_: Any) -> Tensor:
    return data


KNOWN = {
    "collections.OrderedDict": ordered_dict,
    "collections.Counter": _counter,
    "torch._utils._rebuild_parameter": _as_it_is,
    "torch._utils._rebuild_parameter_with_state": _as_it_is,
    "torch.nn.parameter.Parameter": _as_it_is,  # of early versions
    "torch.Size": torch.Size,
    "torch.storage.UntypedStorage": torch.uint8,
    **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
    **{str(dtype): dtype for dtype in DTYPES},
}
