"""Damaged files and files with code in them: every reader gives one line, and nothing in them runs."""

import contextlib
import io
import json
import pickle
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import exec_stitch
import exec_train
from src.checkpoints import load_model, save_state
from src.console import silenced
from src.datasets import load_dataset
from src.errors import UserError
from src.images import ImageSpec
from src.measurements import read_tables
from src.models import build_model
from src.networks import NetworkName
from src.ood.store import DetectorStore
from src.results.experiments import newest_runs
from src.results.matrices import accuracies
from src.stitching.folders import read_run, read_runs
from tests import tiny_datasets as tiny
from tests.commands import Code
from tests.tables import PROBE, STITCH, write_table

pytestmark = pytest.mark.usefixtures("in_tmp_path", "no_network", "unofficial_files")

MARKER = "code-ran"  # a file in the working folder, if it did
SHAPE = (1, 8, 8)
OPTIONS = {
    "front_layer": "pool1", "end_layer": "pool2", "stitching_type": "rc2c_pre", "init": "rand", "seed": 0,
    "front_stitch_rank": None, "front_pinv_rank": 3, "learning_rate": 0.01, "reduce_lr_epochs": [3, 5], "n_epochs": 1,
}  # fmt: skip


class Reader(NamedTuple):
    """A format: valid files are written into an empty folder and read from there."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    files: str  # those that are damaged


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("small_cnn", n_classes=10, n_channels=SHAPE[0])


def write_checkpoint(folder: Path, *, zipped: bool = True) -> None:
    torch.save(network().state_dict(), folder / "m.pt", _use_new_zipfile_serialization=zipped)


def read_checkpoint(folder: Path) -> None:
    load_model(NetworkName(str(folder / "m.pt"), "small_cnn"), ImageSpec(10, SHAPE))


def parse(script: object, folder: Path) -> None:
    """What a script's parser makes of a file; an error of its counts as a UserError."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            script.parser().parse_args(["--config", str(folder / "options")])
    except SystemExit as stop:
        assert stop.code == 2
        raise UserError(errors.getvalue().removesuffix("\n")) from stop


def write_yaml(folder: Path) -> None:
    (folder / "options").write_text(
        "model_type: resnet34\nsave_dir: a\nlearning_rate: 1e-2\nreduce_lr_epochs: [3, 5]\ntf32: true\n"
    )


def write_json(folder: Path) -> None:
    options = exec_stitch.parser().parse_args("f.pt g.pt resnet18 resnet18 layer1.0 all rc2c_pre -rlre 2 3".split())
    (folder / "options").write_text(
        json.dumps({k: v for k, v in vars(options).items() if k not in ("config", "resume")})
    )


def write_run(folder: Path) -> None:
    run = folder / "2024-01-01"
    run.mkdir()
    (run / "config.txt").write_text(json.dumps(OPTIONS, indent=4))
    (run / "summary.txt").write_text(
        "Stitching summary\nClean accuracy: 0.5\nNormalized PINV difference: 0.25\n"
        "Normalized representation difference: 0.125\n"
    )
    (run / "metrics.json").write_text(json.dumps({"accuracy": 0.5, "front_accuracy": 0.75, "end_accuracy": 0.5}))


def read_folder_of_runs(folder: Path) -> None:
    runs, _ = read_runs(folder)
    if runs:
        accuracies(run.row for run in newest_runs(runs))
    read_run(folder / "2024-01-01")


def write_tables(folder: Path) -> None:
    write_table(folder / "grid.csv", STITCH, {"accuracy": 0.5}, {"accuracy": 0.25, "front_stitch_rank": 3})
    write_table(folder / "probes.csv", PROBE, {"rank": 1, "loss": 0.25}, {"rank": ""})


def source_in(folder: Path) -> NetworkName:
    return NetworkName(str(folder / "source.pt"), "small_cnn")


def write_store(folder: Path) -> None:
    save_state(folder / "source.pt", {"weight": torch.zeros(2)})
    detector = build_model("repr_cls_resnet18", n_classes=2, representation_shape=(4, 8, 8), image_shape=SHAPE)
    entry = {
        "model_type": "repr_cls_resnet18", "source_model_type": "small_cnn", "source_model_path": "source.pt",
        "source_layer": "pool1", "id_dataset": "digits", "orig_input_shape": SHAPE, "required_input_shape": [4, 8, 8],
        "training_loc": "d", "source_sha256": source_in(folder).identity,
    }  # fmt: skip
    DetectorStore(folder / "store").add(detector.state_dict(), entry, name="a.pt")


def read_store(folder: Path) -> None:
    DetectorStore(folder / "store").load(source_in(folder), "pool1", ImageSpec(2, SHAPE), device=torch.device("cpu"))


def write_own_file(folder: Path) -> None:
    images, labels = tiny.random_images(3, 8, 8, 1), np.arange(3)
    np.savez(folder / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)


def write_own_folder(folder: Path) -> None:
    for i, image in enumerate(tiny.random_images(4, 8, 8)):
        path = folder / ("train", "val")[i // 2] / "ab"[i % 2] / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)
    (folder / "dataset.yaml").write_text("size: 8\nchannels: 1\naugment: crop_flip\nclasses: [a, b]\n")


def read_dataset(name: str, root: Path) -> None:
    images = load_dataset(name, root, train=True)
    list(images.epoch(8, seed=0, epoch=1))


READERS = {
    "checkpoint": Reader(write_checkpoint, read_checkpoint, "*.pt"),
    "legacy checkpoint": Reader(lambda folder: write_checkpoint(folder, zipped=False), read_checkpoint, "*.pt"),
    "options in YAML": Reader(write_yaml, lambda folder: parse(exec_train, folder), "options"),
    "options in JSON": Reader(write_json, lambda folder: parse(exec_stitch, folder), "options"),
    "run folders": Reader(write_run, read_folder_of_runs, "*/*"),
    "tables": Reader(write_tables, lambda folder: read_tables(sorted(folder.glob("*.csv"))), "*.csv"),
    "detector store": Reader(write_store, read_store, "store/*.json"),
    "mnist": Reader(lambda f: tiny.write_mnist(f, 5, 5), lambda f: read_dataset("mnist", f), "MNIST/raw/train*"),
    "svhn": Reader(lambda f: tiny.write_svhn(f, 5, 5), lambda f: read_dataset("svhn", f), "train*"),
    "cifar5m": Reader(lambda f: tiny.write_cifar5m(f, [3] * 6), lambda f: read_dataset("cifar5m", f), "*.npz"),
    "compressed cifar5m": Reader(
        lambda f: tiny.write_cifar5m(f, [3] * 6, save=np.savez_compressed),
        lambda f: read_dataset("cifar5m", f),
        "*.npz",
    ),
    "300K images": Reader(
        lambda folder: np.save(folder / "300K_random_images.npy", tiny.random_images(4, 32, 32, 3)),
        lambda folder: read_dataset("outlier_exposure", folder),
        "*.npy",
    ),
    "own file": Reader(write_own_file, lambda folder: read_dataset(str(folder / "own.npz"), folder), "*.npz"),
    "own folder": Reader(write_own_folder, lambda folder: read_dataset(str(folder), folder), "train/*/*.png"),
    "dataset.yaml": Reader(write_own_folder, lambda folder: read_dataset(str(folder), folder), "dataset.yaml"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of valid files for each reader."""
    made = {}
    for name, reader in READERS.items():
        made[name] = tmp_path_factory.mktemp("hostile")
        reader.write(made[name])
    return made


def refusal(name: str, folder: Path) -> str:
    """The line of the UserError that a read ends with; empty: there was none."""
    try:
        with silenced():
            READERS[name].read(folder)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    finally:
        assert not Path(MARKER).exists(), "code ran"
    return ""


@contextlib.contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Another content of a file, while the block runs; what appears beside it goes."""
    valid, before = path.read_bytes(), set(path.parent.iterdir())
    path.write_bytes(content)
    yield
    path.write_bytes(valid)
    for extra in set(path.parent.iterdir()) - before:
        extra.unlink()


def one_of(name: str, folder: Path) -> Path:
    return min(path for path in folder.glob(READERS[name].files) if path.is_file())


def archived(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **dict.fromkeys(("X", "Y", "x_train", "y_train", "x_test", "y_test"), array))
    return file.getvalue()


def torch_saved(content: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


VALID = {  # read all the same
    "options in YAML": {"truncated", "empty"}, "dataset.yaml": {"truncated", "empty"}, "tables": {"truncated"},
}  # fmt: skip
CODE = np.array([Code(f"touch {MARKER}")], dtype=object)
BAD = {
    "empty": b"",
    "text": b"<html>404 not found</html>",
    "pickle with code": pickle.dumps({"a": Code(f"touch {MARKER}")}),
    "checkpoint with code": torch_saved({"a": Code(f"touch {MARKER}")}),
    "legacy checkpoint with code": torch_saved({"a": Code(f"touch {MARKER}")}, zipped=False),
    "array of objects": tiny.npy(CODE),
    "archive of objects": archived(CODE),
    "array of another type": tiny.npy(np.zeros((3, 32, 32, 3))),
    "archive of another type": archived(np.zeros((3, 32, 32, 3))),
    "list": torch_saved([1]),
    "YAML with code": f"seed: !!python/object/apply:os.system ['touch {MARKER}']".encode(),
    "deep": b"[" * 50_000,
    "JSON of another kind": b"[1]",
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", READERS)
def test_bad_files_are_refused_in_one_line(name, folders):
    path = one_of(name, folders[name])
    assert refusal(name, folders[name]) == ""
    contents = BAD | {"truncated": path.read_bytes()[: path.stat().st_size // 2]}
    taken = []
    for bad, content in contents.items():
        with replaced(path, content):
            taken += [] if refusal(name, folders[name]) else [bad]
    assert set(taken) <= VALID.get(name, set())


def test_the_code_would_run(tmp_path):
    pickle.loads(BAD["pickle with code"])
    assert Path(MARKER).exists()


def place(content: bytes, rng: random.Random) -> int:
    """A position, more often near the beginning or the end: there formats keep what they say of themselves."""
    near = min(len(content), 200)
    return rng.choice((rng.randrange(near), len(content) - 1 - rng.randrange(near), rng.randrange(len(content))))


def change_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes are overwritten, inserted or cut out, or the file ends there."""
    start, length = place(content, rng), rng.choice((1, 4, 50))
    inserted = rng.choice((b"", bytes(length), b"\xff" * length, rng.randbytes(length)))
    return content[:start] + inserted + content[start + rng.choice((0, 1, length, 1000, len(content))) :]


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 3, 20))):
        damaged[place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def change_word(content: bytes, rng: random.Random) -> bytes:
    """Another value in place of a word or a number, as in text files."""
    words = list(re.finditer(rb'-?\d[\d.e-]*|"[^"\n]*"|\w+', content))
    start, stop = rng.choice(words).span() if words else (0, 0)
    values = (b"-1", b"1e999", b"null", b"[]", b"{}", b'"x"', b"9" * 30, b"[[1]]", b"*a", b"")
    return content[:start] + rng.choice(values) + content[stop:]


def read_mutations(folders: dict[str, Path], n: int, *, seed: int) -> None:
    refused = 0
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        name = list(READERS)[i % len(READERS)]
        path = rng.choice(sorted(path for path in folders[name].glob(READERS[name].files) if path.is_file()))
        mutation = rng.choice((change_bytes, change_bytes, flip_bits, change_word))
        with replaced(path, mutation(path.read_bytes(), rng)):
            try:
                refused += bool(refusal(name, folders[name]))
            except Exception as error:
                raise AssertionError(
                    f"{name}, {path.name}, mutation {i} of seed {seed}: {mutation.__name__}"
                ) from error
    assert refused > n / 3, "the files are hardly damaged"


def test_damaged_files_are_read_or_refused(folders):
    read_mutations(folders, 300, seed=0)


@pytest.mark.slow
def test_very_many_damaged_files_are_read_or_refused(folders):
    read_mutations(folders, 5000, seed=1)
