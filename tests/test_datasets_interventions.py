"""Interventions: shares by counting, what is drawn for an image, what stays untouched, and every kind of data set."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from src.datasets.changes import class_colours

from src.datasets import INTERVENTIONS, Loading, intervene, load_dataset
from src.datasets.augmentation import CropFlip
from src.datasets.in_memory import ImageSet
from tests.tiny_datasets import collect, random_images, write_cifar10, write_imagenet

N, N_CLASSES = 10_000, 10
LABELS = torch.arange(N) % N_CLASSES


def make_set(n=N, *, shape=(3, 32, 32), level: int | None = 0, labels=LABELS, **options) -> ImageSet:
    """Images of one level, by default black, or with `level=None` random ones."""
    plain = level is not None
    images = torch.full((n, *shape), level, dtype=torch.uint8) if plain else torch.from_numpy(random_images(n, *shape))
    return ImageSet(images, labels[:n], n_classes=N_CLASSES, **options)


def changed(images, *, train=True, seed=0, **strengths):
    return intervene(images, strengths, train=train, seed=seed)


def levels_of(images, **epoch) -> torch.Tensor:
    """Levels 0..255 in the order of the set, of an epoch or of a plain pass; labels must be indices for an epoch."""
    values, labels = collect(images.epoch(256, **epoch) if epoch else images.batches(256))
    return (values * 255).round()[labels.argsort() if epoch else slice(None)]


def told_classes(images, n_channels=3) -> torch.Tensor:
    """The class that the dot on each black image tells."""
    brightest = levels_of(images).flatten(2).amax(2)
    found = (brightest[:, None] == class_colours(N_CLASSES, n_channels).float()).all(2)
    assert (found.sum(1) == 1).all()
    return found.int().argmax(1)


def assert_share(hits: torch.Tensor, expected: float) -> None:
    """Within three standard errors."""
    error = (expected * (1 - expected) / len(hits)) ** 0.5
    assert abs(hits.double().mean() - expected) <= 3 * error


# Labels


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.75, 1])
def test_label_noise_draws_the_labels_of_a_share_from_all_classes(share):
    noisy = changed(make_set(), label_noise=share).labels
    assert_share(noisy != LABELS, share * (1 - 1 / N_CLASSES))
    if share == 0:
        assert torch.equal(noisy, LABELS)
        return
    drawn = noisy[noisy != LABELS]  # each other class is as likely, whatever the true one is
    away = (drawn - LABELS[noisy != LABELS]) % N_CLASSES
    assert stats.chisquare(away.bincount(minlength=N_CLASSES)[1:]).pvalue > 0.01
    assert stats.chisquare(drawn.bincount(minlength=N_CLASSES)).pvalue > 0.01


def test_labels_that_are_drawn_at_a_smaller_share_are_drawn_at_a_larger_one():
    half, most = (changed(make_set(), label_noise=share).labels for share in (0.5, 0.75))
    was_drawn = half != LABELS
    assert torch.equal(half[was_drawn], most[was_drawn]) and (most != LABELS).sum() > was_drawn.sum()


def test_labels_keep_their_type_and_images_their_pixels():
    small = make_set(100, level=None, labels=LABELS.to(torch.int8))
    noisy = changed(small, label_noise=1)
    assert noisy.labels.dtype == torch.int8 and noisy.labels.min() >= 0 and noisy.labels.max() < N_CLASSES
    assert torch.equal(levels_of(noisy), levels_of(small))
    assert torch.equal(small.labels, LABELS[:100])  # the set that was given stays as it is


# Dots


@pytest.mark.parametrize("share", [0, 0.75, 1])
def test_dots_tell_the_class_with_a_probability(share):
    told = told_classes(changed(make_set(), shortcut=share))
    assert_share(told == LABELS, share + (1 - share) / N_CLASSES)


@pytest.mark.parametrize("share", [0, 1])
def test_dots_on_test_images_tell_nothing(share):
    told = told_classes(changed(make_set(), shortcut=share, train=False))
    assert_share(told == LABELS, 1 / N_CLASSES)
    table = np.zeros((N_CLASSES, N_CLASSES))
    np.add.at(table, (LABELS.numpy(), told.numpy()), 1)
    assert stats.chi2_contingency(table).pvalue > 0.01


def test_dots_tell_the_true_class_where_labels_are_noisy():
    both = changed(make_set(), shortcut=1, label_noise=1)
    assert torch.equal(told_classes(both), LABELS) and not torch.equal(both.labels, LABELS)


@pytest.mark.parametrize(("side", "n_pixels"), [(8, 5), (32, 21), (64, 61)])
def test_dots_are_whole_round_and_anywhere(side, n_pixels):
    """Black images and bright dots: rows and columns of the centres are uniform and not correlated."""
    n = 2000
    dots = levels_of(changed(make_set(n, shape=(1, side, side)), shortcut=1))[:, 0] > 0
    assert (dots.sum((1, 2)) == n_pixels).all()
    places = torch.arange(side).double()
    rows, columns = ((dots.sum(axis) * places).sum(1) / n_pixels for axis in (2, 1))
    diameter = int(dots.any(2).sum(1).unique())  # one value: all dots are equal
    for centres in (rows, columns):
        counts = torch.bincount(centres.round().int() - diameter // 2, minlength=side - diameter + 1)
        assert len(counts) == side - diameter + 1 and stats.chisquare(counts).pvalue > 0.01
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 3 / n**0.5
    assert abs(np.corrcoef(rows, LABELS[:n])[0, 1]) < 3 / n**0.5


def test_places_are_those_of_the_seed_and_the_split_whatever_the_dots_tell():
    def rows(train=True, seed=0):
        dots = levels_of(changed(make_set(2000), shortcut=0.5, train=train, seed=seed)).amax(1) > 0
        return (dots.sum(2) * torch.arange(32)).sum(1) / 21

    told = told_classes(changed(make_set(2000), shortcut=0.5))
    own, others = rows(), [rows(seed=1), rows(train=False), told, told == LABELS[:2000]]
    assert all(abs(np.corrcoef(own, other)[0, 1]) < 3 / 2000**0.5 for other in others)


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_each_class_has_a_colour(n_classes):
    hues, levels = (class_colours(n_classes, channels) for channels in (3, 1))
    assert len({tuple(colour) for colour in hues.tolist()}) == len(levels.unique()) == n_classes
    assert (hues.amax(1) == 255).all() and (hues.amin(1) == 0).all()  # all are hues of full saturation
    assert levels.min() > 0 and levels.max() == 255
    assert hues[0].tolist() == [255, 0, 0] and hues[n_classes // 2].tolist() == [0, 255, 255]


# Noise


def test_noise_has_a_variance_that_is_uniform_over_images():
    most = 400.0
    noisy = levels_of(changed(make_set(level=128), image_noise=most)) - 128
    n_pixels = noisy[0].numel()
    variances = noisy.flatten(1).double().square().mean(1) - 1 / 12  # that of rounding
    assert_mean(variances, most / 2, deviation=most / 12**0.5)
    estimated = stats.kstest(variances.numpy() / most, "uniform").statistic  # n_pixels make it nearly exact
    assert estimated < 1.63 / N**0.5 + 3 / n_pixels**0.5
    assert_mean(noisy.flatten().double(), 0, deviation=(most / 2) ** 0.5)
    whitened = noisy[variances > most / 4]
    scaled = whitened / whitened.flatten(1).std(1)[:, None, None, None]
    assert abs(float(scaled.pow(4).mean()) - 3) < 0.02  # Gaussian
    for pixel in (0, n_pixels // 2):  # the noise has the variance that was drawn, and nothing else to do with it
        sizes = (noisy.flatten(1)[:, pixel].abs() / variances.sqrt().clamp(min=1)).numpy()
        assert abs(np.corrcoef(sizes[variances > 4], variances[variances > 4])[0, 1]) < 4 / N**0.5
    for other in (scaled.roll(1, 3), scaled.roll(1, 2), scaled.roll(1, 1), scaled.roll(1, 0)):
        assert abs(float((scaled * other).mean())) < 4 / scaled.numel() ** 0.5


def assert_mean(values: torch.Tensor, expected: float, *, deviation: float) -> None:
    assert abs(float(values.mean()) - expected) <= 3 * deviation / len(values) ** 0.5


def test_noise_is_clipped():
    noisy = levels_of(changed(make_set(200, level=250), image_noise=4000))
    assert noisy.max() == 255 and (noisy == 255).float().mean() > 0.3


def test_variances_are_drawn_anew_in_each_epoch():
    plain = ImageSet(make_set(500, level=128).images, torch.arange(500), n_classes=500)
    noisy = changed(plain, image_noise=400)
    deviations = [levels_of(noisy, seed=0, epoch=epoch).flatten(1).std(1) for epoch in (1, 2)]
    assert abs(np.corrcoef(*deviations)[0, 1]) < 3 / 500**0.5


def test_noise_is_drawn_anew_in_each_epoch_and_dots_stay():
    indices = torch.arange(100)
    plain = ImageSet(make_set(100, level=128).images, indices, n_classes=100)
    noisy, dotted = changed(plain, image_noise=1000), changed(plain, shortcut=1)
    first, second = (levels_of(noisy, seed=3, epoch=epoch) for epoch in (1, 2))
    assert (first != second).float().mean() > 0.8
    assert abs(np.corrcoef(first.flatten() - 128, second.flatten() - 128)[0, 1]) < 4 / first.numel() ** 0.5
    assert torch.equal(levels_of(noisy, seed=4, epoch=1), first)  # another order of the same images
    assert torch.equal(levels_of(dotted, seed=3, epoch=1), levels_of(dotted)) and (levels_of(dotted) != 128).any()


# All of them

ALL = {"shortcut": 0.75, "label_noise": 0.5, "image_noise": 1000.0}


def test_the_table_has_what_is_tested():
    assert set(ALL) == set(INTERVENTIONS)


@pytest.mark.parametrize("name", ALL)
def test_a_seed_gives_one_set_whatever_batches_and_order(name):
    images = make_set(300, level=None, augmentation=CropFlip(4))
    one, other = (changed(images, seed=seed, **{name: ALL[name]}) for seed in (0, 1))
    again = changed(images, seed=0, **{name: ALL[name]})
    torch.manual_seed(5)
    state = torch.get_rng_state()
    expected = collect(one.epoch(64, seed=1, epoch=2))
    assert all(map(torch.equal, expected, collect(again.epoch(7, seed=1, epoch=2))))
    assert torch.equal(torch.get_rng_state(), state)
    assert not all(map(torch.equal, expected, collect(other.epoch(64, seed=1, epoch=2))))
    order = torch.randperm(300)
    for whole, part in zip(collect(one.batches(64)), collect(one.batches(9, indices=order)), strict=True):
        assert torch.equal(whole[order], part)


@pytest.mark.parametrize("name", ["label_noise", "image_noise"])
def test_test_images_stay_untouched(name):
    images = make_set(300, level=None)
    assert changed(images, train=False, **{name: ALL[name]}) is images


def test_without_interventions_nothing_changes():
    images = make_set(20)
    assert changed(images) is images and changed(images, shortcut=None, label_noise=None) is images


def test_interventions_come_before_the_augmentation():
    """A set whose images were changed first is augmented to the same batches."""
    strengths = {"shortcut": 1.0, "image_noise": 500.0}
    images = make_set(200, level=None, augmentation=CropFlip(4))
    before = images.images
    for change in changed(images, **strengths).changes:
        before = change(before, torch.arange(200), epoch=3)
    expected = ImageSet(before, images.labels, n_classes=N_CLASSES, augmentation=CropFlip(4))
    ways = [one.epoch(33, seed=1, epoch=3) for one in (changed(images, **strengths), expected)]
    assert all(map(torch.equal, *map(collect, ways)))


@pytest.mark.parametrize(
    ("n_classes", "strengths"), [(0, {"label_noise": 0.5}), (10, {"label_noise": 1.5}), (10, {"image_noise": -1})]
)
def test_what_is_refused(n_classes, strengths):
    images = ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(3).long(), n_classes=n_classes)
    with pytest.raises(ValueError, match="labelled images and a strength from 0 to"):
        changed(images, **strengths)


# Every kind of data set


def test_mapped_images_are_changed_as_those_in_memory(tmp_path):
    arrays = random_images(60, 8, 8, 3)
    np.savez(tmp_path / "own.npz", x_train=arrays, y_train=np.arange(60) % 10, x_test=arrays, y_test=np.arange(60) % 10)
    mapped = changed(load_dataset(str(tmp_path / "own.npz"), ".", train=True), **ALL)
    own = ImageSet(torch.from_numpy(arrays).permute(0, 3, 1, 2), torch.arange(60) % 10, n_classes=10)
    expected = changed(own, **ALL)
    for ways in (
        [one.batches(7) for one in (mapped, expected)],
        [o.epoch(7, seed=0, epoch=1) for o in (mapped, expected)],
    ):
        assert all(map(torch.equal, *map(collect, ways)))


def test_small_sets_of_torchvision_are_changed(tmp_path, unofficial_files):
    write_cifar10(tmp_path)
    for name, size in (("cifar10", 32), ("cifar10_large", 224)):
        images = load_dataset(name, tmp_path, train=True)
        dotted = changed(images, shortcut=1.0)
        for plain, other in (
            (images.batches(25), dotted.batches(25)),
            [s.epoch(25, seed=0, epoch=1) for s in (images, dotted)],
        ):
            (values, labels), (painted, same_labels) = collect(plain), collect(other)
            assert values.shape[2:] == (size, size) and torch.equal(labels, same_labels)
            share = ((values - painted).abs().amax(1) > 0.05).float().mean()
            assert 0.3 * 21 / 32**2 < share < 2 * 21 / 32**2


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    write_imagenet(root)
    return root


def test_decoded_images_are_changed_before_they_are_cropped(imagenet):
    """Whatever the workers and the batches are."""
    ways = []
    for loading, batch in ((Loading(0), 5), (Loading(2, 1), 3)):
        images = changed(load_dataset("imagenet", imagenet, train=True, loading=loading), **ALL)
        ways.append([collect(each) for each in (images.epoch(batch, seed=1, epoch=2), images.batches(batch))])
    assert all(all(map(torch.equal, *pair)) for pair in zip(*ways, strict=True))


def test_noise_on_decoded_images_is_that_of_the_epoch(imagenet):
    images = load_dataset("imagenet", imagenet, train=True)
    images.augmentation = None  # the middle of each image, in every epoch
    noisy, order = changed(images, image_noise=1000.0), torch.arange(12)
    first, again, second = (
        next(iter(noisy.levels([(order, None, epoch)]))).float()
        - next(iter(images.levels([(order, None, epoch)]))).float()
        for epoch in (1, 1, 2)
    )
    assert torch.equal(first, again) and (first.std((1, 2, 3)) > 1).sum() > 8
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.02


def test_dots_are_painted_on_whole_files_in_their_middle_square(imagenet):
    """So the crop of test images shows them all; their places are those of the files, not of the crops."""
    images = load_dataset("imagenet", imagenet, train=True)
    dotted = changed(images, shortcut=1.0)
    (dots,) = dotted.changes
    for i in range(len(images)):
        with Image.open(images.files.path(i)) as file:
            levels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
        painted = dots(levels[None], torch.tensor([i]), epoch=0)[0]
        expected, plain = (images.transform(Image.fromarray(one.permute(1, 2, 0).numpy())) for one in (painted, levels))
        got = next(iter(dotted.levels([(torch.tensor([i]), None, 0)])))[0]
        assert torch.equal(got, expected)
        assert 0.004 < ((got.int() - plain.int()).abs().amax(0) > 20).float().mean() < 0.03


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ALL)
def test_a_gpu_makes_the_same_sets(name):
    sets = [make_set(300, level=None, augmentation=CropFlip(4), device=device) for device in ("cpu", "cuda")]
    ways = [changed(images, **{name: ALL[name]}).epoch(64, seed=1, epoch=2) for images in sets]
    (images, labels), (images_gpu, labels_gpu) = map(collect, ways)
    assert images_gpu.is_cuda and torch.equal(labels, labels_gpu.cpu())
    # Noise may round to another level where it falls between two
    assert (images != images_gpu.cpu()).float().mean() < (1e-3 if name == "image_noise" else 1e-9)
