"""Epochs that are parts of a data set: disjoint within a pass, the same for the same (seed, epoch)."""

import pytest
import torch

from src.datasets.augmentation import CropFlip
from src.datasets.base import subset
from src.datasets.in_memory import ImageSet


def make_set(n=50, **options) -> ImageSet:
    images = torch.randint(0, 256, (n, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(images, torch.arange(n), n_classes=n, **options)


def labels_of_epoch(dataset, **options) -> list[int]:
    return torch.cat([labels for _, labels in dataset.epoch(7, **options)]).tolist()


# Of the public code's sampler: goldens, numerics/sampler.json
@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(10, 4, [4, 4, 2]), (10, 5, [5, 5]), (10, 10, [10]), (10, 12, [10]), (10, 3, [3, 3, 3, 1]), (1, 1, [1])],
)
def test_a_pass_visits_each_image_once_in_subsets_like_the_public_codes(n, size, sizes):
    for number in range(3):
        epochs = range(1 + number * len(sizes), 1 + (number + 1) * len(sizes))
        parts = [subset(n, size, seed=0, epoch=epoch).tolist() for epoch in epochs]
        assert [len(part) for part in parts] == sizes
        assert sorted(index for part in parts for index in part) == list(range(n))


def test_each_pass_and_each_seed_has_an_order_of_its_own():
    passes = [subset(100, 100, seed=seed, epoch=epoch).tolist() for seed in range(3) for epoch in range(1, 4)]
    assert len({tuple(order) for order in [*passes, range(100)]}) == 10
    state = torch.get_rng_state()
    assert passes[0] == subset(100, 100, seed=0, epoch=1).tolist() and torch.equal(state, torch.get_rng_state())


def test_a_subset_keeps_no_more_memory_than_its_own():
    chosen = subset(1000, 10, seed=0, epoch=3)
    assert chosen.dtype == torch.int64 and chosen.untyped_storage().nbytes() == 80


def test_epochs_are_counted_from_one():
    with pytest.raises(ValueError, match="epoch 0: epochs are counted from 1"):
        subset(10, 4, seed=0, epoch=0)


def test_epochs_of_a_set_are_disjoint_until_all_had_their_turn():
    dataset = make_set(epoch_size=20)
    assert len(dataset) == 50 and dataset.n_batches(7) == 3
    for first in (1, 4):
        epochs = [labels_of_epoch(dataset, seed=5, epoch=epoch) for epoch in range(first, first + 3)]
        assert [len(epoch) for epoch in epochs] == [20, 20, 10]
        assert sorted(sum(epochs, [])) == list(range(50))
    assert [len(labels) for _, labels in dataset.epoch(7, seed=5, epoch=1)] == [7, 7, 6]
    assert torch.cat([labels for _, labels in dataset.batches(7)]).tolist() == list(range(50))  # no epoch


def test_indices_are_gone_through_in_subsets_as_well():
    dataset, indices = make_set(epoch_size=6), torch.arange(30, 40)
    first, second = (labels_of_epoch(dataset, seed=0, epoch=epoch, indices=indices) for epoch in (1, 2))
    assert (len(first), len(second)) == (6, 4) and sorted(first + second) == list(range(30, 40))


def test_subsets_depend_on_seed_and_epoch_alone():
    dataset = make_set(epoch_size=20, augmentation=CropFlip(2))
    images, labels = (torch.cat(both) for both in zip(*dataset.epoch(16, seed=3, epoch=2), strict=True))
    again, labels_again = (torch.cat(both) for both in zip(*dataset.epoch(5, seed=3, epoch=2), strict=True))
    assert torch.equal(images, again) and torch.equal(labels, labels_again)
    assert labels.tolist() != labels_of_epoch(dataset, seed=4, epoch=2)


@pytest.mark.parametrize("epoch_size", [50, 1000])
def test_an_epoch_size_of_all_images_changes_nothing(epoch_size):
    dataset = make_set()
    expected = labels_of_epoch(dataset, seed=0, epoch=0)
    assert dataset.epoch_size is None
    dataset.epoch_size = epoch_size  # may be set later
    assert labels_of_epoch(dataset, seed=0, epoch=0) == expected and dataset.n_batches(7) == 8
