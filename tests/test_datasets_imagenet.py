"""ImageNet: samples as torchvision makes them, whatever the workers; labels by the sorted folders;
clear errors."""

import shutil

import pytest
import torch
from torchvision import transforms
from torchvision.datasets import ImageFolder

from src.core.choices.datasets import DATASETS
from src.core.errors import UserError
from src.core.seeds import seed_of
from src.datasets import Loading, load_dataset
from src.datasets.folders import IMAGENET_VALUES
from tests.commands import says
from tests.tiny_datasets import collect, write_imagenet

TO_VALUES = [transforms.ToTensor(), transforms.Normalize(*IMAGENET_VALUES)]
STOCHASTIC = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
CENTRE = [transforms.Resize(256), transforms.CenterCrop(224)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    write_imagenet(root)
    return root


def test_validation_images_are_those_of_torchvision(root):
    assert DATASETS["imagenet_mem"] == DATASETS["imagenet"]
    dataset = load_dataset("imagenet_mem", root, train=False)
    theirs = ImageFolder(root / "validation_data", transforms.Compose(CENTRE + TO_VALUES))
    images, labels = collect(dataset.batches(3))
    assert torch.equal(images, torch.stack([image for image, _ in theirs]))
    assert (
        labels.tolist() == theirs.targets == [0, 0, 1, 1, 2, 2, 2]
    )  # n01 is class 0, though n03 was made first
    assert len(dataset) == 7 and dataset.n_batches(3) == 3 and dataset.n_classes == 1000
    assert dataset.image_shape == images.shape[1:] == (3, 224, 224)


def test_training_images_are_torchvisions_with_seeds_of_their_own(root):
    dataset = load_dataset("imagenet", root, train=True)
    images, labels = collect(dataset.epoch(5, seed=3, epoch=2))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed_of(3, 2))).tolist()
    plain = ImageFolder(root / "training_data")
    expected = []
    for i in order:
        torch.manual_seed(seed_of(3, 2, i, 0))
        expected.append(transforms.Compose(STOCHASTIC + TO_VALUES)(plain[i][0]))
    assert torch.equal(images, torch.stack(expected))
    assert labels.tolist() == [plain.targets[i] for i in order]
    assert torch.equal(
        collect(dataset.batches(12))[0][7], transforms.Compose(CENTRE + TO_VALUES)(plain[7][0])
    )


def test_samples_do_not_depend_on_workers_batches_or_what_else_draws(root):
    expected = collect(load_dataset("imagenet", root, train=True).epoch(5, seed=0, epoch=1))
    for loading in (Loading(0), Loading(2, 1), Loading(2, 3)):
        dataset = load_dataset("imagenet", root, train=True, loading=loading)
        torch.manual_seed(loading.prefetch_factor)
        state = torch.get_rng_state()
        for batch_size in (5, 12):
            images, labels = collect(dataset.epoch(batch_size, seed=0, epoch=1))
            assert torch.equal(images, expected[0]) and torch.equal(labels, expected[1])
        assert torch.equal(state, torch.get_rng_state())


def test_names_of_all_classes_give_the_labels_of_a_subset(tmp_path, capsys):
    write_imagenet(tmp_path)
    labels = load_dataset("imagenet", tmp_path, train=True).labels
    assert set(labels.tolist()) == {0, 1, 2}
    assert says(capsys.readouterr().err, str(tmp_path), "3 class folders", "1000")
    names = ", ".join(["n02", *(f"m{i:03}" for i in range(997)), "n03", "n01"])
    (tmp_path / "dataset.yaml").write_text(f"classes: [{names}]\n")
    shutil.rmtree(tmp_path / "validation_data" / "n01")  # a part of the classes keeps their numbers
    for train, expected in ((True, {0, 998, 999}), (False, {0, 998})):
        dataset = load_dataset("imagenet", tmp_path, train=train)
        assert set(dataset.labels.tolist()) == expected and dataset.n_classes == 1000
    (tmp_path / "dataset.yaml").write_text("classes: [n01, n02, n03]\n")
    with pytest.raises(UserError, match="has 3 classes, ImageNet has 1000"):
        load_dataset("imagenet", tmp_path, train=False)


def test_an_image_that_a_worker_cannot_read_is_named(tmp_path):
    write_imagenet(tmp_path)
    damaged = tmp_path / "training_data" / "n02" / "train_2.JPEG"
    damaged.write_bytes(damaged.read_bytes()[:500])
    dataset = load_dataset("imagenet", tmp_path, train=True, loading=Loading(2))
    for _ in range(2):  # the set can still be used
        with pytest.raises(
            UserError, match=f"^cannot read {damaged}: Truncated File Read; restore or remove it$"
        ):
            list(dataset.epoch(4, seed=0, epoch=1))
