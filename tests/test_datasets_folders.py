"""A user's folders of images: what `dataset.yaml` says, labels, both ways of decoding, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from src.core.choices.datasets import dataset_label, dataset_name
from src.core.errors import UserError
from src.datasets import dataset_info, folders, load_dataset
from src.datasets.base import ImageSet
from src.datasets.decoded import DecodedImageSet
from src.datasets.folders import IMAGENET_VALUES
from tests.commands import says
from tests.tiny_datasets import collect, write_folder


def load(root: Path, *, train: bool, **options):
    return load_dataset(str(root), "nowhere", train=train, **options)


def opened(root: Path, split: str) -> list[Image.Image]:
    return [Image.open(path) for path in sorted((root / split).rglob("*.png"))]


def test_paths_are_made_absolute(in_tmp_path):
    (in_tmp_path / "mine").mkdir()
    np.savez("arrays.npz", x=np.zeros(1))
    (in_tmp_path / "text").touch()
    for name in ("mine", "arrays.npz"):
        assert dataset_name(name) == f"{in_tmp_path}/{name}"
    assert dataset_label(f"{in_tmp_path}/arrays.npz") == "arrays"
    for name, line in (
        ("./nowhere", "does not exist; give a folder of images or an .npz file"),
        ("other.npz", "does not exist; give a folder of images or an .npz file"),
        ("./text", "is neither a folder of images nor an .npz file"),
    ):
        with pytest.raises(UserError, match=f"dataset '{name}'.*{line}"):
            dataset_name(name)


@pytest.mark.parametrize("test", ["val", "validation", "test"])
def test_labels_are_places_of_class_folders(test, tmp_path):
    write_folder(tmp_path, test=test, yaml="size: 12\naugment: none\n")
    info = dataset_info(str(tmp_path), labelled=True)
    assert (*info.spec[:2], info.source) == (3, (3, 12, 12), str(tmp_path))
    (tmp_path / test / ".ipynb_checkpoints").mkdir()
    for train, split in ((True, "train"), (False, test)):
        dataset = load(tmp_path, train=train)
        images, labels = collect(dataset.batches(4))
        assert labels.tolist() == [0, 0, 1, 1, 2, 2] and dataset.spec == info.spec
        to_values = T.Compose([T.ToTensor(), T.Normalize(*IMAGENET_VALUES)])
        expected = torch.stack([to_values(image) for image in opened(tmp_path, split)])
        torch.testing.assert_close(images, expected)
        assert isinstance(dataset, ImageSet)


def test_without_dataset_yaml_images_become_those_of_imagenet(tmp_path, capsys):
    """Small ones are enlarged, which is said once; test_datasets_imagenet.py has the pixels."""
    for size in (300, 24):
        root = write_folder(tmp_path / str(size), n=3, size=size)
        for train in (True, False):
            dataset = load(root, train=train)
            images, _ = collect(dataset.epoch(2, seed=0, epoch=1))
            assert isinstance(dataset, DecodedImageSet) and images.shape == (3, 3, 224, 224)
            assert dataset.loading.n_workers == 0  # a notebook starts no processes unasked
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if says(line, "has no dataset.yaml")] == [
        str(tmp_path / "300"),
        str(tmp_path / "24"),
    ]
    assert len(lines) == 3
    assert says(
        lines[-1], f"{root}: images of 24 pixels", "to 224", "size: 24, and augment", "dataset.yaml"
    )


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_small_images_are_decoded_once_and_large_ones_by_workers(augment, tmp_path, monkeypatch):
    """Both ways give the same images."""
    write_folder(tmp_path, n=9, size=32, yaml=f"size: 16\naugment: {augment}\n")
    found = []
    for kind, limit in ((ImageSet, 2**30), (DecodedImageSet, 8)):
        monkeypatch.setattr(folders, "MAX_BYTES_KEPT", limit)
        sets = [load(tmp_path, train=train) for train in (True, False)]
        assert all(type(images) is kind for images in sets)
        batches = [images.batches(2) for images in sets]
        batches += [images.epoch(3, seed=0, epoch=2) for images in sets]
        found.append(torch.cat([collect(passed)[0] for passed in batches]))
    assert torch.equal(*found)
    plain, _, augmented, _ = found[0].split([9, 9, 9, 9])
    is_moved = not torch.allclose(plain.sum(0), augmented.sum(0), atol=1e-4)
    assert is_moved == (augment != "none")
    (tmp_path / "dataset.yaml").write_text("size: 16\n")  # a resized crop is of the file
    assert isinstance(load(tmp_path, train=True), DecodedImageSet)


def test_grey_images(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nchannels: 1\naugment: none\nmean: 0.5\nstd: [0.25]\n")
    dataset = load(tmp_path, train=True)
    images, _ = collect(dataset.batches(6))
    grey = np.stack([np.asarray(image.convert("L")) for image in opened(tmp_path, "train")])
    torch.testing.assert_close(images[:, 0], (torch.from_numpy(grey) / 255 - 0.5) / 0.25)
    assert dataset_info(str(tmp_path)).spec.shape == (1, 12, 12)


def test_images_without_class_folders_are_unlabelled(tmp_path):
    """One of more than 8 bits is named."""
    write_folder(tmp_path, classes=(), yaml="size: 12\n")
    dataset = load(tmp_path, train=True)
    assert len(dataset) == 6 and dataset.n_classes == 0 and (dataset.labels == -1).all()
    with pytest.raises(
        UserError, match="has no labels; choose one that has: .*, or label your own"
    ):
        dataset_info(str(tmp_path), labelled=True)
    Image.fromarray(np.full((9, 9), 300, np.uint16)).save(tmp_path / "train" / "x.png")
    with pytest.raises(UserError, match="read .*x.png: its pixels have more than 8 bits"):
        collect(load(tmp_path, train=True).batches(4))


def test_classes_in_their_order_of_which_some_may_be_missing(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nclasses: [cat, dog, bee, ant]\n")
    assert dataset_info(str(tmp_path)).spec.n_classes == 4
    assert load(tmp_path, train=True).labels.tolist() == [3, 3, 2, 2, 0, 0]
    write_folder(tmp_path / "numbered", classes=("0", "1"), yaml="size: 12\nclasses: [1, 0]\n")
    assert load(tmp_path / "numbered", train=True).labels.tolist() == [1, 1, 1, 0, 0, 0]


MISTAKES = {  # by what is said: options of the folder, and a change of it
    "unknown key in .*dataset.yaml 'szie'; did you mean size": ({"yaml": "szie: 3"}, None),
    "dataset.yaml: size cannot be small": ({"yaml": "size: small"}, None),
    "dataset.yaml: channels cannot be 2": ({"yaml": "size: 12\nchannels: 2"}, None),
    "augment cannot be mirror; .*none, flip, crop_flip, resized_crop": ({"yaml": "augment: mirror"}, None),
    r"mean is \[1, 0\]; a number for each of 3 channels": ({"yaml": "mean: [1, 0]"}, None),
    r"\(levels divided by 255\): a mean from 0": ({"yaml": "mean: [127, 127, 127]"}, None),
    r"std is \[0.5, 64, 0.5\]; .*above 0 up to 1": ({"yaml": "std: [0.5, 64, 0.5]"}, None),
    "classes cannot be": ({"yaml": "classes: [a, a]"}, None),
    "train: ant, cat is no class of dataset.yaml": ({"yaml": "classes: [bee]"}, None),
    r"no folder val, .*validation_data \(it holds pictures, train\)": ({}, ("val", "pictures")),
    "val: bees is no class of the training images": ({}, ("val/bee", "val/bees")),
    "valid file for the classes bee": ({}, ("val/bee", "bee")),
    "val holds neither images nor folders of images": ({"classes": (), "n": 1}, ("val/000.png", "a.png")),
}  # fmt: skip


@pytest.mark.parametrize("said", MISTAKES)
def test_mistakes_are_one_line(said, tmp_path):
    options, renamed = MISTAKES[said]
    write_folder(tmp_path, **options)
    if renamed:
        old, new = renamed
        (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(UserError, match=said) as error:
        for train in (True, False):
            load(tmp_path, train=train)
    assert "\n" not in str(error.value)
