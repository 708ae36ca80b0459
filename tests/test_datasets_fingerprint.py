"""Fingerprints: equal for equal images, wherever they lie; another one for whatever else a network
would see."""

from operator import attrgetter

import numpy as np
import pytest
import torch
from PIL import Image

from src.datasets import load_dataset
from src.datasets.augmentation import CropFlip
from src.datasets.base import ImageSet
from src.ground.images import Normalisation
from tests.tiny_datasets import random_images, write_folder, write_imagenet

fingerprint = attrgetter("fingerprint")
N = 200
LABELS = torch.arange(N) % 3


def make_set(images=None, labels=LABELS, **options) -> ImageSet:
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
        make_set(images, torch.tensor(labels, dtype=kind)) for kind in (torch.int8, torch.int64)
    ]
    (only,) = set(map(fingerprint, sets))
    (folder / "dataset.yaml").write_text(yaml.replace("12", "6").replace("none", "resized_crop"))
    assert fingerprint(load_dataset(str(folder), "", train=True)) != only


def test_what_trains_with_the_images_does_not_count():
    plain = fingerprint(make_set())
    generator_state = torch.get_rng_state()
    assert fingerprint(make_set(augmentation=CropFlip(4), epoch_size=10)) == plain
    assert torch.equal(torch.get_rng_state(), generator_state)


def changed_pixels() -> ImageSet:
    images = torch.from_numpy(random_images(N, 3, 8, 8))
    images[:, 0, 0, 0] ^= 1
    return make_set(images)


OTHERS = {
    "one label": lambda: make_set(labels=LABELS.index_fill(0, torch.tensor([77]), 0)),
    "an image less": lambda: make_set(
        torch.from_numpy(random_images(N, 3, 8, 8))[:-1], LABELS[:-1]
    ),
    "another order": lambda: make_set(torch.from_numpy(random_images(N, 3, 8, 8)).flip(0)),
    "a level of a pixel": changed_pixels,
    "another shape": lambda: make_set(torch.from_numpy(random_images(N, 3, 16, 4))),
    "another size": lambda: make_set(size=16),
    "normalisation": lambda: make_set(normalisation=Normalisation((0.5,) * 3, (1.0,) * 3)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_a_network_sees_counts(what):
    assert fingerprint(OTHERS[what]()) != fingerprint(make_set())


@pytest.mark.parametrize("name", ["digits", "imagenet"])
def test_interventions_count_with_strength_and_seed(name, tmp_path):
    write_imagenet(tmp_path)

    def of(seed=0, **strengths) -> str:
        options = {"interventions": strengths, "intervention_seed": seed}
        return fingerprint(load_dataset(name, tmp_path, train=True, **options))

    changes = [{}, *({key: 0.5} for key in ("shortcut", "label_noise")), {"image_noise": 500.0}]
    found = [of(**change) for change in changes] + [of(1, **change) for change in changes[1:]]
    found.append(of(shortcut=0.75))
    assert len(set(found)) == len(found) and found[1] == of(shortcut=0.5)
    assert of(seed=1) == found[0]  # nothing is drawn
