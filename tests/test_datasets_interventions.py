"""Interventions: shares by counting, what is drawn for an image, what stays untouched, and every
kind of data set."""

import numpy as np
import pytest
import torch
from scipy import stats

from src.core.cache import Cache
from src.core.errors import UserError
from src.datasets import Loading, load_dataset
from src.datasets.augmentation import CropFlip
from src.datasets.base import ImageSet
from src.datasets.interventions import circle, hues, label_noise, shortcut
from tests.tiny_datasets import collect, few_grey_images, write_imagenet

N, N_CLASSES = 10_000, 10
LABELS = torch.arange(N) % N_CLASSES
ALL = {"shortcut": 0.75, "label_noise": 0.5}


def make_set(n=N, *, shape=(3, 32, 32), level: int = 0, labels=LABELS) -> ImageSet:
    """Images of one level, by default black."""
    return ImageSet(
        torch.full((n, *shape), level, dtype=torch.uint8), labels[:n], n_classes=N_CLASSES
    )


def changed(images, *, train=True, seed=0, **strengths):
    """The images after these interventions, as `load_dataset` applies them."""
    for name, strength in strengths.items():
        images = {"shortcut": shortcut, "label_noise": label_noise}[name](
            images, strength, train=train, seed=seed
        )
    return images


def levels_of(images) -> torch.Tensor:
    """Levels 0..255 in the order of the set."""
    values, _ = collect(images.batches(256))
    return (values * 255).round()


def told_by_hue(images) -> torch.Tensor:
    """The class that the dot on each black image tells."""
    brightest = levels_of(images).flatten(2).amax(2)
    found = (brightest[:, None] == hues(N_CLASSES).float()).all(2)
    assert (found.sum(1) == 1).all()
    return found.int().argmax(1)


def centres_of(images) -> torch.Tensor:
    """Row and column (N, 2) of the centre of the dot on each black image."""
    dots = (levels_of(images).amax(1) > 0).double()
    places = torch.arange(dots.shape[-1]).double()
    return torch.stack(
        [(dots.sum(axis) * places).sum(1) / dots.sum((1, 2)) for axis in (2, 1)], dim=1
    )


def assert_share(hits: torch.Tensor, expected: float) -> None:
    """Within three standard errors."""
    error = (expected * (1 - expected) / len(hits)) ** 0.5
    assert abs(hits.double().mean() - expected) <= 3 * error


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_label_noise_draws_the_labels_of_a_share_from_all_classes(share):
    images = make_set(labels=LABELS.to(torch.int8))
    noisy = changed(images, label_noise=share).labels
    assert noisy.dtype == torch.int8 and torch.equal(images.labels.long(), LABELS)
    assert_share(noisy != LABELS, share * (1 - 1 / N_CLASSES))
    if share:  # each other class is as likely, whatever the true one is
        was_drawn = noisy != LABELS
        away = (noisy - LABELS)[was_drawn] % N_CLASSES
        assert stats.chisquare(away.bincount(minlength=N_CLASSES)[1:]).pvalue > 0.01
        more = changed(make_set(), label_noise=(1 + share) / 2).labels  # draws these, too
        assert torch.equal(noisy[was_drawn].long(), more[was_drawn])


@pytest.mark.parametrize(("share", "train"), [(0, True), (0.75, True), (1, False)])
def test_dots_tell_the_class_with_a_probability_and_on_test_images_nothing(share, train):
    told = told_by_hue(changed(make_set(), shortcut=share, train=train))
    of_true = share if train else 0
    assert_share(told == LABELS, of_true + (1 - of_true) / N_CLASSES)
    table = np.zeros((N_CLASSES, N_CLASSES))
    np.add.at(table, (LABELS.numpy(), told.numpy()), 1)
    assert (stats.chi2_contingency(table).pvalue > 0.01) == (of_true == 0)


def test_on_grey_images_the_place_of_a_dot_tells_the_class():
    """All round a circle, so that places of two classes differ; a dot that tells nothing is at any
    of them."""
    n, shape = 1000, (1, 8, 8)
    told = centres_of(changed(make_set(n, shape=shape), shortcut=1))
    of_class = torch.cat([told[LABELS[:n] == label].unique(dim=0) for label in range(N_CLASSES)])
    assert len(of_class) == N_CLASSES == len(of_class.unique(dim=0))  # one each
    assert ((of_class - 3.5).norm(dim=1) - 2.5).abs().max() < 0.8  # pixels
    misleading = centres_of(changed(make_set(n, shape=shape), shortcut=0, train=False))
    assert_share((misleading == told).all(1), 1 / N_CLASSES)
    assert circle(4).tolist() == [[0, 0.5], [0.5, 1], [1, 0.5], [0.5, 0]]


@pytest.mark.parametrize(("side", "n_pixels"), [(8, 5), (32, 21)])
def test_dots_are_whole_round_and_anywhere(side, n_pixels):
    """Rows and columns of the centres are uniform and not correlated, and do not depend on what the
    dots tell."""
    n = 1000
    images = changed(make_set(n, shape=(3, side, side)), shortcut=1)
    dots = levels_of(images).amax(1) > 0
    assert (dots.sum((1, 2)) == n_pixels).all()
    diameter = int(dots.any(2).sum(1).unique())  # one value: all dots are equal
    rows, columns = centres_of(images).T
    for centres in (rows, columns):
        counts = (centres.round().int() - diameter // 2).bincount(minlength=side - diameter + 1)
        assert len(counts) == side - diameter + 1 and stats.chisquare(counts).pvalue > 0.01
    for other in (columns, LABELS[:n]):
        assert abs(np.corrcoef(rows, other)[0, 1]) < 3 / n**0.5


@pytest.mark.parametrize("name", ALL)
def test_a_seed_gives_one_set_whatever_batches_and_order(name):
    images = few_grey_images(300, 12, n_classes=N_CLASSES, augmentation=CropFlip(4))
    one, again, other = (changed(images, seed=seed, **{name: ALL[name]}) for seed in (0, 0, 1))
    state = torch.get_rng_state()
    expected = collect(one.epoch(64, seed=1, epoch=2))
    assert all(map(torch.equal, expected, collect(again.epoch(7, seed=1, epoch=2))))
    assert torch.equal(torch.get_rng_state(), state)
    assert not all(map(torch.equal, expected, collect(other.epoch(64, seed=1, epoch=2))))
    order = torch.randperm(300)
    whole, labels = collect(one.batches(64))
    assert all(
        map(torch.equal, (whole[order], labels[order]), collect(one.batches(9, indices=order)))
    )


def test_only_dots_change_test_images():
    plain = load_dataset("digits", ".", train=False)
    for name, strength in ALL.items():
        own = load_dataset("digits", ".", train=False, interventions={name: strength})
        same = torch.equal(levels_of(own), levels_of(plain))
        assert same == (name != "shortcut") and torch.equal(own.labels, plain.labels)
    with_seed = (
        load_dataset("digits", ".", train=train, seed=1, interventions={"shortcut": 0.5})
        for train in (True, False)
    )
    without = (
        load_dataset("digits", ".", train=train, interventions={"shortcut": 0.5})
        for train in (True, False)
    )
    are_equal = [
        one.fingerprint == other.fingerprint for one, other in zip(with_seed, without, strict=True)
    ]
    assert are_equal == [False, True]  # the seed draws for training images alone
    with pytest.raises(UserError, match="'photo_patches' has no labels"):
        load_dataset("photo_patches", ".", train=False, interventions={"shortcut": 0.0})


def test_interventions_come_before_the_augmentation():
    """A set whose images were changed first is augmented to the same batches."""
    plain = few_grey_images(200, 12, n_classes=N_CLASSES, augmentation=CropFlip(4))
    images = changed(plain, shortcut=1.0)
    before = plain.images
    for change in images.changes:
        before = change(before, torch.arange(200))
    expected = ImageSet(before, images.labels, n_classes=N_CLASSES, augmentation=CropFlip(4))
    epochs = (collect(each.epoch(33, seed=1, epoch=3)) for each in (images, expected))
    assert all(map(torch.equal, *epochs))


def test_decoded_images_are_changed_as_whole_files_whatever_the_workers(tmp_path):
    write_imagenet(tmp_path)
    expected = None
    for loading, batch in ((Loading(0), 5), (Loading(2, 1), 3)):
        images = load_dataset("imagenet", tmp_path, train=True, loading=loading, interventions=ALL)
        passes = images.epoch(batch, seed=1, epoch=2), images.batches(batch)
        found = [each for batches in passes for each in collect(batches)]
        assert expected is None or all(map(torch.equal, found, expected))
        expected = found
    plain = load_dataset("imagenet", tmp_path, train=False)
    plain.cache = Cache(2**30)
    values, _ = collect(plain.batches(7))  # are kept, and dots are added to them
    painted, _ = collect(changed(plain, train=False, shortcut=0.0).batches(7))
    shares = ((values - painted).abs().amax(1) > 0.5).float().mean((1, 2))
    assert 0.004 < shares.min() and shares.max() < 0.04  # the crop shows whole dots
