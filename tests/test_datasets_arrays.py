"""Arrays on disk: mapped where they lie, unpacked once, the same batches as from memory, and refused when
damaged; and small data sets, downloaded by torchvision or embedded."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets as tv

from src.core.errors import UserError
from src.core.inputs import InputSpec, Normalisation
from src.datasets import dataset_info, load_dataset
from src.datasets.augmentation import CropFlip
from src.datasets.base import ImageSet
from src.datasets.mapped import MappedImages
from tests.commands import says, start_code
from tests.tiny_datasets import (
    collect,
    random_images,
    write_cifar5m,
    write_cifar10,
    write_mnist,
    write_svhn,
)

SIZES = [5, 4, 3, 6, 2, 7]  # of the six parts of CIFAR-5M
SAVE = {"stored": np.savez, "compressed": np.savez_compressed}


def everything(dataset) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, C) and labels (N,) of all batches."""
    images, labels = collect(dataset.batches(4))
    assert labels.dtype == torch.int64
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy(), labels.numpy()


def test_images_on_disk_give_the_batches_of_images_in_memory(tmp_path):
    for i, n in enumerate((300, 1, 200)):
        np.save(tmp_path / f"{i}.npy", random_images(n, 32, 32, 3, seed=i))
    parts = [np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(3)]
    options = {"labels": torch.arange(501), "augmentation": CropFlip(4), "epoch_size": 400}
    in_memory = ImageSet(torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2), **options)
    on_disk = ImageSet(MappedImages(parts), **options)
    assert len(on_disk) == 501 and on_disk.image_shape == (3, 32, 32)
    some = torch.tensor([300, 500, 0, 0, 301])
    for go_through in (
        lambda dataset: dataset.epoch(350, seed=0, epoch=2),
        lambda dataset: dataset.batches(3, indices=some),
    ):
        assert all(map(torch.equal, *(collect(go_through(each)) for each in (in_memory, on_disk))))


def test_random_images_are_one_split_augmented_for_training_only(tmp_path):
    path, images = tmp_path / "oe" / "300K_random_images.npy", random_images(20, 32, 32, 3)
    path.parent.mkdir()
    np.save(path, images[..., :2])
    reason = r"uint8 \(20, 32, 32, 2\), expected uint8 \(N, 32, 32, 3\)"
    with pytest.raises(UserError, match=rf"cannot read {path}: .*{reason}"):
        load_dataset("outlier_exposure", tmp_path, train=True)
    np.save(path, images)
    for train, root in ((False, tmp_path), (True, tmp_path / "oe")):
        dataset = load_dataset("outlier_exposure", root, train=train)
        assert np.array_equal(everything(dataset)[0], images)
        assert (dataset.n_classes, dataset.image_shape) == (0, (3, 32, 32))
        assert (dataset.augmentation is None) == (not train)
        assert isinstance(dataset.images.parts[0], np.memmap)


# CIFAR-5M


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_parts_are_mapped_in_place_or_unpacked_once_and_said(save, tmp_path, capsys):
    images, labels = write_cifar5m(tmp_path / "cifar5m", SIZES, save=save)
    said = []
    for root in (tmp_path, tmp_path / "cifar5m"):
        dataset = load_dataset("cifar5m", root, train=True)
        assert (len(dataset), dataset.n_classes, dataset.epoch_size, dataset.augmentation) == (
            27,
            10,
            50_000,
            None,
        )
        assert dataset.labels.dtype == torch.int8 and all(
            map(np.array_equal, everything(dataset), (images, labels))
        )
        said.append(capsys.readouterr().err.count(f"of {tmp_path}/cifar5m/cifar5m_part"))
    is_compressed = save is np.savez_compressed
    assert said == [6 * is_compressed, 0]
    assert all(isinstance(mapped, np.memmap) for mapped in dataset.images.parts)
    assert len(list((tmp_path / "cifar5m").iterdir())) == 6 + 6 * is_compressed

    images[0] ^= 1
    path = tmp_path / "cifar5m" / "cifar5m_part0.npz"
    save(path, X=images[:5], Y=labels[:5])  # another archive, even an older one
    os.utime(path, (0, 0))
    assert np.array_equal(everything(load_dataset("cifar5m", tmp_path, train=True))[0], images)
    assert len(list(path.parent.iterdir())) == 6 + 6 * is_compressed  # without earlier contents


def test_missing_and_damaged_parts_are_named_and_leave_nothing_behind(tmp_path):
    path = tmp_path / "cifar5m" / "cifar5m_part0.npz"

    def refuse(reason):
        line = f"cannot read {path}: .*{reason}.*fetch all 6 parts from https://github.com/preetum/cifar5m"
        with pytest.raises(UserError, match=line):
            load_dataset("cifar5m", tmp_path, train=True)

    refuse("No such file")
    images, labels = write_cifar5m(path.parent, SIZES, save=np.savez_compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[:9000] + bytes([whole[9000] ^ 255]) + whole[9001:])
    refuse("Bad CRC-32|invalid|incorrect")
    assert len(list(path.parent.iterdir())) == 6
    for content, reason in (
        (
            {"X": images, "Y": labels[:-1]},
            r"Y is int64 \(26,\), expected 27 integers from 0",
        ),
        ({"X": images, "Y": [300, *labels[1:]]}, "labels up to 300, expected at most 9"),
    ):
        np.savez(path, **content)
        refuse(reason)


# A user's .npz


def write_npz(path: Path, *, save=np.savez, **changes) -> dict[str, np.ndarray]:
    images = {"x_train": random_images(9, 12, 10, 3), "x_test": random_images(4, 12, 10, 3, seed=1)}
    arrays = images | {"y_train": np.arange(9) % 3, "y_test": np.arange(4) % 4} | changes
    arrays = {name: array for name, array in arrays.items() if array is not None}
    save(path, **arrays)
    return arrays


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_a_file_of_a_users_own(save, tmp_path, capsys):
    path = tmp_path / "own.npz"
    arrays = write_npz(path, save=save)
    info = dataset_info(str(path), labelled=True)
    assert info.spec == InputSpec(4, (3, 12, 10)) and info.augmentation is None
    for split, train in (("train", True), ("test", False)):
        dataset = load_dataset(str(path), "nowhere", train=train)
        images, labels = everything(dataset)
        assert np.array_equal(images, arrays[f"x_{split}"])
        assert np.array_equal(labels, arrays[f"y_{split}"]) and dataset.spec == info.spec
        assert isinstance(dataset.images.parts[0], np.memmap)
    unpacked = [path.name.split(".")[0] for path in tmp_path.glob("own_*")]
    assert sorted(unpacked) == ["own_x_test", "own_x_train"] * (save is np.savez_compressed)
    assert says(capsys.readouterr().err, "no training input has label 3", "4 classes")
    write_npz(path, save=save, means=np.array([0.5] * 3))
    dataset_info(str(path))
    assert says(capsys.readouterr().err, "means is not read; read are x_train", "mean")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"own\.npz: it is no .npz archive"):
        dataset_info(str(path))


def test_grey_unlabelled_images_and_how_to_normalise(tmp_path, capsys):
    grey = {"x_train": random_images(5, 8, 8), "x_test": random_images(3, 8, 8)}
    scale = {"mean": np.array(0.5), "std": np.array([0.25], np.float32)}
    write_npz(tmp_path / "own.npz", **grey, **scale, y_train=None, y_test=None)
    dataset = load_dataset(str(tmp_path / "own.npz"), "", train=True)
    assert not capsys.readouterr().err
    assert (dataset.n_classes, dataset.image_shape) == (0, (1, 8, 8))
    assert dataset.normalisation == Normalisation((0.5,), (0.25,))
    images, labels = collect(dataset.batches(3))
    torch.testing.assert_close(images[:, 0], (torch.from_numpy(grey["x_train"]) / 255 - 0.5) / 0.25)
    assert (labels == -1).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"x_test": None},
            "no array x_test .*; save it with numpy.savez: x_train and x_test images uint8",
        ),
        ({"y_test": None}, "has labels for one split only"),
        (
            {"x_train": random_images(9, 12, 10, 3) / 255},
            r"float64 .*expected uint8.*\(x \* 255 / x.max\(\)\).round\(\).astype",
        ),
        ({"x_train": random_images(9, 10, 12, 3)}, "x_train and x_test have unequal shapes"),
        (
            {"x_train": random_images(9, 3, 32, 32), "x_test": random_images(4, 3, 32, 32)},
            "channels come last",
        ),
        ({"y_train": np.arange(9) - 1}, "y_train has label -1"),
        ({"x_train": np.array([{}, print], dtype=object)}, "Python objects"),
        ({"mean": 0.5, "std": 0.5}, r"mean is \[0.5\]; a number for each of 3 channels"),
        ({"mean": [0.5] * 3, "std": [1, 0, 1]}, r"std is \[1.0, 0.0, 1.0\]"),
        ({"mean": [127] * 3, "std": [1] * 3}, r"mean is \[127.0, .*levels divided by 255"),
        ({"mean": [0.5] * 3, "std": [64] * 3}, r"std is \[64.0, .*a std above 0 up to 1"),
    ],
    ids=str,
)
def test_what_a_users_file_must_not_be(changes, reason, tmp_path):
    write_npz(tmp_path / "own.npz", **changes)
    with pytest.raises(UserError, match=rf"own\.npz.*{reason}"):
        dataset_info(str(tmp_path / "own.npz"))


WRITERS = {
    "cifar10": write_cifar10,
    "svhn": write_svhn,
    "mnist": write_mnist,
    "cifar10_large": write_cifar10,
}
TRAIN_FILE = {
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "svhn": "train_32x32.mat",
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
}


@pytest.mark.parametrize("name", WRITERS)
def test_both_splits_are_torchvisions(name, tmp_path, unofficial_files):
    """cifar100 and fashion have the formats of cifar10 and mnist."""
    WRITERS[name](tmp_path)
    info = dataset_info(name)
    for train, split in ((True, "train"), (False, "test")):
        chosen = {"split": split} if name == "svhn" else {"train": train}
        theirs = getattr(tv, info.source)(tmp_path, **chosen)
        ours = load_dataset(name, tmp_path, train=train)
        assert len(ours) == len(theirs) and ours.spec == info.spec
        for i in (0, 9, 19):
            image, label = theirs[i]
            array = np.asarray(image).reshape(*image.size[::-1], -1).transpose(2, 0, 1)
            assert np.array_equal(ours.images[i].numpy(), array) and int(ours.labels[i]) == label
    if name == "cifar10":  # whose test images are those of CIFAR-5M
        other = load_dataset("cifar5m", tmp_path, train=False)
        assert torch.equal(other.images, ours.images) and torch.equal(other.labels, ours.labels)


@pytest.mark.parametrize("name", TRAIN_FILE)
def test_damaged_files_are_the_users_to_mend(name, tmp_path, unofficial_files, no_network):
    WRITERS[name](tmp_path)
    file = tmp_path / TRAIN_FILE[name]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(UserError, match=f"cannot read {tmp_path}: .*remove damaged files"):
        load_dataset(name, tmp_path, train=True)


def test_what_is_missing_is_downloaded_once_for_both_splits_and_all_processes(
    tmp_path, monkeypatch, unofficial_files, capfd
):
    root = tmp_path / "new" / "data"
    lock = f"from src.core.files import locked; locked({str(root / '.cifar10.lock')!r}, wait=False)"

    def download(self):
        assert start_code(lock).wait(60) == 1  # no other process downloads meanwhile
        write_cifar10(self.root)
        print("Extracting")

    monkeypatch.setattr(
        tv.CIFAR10, "_check_integrity", lambda self: (root / self.base_folder).is_dir()
    )
    monkeypatch.setattr(tv.CIFAR10, "download", download)
    for train, n in ((True, 50), (False, 20)):
        assert len(load_dataset("cifar10", root, train=train)) == n
    assert {path.name for path in root.iterdir()} == {".cifar10.lock", "cifar-10-batches-py"}
    assert capfd.readouterr() == ("", "Extracting\n")  # results alone go to stdout


@pytest.mark.parametrize(
    ("name", "n_train", "n_test"), [("digits", 1437, 360), ("photo_patches", 3000, 1000)]
)
def test_embedded_sets_need_no_folder(name, n_train, n_test):
    for train, n in ((True, n_train), (False, n_test)):
        dataset = load_dataset(name, "/nowhere", train=train)
        images, labels = next(dataset.batches(32))
        assert len(dataset) == n and dataset.spec == dataset_info(name).spec
        assert images.shape == (32, 1, 8, 8) and images.min() >= 0 and 0.5 < images.max() <= 1
        assert labels.dtype == torch.int64 and (name == "digits" or (dataset.labels == -1).all())


def test_a_mean_of_0_and_a_std_of_1_count_as_given(tmp_path, capsys):
    images = random_images(2, 8, 8, 1)
    arrays = {"x_train": images, "x_test": images, "y_train": [0, 1], "y_test": [0, 1]}
    for name, constants in (("without", {}), ("with", {"mean": [0.0], "std": [1.0]})):
        np.savez(tmp_path / f"{name}.npz", **arrays, **constants)
        dataset_info(str(tmp_path / f"{name}.npz"))
        assert ("has no mean and std" in capsys.readouterr().err) == (not constants)
