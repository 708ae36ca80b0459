"""The table of data sets: names and paths, and the two sets that are embedded."""

import numpy as np
import pytest
import torch

from src.datasets import dataset_info, dataset_label, dataset_name, load_dataset
from src.errors import UserError


def test_paths_are_made_absolute(in_tmp_path):
    (in_tmp_path / "mine").mkdir()
    np.savez("arrays.npz", x=np.zeros(1))
    for name in ("mine", "arrays.npz"):
        assert dataset_name(name) == f"{in_tmp_path}/{name}"
    assert dataset_label(f"{in_tmp_path}/arrays.npz") == "arrays"
    for name, line in (("./nowhere", "is no folder of images and no .npz file; check the path"),
                       ("other.npz", "give a folder of images or an .npz file")):  # fmt: skip
        with pytest.raises(UserError, match=f"dataset '{name}'.*{line}"):
            dataset_name(name)


@pytest.mark.parametrize(("name", "n_train", "n_test"), [("digits", 1437, 360), ("photo_patches", 3000, 1000)])
def test_embedded_sets_need_no_folder(name, n_train, n_test):
    for train, n in ((True, n_train), (False, n_test)):
        dataset = load_dataset(name, "/nowhere", train=train)
        images, labels = next(dataset.batches(32))
        assert len(dataset) == n and dataset.spec == dataset_info(name).spec
        assert images.shape == (32, 1, 8, 8) and images.min() >= 0 and 0.5 < images.max() <= 1
        assert labels.dtype == torch.int64 and (name == "digits" or (dataset.labels == -1).all())
