"""A user's folders of images: what `dataset.yaml` says, labels, both ways of decoding, other systems
than Linux, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from src.choices.datasets import dataset_label, dataset_name
from src.datasets import dataset_info, folders, load_dataset
from src.datasets.base import ImageSet
from src.datasets.decoded import DecodedImageSet, _Decoder
from src.datasets.folders import IMAGENET_VALUES
from src.ground.errors import UserError
from tests.commands import names_in, run_module, says
from tests.tiny_datasets import collect, write_folder

ONE_CLASS = {"classes": ("ant",)}


def load(root: Path, *, train: bool, **options):
    return load_dataset(str(root), "nowhere", train=train, **options)


def opened(root: Path, split: str) -> list[Image.Image]:
    return [Image.open(path) for path in sorted((root / split).rglob("*.png"))]


def test_paths_are_made_absolute(in_tmp_path):
    (in_tmp_path / "mine").mkdir()
    np.savez("arrays.npz", x=np.zeros(1))
    for name in ("mine", "arrays.npz"):
        assert dataset_name(name) == f"{in_tmp_path}/{name}"
    assert dataset_label(f"{in_tmp_path}/arrays.npz") == "arrays"
    for name, line in (
        ("./nowhere", "is no folder of images and no .npz file; check the path"),
        ("other.npz", "give a folder of images or an .npz file"),
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
    (line,) = capsys.readouterr().err.splitlines()
    assert says(
        line, f"{root}: images of 24 pixels", "to 224", "size: 24, and augment", "dataset.yaml"
    )


def test_transparency_is_said_to_be_dropped(tmp_path, capsys):
    root = write_folder(tmp_path, yaml="size: 12\n")
    first, second, third = sorted((root / "train").rglob("*.png"))[:3]
    opaque = Image.open(first).convert("RGBA")
    opaque.save(first)
    load(root, train=True)
    assert not capsys.readouterr().err
    opaque.putalpha(Image.fromarray(np.full((12, 12), 99, np.uint8)))
    opaque.save(second)
    Image.open(third).convert("P").save(third, transparency=bytes(256))
    load(root, train=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert says(line, f"warning: {root}", "2 of 6 images", "transparent")
    assert str(second) in line


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


def test_resized_crops_are_taken_from_the_files(tmp_path):
    write_folder(tmp_path, size=32, yaml="size: 16\n")
    assert isinstance(load(tmp_path, train=True), DecodedImageSet)
    assert isinstance(load(tmp_path, train=False), ImageSet)


def test_decoded_images_are_kept_for_further_passes_without_augmentation(tmp_path, monkeypatch):
    write_folder(tmp_path, n=6, size=32, yaml="size: 16\n")
    train_set = load(tmp_path, train=True)
    decoded = []
    decode = _Decoder.decode

    def count(decoder, path, position):
        decoded.append(path)
        return decode(decoder, path, position)

    monkeypatch.setattr(_Decoder, "decode", count)
    order = torch.tensor([5, 0, 3, 1])
    expected = collect(train_set.batches(3, indices=order))
    train_set.max_bytes_kept = 4 * 3 * 16 * 16
    for n_decoded, indices in ((8, order), (8, order.flip(0)), (14, torch.arange(6))):
        images, labels = collect(train_set.batches(2, indices=indices))
        assert len(decoded) == n_decoded
    assert torch.equal(images[order], expected[0]) and torch.equal(labels[order], expected[1])
    collect(train_set.epoch(3, seed=0, epoch=1))
    collect(train_set.batches(2, indices=order))
    assert len(decoded) == 20


def test_grey_images(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nchannels: 1\naugment: none\nmean: 0.5\nstd: [0.25]\n")
    dataset = load(tmp_path, train=True)
    images, _ = collect(dataset.batches(6))
    grey = np.stack([np.asarray(image.convert("L")) for image in opened(tmp_path, "train")])
    torch.testing.assert_close(images[:, 0], (torch.from_numpy(grey) / 255 - 0.5) / 0.25)
    assert dataset_info(str(tmp_path)).spec.shape == (1, 12, 12)


def test_images_without_class_folders_are_unlabelled(tmp_path):
    write_folder(tmp_path, classes=(), yaml="size: 12\n")
    dataset = load(tmp_path, train=True)
    assert len(dataset) == 6 and dataset.n_classes == 0 and (dataset.labels == -1).all()
    with pytest.raises(
        UserError, match="has no labels; choose one that has: .*, or label your own"
    ):
        dataset_info(str(tmp_path), labelled=True)


def test_classes_in_their_order_of_which_some_may_be_missing(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nclasses: [cat, dog, bee, ant]\n")
    assert dataset_info(str(tmp_path)).spec.n_classes == 4
    assert load(tmp_path, train=True).labels.tolist() == [3, 3, 2, 2, 0, 0]
    write_folder(tmp_path / "numbered", classes=("0", "1"), yaml="size: 12\nclasses: [1, 0]\n")
    assert load(tmp_path / "numbered", train=True).labels.tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    "method",
    ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("forkserver", "spawn"))],
)
def test_scripts_read_them_without_linux(method, tmp_path):
    """Whatever way Python starts processes, and without the calls that Linux alone has."""
    run_module("on_another_system", method, cwd=tmp_path)
    assert "model_1.pt" in names_in(tmp_path / "m")
    assert len(list(tmp_path.glob("results/stitch/*/grid.csv"))) == 1
    assert (tmp_path / "results" / "all" / "similarity" / "a-b.csv").exists()


def nothing(root: Path) -> None:
    pass


def rename(old: str, new: str):
    return lambda root: (root / old).rename(root / new)


def save_16_bits(root: Path) -> None:
    Image.fromarray(np.full((9, 9), 300, np.uint16)).save(root / "train" / "ant" / "x.png")


@pytest.mark.parametrize(
    ("options", "change", "said"),
    [
        ({"yaml": "szie: 3"}, nothing, "unknown key in .*dataset.yaml 'szie'; did you mean size"),
        (
            {"yaml": "size: small"},
            nothing,
            "dataset.yaml: size cannot be small; allowed are size: 224, channels",
        ),
        ({"yaml": "size: 12\nchannels: 2"}, nothing, "dataset.yaml: channels cannot be 2; allowed"),
        (
            {"yaml": "augment: mirror"},
            nothing,
            "yaml: augment cannot be mirror; .*none, flip, crop_flip, resized_crop",
        ),
        ({"yaml": "mean: [1, 0]"}, nothing, r"mean is \[1, 0\]; a number for each of 3 channels"),
        ({"yaml": "mean: [127, 127, 127]"}, nothing, r"\(levels divided by 255\): a mean from 0"),
        ({"yaml": "std: [0.5, 64, 0.5]"}, nothing, r"std is \[0.5, 64, 0.5\]; .*above 0 up to 1"),
        ({"yaml": "classes: [a, a]"}, nothing, "classes cannot be"),
        (
            {"yaml": "classes: [bee]"},
            nothing,
            "train: ant, cat is no class of dataset.yaml; put a folder",
        ),
        (
            {},
            rename("val", "pictures"),
            r"no folder val, .*validation_data \(it holds pictures, train\); put the test i[^;]*/val, a [^;]*$",
        ),
        (
            {},
            rename("val/bee", "val/bees"),
            "val: bees is no class of the training images; put a folder",
        ),
        ({}, rename("val/bee", "bee"), "valid file for the classes bee"),
        (
            {"classes": (), "n": 1},
            rename("val/000.png", "a.png"),
            "val holds neither images nor folders of images",
        ),
        (ONE_CLASS, save_16_bits, "read .*x.png: its pixels have more than 8 bits"),
        (
            ONE_CLASS,
            lambda root: (root / "train/ant/x.png").write_bytes(b"no image"),
            "read .*x.png: .*restore or rem",
        ),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_mistakes_are_one_line(options, change, said, tmp_path):
    write_folder(tmp_path, **options)
    change(tmp_path)
    with pytest.raises(UserError, match=said) as error:
        for train in (True, False):
            list(load(tmp_path, train=train).epoch(4, seed=0, epoch=1))
    assert "\n" not in str(error.value)
