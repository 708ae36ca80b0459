"""Augmentation against torchvision's transforms of single PIL images: pixels for given numbers, and
the numbers."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from scipy import stats

from src.datasets import augmentation as module
from src.datasets import dataset_info
from src.datasets.augmentation import Affine, CropFlip
from tests import tiny_datasets as tiny


def random_images(*shape):
    return torch.from_numpy(tiny.random_images(*shape))


def draw(augmentation, n, seed=0):
    return augmentation.draw(torch.Generator().manual_seed(seed), n)


def test_crop_and_flip_equal_torchvision_for_every_offset():
    images = random_images(162, 3, 32, 28)
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
    images, numbers = random_images(400, 3, 32, 28), draw(augmentation, 400)
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
    images = random_images(2, 1, old, old)
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
    angle, shear, scale, flip = draw(dataset_info("svhn").augmentation, 20_000).unbind(1)
    for values, low, high in ((angle, -5, 5), (shear, -5, 5), (scale, 0.9, 1.1)):
        assert stats.kstest((values.numpy() - low) / (high - low), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef([angle, shear, scale]) - np.eye(3)).max() < 0.03 and not flip.any()
    angle, shear, scale, flip = draw(dataset_info("cifar10_large").augmentation, 20_000).unbind(1)
    assert (
        14.9 < angle.max() <= 15
        and not shear.any()
        and (scale == 1).all()
        and abs(flip.mean() - 0.5) < 0.02
    )
