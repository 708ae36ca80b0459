"""A user's folders of images: what `dataset.yaml` says, labels, both ways of decoding, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from src.datasets.dataset_yaml import MEAN, STD
from torchvision import transforms as T

from src.datasets import Loading, dataset_info, folders, load_dataset
from src.datasets.decoded import DecodedImageSet
from src.datasets.in_memory import ImageSet
from src.errors import UserError
from tests.tiny_datasets import collect, random_images


def write_folder(root: Path, *, n: int = 6, size: int = 12, classes=("ant", "bee", "cat"), test="val", yaml="") -> Path:
    """PNGs in a folder for each class, in turn; without classes they lie in the splits themselves."""
    for seed, split in enumerate(("train", test)):
        for i, image in enumerate(random_images(n, size, size, 3, seed=seed)):
            folder = root / split / classes[i % len(classes)] if classes else root / split
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:03}.png")
    if yaml:
        (root / "dataset.yaml").write_text(yaml)
    return root


def load(root: Path, *, train: bool, **options):
    return load_dataset(str(root), "nowhere", train=train, **options)


def opened(root: Path, split: str) -> list[Image.Image]:
    return [Image.open(path) for path in sorted((root / split).rglob("*.png"))]


@pytest.mark.parametrize("test", ["val", "validation", "test"])
def test_labels_are_places_of_class_folders(test, tmp_path):
    write_folder(tmp_path, test=test, yaml="size: 12\naugment: none\n")
    info = dataset_info(str(tmp_path), labelled=True)
    assert (info.n_classes, info.image_shape, info.source) == (3, (3, 12, 12), str(tmp_path))
    for train, split in ((True, "train"), (False, test)):
        dataset = load(tmp_path, train=train)
        images, labels = collect(dataset.batches(4))
        assert labels.tolist() == [0, 0, 1, 1, 2, 2] and dataset.n_classes == 3
        to_values = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])
        expected = torch.stack([to_values(image) for image in opened(tmp_path, split)])
        torch.testing.assert_close(images, expected)
        assert isinstance(dataset, ImageSet)


def test_what_dataset_yaml_leaves_out_is_as_for_imagenet(tmp_path, capsys):
    write_folder(tmp_path, n=3, size=300)
    dataset = load(tmp_path, train=False)
    assert isinstance(dataset, DecodedImageSet) and dataset.image_shape == (3, 224, 224)
    steps = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize(MEAN, STD)])
    expected = torch.stack([steps(image) for image in opened(tmp_path, "val")])
    assert torch.equal(collect(dataset.batches(2))[0], expected)
    images, _ = collect(load(tmp_path, train=True).epoch(2, seed=0, epoch=1))
    assert images.shape == (3, 3, 224, 224) and not capsys.readouterr().err


def test_small_images_without_dataset_yaml_are_noted_once(tmp_path, capsys):
    write_folder(tmp_path, size=32)
    for train in (True, False):
        load(tmp_path, train=train)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path} has no dataset.yaml, so images become 3×224×224, in resized crops; the first")
    assert f"give it in {tmp_path}/dataset.yaml (size: 32, and augment: crop_flip, for example)" in line


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip", "resized_crop"])
def test_small_images_are_decoded_once_and_large_ones_by_workers(augment, tmp_path, monkeypatch):
    """Both ways give the same test images, and training images of the same mean and deviation."""
    write_folder(tmp_path, n=3, size=32, yaml=f"size: 16\naugment: {augment}\n")
    for path in tmp_path.rglob("*.png"):  # smooth: noise looks different at another scale
        Image.open(path).resize((3, 3)).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    test_images, training = [], []
    for kind, limit in ((ImageSet, 64), (DecodedImageSet, 8)):
        monkeypatch.setattr(folders, "IN_MEMORY", limit)
        train_set, test_set = (load(tmp_path, train=train, loading=Loading(0)) for train in (True, False))
        assert type(train_set) is type(test_set) is kind
        test_images.append(collect(test_set.batches(2)))
        training.append(torch.cat([collect(train_set.epoch(3, seed=0, epoch=i))[0] for i in range(1, 251)]))
        assert torch.equal(collect(train_set.epoch(3, seed=0, epoch=1))[0], training[-1][:3])
    assert all(map(torch.equal, *test_images))
    kept, decoded = training
    assert (kept.mean(0) - decoded.mean(0)).abs().mean() < 0.15 and abs(kept.std() / decoded.std() - 1) < 0.15


def test_images_that_would_fill_the_memory_are_decoded_by_workers(tmp_path, monkeypatch):
    write_folder(tmp_path, yaml="size: 12\n")
    monkeypatch.setattr(folders, "_memory_of", lambda device: 4 * 6 * 3 * 12 * 12 - 1)
    assert isinstance(load(tmp_path, train=True), DecodedImageSet)
    monkeypatch.setattr(folders, "_memory_of", lambda device: 4 * 6 * 3 * 12 * 12)
    assert isinstance(load(tmp_path, train=True), ImageSet)


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
    with pytest.raises(UserError, match="has no labels; choose one that has: .*, or label your own"):
        dataset_info(str(tmp_path), labelled=True)


def test_classes_in_their_order_of_which_some_may_be_missing(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nclasses: [cat, dog, bee, ant]\n")
    assert dataset_info(str(tmp_path)).n_classes == 4
    assert load(tmp_path, train=True).labels.tolist() == [3, 3, 2, 2, 0, 0]
    write_folder(tmp_path / "numbered", classes=("0", "1"), yaml="size: 12\nclasses: [1, 0]\n")
    assert load(tmp_path / "numbered", train=True).labels.tolist() == [1, 1, 1, 0, 0, 0]


def test_a_listed_class_may_be_empty_and_hidden_folders_are_none(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nclasses: [ant, bee, cat, dog]\n")
    (tmp_path / "train" / "dog").mkdir()
    (tmp_path / "val" / ".ipynb_checkpoints").mkdir()
    write_folder(tmp_path / "train" / "ant" / ".cache", n=1)
    assert load(tmp_path, train=True).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert load(tmp_path, train=False).n_classes == 4
    (tmp_path / "dataset.yaml").write_text("# all as for ImageNet")
    with pytest.raises(UserError, match="val and train do not have the same classes .dog."):
        load(tmp_path, train=True)
    (tmp_path / "val" / "dog").mkdir()
    with pytest.raises(UserError, match="valid file for the classes dog"):
        load(tmp_path, train=True)


@pytest.mark.parametrize("image", [np.full((12, 12), 300, np.uint16), np.full((12, 12), 0.5, np.float32)])
def test_images_of_more_than_8_bits_are_named(image, tmp_path):
    write_folder(tmp_path, yaml="size: 12\n")
    name = "x.png" if image.dtype == np.uint16 else "x.tif"
    Image.fromarray(image).save(tmp_path / "train" / "bee" / name)
    with pytest.raises(UserError, match=f"cannot read .*{name}: its pixels have more than 8 bits"):
        load(tmp_path, train=True)


def test_splits_of_other_classes_are_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "val" / "bee").rename(tmp_path / "val" / "bees")
    with pytest.raises(UserError, match=r"val and train do not have the same classes \(bees\); list all"):
        dataset_info(str(tmp_path))
    (tmp_path / "dataset.yaml").write_text("classes: [ant, bee, cat]\n")
    with pytest.raises(UserError, match=r"val and dataset.yaml do not have the same classes \(bees\)"):
        dataset_info(str(tmp_path))


def test_what_is_no_folder_of_images_is_named(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        UserError, match=r"has no folder train or training_data \(it holds pictures\); give a folder wi"
    ):
        dataset_info(str(tmp_path))
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "train" / "a" / "1.png")
    load(tmp_path, train=True)  # the other split is not needed
    with pytest.raises(UserError, match="has no folder val or validation or test"):
        load(tmp_path, train=False)
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="train holds neither images nor folders of images"):
        load(tmp_path / "empty", train=True)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("szie: 3", "unknown key in .*dataset.yaml 'szie'; did you mean size"),
        ("size: small", "size cannot be small; allowed are size: 224, channels: 1 or 3"),
        ("size: 0", "size cannot be 0"),
        ("channels: 2", "channels cannot be 2"),
        ("channels: true", "channels cannot be True"),
        ("size: true", "size cannot be True"),
        ("mean: .nan", "mean cannot be"),
        ("std: .inf", "std cannot be"),
        ("mean: [1, 2]", r"mean cannot be \(1.0, 2.0\)"),
        ("std: [0, 1, 1]", "std cannot be"),
        ("std: [a, b, c]", "std cannot be"),
        ("augment: mirror", "augment cannot be mirror; .*none, flip, crop_flip, resized_crop"),
        ("classes: [a, a]", "classes cannot be"),
        ("classes: abc", "classes cannot be abc"),
    ],
)
def test_mistakes_in_dataset_yaml_are_one_line(yaml, said, tmp_path):
    write_folder(tmp_path, yaml=yaml)
    with pytest.raises(UserError, match=said) as error:
        dataset_info(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_damaged_image_is_named(tmp_path):
    write_folder(tmp_path, yaml="size: 12\n")
    damaged = tmp_path / "train" / "bee" / "001.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(UserError, match=f"cannot read {damaged}: "):
        list(load(tmp_path, train=True).epoch(4, seed=0, epoch=1))
