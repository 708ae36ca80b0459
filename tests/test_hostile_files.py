"""Damaged files and files with code in them: every reader gives one line, and nothing in them runs."""

import contextlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from src.checkpoints import load_model
from src.console import silenced
from src.datasets import load_dataset
from src.errors import UserError
from src.images import ImageSpec
from src.network_names import NetworkName
from tests import tiny_datasets as tiny
from tests.commands import Code, parser_of, save_network

pytestmark = pytest.mark.usefixtures("in_tmp_path", "no_network", "unofficial_files")

MARKER = Path("code-ran")  # in the working folder, if it did
SHAPE = (1, 8, 8)


class Reader(NamedTuple):
    """Writes valid files into the working folder, and reads them."""

    write: Callable[[], object]
    read: Callable[[], object]
    file: str  # which is damaged


def read_options() -> None:
    """Parse options of a file; an error of the parser counts as a UserError."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parser_of("exec_train.py").parse_args(["--config", "options"])
    except SystemExit as stop:
        raise UserError(errors.getvalue().strip()) from stop


def write_own_file() -> None:
    images, labels = tiny.random_images(3, 8, 8, 1), np.arange(3)
    np.savez("own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)


def write_own_folder() -> None:
    for i, image in enumerate(tiny.random_images(4, 8, 8)):
        path = Path("own", ("train", "val")[i // 2], "ab"[i % 2], "1.png")
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)
    Path("own/dataset.yaml").write_text("size: 8\nchannels: 1\naugment: crop_flip\n")


def read_images(name: str) -> None:
    list(load_dataset(name, ".", train=True).epoch(8, seed=0, epoch=1))


READERS = {
    "checkpoint": Reader(
        lambda: save_network(Path("m.pt"), "small_cnn", n_classes=10, n_channels=1),
        lambda: load_model(NetworkName("m.pt", "small_cnn"), ImageSpec(10, SHAPE)),
        "m.pt",
    ),
    "options": Reader(
        lambda: Path("options").write_text(json.dumps({"model_type": "small_cnn", "save_dir": "a", "seed": 1})),
        read_options,
        "options",
    ),
    "mnist": Reader(lambda: tiny.write_mnist(Path("."), 5, 5), lambda: read_images("mnist"), "MNIST/raw/train*"),
    "svhn": Reader(lambda: tiny.write_svhn(Path("."), 5, 5), lambda: read_images("svhn"), "train*"),
    "300K images": Reader(
        lambda: np.save("300K_random_images.npy", tiny.random_images(4, 32, 32, 3)),
        lambda: read_images("outlier_exposure"),
        "*.npy",
    ),
    "own file": Reader(write_own_file, lambda: read_images("own.npz"), "own.npz"),
    "own folder": Reader(write_own_folder, lambda: read_images("own"), "own/train/*/*.png"),
    "dataset.yaml": Reader(write_own_folder, lambda: read_images("own"), "own/dataset.yaml"),
}


def archived(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **dict.fromkeys(("x_train", "y_train", "x_test", "y_test"), array))
    return file.getvalue()


def torch_saved(content: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


CODE = Code(f"touch {MARKER}")
OBJECTS = np.array([CODE], dtype=object)
BAD = {
    "empty": lambda valid: b"",
    "truncated": lambda valid: valid[: len(valid) // 2],
    "text": lambda valid: b"<html>404 not found</html>",
    "pickle with code": lambda valid: pickle.dumps({"a": CODE}),
    "checkpoint with code": lambda valid: torch_saved({"a": CODE}),
    "legacy checkpoint with code": lambda valid: torch_saved({"a": CODE}, zipped=False),
    "array of objects": lambda valid: tiny.npy(OBJECTS),
    "archive of objects": lambda valid: archived(OBJECTS),
    "YAML with code": lambda valid: f"seed: !!python/object/apply:os.system ['touch {MARKER}']".encode(),
    "wrong keys": lambda valid: torch_saved({"nothing": torch.zeros(1)}),
    "wrong shapes": lambda valid: archived(np.zeros((3, 32, 32, 3))),
    "a list": lambda valid: torch_saved([1]),
}
EMPTY_IS_VALID = ("options", "dataset.yaml")  # options are then missing, and the folder is read as it is


@pytest.mark.parametrize("name", READERS)
def test_bad_files_are_refused_in_one_line(name):
    reader = READERS[name]
    reader.write()
    path = min(Path(".").glob(reader.file))
    valid, before = path.read_bytes(), set(path.parent.iterdir())
    with silenced():
        reader.read()
        for bad, content in BAD.items():
            path.write_bytes(content(valid))
            try:
                reader.read()
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert name in EMPTY_IS_VALID and bad in ("empty", "truncated"), bad
            assert not MARKER.exists(), bad
            for extra in set(path.parent.iterdir()) - before:  # what a reader unpacks beside it
                extra.unlink()


def test_the_code_would_run():
    pickle.loads(pickle.dumps(CODE))
    assert MARKER.exists()
