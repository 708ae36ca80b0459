"""Readers of the files that torchvision downloads, for files made by hand as well.

All return images uint8 (N, C, H, W) and labels int64 (N,), and raise whatever a damaged file makes them raise.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from torchvision.datasets.mnist import read_image_file, read_label_file


def read_cifar(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read batches of CIFAR-10 or CIFAR-100 (fine labels) in the order of `paths`."""
    batches = [load_arrays(path) for path in paths]
    images = np.concatenate([np.asarray(batch["data"], dtype=np.uint8) for batch in batches])
    labels = np.concatenate([batch["labels" if "labels" in batch else "fine_labels"] for batch in batches])
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def read_svhn(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read one MATLAB file of cropped house numbers, which calls the digit 0 class 10."""
    (path,) = paths
    content = loadmat(path, variable_names=["X", "y"])
    images = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1))  # (H, W, C, N) -> (N, C, H, W)
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
    with open(path, "rb") as file:
        return _ArrayUnpickler(file, encoding="latin1").load()


class _ArrayUnpickler(pickle.Unpickler):
    """Knows only the functions with which numpy puts arrays together, wherever its versions keep them."""

    KNOWN = {
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "_reconstruct": np.empty(0).__reduce__()[0],
        "_frombuffer": np.empty(1).__reduce_ex__(5)[0],
        "scalar": np.int64(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str):
        if module == "_codecs" and name == "encode":
            return _encode_latin1
        if name in self.KNOWN and (module == "numpy" or module.startswith(("numpy.core.", "numpy._core."))):
            return self.KNOWN[name]
        raise pickle.UnpicklingError(f"it calls {module}.{name}, which has no place in a data set")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand-in for codecs.encode: how old pickle protocols write bytes, and no other codec."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it uses the codec {encoding!r}")
    return text.encode("latin1")
