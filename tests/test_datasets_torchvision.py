"""Small data sets, downloaded by torchvision or embedded: their batches, and what says that files
are missing."""

import numpy as np
import pytest
import torch
from torchvision import datasets as tv

from src.datasets import dataset_info, load_dataset
from src.ground.errors import UserError
from tests import tiny_datasets as tiny
from tests.commands import start_code

WRITERS = {
    "cifar10": tiny.write_cifar10,
    "svhn": tiny.write_svhn,
    "mnist": tiny.write_mnist,
    "cifar10_large": tiny.write_cifar10,
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
    lock = (
        f"from src.ground.files import locked; locked({str(root / '.cifar10.lock')!r}, wait=False)"
    )

    def download(self):
        assert start_code(lock).wait(60) == 1  # no other process downloads meanwhile
        tiny.write_cifar10(self.root)
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
