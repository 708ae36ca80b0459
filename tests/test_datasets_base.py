"""Batches: order, size, dependence on seed and epoch, and epochs that are disjoint subsets of a pass; their
augmentation, against torchvision's transforms of single PIL images; and fingerprints, which differ for
whatever else a network would see."""

from operator import attrgetter

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from scipy import stats

from src.core.inputs import Normalisation
from src.datasets import augmentation as module
from src.datasets import load_dataset
from src.datasets.augmentation import Affine, CropFlip
from src.datasets.base import ImageSet, subset
from tests.commands import says
from tests.tiny_datasets import collect, random_images, write_folder, write_imagenet


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
