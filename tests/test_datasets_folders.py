"""A user's folders of images: what `dataset.yaml` says, labels, both ways of decoding, other systems
than Linux, and clear errors."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from src.choices.datasets import IMAGENET_VALUES, dataset_label, dataset_name
from src.datasets import Loading, dataset_info, folders, load_dataset
from src.datasets.base import ImageSet
from src.datasets.decoded import DecodedImageSet, _Decoder
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
    assert (info.n_classes, info.image_shape, info.source) == (3, (3, 12, 12), str(tmp_path))
    (tmp_path / test / ".ipynb_checkpoints").mkdir()
    for train, split in ((True, "train"), (False, test)):
        dataset = load(tmp_path, train=train)
        images, labels = collect(dataset.batches(4))
        assert labels.tolist() == [0, 0, 1, 1, 2, 2] and dataset.spec == info.spec
        to_values = T.Compose([T.ToTensor(), T.Normalize(*IMAGENET_VALUES)])
        expected = torch.stack([to_values(image) for image in opened(tmp_path, split)])
        torch.testing.assert_close(images, expected)
        assert isinstance(dataset, ImageSet)


def test_without_dataset_yaml_large_images_become_those_of_imagenet(tmp_path, capsys):
    """test_datasets_imagenet.py has the pixels."""
    root = write_folder(tmp_path, n=3, size=300)
    for train in (True, False):
        dataset = load(root, train=train)
        images, _ = collect(dataset.epoch(2, seed=0, epoch=1))
        assert isinstance(dataset, DecodedImageSet) and images.shape == (3, 3, 224, 224)
    assert not capsys.readouterr().err


def test_small_images_of_one_size_keep_it_and_that_is_said_before_the_work(tmp_path, capsys):
    root = write_folder(tmp_path, n=3, size=24)
    info = dataset_info(str(root), labelled=True)  # before a network is built
    (line,) = capsys.readouterr().err.splitlines()
    assert says(line, f"{root}: images are 24×24", "keep this size", "shifted")
    assert says(line, "size: 224", f"{root}/dataset.yaml")
    assert info.image_shape == (3, 24, 24)
    to_values = T.Compose([T.ToTensor(), T.Normalize(*IMAGENET_VALUES)])
    test_images, _ = collect(load(root, train=False).batches(2))
    expected = torch.stack([to_values(image) for image in opened(root, "val")])
    torch.testing.assert_close(test_images, expected)
    train_set = load(root, train=True)
    assert isinstance(train_set, ImageSet) and train_set.augmentation is not None
    assert not capsys.readouterr().err  # said once

    (root / "dataset.yaml").write_text("augment: none\n")
    assert load(root, train=True).image_shape == (3, 24, 24)
    assert capsys.readouterr().err.count("keep this size") == 1
    (root / "dataset.yaml").write_text("size: 224\n")
    assert load(root, train=True).image_shape == (3, 224, 224) and not capsys.readouterr().err


def test_small_images_of_several_sizes_are_enlarged_with_a_warning(tmp_path, capsys):
    root = write_folder(tmp_path, n=6, size=24)
    wide = root / "train" / "ant" / "000.png"
    Image.open(wide).resize((40, 30)).save(wide)
    assert dataset_info(str(root)).image_shape == (3, 224, 224)
    (line,) = capsys.readouterr().err.splitlines()
    assert says(line, f"warning: {root}", "24×24 and 30×40")
    assert says(line, f"{root}/dataset.yaml", "size: 24", "crop_flip", "none")
    for path in (root / "train").rglob("*.png"):
        Image.open(path).resize((40, 30)).save(path)
    assert dataset_info(str(root)).image_shape == (3, 30, 30)
    assert says(capsys.readouterr().err, "images are 30×40", "middle 30×30")


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


def test_levels_of_0_and_1_are_warned_of(tmp_path, capsys):
    root = write_folder(tmp_path, yaml="size: 12\n")
    for path in (root / "train").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 128).save(path)
    load(root, train=False)
    assert not capsys.readouterr().err
    load(root, train=True)
    assert "are 0 or 1" in capsys.readouterr().err


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_small_images_are_decoded_once_and_large_ones_by_workers(augment, tmp_path, monkeypatch):
    """Both ways give the same test images, and training images of the same mean and deviation."""
    write_folder(tmp_path, n=3, size=32, yaml=f"size: 16\naugment: {augment}\n")
    for path in tmp_path.rglob("*.png"):  # smooth: noise looks different at another scale
        Image.open(path).resize((3, 3)).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    test_images, training = [], []
    for kind, limit in ((ImageSet, 2**30), (DecodedImageSet, 8)):
        monkeypatch.setattr(folders, "MAX_BYTES_KEPT", limit)
        train_set, test_set = (
            load(tmp_path, train=train, loading=Loading(0)) for train in (True, False)
        )
        assert type(train_set) is type(test_set) is kind
        test_images.append(collect(test_set.batches(2)))
        training.append(
            torch.cat([collect(train_set.epoch(3, seed=0, epoch=i))[0] for i in range(1, 251)])
        )
    assert all(map(torch.equal, *test_images))
    kept, decoded = training
    assert (kept.mean(0) - decoded.mean(0)).abs().mean() < 0.15 and abs(
        kept.std() / decoded.std() - 1
    ) < 0.15
    monkeypatch.undo()
    (tmp_path / "dataset.yaml").write_text("size: 16\n")  # resized crops are taken from the files
    train_set, test_set = (load(tmp_path, train=train) for train in (True, False))
    assert isinstance(train_set, DecodedImageSet) and isinstance(test_set, ImageSet)


def test_decoded_images_are_kept_for_further_passes_without_augmentation(tmp_path, monkeypatch):
    write_folder(tmp_path, n=6, size=32, yaml="size: 16\n")
    train_set = load(tmp_path, train=True, loading=Loading(0))
    assert isinstance(train_set, DecodedImageSet) and len(train_set) == 6
    decoded = []
    decode = _Decoder.decode
    monkeypatch.setattr(
        _Decoder, "decode", lambda self, key: decoded.append(key) or decode(self, key)
    )
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


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files of Linux")
def test_images_that_workers_decoded_are_kept_without_open_files(tmp_path):
    write_folder(tmp_path, n=40, size=20, yaml="size: 16\n")
    train_set = load(tmp_path, train=True, loading=Loading(1, 1))
    train_set.max_bytes_kept = 2**30
    n_before = len(os.listdir("/proc/self/fd"))
    first = collect(train_set.batches(1))
    assert len(os.listdir("/proc/self/fd")) < n_before + 20
    train_set.loading = None  # nothing is decoded again
    assert all(map(torch.equal, first, collect(train_set.batches(7))))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_images_are_decoded_in_any_thread(n_workers, tmp_path):
    write_folder(tmp_path, n=6, size=20, yaml="size: 16\n")
    train_set = load(tmp_path, train=True, loading=Loading(n_workers, 1))
    with ThreadPoolExecutor() as threads:
        images, _ = threads.submit(lambda: collect(train_set.batches(4))).result()
    assert torch.equal(images, collect(train_set.batches(6))[0])


def test_grey_images(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nchannels: 1\naugment: none\nmean: 0.5\nstd: [0.25]\n")
    dataset = load(tmp_path, train=True)
    images, _ = collect(dataset.batches(6))
    grey = np.stack([np.asarray(image.convert("L")) for image in opened(tmp_path, "train")])
    torch.testing.assert_close(images[:, 0], (torch.from_numpy(grey) / 255 - 0.5) / 0.25)
    assert dataset_info(str(tmp_path)).image_shape == (1, 12, 12)


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
    assert dataset_info(str(tmp_path)).n_classes == 4
    assert load(tmp_path, train=True).labels.tolist() == [3, 3, 2, 2, 0, 0]
    write_folder(tmp_path / "numbered", classes=("0", "1"), yaml="size: 12\nclasses: [1, 0]\n")
    assert load(tmp_path / "numbered", train=True).labels.tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("method", "of_workers"),
    [
        pytest.param("fork", "forkserver", marks=pytest.mark.slow),
        ("forkserver", "forkserver"),
        pytest.param("spawn", "spawn", marks=pytest.mark.slow),
    ],
)
def test_scripts_read_them_without_linux(method, of_workers, tmp_path):
    """Whatever way Python starts processes, and without the calls that Linux alone has."""
    methods = run_module("on_another_system", method, cwd=tmp_path).split()
    assert len(methods) >= 6 and set(methods) == {of_workers}
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
