"""Arrays on disk: mapped where they lie, unpacked once, the same batches as from memory, and refused when damaged."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from src import console
from src.datasets import dataset_info, load_dataset
from src.datasets.augmentation import CropFlip
from src.datasets.in_memory import ImageSet
from src.datasets.mapped import MappedImages
from src.errors import UserError
from src.images import Normalisation
from tests import tiny_datasets as tiny
from tests.tiny_datasets import collect, npy, random_images, write_cifar10

SIZES = [5, 4, 3, 6, 2, 7]  # of the six parts
SAVE = {"stored": np.savez, "compressed": np.savez_compressed}


def write_oe(root: Path, images: np.ndarray) -> Path:
    path = root / "oe" / "300K_random_images.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, images)
    return path


def write_cifar5m(root: Path, *, save=np.savez) -> tuple[np.ndarray, np.ndarray]:
    return tiny.write_cifar5m(root / "cifar5m", SIZES, save=save)


def part(root: Path, i: int) -> Path:
    return root / "cifar5m" / f"cifar5m_part{i}.npz"


def everything(dataset) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, C) and labels (N,) of all batches."""
    images, labels = collect(dataset.batches(4))
    assert labels.dtype == torch.int64
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy(), labels.numpy()


def refused(match: str, load, *arguments, **options) -> str:
    with pytest.raises(UserError, match=match) as stop:
        load(*arguments, **options)
    assert "\n" not in str(stop.value)
    return str(stop.value)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))])  # fmt: skip
@pytest.mark.parametrize("augmentation", [None, CropFlip(4)], ids=str)
def test_images_on_disk_give_the_batches_of_images_in_memory(augmentation, device, tmp_path):
    for i, n in enumerate((300, 1, 200)):  # more than are worked on at once
        np.save(tmp_path / f"{i}.npy", random_images(n, 32, 32, 3, seed=i))
    parts = [np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(3)]
    options = {"labels": torch.arange(501), "augmentation": augmentation, "epoch_size": 400}
    in_memory = ImageSet(torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2), **options)
    on_disk = ImageSet(MappedImages(parts), **options, device=device)
    assert len(on_disk) == 501 and on_disk.image_shape == (3, 32, 32)
    for go_through in (
        lambda dataset: dataset.epoch(350, seed=0, epoch=2),
        lambda dataset: dataset.batches(100),
        lambda dataset: dataset.batches(3, indices=torch.tensor([300, 500, 0, 0, 301])),
    ):
        for (images, labels), (mapped, mapped_labels) in zip(go_through(in_memory), go_through(on_disk), strict=True):
            assert torch.equal(images, mapped.cpu()) and torch.equal(labels, mapped_labels.cpu())


def test_random_images_are_one_split_augmented_for_training_only(tmp_path):
    refused(rf"cannot read {tmp_path}/oe/300K_random_images\.npy: No such file.*; fetch https://people\.eecs.*",
            load_dataset, "outlier_exposure", tmp_path, train=True)  # fmt: skip
    images = random_images(20, 32, 32, 3)
    path = write_oe(tmp_path, images)
    for train, root in ((False, tmp_path), (True, tmp_path / "oe")):
        dataset = load_dataset("outlier_exposure", root, train=train)
        assert np.array_equal(everything(dataset)[0], images)
        assert (dataset.n_classes, dataset.image_shape, dataset.augmentation is None) == (0, (3, 32, 32), not train)
        (mapped,) = dataset.images.parts
        assert (mapped.filename, mapped.offset, mapped.mode) == (path, 128, "r")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(random_images(3, 32, 32, 2)), r"uint8 \(3, 32, 32, 2\), expected uint8 \(N, 32, 32, 3\)"),
        (npy(random_images(3, 32, 32, 3))[:9000], "mmap length is greater than file size"),
        (npy(np.array([{}, print], dtype=object)), "Python objects"),
    ],
)
def test_what_is_no_array_of_images_is_refused(content, reason, tmp_path):
    path = write_oe(tmp_path, random_images(1, 32, 32, 3))
    path.write_bytes(content)
    refused(rf"cannot read {path}: .*({reason}).*; fetch https", load_dataset, "outlier_exposure", tmp_path, train=True)


# CIFAR-5M


def test_stored_members_are_mapped_in_place(tmp_path):
    images, labels = write_cifar5m(tmp_path)
    before = set(tmp_path.rglob("*"))
    for root in (tmp_path, tmp_path / "cifar5m"):
        dataset = load_dataset("cifar5m", root, train=True)
        assert (len(dataset), dataset.n_classes, dataset.epoch_size) == (27, 10, 50_000)
        assert dataset.augmentation is None and dataset.labels.dtype == torch.int8
        assert all(map(np.array_equal, everything(dataset), (images, labels)))
    for i, mapped in enumerate(dataset.images.parts):
        assert isinstance(mapped, np.memmap) and mapped.filename == part(tmp_path, i)
    assert set(tmp_path.rglob("*")) == before


def test_the_test_split_is_that_of_cifar10(tmp_path, unofficial_files):
    write_cifar10(tmp_path)
    ours, other = (load_dataset(name, tmp_path, train=False) for name in ("cifar5m", "cifar10"))
    assert torch.equal(ours.images, other.images) and torch.equal(ours.labels, other.labels)


def test_compressed_members_are_unpacked_once_and_said(tmp_path, capsys):
    images, labels = write_cifar5m(tmp_path, save=np.savez_compressed)
    dataset = load_dataset("cifar5m", tmp_path, train=True)
    assert all(map(np.array_equal, everything(dataset), (images, labels)))
    unpacked = sorted((tmp_path / "cifar5m").glob("*.npy"))
    assert [path.name.split(".")[0] for path in unpacked] == [f"cifar5m_part{i}_X" for i in range(6)]
    assert capsys.readouterr().err.count(f"of {tmp_path}/cifar5m/cifar5m_part") == 6
    assert np.array_equal(everything(load_dataset("cifar5m", tmp_path, train=True))[0], images)
    assert not capsys.readouterr().err  # nothing is unpacked again

    images[0] ^= 1
    np.savez_compressed(part(tmp_path, 0), X=images[:5], Y=labels[:5])  # another archive, even an older one
    os.utime(part(tmp_path, 0), (0, 0))
    assert np.array_equal(everything(load_dataset("cifar5m", tmp_path, train=True))[0], images)


def test_what_cannot_be_unpacked_leaves_nothing_behind(tmp_path, monkeypatch):
    write_cifar5m(tmp_path, save=np.savez_compressed)
    before = set(tmp_path.rglob("*"))

    def interrupted(blocks, *_, **__):
        yield next(blocks)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(console, "progress", interrupted)
        load_dataset("cifar5m", tmp_path, train=True)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5_000, 5_000))
        needed = 128 + SIZES[0] * 3072
        refused(f"{needed} bytes are needed to unpack it, 5000 are free; free {needed - 5000}",
                load_dataset, "cifar5m", tmp_path, train=True)  # fmt: skip
    content = bytearray(part(tmp_path, 0).read_bytes())
    content[9000] ^= 255
    part(tmp_path, 0).write_bytes(content)
    refused(f"cannot read {part(tmp_path, 0)}: .*; fetch all 6", load_dataset, "cifar5m", tmp_path, train=True)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_missing_and_damaged_parts_are_named(save, tmp_path):
    def refuse(match):
        line = refused(match, load_dataset, "cifar5m", tmp_path, train=True)
        assert "fetch all 6 parts from https://github.com/preetum/cifar5m" in line

    refuse(rf"cannot read {tmp_path}/cifar5m/cifar5m_part0\.npz: No such file")
    images, labels = write_cifar5m(tmp_path, save=save)
    path = part(tmp_path, 3)
    whole = path.read_bytes()
    for content in (whole[:9000], b"<html>404</html>"):
        path.write_bytes(content)
        refuse(f"cannot read {path}: File is not a zip file")
    for content, reason in (
        ({"X": images}, "Y.* is not a file in the archive"),
        ({"X": images[..., 0], "Y": labels}, r"uint8 \(27, 32, 32\), expected uint8"),
        ({"X": images, "Y": labels[:-1]}, r"Y is int64 \(26,\), expected whole numbers from 0, \(27,\)"),
        ({"X": images, "Y": [300, *labels[1:]]}, "labels up to 300, expected at most 9"),
    ):
        save(path, **content)
        refuse(rf"cannot read {path}: .*{reason}")


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
    assert info[2:] == (4, (3, 12, 10), None, None, None)  # neither augmented nor normalised
    for split, train in (("train", True), ("test", False)):
        dataset = load_dataset(str(tmp_path / "own.npz"), "nowhere", train=train)
        images, labels = everything(dataset)
        assert np.array_equal(images, arrays[f"x_{split}"]) and np.array_equal(labels, arrays[f"y_{split}"])
        assert dataset.spec == info.spec
        (mapped,) = dataset.images.parts
        assert Path(mapped.filename).suffix == (".npz" if save is np.savez else ".npy")


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ([1, 2, 3] * 3, "no training image has label 0; labels count from 0, so there are 4 classes, 1 of them"),
        ([0, 1, 2, 3, 3, 2, 1, 0, 0], ""),
    ],
    ids=str,
)
def test_labels_without_a_training_image_are_named_once(labels, line, tmp_path, capsys):
    write_npz(tmp_path / "own.npz", y_train=np.array(labels), y_test=np.array([0, 1, 1, 0]))
    for _ in range(3):
        assert dataset_info(str(tmp_path / "own.npz")).n_classes == 4
    said = capsys.readouterr().err.splitlines()
    assert len(said) == bool(line) and all(each.startswith("warning: ") and line in each for each in said)


def test_grey_and_unlabelled_images_of_a_users_own(tmp_path):
    grey = {"x_train": random_images(5, 8, 8), "x_test": random_images(3, 8, 8), "y_train": None, "y_test": None}
    write_npz(tmp_path / "own.npz", **grey)
    dataset = load_dataset(str(tmp_path / "own.npz"), "", train=True)
    assert (dataset.n_classes, dataset.image_shape) == (0, (1, 8, 8))
    images, labels = everything(dataset)
    assert np.array_equal(images[..., 0], grey["x_train"]) and (labels == -1).all()
    refused("own.npz' has no labels", dataset_info, str(tmp_path / "own.npz"), labelled=True)


def test_a_file_may_say_how_to_normalise(tmp_path):
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
    arrays = write_npz(tmp_path / "own.npz", mean=np.array(mean), std=np.array(std, np.float32))
    dataset = load_dataset(str(tmp_path / "own.npz"), "", train=False)
    assert dataset.normalisation == Normalisation(mean, std) == dataset_info(str(tmp_path / "own.npz")).normalisation
    expected = (torch.from_numpy(arrays["x_test"]) / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(collect(dataset.batches(3))[0], expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x_test": None}, "x_test.*; save it with numpy.savez: x_train and x_test uint8"),
        ({"y_test": None}, "has labels for one split only"),
        ({"x_train": random_images(9, 12, 10, 3) / 255}, "float64 .*expected uint8"),
        ({"x_train": random_images(9, 10, 12, 3)}, "images of unequal shapes"),
        ({"x_train": random_images(9, 3, 32, 32), "x_test": random_images(4, 3, 32, 32)}, "channels come last"),
        ({"y_train": np.arange(9) - 1}, "y_train is int64"),
        ({"y_train": np.arange(9) / 2}, "y_train is float64"),
        ({"y_train": np.array([None] * 9)}, "[Oo]bject arrays"),
        ({"mean": 0.5}, "std.*; save it with"),
        ({"mean": 0.5, "std": 0.5}, "mean and std have 1 numbers, the images 3 channels"),
        ({"mean": [0.5] * 3, "std": [1, 0, 1]}, r"std is \[1.0, 0.0, 1.0\]"),
    ],
    ids=str,
)
def test_what_a_users_file_must_not_be(changes, reason, tmp_path):
    write_npz(tmp_path / "own.npz", **changes)
    refused(rf"own\.npz.*{reason}", dataset_info, str(tmp_path / "own.npz"))
