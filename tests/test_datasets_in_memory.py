"""Batches: their order, their size, and what they depend on."""

import pytest
import torch

from src.datasets import dataset_info, load_dataset
from src.datasets.augmentation import Affine, CropFlip, ResizedCrop, build_augmentation
from src.datasets.base import Normalisation
from src.datasets.in_memory import ImageSet


def make_set(n=50, **options) -> ImageSet:
    images = torch.randint(0, 256, (n, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(images, torch.arange(n), n_classes=n, **options)


def collect(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_batches_come_in_order_and_the_last_may_be_smaller():
    dataset = make_set(augmentation=CropFlip(4))
    batches = list(dataset.batches(16))
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    assert len(batches) == dataset.n_batches(16) == len(list(dataset.epoch(16, seed=0, epoch=0)))
    assert dataset.n_batches(25) == 2
    images, labels = collect(batches)
    assert torch.equal(labels, torch.arange(50))
    assert torch.equal(images, make_set().images / 255)  # not augmented


def test_indices_choose_and_order():
    dataset, indices = make_set(), torch.tensor([7, 3, 3, 40])
    images, labels = collect(dataset.batches(3, indices=indices))
    assert torch.equal(labels, indices) and torch.equal(images, dataset.images[indices] / 255)
    assert list(dataset.batches(3, indices=torch.arange(0))) == []
    _, labels = collect(dataset.epoch(3, seed=0, epoch=0, indices=torch.arange(10, 20)))
    assert sorted(labels.tolist()) == list(range(10, 20)) and labels.tolist() != list(range(10, 20))


@pytest.mark.parametrize("augmentation", [None, CropFlip(2), Affine(5, (0.9, 1.1), 5, edge=4), ResizedCrop()], ids=str)
def test_an_epoch_depends_on_seed_and_epoch_alone(augmentation):
    dataset = make_set(augmentation=augmentation)
    torch.manual_seed(1)
    images, labels = collect(dataset.epoch(16, seed=3, epoch=2))
    state = torch.get_rng_state()
    again, labels_again = collect(dataset.epoch(7, seed=3, epoch=2))
    assert torch.equal(images, again) and torch.equal(labels, labels_again)  # whatever the batch size
    assert torch.equal(state, torch.get_rng_state())  # the global generator was not touched
    assert sorted(labels.tolist()) == list(range(50))
    for other in ({"seed": 3, "epoch": 1}, {"seed": 2, "epoch": 2}):
        assert not torch.equal(labels, collect(dataset.epoch(16, **other))[1])
    unchanged = torch.equal(images, dataset.images[labels] / 255)
    assert unchanged == (augmentation is None)


def test_epochs_may_be_interleaved():
    dataset = make_set(augmentation=CropFlip(2))
    alone = [collect(dataset.epoch(16, seed=0, epoch=epoch))[0] for epoch in (0, 1)]
    both = list(zip(dataset.epoch(16, seed=0, epoch=0), dataset.epoch(16, seed=0, epoch=1), strict=True))
    for i in range(2):
        assert torch.equal(torch.cat([pair[i][0] for pair in both]), alone[i])


def test_the_permutation_is_none_of_the_epochs():
    dataset = make_set(n=200)
    order = dataset.permutation(5)
    assert sorted(order.tolist()) == list(range(200))
    assert torch.equal(order, dataset.permutation(5)) and not torch.equal(order, dataset.permutation(6))
    for epoch in range(20):
        assert not torch.equal(order, collect(dataset.epoch(64, seed=5, epoch=epoch))[1])


def test_batches_stay_as_they_are_when_the_next_comes():
    batches = list(make_set(augmentation=CropFlip(2)).epoch(16, seed=0, epoch=0))
    assert len({images.data_ptr() for images, _ in batches}) == len(batches)


def test_values_are_normalised_where_that_is_asked_for():
    plain, normalised = make_set(), make_set(normalisation=Normalisation((0.1, 0.2, 0.3), (0.5, 0.25, 1.0)))
    expected = (collect(plain.batches(50))[0] - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.25, 1.0]
    ).view(3, 1, 1)
    torch.testing.assert_close(collect(normalised.batches(50))[0], expected)


def test_sets_that_are_normalised_otherwise_are_named(capsys):
    plain, normalised = make_set(), make_set(normalisation=Normalisation((0.1, 0.2, 0.3), (0.5, 0.25, 1.0)))
    plain.check_like(make_set(), option="-scd")
    assert not capsys.readouterr().err
    plain.check_like(normalised, option="-scd")
    assert "warning: images of -scd are not normalised as those of -d" in capsys.readouterr().err


def test_large_sets_are_enlarged_in_both_ways_of_going_through():
    dataset = make_set(n=3, size=224, augmentation=build_augmentation(dataset_info("cifar10_large").augmentation))
    assert dataset.image_shape == (3, 224, 224)
    for batches in (dataset.batches(2), dataset.epoch(2, seed=0, epoch=0)):
        assert collect(batches)[0].shape == (3, 3, 224, 224)


def test_test_splits_are_shuffled_but_not_augmented():
    dataset = load_dataset("digits", ".", train=False)
    images, labels = collect(dataset.epoch(100, seed=0, epoch=0))
    assert sorted(image.numpy().tobytes() for image in images) == sorted(
        image.numpy().tobytes() for image in collect(dataset.batches(100))[0]
    )
    assert not torch.equal(labels, dataset.labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["cifar10", "svhn", "cifar10_large"])
def test_a_gpu_makes_the_same_batches(name):
    size = 224 if "large" in name else None
    on_cpu, on_gpu = (
        make_set(size=size, augmentation=build_augmentation(dataset_info(name).augmentation), device=d)
        for d in ("cpu", "cuda")
    )
    for ways in ((on_cpu.batches(16), on_gpu.batches(16)), (s.epoch(16, seed=1, epoch=1) for s in (on_cpu, on_gpu))):
        (images, labels), (images_gpu, labels_gpu) = (collect(batches) for batches in ways)
        assert images_gpu.is_cuda and torch.equal(labels, labels_gpu.cpu())
        # Crops and flips are exact; a warp may round to another pixel where it falls between two
        assert (images != images_gpu.cpu()).float().mean() < (1e-2 if name != "cifar10" else 1e-9)
