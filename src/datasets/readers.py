"""Readers of the files that torchvision downloads, for files made by hand as well.

All return images uint8 (N, C, H, W) and labels int64 (N,), and raise whatever a damaged file makes them raise.
"""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets.mnist import read_image_file, read_label_file

from src.datasets.matlab_files import read_arrays
from src.plain_pickle import PlainUnpickler

BYTE_ORDERS = ("<", ">", "|", "=")
PLAIN_TYPE = (3, None, None, None, -1, -1, 0)  # the state of a type without parts and flags, but for its byte order


def read_cifar(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read batches of CIFAR-10 or CIFAR-100 (fine labels) in the order of `paths`."""
    batches = [load_arrays(path) for path in paths]
    images = np.concatenate([_bytes(batch["data"]) for batch in batches])
    labels = np.concatenate([_whole(batch["labels" if "labels" in batch else "fine_labels"]) for batch in batches])
    return images.reshape(-1, 3, 32, 32), labels


def read_svhn(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read one MATLAB file of cropped house numbers, which calls the digit 0 class 10."""
    (path,) = paths
    content = read_arrays(path)
    images = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1))  # (H, W, C, N) -> (N, C, H, W)
    if content["y"].size != len(images):
        raise ValueError(f"{len(images)} images, {content['y'].size} labels")
    labels = content["y"].reshape(-1).astype(np.int64)
    return images, np.where(labels == 10, 0, labels)


def read_mnist(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read a pair of idx files: images, labels."""
    images, labels = paths
    return read_image_file(str(images))[:, None].numpy(), read_label_file(str(labels)).numpy()


def load_arrays(path: Path) -> dict:
    """Unpickle numpy arrays, numbers, text, lists and dictionaries of them, and nothing else: no code can run.

    Raises:
        pickle.UnpicklingError: the file asks for something else.
    """
    return _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()


def _bytes(images: np.ndarray) -> np.ndarray:
    if not isinstance(images, np.ndarray):
        raise ValueError(f"data is a {type(images).__name__}, expected an array")
    return images.astype(np.uint8, copy=False)


def _whole(labels: np.ndarray | list) -> np.ndarray:
    return labels.astype(np.int64) if isinstance(labels, np.ndarray) else np.fromiter(labels, np.int64)


def _dtype(code: str, *_: object) -> np.dtype:
    dtype = np.dtype(code)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it holds values of type {dtype}, which has no place in a data set")
    return np.dtype(code, copy=True)  # its own: the byte order is set afterwards


def _array(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype, content: str | bytes) -> np.generic:
    return np.frombuffer(_raw(content), dtype)[0]


def _empty(kind: object, shape: tuple, code: object) -> np.ndarray:
    """What numpy begins an array with; its state follows."""
    return np.empty(0, np.uint8)


def _raw(content: str | bytes) -> bytes:
    return content.encode("latin1") if isinstance(content, str) else bytes(content)  # text: from Python 2


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand-in for codecs.encode: how old pickle protocols write bytes, and no other codec."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it uses the codec {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(PlainUnpickler):
    """Knows with what numpy puts arrays together, wherever its versions keep it."""

    place = "a data set"
    known = {
        "_codecs.encode": _encode_latin1,
        "numpy.ndarray": "ndarray",  # what `_reconstruct` is to make; nothing to call
        "numpy.dtype": _dtype,
        **{f"numpy.{core}.multiarray._reconstruct": _empty for core in ("core", "_core")},
        **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
        **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
    }

    def set_state(self, built: object, state: tuple) -> None:
        """Set the byte order of a type or the content of an array, after a look at whether it fits."""
        if isinstance(built, np.dtype) and state[1] in BYTE_ORDERS and (state[0], *state[2:]) == PLAIN_TYPE:
            built.__setstate__(state)
        elif isinstance(built, np.ndarray):
            version, shape, dtype, fortran_order, content = state
            shape = _array(_raw(content), dtype, shape, "C").shape  # fails where the content is not as large
            built.__setstate__((version, shape, dtype, bool(fortran_order), _raw(content)))
        else:
            super().set_state(built, state)
