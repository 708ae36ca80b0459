"""Damaged files and files with code in them: every reader gives one line, and nothing in them runs."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.checkpoints import load_model
from src.datasets import load_dataset
from src.errors import UserError
from src.files import read_yaml
from src.images import ImageSpec
from src.network_names import NetworkName
from tests import tiny_datasets as tiny
from tests.commands import Code, save_network

pytestmark = pytest.mark.usefixtures("in_tmp_path")

MARKER = Path("code-ran")  # in the working folder, if it did
CODE = Code(f"touch {MARKER}")


def write_checkpoint() -> None:
    save_network(Path("m.pt"), "small_cnn", n_classes=10, n_channels=1)


def write_folder() -> None:
    for i, image in enumerate(tiny.random_images(4, 8, 8)):
        path = Path("own", ("train", "val")[i // 2], "ab"[i % 2], "1.png")
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)


def read_images(name: str) -> None:
    list(load_dataset(name, ".", train=True).epoch(8, seed=0, epoch=1))


def saved(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def archived(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, x_train=array, x_test=array)
    return file.getvalue()


ANYWHERE = {
    "truncated": lambda valid: valid[: len(valid) // 2],
    "pickle with code": lambda valid: pickle.dumps({"a": CODE}),
    "checkpoint with code": lambda valid: saved({"a": CODE}),
}
READERS = {  # what writes a valid file, its name, what reads it, and files that are bad for it alone
    "checkpoint": (
        write_checkpoint,
        "m.pt",
        lambda: load_model(NetworkName("m.pt", "small_cnn"), ImageSpec(10, (1, 8, 8))),
        {
            "empty": lambda valid: b"",
            "legacy, with code": lambda valid: saved({"a": CODE}, _use_new_zipfile_serialization=False),
            "wrong keys": lambda valid: saved({"nothing": torch.zeros(1)}),
            "a list": lambda valid: saved([1]),
        },
    ),
    "array file": (
        lambda: Path("own.npz").write_bytes(archived(tiny.random_images(3, 8, 8, 1))),
        "own.npz",
        lambda: read_images("own.npz"),
        {
            "empty": lambda valid: b"",
            "objects": lambda valid: archived(np.array([CODE], dtype=object)),
        },
    ),
    "image": (write_folder, "own/train/a/1.png", lambda: read_images("own"), {"empty": lambda valid: b""}),
    "options": (
        lambda: Path("options").write_text(json.dumps({"seed": 1})),
        "options",
        lambda: read_yaml("options"),
        {"code": lambda valid: f"seed: !!python/object/apply:os.system ['touch {MARKER}']".encode()},
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_bad_files_are_refused_in_one_line(name):
    write, path, read, bad = READERS[name]
    write()
    valid = Path(path).read_bytes()
    read()
    for kind, content in (ANYWHERE | bad).items():
        Path(path).write_bytes(content(valid))
        with pytest.raises(UserError) as error:
            read()
        assert "\n" not in str(error.value) and not MARKER.exists(), kind


def test_the_code_would_run():
    pickle.loads(pickle.dumps(CODE))
    assert MARKER.exists()
