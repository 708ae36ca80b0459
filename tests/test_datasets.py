"""Images held in memory, folders, ImageNet and interventions: batches, augmentation, what is drawn for
an image, what a user's folder says, and every refusal."""

import shutil
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from scipy import stats
from torchvision import transforms
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from src.core.cache import Cache
from src.core.choices.datasets import DATASETS, dataset_label, dataset_name
from src.core.errors import UserError
from src.core.inputs import Normalisation
from src.core.seeds import seed_of
from src.datasets import Loading, dataset_info, folders, load_dataset
from src.datasets import augmentation as module
from src.datasets.augmentation import Affine, CropFlip
from src.datasets.base import ImageSet, subset
from src.datasets.decoded import DecodedImageSet
from src.datasets.folders import IMAGENET_VALUES
from src.datasets.interventions import circle, hues, label_noise, shortcut
from tests.commands import says
from tests.tiny_datasets import (
    collect,
    few_grey_images,
    random_images,
    write_folder,
    write_imagenet,
)


def make_set(n=50, **options) -> ImageSet:
    return ImageSet(
        torch.from_numpy(random_images(n, 3, 12, 10)), torch.arange(n), n_classes=n, **options
    )


def test_batches_come_in_order_and_the_last_may_be_smaller():
    dataset = make_set(augmentation=CropFlip(4))
    batches = list(dataset.batches(16))
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    assert len(batches) == dataset.n_batches(16) == len(list(dataset.epoch(16, seed=0, epoch=0)))
    assert dataset.n_batches(25) == 2
    for indices in (torch.arange(50), torch.tensor([7, 3, 3, 40])):
        images, labels = collect(dataset.batches(3, indices=indices))
        assert torch.equal(labels, indices) and torch.equal(
            images, dataset.images[indices] / 255
        )  # not augmented
    assert torch.equal(collect(batches)[1], torch.arange(50)) and not [
        *dataset.batches(3, indices=torch.arange(0))
    ]


@pytest.mark.parametrize("epoch_size", [None, 20])
@pytest.mark.parametrize(
    "augmentation", [None, CropFlip(2), Affine(5, (0.9, 1.1), 5, edge=4)], ids=str
)
def test_an_epoch_depends_on_seed_and_epoch_alone(augmentation, epoch_size):
    dataset = make_set(augmentation=augmentation, epoch_size=epoch_size)
    torch.manual_seed(1)
    images, labels = collect(dataset.epoch(16, seed=3, epoch=2))
    state = torch.get_rng_state()
    again, labels_again = collect(dataset.epoch(7, seed=3, epoch=2))
    assert torch.equal(images, again) and torch.equal(
        labels, labels_again
    )  # whatever the batch size
    assert torch.equal(state, torch.get_rng_state())  # the global generator was not touched
    assert len(labels) == len(labels.unique()) == (epoch_size or 50)
    for other in ({"seed": 3, "epoch": 1}, {"seed": 2, "epoch": 2}):
        assert not torch.equal(labels, collect(dataset.epoch(16, **other))[1])
    unchanged = torch.equal(images, dataset.images[labels] / 255)
    assert unchanged == (augmentation is None)


def test_the_permutation_is_none_of_the_epochs():
    dataset = make_set(n=200)
    order = dataset.permutation(5)
    assert sorted(order.tolist()) == list(range(200))
    assert torch.equal(order, dataset.permutation(5)) and not torch.equal(
        order, dataset.permutation(6)
    )
    for epoch in range(20):
        assert not torch.equal(order, collect(dataset.epoch(64, seed=5, epoch=epoch))[1])


def test_normalised_values_and_a_warning_where_only_one_of_two_sets_has_them(capsys):
    plain, normalised = (
        make_set(),
        make_set(normalisation=Normalisation((0.1, 0.2, 0.3), (0.5, 0.25, 1.0))),
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalised.normalisation)
    expected = (collect(plain.batches(50))[0] - mean) / std
    torch.testing.assert_close(collect(normalised.batches(50))[0], expected)
    plain.check_like(make_set(), option="-scd")
    assert not capsys.readouterr().err
    plain.check_like(normalised, option="-scd")
    message = capsys.readouterr().err
    assert says(message, "-scd", "in [0, 1]", "-d", "mean 0.1, 0.2, 0.3", "std 0.5, 0.25, 1: ")


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(10, 4, [4, 4, 2]), (10, 5, [5, 5]), (10, 12, [10]), (1, 1, [1])],
)
def test_a_pass_visits_each_image_once_in_subsets_like_the_public_codes(n, size, sizes):
    """Of its sampler: goldens, numerics/sampler.json."""
    dataset = make_set(n, epoch_size=size)
    for number in range(3):
        epochs = range(1 + number * len(sizes), 1 + (number + 1) * len(sizes))
        parts = [subset(n, size, seed=0, epoch=epoch).tolist() for epoch in epochs]
        assert [len(part) for part in parts] == sizes
        assert sorted(index for part in parts for index in part) == list(range(n))
        for epoch, part in zip(epochs, parts, strict=True):
            assert sorted(collect(dataset.epoch(3, seed=0, epoch=epoch))[1]) == sorted(part)


fingerprint = attrgetter("fingerprint")
N = 200
LABELS = torch.arange(N) % 3


def few_classes(images=None, labels=LABELS, **options) -> ImageSet:
    if images is None:
        images = torch.from_numpy(random_images(N, 3, 8, 8))
    return ImageSet(images, labels, n_classes=3, **options)


def test_it_is_of_the_images_and_not_of_their_file(tmp_path):
    """A folder of PNGs that are decoded as they are needed or once, an .npz, and arrays in memory."""
    yaml = "size: 12\nmean: [0, 0, 0]\nstd: [1, 1, 1]\naugment: none\n"
    folder, file = write_folder(tmp_path / "f", n=9, yaml=yaml), tmp_path / "a.npz"
    paths = sorted((folder / "train").glob("*/*.png"))
    arrays, labels = np.stack([np.asarray(Image.open(path)) for path in paths]), np.arange(9) // 3
    np.savez(file, x_train=arrays, y_train=labels, x_test=arrays, y_test=labels)
    sets = [load_dataset(str(folder), "", train=True)]
    sets += [load_dataset(str(file), "", train=train) for train in (True, False)]
    images = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    sets += [
        few_classes(images, torch.tensor(labels, dtype=kind)) for kind in (torch.int8, torch.int64)
    ]
    (only,) = set(map(fingerprint, sets))
    (folder / "dataset.yaml").write_text(yaml.replace("12", "6").replace("none", "resized_crop"))
    assert fingerprint(load_dataset(str(folder), "", train=True)) != only


def test_what_trains_with_the_images_does_not_count():
    plain = fingerprint(few_classes())
    generator_state = torch.get_rng_state()
    assert fingerprint(few_classes(augmentation=CropFlip(4), epoch_size=10)) == plain
    assert torch.equal(torch.get_rng_state(), generator_state)


def changed_pixels() -> ImageSet:
    images = torch.from_numpy(random_images(N, 3, 8, 8))
    images[:, 0, 0, 0] ^= 1
    return few_classes(images)


OTHERS = {
    "one label": lambda: few_classes(labels=LABELS.index_fill(0, torch.tensor([77]), 0)),
    "an image less": lambda: few_classes(
        torch.from_numpy(random_images(N, 3, 8, 8))[:-1], LABELS[:-1]
    ),
    "another order": lambda: few_classes(torch.from_numpy(random_images(N, 3, 8, 8)).flip(0)),
    "a level of a pixel": changed_pixels,
    "another shape": lambda: few_classes(torch.from_numpy(random_images(N, 3, 16, 4))),
    "another size": lambda: few_classes(size=16),
    "normalisation": lambda: few_classes(normalisation=Normalisation((0.5,) * 3, (1.0,) * 3)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_a_network_sees_counts(what):
    assert fingerprint(OTHERS[what]()) != fingerprint(few_classes())


@pytest.mark.parametrize("name", ["digits", "imagenet"])
def test_interventions_count_with_strength_and_seed(name, tmp_path):
    write_imagenet(tmp_path)

    def of(seed=0, **strengths) -> str:
        options = {"interventions": strengths, "seed": seed}
        return fingerprint(load_dataset(name, tmp_path, train=True, **options))

    changes = [{}, *({key: 0.5} for key in ("shortcut", "label_noise"))]
    found = [of(**change) for change in changes] + [of(1, **change) for change in changes[1:]]
    found.append(of(shortcut=0.75))
    assert len(set(found)) == len(found) and found[1] == of(shortcut=0.5)
    assert of(seed=1) == found[0]  # nothing is drawn


def pictures(*shape):
    return torch.from_numpy(random_images(*shape))


def draw(augmentation, n, seed=0):
    return augmentation.draw(torch.Generator().manual_seed(seed), n)


def test_crop_and_flip_equal_torchvision_for_every_offset():
    images = pictures(162, 3, 32, 28)
    numbers = torch.cartesian_prod(
        torch.arange(9), torch.arange(9), torch.arange(2)
    )  # top, left, flip
    ours = CropFlip(4).apply(images, numbers)
    for image, (top, left, flip), result in zip(images, numbers.tolist(), ours, strict=True):
        expected = TF.crop(TF.pad(TF.to_pil_image(image), 4), top, left, 32, 28)
        expected = TF.hflip(expected) if flip else expected
        assert torch.equal(TF.pil_to_tensor(expected), result)


@pytest.mark.parametrize("edge", [0, 4])
def test_affine_equals_torchvision(edge):
    augmentation = Affine(5, (0.9, 1.1), 5, edge=edge, flip=True)
    images, numbers = pictures(400, 3, 32, 28), draw(augmentation, 400)
    ours = augmentation.apply(images, numbers)
    theirs = []
    for image, (angle, shear, scale, flip) in zip(images, numbers.tolist(), strict=True):
        canvas = TF.pad(TF.to_pil_image(image), edge, padding_mode="edge")
        seen = TF.center_crop(TF.affine(canvas, angle, [0, 0], scale, [shear, 0.0]), [32, 28])
        theirs.append(TF.pil_to_tensor(TF.hflip(seen) if flip else seen))
    assert (
        ours == torch.stack(theirs)
    ).float().mean() > 0.999  # but for what falls between two pixels


@pytest.mark.parametrize(("old", "new"), [(28, 224), (32, 16)])
def test_resizing_is_pils_to_one_grey_level(old, new):
    images = pictures(2, 1, old, old)
    theirs = (
        TF.to_pil_image(image).resize((new, new), Image.Resampling.BILINEAR) for image in images
    )
    expected = [*map(TF.pil_to_tensor, theirs)]
    assert (module.resize(images, new).int() - torch.stack(expected).int()).abs().max() <= 1


def test_offsets_and_flips_are_uniform():
    top, left, flip = draw(CropFlip(4), 81_000).unbind(1)
    counts = np.bincount((top * 18 + left * 2 + flip).numpy(), minlength=162)
    assert len(counts) == 162 and counts.min() > 0
    assert stats.chisquare(counts).pvalue > 1e-3
    assert (draw(CropFlip(1, flip=False), 1000).amax(0) == torch.tensor([2, 2, 0])).all()


def test_angles_shears_and_scales_are_uniform_and_independent():
    angle, shear, scale, flip = draw(module.JITTER, 20_000).unbind(1)
    for values, low, high in ((angle, -5, 5), (shear, -5, 5), (scale, 0.9, 1.1)):
        assert stats.kstest((values.numpy() - low) / (high - low), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef([angle, shear, scale]) - np.eye(3)).max() < 0.03 and not flip.any()
    angle, shear, scale, flip = draw(module.TURN_FLIP, 20_000).unbind(1)
    assert (
        14.9 < angle.max() <= 15
        and not shear.any()
        and (scale == 1).all()
        and abs(flip.mean() - 0.5) < 0.02
    )


N_IMAGES, N_CLASSES = 10_000, 10
CLASSES = torch.arange(N_IMAGES) % N_CLASSES
ALL = {"shortcut": 0.75, "label_noise": 0.5}


def make_plain_set(n=N_IMAGES, *, shape=(3, 32, 32), level: int = 0, labels=CLASSES) -> ImageSet:
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
    """Row and column (N_IMAGES, 2) of the centre of the dot on each black image."""
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
    images = make_plain_set(labels=CLASSES.to(torch.int8))
    noisy = changed(images, label_noise=share).labels
    assert noisy.dtype == torch.int8 and torch.equal(images.labels.long(), CLASSES)
    assert_share(noisy != CLASSES, share * (1 - 1 / N_CLASSES))
    if share:  # each other class is as likely, whatever the true one is
        was_drawn = noisy != CLASSES
        away = (noisy - CLASSES)[was_drawn] % N_CLASSES
        assert stats.chisquare(away.bincount(minlength=N_CLASSES)[1:]).pvalue > 0.01
        more = changed(make_plain_set(), label_noise=(1 + share) / 2).labels  # draws these, too
        assert torch.equal(noisy[was_drawn].long(), more[was_drawn])


@pytest.mark.parametrize(("share", "train"), [(0, True), (0.75, True), (1, False)])
def test_dots_tell_the_class_with_a_probability_and_on_test_images_nothing(share, train):
    told = told_by_hue(changed(make_plain_set(), shortcut=share, train=train))
    of_true = share if train else 0
    assert_share(told == CLASSES, of_true + (1 - of_true) / N_CLASSES)
    table = np.zeros((N_CLASSES, N_CLASSES))
    np.add.at(table, (CLASSES.numpy(), told.numpy()), 1)
    assert (stats.chi2_contingency(table).pvalue > 0.01) == (of_true == 0)


def test_on_grey_images_the_place_of_a_dot_tells_the_class():
    """All round a circle, so that places of two classes differ; a dot that tells nothing is at any
    of them."""
    n, shape = 1000, (1, 8, 8)
    told = centres_of(changed(make_plain_set(n, shape=shape), shortcut=1))
    of_class = torch.cat([told[CLASSES[:n] == label].unique(dim=0) for label in range(N_CLASSES)])
    assert len(of_class) == N_CLASSES == len(of_class.unique(dim=0))  # one each
    assert ((of_class - 3.5).norm(dim=1) - 2.5).abs().max() < 0.8  # pixels
    misleading = centres_of(changed(make_plain_set(n, shape=shape), shortcut=0, train=False))
    assert_share((misleading == told).all(1), 1 / N_CLASSES)
    assert circle(4).tolist() == [[0, 0.5], [0.5, 1], [1, 0.5], [0.5, 0]]


@pytest.mark.parametrize(("side", "n_pixels"), [(8, 5), (32, 21)])
def test_dots_are_whole_round_and_anywhere(side, n_pixels):
    """Rows and columns of the centres are uniform and not correlated, and do not depend on what the
    dots tell."""
    n = 1000
    images = changed(make_plain_set(n, shape=(3, side, side)), shortcut=1)
    dots = levels_of(images).amax(1) > 0
    assert (dots.sum((1, 2)) == n_pixels).all()
    diameter = int(dots.any(2).sum(1).unique())  # one value: all dots are equal
    rows, columns = centres_of(images).T
    for centres in (rows, columns):
        counts = (centres.round().int() - diameter // 2).bincount(minlength=side - diameter + 1)
        assert len(counts) == side - diameter + 1 and stats.chisquare(counts).pvalue > 0.01
    for other in (columns, CLASSES[:n]):
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


def load_folder(root: Path, *, train: bool, **options):
    return load_dataset(str(root), "nowhere", train=train, **options)


def opened(root: Path, split: str) -> list[Image.Image]:
    return [Image.open(path) for path in sorted((root / split).rglob("*.png"))]


def test_paths_are_made_absolute(in_tmp_path):
    (in_tmp_path / "mine").mkdir()
    np.savez("arrays.npz", x=np.zeros(1))
    (in_tmp_path / "text").touch()
    for name in ("mine", "arrays.npz"):
        assert dataset_name(name) == f"{in_tmp_path}/{name}"
    assert dataset_label(f"{in_tmp_path}/arrays.npz") == "arrays"
    for name, line in (
        ("./nowhere", "does not exist; give a folder of images or an .npz file"),
        ("other.npz", "does not exist; give a folder of images or an .npz file"),
        ("./text", "is neither a folder of images nor an .npz file"),
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
        dataset = load_folder(tmp_path, train=train)
        images, labels = collect(dataset.batches(4))
        assert labels.tolist() == [0, 0, 1, 1, 2, 2] and dataset.spec == info.spec
        to_values = T.Compose([T.ToTensor(), T.Normalize(*IMAGENET_VALUES)])
        expected = torch.stack([to_values(image) for image in opened(tmp_path, split)])
        torch.testing.assert_close(images, expected)
        assert isinstance(dataset, ImageSet)


def test_without_dataset_yaml_images_become_those_of_imagenet(tmp_path, capsys):
    """Small ones are enlarged, which is said once; the tests of ImageNet have the pixels."""
    for size in (300, 24):
        root = write_folder(tmp_path / str(size), n=3, size=size)
        for train in (True, False):
            dataset = load_folder(root, train=train)
            images, _ = collect(dataset.epoch(2, seed=0, epoch=1))
            assert isinstance(dataset, DecodedImageSet) and images.shape == (3, 3, 224, 224)
            assert dataset.loading.n_workers == 0  # a notebook starts no processes unasked
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if says(line, "has no dataset.yaml")] == [
        str(tmp_path / "300"),
        str(tmp_path / "24"),
    ]
    assert len(lines) == 3
    assert says(
        lines[-1], f"{root}: images of 24 pixels", "to 224", "size: 24, and augment", "dataset.yaml"
    )


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_small_images_are_decoded_once_and_large_ones_by_workers(augment, tmp_path, monkeypatch):
    """Both ways give the same images."""
    write_folder(tmp_path, n=9, size=32, yaml=f"size: 16\naugment: {augment}\n")
    found = []
    for kind, limit in ((ImageSet, 2**30), (DecodedImageSet, 8)):
        monkeypatch.setattr(folders, "MAX_BYTES_KEPT", limit)
        sets = [load_folder(tmp_path, train=train) for train in (True, False)]
        assert all(type(images) is kind for images in sets)
        batches = [images.batches(2) for images in sets]
        batches += [images.epoch(3, seed=0, epoch=2) for images in sets]
        found.append(torch.cat([collect(passed)[0] for passed in batches]))
    assert torch.equal(*found)
    plain, _, augmented, _ = found[0].split([9, 9, 9, 9])
    is_moved = not torch.allclose(plain.sum(0), augmented.sum(0), atol=1e-4)
    assert is_moved == (augment != "none")
    (tmp_path / "dataset.yaml").write_text("size: 16\n")  # a resized crop is of the file
    assert isinstance(load_folder(tmp_path, train=True), DecodedImageSet)


def test_grey_images(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nchannels: 1\naugment: none\nmean: 0.5\nstd: [0.25]\n")
    dataset = load_folder(tmp_path, train=True)
    images, _ = collect(dataset.batches(6))
    grey = np.stack([np.asarray(image.convert("L")) for image in opened(tmp_path, "train")])
    torch.testing.assert_close(images[:, 0], (torch.from_numpy(grey) / 255 - 0.5) / 0.25)
    assert dataset_info(str(tmp_path)).spec.shape == (1, 12, 12)


def test_images_without_class_folders_are_unlabelled(tmp_path):
    """One of more than 8 bits is named."""
    write_folder(tmp_path, classes=(), yaml="size: 12\n")
    dataset = load_folder(tmp_path, train=True)
    assert len(dataset) == 6 and dataset.n_classes == 0 and (dataset.labels == -1).all()
    with pytest.raises(
        UserError, match="has no labels; choose one that has: .*, or label your own"
    ):
        dataset_info(str(tmp_path), labelled=True)
    Image.fromarray(np.full((9, 9), 300, np.uint16)).save(tmp_path / "train" / "x.png")
    with pytest.raises(UserError, match="read .*x.png: its pixels have more than 8 bits"):
        collect(load_folder(tmp_path, train=True).batches(4))


def test_classes_in_their_order_of_which_some_may_be_missing(tmp_path):
    write_folder(tmp_path, yaml="size: 12\nclasses: [cat, dog, bee, ant]\n")
    assert dataset_info(str(tmp_path)).spec.n_classes == 4
    assert load_folder(tmp_path, train=True).labels.tolist() == [3, 3, 2, 2, 0, 0]
    write_folder(tmp_path / "numbered", classes=("0", "1"), yaml="size: 12\nclasses: [1, 0]\n")
    assert load_folder(tmp_path / "numbered", train=True).labels.tolist() == [1, 1, 1, 0, 0, 0]


MISTAKES = {  # by what is said: options of the folder, and a change of it
    "unknown key in .*dataset.yaml 'szie'; did you mean size": ({"yaml": "szie: 3"}, None),
    "dataset.yaml: size cannot be small": ({"yaml": "size: small"}, None),
    "dataset.yaml: channels cannot be 2": ({"yaml": "size: 12\nchannels: 2"}, None),
    "augment cannot be mirror; .*none, flip, crop_flip, resized_crop": ({"yaml": "augment: mirror"}, None),
    r"mean is \[1, 0\]; a number for each of 3 channels": ({"yaml": "mean: [1, 0]"}, None),
    r"\(levels divided by 255\): a mean from 0": ({"yaml": "mean: [127, 127, 127]"}, None),
    r"std is \[0.5, 64, 0.5\]; .*above 0 up to 1": ({"yaml": "std: [0.5, 64, 0.5]"}, None),
    "classes cannot be": ({"yaml": "classes: [a, a]"}, None),
    "train: ant, cat is no class of dataset.yaml": ({"yaml": "classes: [bee]"}, None),
    r"no folder val, .*validation_data \(it holds pictures, train\)": ({}, ("val", "pictures")),
    "val: bees is no class of the training images": ({}, ("val/bee", "val/bees")),
    "valid file for the classes bee": ({}, ("val/bee", "bee")),
    "val holds neither images nor folders of images": ({"classes": (), "n": 1}, ("val/000.png", "a.png")),
}  # fmt: skip


@pytest.mark.parametrize("said", MISTAKES)
def test_mistakes_are_one_line(said, tmp_path):
    options, renamed = MISTAKES[said]
    write_folder(tmp_path, **options)
    if renamed:
        old, new = renamed
        (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(UserError, match=said) as error:
        for train in (True, False):
            load_folder(tmp_path, train=train)
    assert "\n" not in str(error.value)


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
