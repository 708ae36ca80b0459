"""Training in several processes: shares of batches, sums over processes, and who a process is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.datasets.augmentation import CropFlip
from src.datasets.base import ImageSet, Shard
from src.training import evaluate
from src.training.distributed import DataParallelClassification, Processes
from tests.tiny_datasets import few_grey_images


def image_set() -> ImageSet:
    return few_grey_images(11, 6, n_classes=11, augmentation=CropFlip(1))


def passes(images: ImageSet):
    return images.epoch(5, seed=1, epoch=1), images.batches(5)


@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_all_processes_make_up_each_batch(size):
    """The last batch is one image: the others get it as well, so that no process waits for another in
    vain, but it counts once."""
    images, shares = image_set(), []
    for rank in range(size):
        images.shard = Shard(rank, size)
        shares.append([list(batches) for batches in passes(images)])
    for kind, whole in enumerate(passes(image_set())):
        of_ranks = zip(whole, *(share[kind] for share in shares), strict=True)
        for (pixels, labels), *parts in of_ranks:
            for rank, (own_pixels, own_labels) in enumerate(parts):
                if rank < len(labels):
                    assert torch.equal(own_pixels, pixels[rank::size])
                    assert torch.equal(own_labels, labels[rank::size])
                else:
                    assert torch.equal(own_pixels, pixels[:1]) and own_labels.tolist() == [-1]


def test_an_image_that_does_not_count_has_no_place_in_the_sums():
    images, model = image_set(), nn.Sequential(nn.Flatten(), nn.Linear(36, 11))
    task = DataParallelClassification(model, Processes())
    (whole,) = evaluate(task, images.batches(5)).values()
    parts = []
    for rank in range(2):
        images.shard = Shard(rank, 2)
        (score,) = evaluate(task, images.batches(5)).values()
        parts.append(score)
    n = 3 + 3 + 1, 2 + 2 + 0
    for name in ("accuracy", "loss"):
        together = sum(getattr(score, name) * k for score, k in zip(parts, n, strict=True)) / 11
        assert together == pytest.approx(getattr(whole, name), rel=1e-6)


def test_gradients_of_unequal_shares_average_to_those_of_the_whole_batch(monkeypatch):
    monkeypatch.setattr("src.training.distributed.DistributedDataParallel", lambda model: model)
    monkeypatch.setattr(
        "src.training.distributed.add_up", lambda n_samples: torch.full_like(n_samples, 5)
    )
    model, images, labels = nn.Linear(4, 3), torch.randn(5, 4), torch.arange(5) % 3
    gradients = []
    for rank in range(2):  # shares of 3 and 2
        task = DataParallelClassification(model, Processes(rank, 2))
        (group,) = task.losses(images[rank::2], labels[rank::2], training=True)
        gradients += torch.autograd.grad(group.losses.sum(), model.weight)
    (expected,) = torch.autograd.grad(F.cross_entropy(model(images), labels), model.weight)
    torch.testing.assert_close(sum(gradients) / 2, expected)
