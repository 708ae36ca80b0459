"""Representation classifiers: what runs of the source, how fine-tuning batches are made, and its
learning rate."""

import pytest
import torch

from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.datasets.base import ImageSet
from src.models import build_model
from src.ood.finetuning import (
    HalfAndHalf,
    RepresentationClassification,
    finetuning_settings,
    untrained_classifier,
)
from src.results.checkpoints import freeze
from src.training import Settings

IMAGES = InputSpec(10, (1, 8, 8))


def image_set(n: int, *, n_classes: int = 10, shape=(1, 8, 8)) -> ImageSet:
    """Images that carry their number in their first pixel."""
    pixels = torch.zeros(n, *shape, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(n)
    return ImageSet(pixels, torch.arange(n) % n_classes if n_classes else None, n_classes=n_classes)


@pytest.fixture
def source():
    torch.manual_seed(0)
    return freeze(build_model("small_cnn", n_channels=1), "cpu")


def test_only_the_front_part_of_the_source_runs_and_nothing_of_it_learns(source, monkeypatch):
    """The penalty belongs to the loss of training only."""
    classifier, shape = untrained_classifier("repr_cls_resnet18", source, "pool2", IMAGES, seed=0)
    task = RepresentationClassification(source, "pool2", classifier)
    resized = classifier(torch.rand(2, *shape), until="resize")
    assert shape == (32, 2, 2) and resized.shape == (2, 32, 8, 8)

    def behind(*_):
        raise AssertionError("a layer behind the last one needed was computed")

    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, -1, -1])
    list(task.losses(images, labels, training=True))  # traces the source
    classifier.module.zero_grad()
    monkeypatch.setattr(task.source.get_submodule("pool3"), "forward", behind)
    task.train(True)
    assert classifier.module.training and not task.source.module.training
    (group,) = task.losses(images, labels, training=True)
    group.losses.sum().backward()
    assert classifier.module.conv1.weight.grad is not None
    assert all(parameter.grad is None for parameter in task.source.parameters())

    task.penalty = lambda *_: torch.tensor(7.0)
    task.train(False)
    (trained,), (validated,) = (
        list(task.losses(images, labels, training=mode)) for mode in (True, False)
    )
    torch.testing.assert_close(trained.losses - 7, trained.cross_entropies)
    torch.testing.assert_close(validated.losses, trained.cross_entropies)


def test_batches_are_half_id_half_ood_and_epochs_disjoint():
    mixed = HalfAndHalf(image_set(10), image_set(25, n_classes=0), like=image_set(5), batch_size=8)
    seen = []
    for epoch in (1, 2, 3):
        batches = list(mixed.epoch(8, seed=0, epoch=epoch))
        ood = [
            (images[labels == -1][:, 0, 0, 0] * 255).round().int().tolist()
            for images, labels in batches
        ]
        seen.append(sum(ood, []))
        assert mixed.n_batches(8) == 3 and len(batches) == (
            2 if epoch == 3 else 3
        )  # 4, 4, 2 of each set; 4, 1
        for (images, labels), of_batch in zip(batches[:-1], ood, strict=False):
            assert images.shape == (8, 1, 8, 8) and (labels[:4] >= 0).all() and len(of_batch) == 4
    assert [len(numbers) for numbers in seen] == [10, 10, 5]
    assert sorted(sum(seen, [])) == list(range(25))


@pytest.mark.parametrize(
    ("id_set", "ood_set", "reason"),
    [
        ({}, {"shape": (3, 8, 8)}, "inputs of -ftoodd are 3×8×8, inputs of -d are 1×8×8"),
        ({"shape": (1, 4, 4)}, {}, "inputs of -ftidd are 1×4×4"),
        ({"n_classes": 3}, {}, "-ftidd has 3 classes, -d 10"),
    ],
)
def test_sets_that_do_not_go_together_are_refused(id_set, ood_set, reason):
    sets = image_set(5, **id_set), image_set(5, **ood_set)
    with pytest.raises(UserError, match=reason):
        HalfAndHalf(*sets, like=image_set(5), batch_size=4)


@pytest.mark.parametrize(("n_epochs", "half"), [(20, 10), (1, 0)])
def test_the_learning_rate_drops_after_few_updates(n_epochs, half):
    before = Settings(100, 64, reduce_lr_epochs=[50])
    tuning = finetuning_settings(before, n_epochs=n_epochs)
    found = (tuning.n_epochs, tuning.reduce_lr_epochs, tuning.reduce_lr_unit)
    assert found == (n_epochs, [half], "updates")
