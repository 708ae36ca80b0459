"""Damaged files and files with code in them: every reader gives one line, and nothing in them
runs."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.core.files import read_yaml
from src.core.inputs import InputSpec
from src.datasets import load_dataset
from src.results.checkpoints import DetectorStore, load_model
from src.results.network_names import NamedNetwork
from tests.commands import Code, save_network
from tests.tiny_datasets import random_images, write_folder

MARKER = Path("code-ran")  # in the working folder, if it did
CODE = Code(f"touch {MARKER}")


def read_images(name: str) -> None:
    list(load_dataset(name, ".", train=True).epoch(8, seed=0, epoch=1))


READERS = {
    "m.pt": lambda: load_model(NamedNetwork("m.pt", "small_cnn"), InputSpec(10, (1, 8, 8))),
    "own.npz": lambda: read_images("own.npz"),
    "own/train/ant/000.png": lambda: read_images("own"),
    "meta.json": lambda: DetectorStore(".").names_by_layer(NamedNetwork("m.pt", "small_cnn")),
    "options": lambda: read_yaml("options"),
}


@pytest.fixture
def files(in_tmp_path):
    save_network(Path("m.pt"), "small_cnn", n_classes=10, n_channels=1)
    np.savez("own.npz", x_train=random_images(3, 8, 8, 1), x_test=random_images(3, 8, 8, 1))
    write_folder(Path("own"))
    Path("meta.json").write_text('{"a.pt": {"source_layer": "pool1"}}')
    Path("options").write_text('{"seed": 1}')


def saved(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def archived(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, x_train=array, x_test=array)
    return file.getvalue()


BAD = {
    "no text": b"\0",
    "pickle with code": pickle.dumps({"a": CODE}),
    "checkpoint with code": saved({"a": CODE}),
    "legacy checkpoint with code": saved({"a": CODE}, _use_new_zipfile_serialization=False),
    "checkpoint with other keys": saved({"nothing": torch.zeros(1)}),
    "checkpoint of a list": saved([1]),
    "arrays of objects": archived(np.array([CODE], dtype=object)),
    "options with code": f"seed: !!python/object/apply:os.system ['touch {MARKER}']".encode(),
}
OF_ITS_OWN = {
    "options": {},
    "meta.json": {"a list": b"[1]", "entries that are numbers": b'{"a.pt": 1}'},
}


@pytest.mark.parametrize("path", READERS)
def test_bad_files_are_refused_in_one_line(path, files):
    READERS[path]()
    valid = Path(path).read_bytes()
    bad = BAD | {"truncated": valid[: len(valid) // 2]} | OF_ITS_OWN.get(path, {"empty": b""})
    for kind, content in bad.items():
        Path(path).write_bytes(content)
        with pytest.raises(UserError) as error:
            READERS[path]()
        assert "\n" not in str(error.value) and not MARKER.exists(), kind
