"""CIFAR-5M and the 300K Random Images: mapped where they lie, unpacked once, and refused when damaged."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from src import console, files
from src.datasets import dataset_info, load_dataset
from src.errors import UserError
from tests import tiny_datasets as tiny
from tests.commands import start_code
from tests.tiny_datasets import collect, npy, random_images, write_cifar10

N_IMAGES = [5, 4, 3, 6, 2, 7]  # of the six parts
SAVE = {"stored": np.savez, "compressed": np.savez_compressed}


def write_oe(root: Path, images: np.ndarray) -> Path:
    path = root / "oe" / "300K_random_images.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, images)
    return path


def write_cifar5m(root: Path, *, save=np.savez) -> tuple[np.ndarray, np.ndarray]:
    return tiny.write_cifar5m(root / "cifar5m", N_IMAGES, save=save)


def part(root: Path, i: int) -> Path:
    return root / "cifar5m" / f"cifar5m_part{i}.npz"


def names(root: Path) -> set[str]:
    return {path.name for path in (root / "cifar5m").iterdir()}


def everything(dataset) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, C) and labels (N,) of all batches."""
    images, labels = collect(dataset.batches(4))
    assert labels.dtype == torch.int64
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy(), labels.numpy()


# 300K Random Images


def test_random_images_are_one_split_augmented_for_training_only(tmp_path):
    images = random_images(20, 32, 32, 3)
    path = write_oe(tmp_path, images)
    test_set, train_set = (load_dataset("outlier_exposure", tmp_path, train=train) for train in (False, True))
    for dataset in (test_set, train_set):
        assert np.array_equal(everything(dataset)[0], images)
        assert (dataset.n_classes, dataset.image_shape, dataset.epoch_size) == (0, (3, 32, 32), None)
        (mapped,) = dataset.images.parts
        assert (mapped.filename, mapped.offset, mapped.mode) == (path, 128, "r")
    shuffled = next(test_set.epoch(20, seed=0, epoch=1))
    augmented = next(train_set.epoch(20, seed=0, epoch=1))
    assert {x.numpy().tobytes() for x in shuffled[0]} == {x.numpy().tobytes() for x in next(test_set.batches(20))[0]}
    assert (augmented[1] == -1).all() and not torch.equal(augmented[0], shuffled[0])


@pytest.mark.parametrize("folder", ["", "oe"])
def test_the_folder_of_random_images_may_be_named(folder, tmp_path):
    missing = rf"cannot read {tmp_path}/oe/300K_random_images\.npy: No such file.*; fetch https://people\.eecs.*"
    with pytest.raises(UserError, match=missing):
        load_dataset("outlier_exposure", tmp_path / folder, train=True)
    write_oe(tmp_path, random_images(3, 32, 32, 3))
    assert len(load_dataset("outlier_exposure", tmp_path / folder, train=True)) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(random_images(3, 32, 32, 3)[..., :2]), r"uint8 \(3, 32, 32, 2\), expected uint8 \(N, 32, 32, 3\)"),
        (npy(random_images(3, 32, 32, 3).astype(float)), r"float64 \(3, 32, 32, 3\), expected uint8"),
        (npy(random_images(0, 32, 32, 3)), r"uint8 \(0, 32, 32, 3\), expected"),
        (npy(random_images(3, 32, 32, 3))[:9000], "mmap length is greater than file size"),
        (npy(np.array([{}, print], dtype=object)), "Python objects"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_array_of_images_is_refused(content, reason, tmp_path):
    path = write_oe(tmp_path, random_images(1, 32, 32, 3))
    path.write_bytes(content)
    expected = rf"cannot read {path}: .*({reason}).*; fetch https"
    with pytest.raises(UserError, match=expected) as stop:
        load_dataset("outlier_exposure", tmp_path, train=True)
    assert "\n" not in str(stop.value)


# CIFAR-5M


@pytest.mark.parametrize("folder", ["", "cifar5m"])
def test_stored_members_are_mapped_in_place(folder, tmp_path):
    images, labels = write_cifar5m(tmp_path)
    before = names(tmp_path)
    dataset = load_dataset("cifar5m", tmp_path / folder, train=True)
    assert (len(dataset), dataset.n_classes, dataset.epoch_size) == (27, 10, 50_000)
    assert dataset.augmentation is None and dataset.labels.dtype == torch.int8
    assert all(map(np.array_equal, everything(dataset), (images, labels)))
    for i, mapped in enumerate(dataset.images.parts):
        assert isinstance(mapped, np.memmap) and mapped.filename == part(tmp_path, i)
        content = mapped.filename.read_bytes()
        assert content[mapped.offset : mapped.offset + mapped.nbytes] == mapped.tobytes()
    assert names(tmp_path) == before


def test_the_test_split_is_that_of_cifar10(tmp_path, unofficial_files):
    write_cifar10(tmp_path)
    ours, other = (load_dataset(name, tmp_path, train=False) for name in ("cifar5m", "cifar10"))
    assert torch.equal(ours.images, other.images) and torch.equal(ours.labels, other.labels)


def test_compressed_members_are_unpacked_once(tmp_path):
    images, labels = write_cifar5m(tmp_path, save=np.savez_compressed)
    dataset = load_dataset("cifar5m", tmp_path, train=True)
    assert all(map(np.array_equal, everything(dataset), (images, labels)))
    unpacked = sorted((tmp_path / "cifar5m").glob("*.npy"))
    stems = [path.name.split(".")[0] for path in unpacked]  # behind them stands the checksum
    assert stems == [f"cifar5m_part{i}_{name}" for i in range(6) for name in "XY"]
    assert np.array_equal(np.load(unpacked[0]), images[:5])
    times = [path.stat().st_mtime_ns for path in unpacked]
    assert np.array_equal(everything(load_dataset("cifar5m", tmp_path, train=True))[0], images)
    assert [path.stat().st_mtime_ns for path in unpacked] == times

    images[0] ^= 1
    np.savez_compressed(part(tmp_path, 0), X=images[:5], Y=labels[:5])  # another archive, even an older one
    os.utime(part(tmp_path, 0), (0, 0))
    assert np.array_equal(everything(load_dataset("cifar5m", tmp_path, train=True))[0], images)


def test_what_is_interrupted_leaves_nothing_behind(tmp_path, monkeypatch):
    write_cifar5m(tmp_path, save=np.savez_compressed)
    before = names(tmp_path)

    def interrupted(blocks, *_, **__):
        yield next(blocks)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(console, "progress", interrupted)
        load_dataset("cifar5m", tmp_path, train=True)
    assert names(tmp_path) == before | {".unpacking.lock"}
    assert len(load_dataset("cifar5m", tmp_path, train=True)) == 27


@pytest.mark.slow
def test_two_processes_unpack_together(tmp_path):
    images, _ = write_cifar5m(tmp_path, save=np.savez_compressed)
    code = (
        "import sys, src.datasets.arrays; from src.datasets import load_dataset\n"
        "print('ready', flush=True); print(len(load_dataset('cifar5m', sys.argv[1], train=True)))"
    )
    with files.locked(tmp_path / "cifar5m" / ".unpacking.lock"):
        assert not list(tmp_path.glob("cifar5m/*.npy"))
        both = [start_code(code, tmp_path) for _ in range(2)]
        assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
        time.sleep(0.5)  # both find out what there is to do, and wait
    answers = [process.communicate(timeout=100) for process in both]
    assert [out for out, _ in answers] == ["27\n", "27\n"], answers
    assert np.array_equal(everything(load_dataset("cifar5m", tmp_path, train=True))[0], images)


def test_too_little_room_is_noticed_before_anything_is_unpacked(tmp_path, monkeypatch):
    write_cifar5m(tmp_path, save=np.savez_compressed)
    needed = 128 + N_IMAGES[0] * 3072
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5_000, 5_000))
    with pytest.raises(UserError, match=f"{needed} bytes are needed to unpack it, 5000 are free; free {needed - 5000}"):
        load_dataset("cifar5m", tmp_path, train=True)
    assert not list(tmp_path.glob("cifar5m/*.npy"))


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_missing_and_damaged_parts_are_named(save, tmp_path):
    def refused(match):
        with pytest.raises(UserError, match=match) as stop:
            load_dataset("cifar5m", tmp_path, train=True)
        assert "https://github.com/preetum/cifar5m" in str(stop.value)

    refused(rf"cannot read {tmp_path}/cifar5m/cifar5m_part0\.npz: No such file.*; fetch all 6 parts")
    images, labels = write_cifar5m(tmp_path, save=save)
    path = part(tmp_path, 3)
    whole = path.read_bytes()
    path.unlink()
    refused(rf"cannot read {path}: No such file.*; fetch all 6 parts")
    for content in (b"", whole[:9000], b"<html>404</html>"):
        path.write_bytes(content)
        refused(f"cannot read {path}: File is not a zip file")
    path.write_bytes(whole[:200] + whole[400:])
    refused(f"cannot read {path}: ")
    for content, reason in (
        ({"X": images}, "'Y'; fetch"),
        ({"X": images[..., 0], "Y": labels}, r"uint8 \(27, 32, 32\), expected uint8"),
        ({"X": images, "Y": labels[:-1]}, r"labels are int64 \(26,\), expected whole numbers \(27,\)"),
        ({"X": images, "Y": labels / 2}, r"labels are float64 \(27,\)"),
        ({"X": images, "Y": labels.astype(object)}, "Python objects"),
        ({"X": images, "Y": [-1, *labels[2:], 10]}, "labels from -1 to 10, expected 0 to 9"),
    ):
        save(path, **content)
        refused(rf"cannot read {path}: .*{reason}")


def test_a_damaged_compressed_member_never_gets_the_final_name(tmp_path):
    write_cifar5m(tmp_path, save=np.savez_compressed)
    path = part(tmp_path, 0)
    content = bytearray(path.read_bytes())
    content[9000] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read {path}: .*; fetch all 6 parts"):
        load_dataset("cifar5m", tmp_path, train=True)
    assert not list(tmp_path.glob("cifar5m/*part0_X.*npy*"))


# A user's .npz


def write_npz(path: Path, *, save=np.savez, **changes) -> dict[str, np.ndarray]:
    arrays = {
        "x_train": random_images(9, 12, 10, 3), "y_train": np.arange(9) % 3,
        "x_test": random_images(4, 12, 10, 3, seed=1), "y_test": np.arange(4) % 4,
    }  # fmt: skip
    arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
    save(path, **arrays)
    return arrays


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_a_file_of_a_users_own(save, tmp_path):
    arrays = write_npz(tmp_path / "own.npz", save=save)
    info = dataset_info(str(tmp_path / "own.npz"), labelled=True)
    assert (info.n_classes, info.image_shape, info.augmentation) == (4, (3, 12, 10), None)
    for split, train in (("train", True), ("test", False)):
        dataset = load_dataset(str(tmp_path / "own.npz"), "nowhere", train=train)
        images, labels = everything(dataset)
        assert np.array_equal(images, arrays[f"x_{split}"]) and np.array_equal(labels, arrays[f"y_{split}"])
        assert (dataset.n_classes, dataset.image_shape) == (info.n_classes, info.image_shape)
        (mapped,) = dataset.images.parts
        assert Path(mapped.filename).suffix == (".npz" if save is np.savez else ".npy")
        in_order, in_epoch = (collect(b)[0] for b in (dataset.batches(4), dataset.epoch(4, seed=0, epoch=1)))
        assert {x.numpy().tobytes() for x in in_epoch} == {x.numpy().tobytes() for x in in_order}


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ([0, 1, 3] * 3, "no training image has label 2; labels count from 0, so there are 4 classes, 1 of them"),
        ([1, 2, 3] * 3, "no training image has label 0; labels count from 0, so there are 4 classes, 1 of them"),
        ([0, 8, 10**15] * 3, "label 1, 2, 3, 4, 5, …; labels count from 0, so there are 1000000000000001 classes"),
        ([0, 1, 2, 3, 3, 2, 1, 0, 0], ""),
    ],
    ids=str,
)
def test_labels_without_a_training_image_are_named_once(labels, line, tmp_path, capsys):
    write_npz(tmp_path / "own.npz", y_train=np.array(labels), y_test=np.array([0, 1, 1, 0]))
    for _ in range(3):
        assert dataset_info(str(tmp_path / "own.npz")).n_classes == max(labels) + 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == bool(line) and all(each.startswith("warning: ") and line in each for each in said)


def test_grey_and_unlabelled_images_of_a_users_own(tmp_path):
    grey = {"x_train": random_images(5, 8, 8), "x_test": random_images(3, 8, 8), "y_train": None, "y_test": None}
    write_npz(tmp_path / "own.npz", **grey)
    dataset = load_dataset(str(tmp_path / "own.npz"), "", train=True)
    assert (dataset.n_classes, dataset.image_shape) == (0, (1, 8, 8))
    images, labels = everything(dataset)
    assert np.array_equal(images[..., 0], grey["x_train"]) and (labels == -1).all()
    with pytest.raises(UserError, match="own.npz' has no labels"):
        dataset_info(str(tmp_path / "own.npz"), labelled=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x_test": None}, "'x_test'; save it with numpy.savez: x_test uint8"),
        ({"y_test": None}, "has labels for one split only"),
        ({"x_train": random_images(9, 12, 10, 3) / 255}, "float64 .*expected uint8"),
        ({"x_train": random_images(9, 10, 12, 3)}, "images of unequal shapes"),
        ({"x_train": random_images(9, 3, 32, 32), "x_test": random_images(4, 3, 32, 32)}, "channels come last"),
        ({"y_train": np.arange(9) - 1}, "labels from -1 to 7"),
        ({"y_train": np.arange(8)}, r"labels are int64 \(8,\), expected whole numbers \(9,\)"),
        ({"y_train": np.array([None] * 9)}, "Python objects"),
    ],
    ids=str,
)
def test_what_a_users_file_must_not_be(changes, reason, tmp_path):
    write_npz(tmp_path / "own.npz", **changes)
    with pytest.raises(UserError, match=rf"own\.npz.*{reason}") as stop:
        dataset_info(str(tmp_path / "own.npz"))
    assert "\n" not in str(stop.value)
