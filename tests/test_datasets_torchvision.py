"""Data sets in torchvision's folders: read, damaged, malicious."""

import os
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torchvision import datasets as tv

from src.datasets import dataset_info, load_dataset
from src.datasets.readers import load_arrays
from src.errors import UserError
from tests import tiny_datasets as tiny

WRITERS = {
    "cifar10": tiny.write_cifar10,
    "cifar100": tiny.write_cifar100,
    "svhn": tiny.write_svhn,
    "mnist": tiny.write_mnist,
    "fashion": tiny.write_fashion,
    "cifar10_large": tiny.write_cifar10,
    "cifar100_large": tiny.write_cifar100,
}
TRAIN_FILE = {
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
    "svhn": "train_32x32.mat",
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "fashion": "FashionMNIST/raw/train-labels-idx1-ubyte",
}


@pytest.mark.parametrize("name", WRITERS)
def test_both_splits_load(name, tmp_path):
    WRITERS[name](tmp_path)
    for train in (True, False):
        dataset = load_dataset(name, tmp_path, train=train)
        images, labels = next(dataset.batches(8))
        assert dataset.image_shape == dataset_info(name).image_shape == images.shape[1:]
        assert labels.tolist() == list(range(8)) and dataset.n_classes == dataset_info(name).n_classes
        images, _ = next(dataset.epoch(4, seed=0, epoch=0))
        assert images.shape == (4, *dataset.image_shape) and images.max() <= 1
    names = {path.name for path in tmp_path.iterdir()}
    assert not any(name.startswith(".") for name in names)  # no lock, nothing written


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "mnist", "fashion"])
def test_images_and_labels_equal_torchvisions(name, tmp_path, monkeypatch):
    WRITERS[name](tmp_path)
    source = {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100, "svhn": tv.SVHN, "mnist": tv.MNIST,
              "fashion": tv.FashionMNIST}[name]  # fmt: skip
    monkeypatch.setattr(source, "_check_integrity", lambda self: True, raising=False)
    monkeypatch.setattr(source, "_load_meta", lambda self: None, raising=False)
    theirs = source(tmp_path, **({"split": "train"} if name == "svhn" else {"train": True}))
    ours = load_dataset(name, tmp_path, train=True)
    for i in (0, 9, 31):
        image, label = theirs[i]
        array = np.asarray(image).reshape(*image.size[::-1], -1).transpose(2, 0, 1)
        assert np.array_equal(ours.images[i].numpy(), array) and int(ours.labels[i]) == label


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_and_kind_of_label_is_read(protocol, tmp_path):
    tiny.write_cifar10(tmp_path, protocol=protocol)
    assert len(load_dataset("cifar10", tmp_path, train=True)) == 50
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    for labels in (np.arange(10), list(np.arange(10)), np.arange(10, dtype=np.uint8)):
        batch.write_bytes(pickle.dumps({"data": tiny.random_images(10, 3072), "labels": labels}, protocol))
        assert load_dataset("cifar10", tmp_path, train=False).labels.tolist() == list(range(10))


def test_pickles_of_python_2_are_read(tmp_path):
    """As the published batches: byte strings for keys and pixels, numpy's old module names."""
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85q\x05"
        b"U\x01bq\x06\x87q\x07Rq\x08(K\x01K\x01M\x00\x0c\x86q\x09cnumpy\ndtype\nq\x0aU\x02u1q\x0bK\x00K\x01\x87q\x0cRq\x0d"
        b"(K\x03U\x01|q\x0eNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0fb\x89T\x00\x0c\x00\x00" + b"\xfe" * 3072
        + b"q\x10tq\x11bU\x06labelsq\x12]q\x13K\x07au."
    )  # fmt: skip
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load_dataset("cifar10", tmp_path, train=False)
    assert (dataset.images == 254).all() and dataset.labels.tolist() == [7]


def test_files_made_by_hand_load_with_a_warning(tmp_path, capsys):
    tiny.write_cifar10(tmp_path)
    load_dataset("cifar10", tmp_path, train=False)
    assert "warning: test_batch in" in capsys.readouterr().err
    tiny.write_mnist(tmp_path)
    load_dataset("mnist", tmp_path, train=False)
    assert capsys.readouterr() == ("", "")


class _Malicious:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "content",
    [OrderedDict(), np.random.default_rng(0), len, np.array([len], dtype=object)],
    ids=lambda content: type(content).__name__,
)
def test_pickles_hold_arrays_and_nothing_else(content, tmp_path):
    (tmp_path / "file").write_bytes(pickle.dumps(content))
    with pytest.raises(pickle.UnpicklingError, match="which has no place in a data set"):
        load_arrays(tmp_path / "file")


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pickle_is_refused_and_does_not_run(protocol, tmp_path):
    tiny.write_cifar10(tmp_path)
    trap = {"data": _Malicious(tmp_path / "ran"), "labels": [0]}
    (tmp_path / TRAIN_FILE["cifar10"]).write_bytes(pickle.dumps(trap, protocol))
    with pytest.raises(UserError, match=r"data_batch_1.*cannot be read as cifar10 \(it calls (posix|nt|os)\.mkdir"):
        load_dataset("cifar10", tmp_path, train=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", TRAIN_FILE)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.7])
def test_truncated_files_are_the_users_to_mend(name, share, tmp_path):
    WRITERS[name](tmp_path)
    file = tmp_path / TRAIN_FILE[name]
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=f"{file}.*cannot be read as {name} .*remove what is damaged") as caught:
        load_dataset(name, tmp_path, train=True)
    assert "\n" not in str(caught.value)
    assert len(load_dataset(name, tmp_path, train=False)) > 0  # the other split is whole


def test_labels_and_shapes_that_do_not_fit_are_named(tmp_path):
    tiny.write_cifar100(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (tmp_path / "cifar-100-python" / "test").rename(folder / "test_batch")
    with pytest.raises(UserError, match="labels from 0 to 99, expected 0 to 9"):
        load_dataset("cifar10", tmp_path, train=False)
    batch = {"data": tiny.random_images(3, 3072), "labels": [0]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(UserError, match="3 images, 1 labels"):
        load_dataset("cifar10", tmp_path, train=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_only_readable_works(tmp_path):
    tiny.write_svhn(tmp_path)
    tmp_path.chmod(0o500)
    assert len(load_dataset("svhn", tmp_path, train=True)) == 50
    tmp_path.chmod(0o700)


def test_labels_are_int64_and_zero_is_class_zero_in_svhn(tmp_path):
    tiny.write_svhn(tmp_path)
    dataset = load_dataset("svhn", tmp_path, train=True)
    assert dataset.labels.dtype == torch.int64 and dataset.labels[:10].tolist() == list(range(10))
