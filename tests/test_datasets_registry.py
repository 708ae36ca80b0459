"""The table of data sets, and the two that are embedded."""

import numpy as np
import pytest
import torch

from src.datasets import dataset_info, dataset_label, dataset_name, load_dataset
from src.errors import UserError


def test_unknown_names_suggest_close_ones():
    with pytest.raises(UserError, match=r"unknown dataset 'cifar'; did you mean .*cifar10.*--help lists all"):
        load_dataset("cifar", "nowhere", train=True)


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "arrays.npz", x=np.zeros(1))
    assert dataset_name("mine") == str(tmp_path / "mine") and dataset_name("arrays.npz") == str(tmp_path / "arrays.npz")
    assert dataset_label(str(tmp_path / "arrays.npz")) == "arrays"
    with pytest.raises(UserError, match="dataset './nowhere' is no folder of images and no .npz file; check the path"):
        dataset_name("./nowhere")
    with pytest.raises(UserError, match="unknown dataset 'other.npz'.*give a folder of images or an .npz file"):
        dataset_name("other.npz")


@pytest.mark.parametrize(("name", "n_train", "n_test"), [("digits", 1437, 360), ("photo_patches", 3000, 1000)])
def test_embedded_sets_need_no_folder(name, n_train, n_test):
    for train, n in ((True, n_train), (False, n_test)):
        dataset = load_dataset(name, "/nowhere", train=train)
        images, labels = next(dataset.batches(32))
        assert len(dataset) == n
        assert dataset.image_shape == dataset_info(name).image_shape == images.shape[1:]
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert images.min() >= 0 and images.max() <= 1
        assert dataset.n_classes == dataset_info(name).n_classes


def test_photo_patches_are_unlabelled():
    patches = load_dataset("photo_patches", ".", train=True)
    assert patches.n_classes == 0 and (patches.labels == -1).all()
    with pytest.raises(UserError, match="'photo_patches' has no labels; choose one that has: cifar10, .*digits"):
        dataset_info("photo_patches", labelled=True)
    assert dataset_info("digits", labelled=True).n_classes == 10
