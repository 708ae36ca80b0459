"""The label-only control: partners, matching and training on them; tests/test_cli_all_pairs.py has the files."""

import numpy as np
import pytest
import torch

from src.models import Network
from src.stitching import Grid, build_layers, label_only, match_layers, matching_batches, with_controls
from src.stitching.stitched_model import class_partners
from tests.commands import digit_images
from tests.tiny_networks import narrow_resnet

SHAPE, FRONTS, ENDS = (1, 8, 8), ["layer1.0", "layer2.0"], ["layer1.0", "layer2.0"]
SEED, N = 3, 300


@pytest.fixture(scope="module")
def networks() -> list[Network]:
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(narrow_resnet().eval().requires_grad_(False))
    return made


def test_partners_are_other_images_of_the_class():
    labels = torch.tensor([0, 1, 0, 1, 0, 2, 1, 0])
    partners = class_partners(labels, torch.tensor([7, 5, 0, 3, 2, 6, 1, 4]))
    assert partners.tolist() == [2, 3, 4, 6, 7, 5, 1, 0]  # 7 → 0 → 2 → 4 → 7, 3 → 6 → 1 → 3, and 5 alone


@torch.no_grad()
def test_matching_equals_a_fit_on_permuted_rows(networks):
    """By numpy, for each pair of a grid, on activations of whole images."""
    train_set = digit_images(train=True)
    plain, _ = build_layers(*networks, FRONTS, ENDS, "rc2c_pre", image_shape=SHAPE, seed=0)
    layers = with_controls(plain, ["labels"])
    paired = label_only(train_set, seed=SEED)
    match_layers(*networks, layers, *matching_batches(paired, N, 64, seed=SEED), cutoff="exact")
    order = train_set.permutation(SEED)
    ((images, labels),) = train_set.batches(N, indices=order[:N])
    partners = class_partners(train_set.labels, order)[order[:N]]
    ((others, _),) = train_set.batches(N, indices=partners)
    assert (train_set.labels[partners] == labels).all() and (partners != order[:N]).all()
    for pair, layer in layers.items():
        source = networks[0](others, until=pair.front_layer)
        target = networks[1](images, until=pair.end_layer)
        source = torch.nn.functional.interpolate(source, target.shape[2:], mode="bilinear", align_corners=False)
        x, y = (act.double().movedim(1, -1).flatten(0, -2).numpy() for act in (source, target))
        solution = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0].T
        made = torch.cat([layer.transform.weight.flatten(1), layer.transform.bias[:, None]], 1).numpy()
        assert np.abs(made - solution).max() < 1e-6 * max(1, np.abs(solution).max())


def test_training_shows_the_front_network_the_partners(networks):
    """With the augmentation of the images; their own activations are the targets."""
    paired, plain = label_only(digit_images(train=True), seed=SEED), digit_images(train=True)
    batch, labels = next(paired.epoch(32, seed=0, epoch=1))
    images, others, _ = batch
    own, own_labels = next(plain.epoch(32, seed=0, epoch=1))
    assert torch.equal(images, own) and torch.equal(labels, own_labels) and not torch.equal(others, own)
    plain, _ = build_layers(*networks, FRONTS[:1], ENDS[:1], "rc2c_pre", image_shape=SHAPE, seed=0)
    for controls in (["labels"], ["", "labels"]):
        layers = with_controls(plain, controls)
        (losses,) = Grid(*networks, layers).losses(batch, labels, training=True)
        for (pair, layer), loss in zip(layers.items(), losses.losses, strict=True):
            source = networks[0](others if pair.control else images, until=pair.front_layer)
            logits = networks[1](layer(source), after=pair.end_layer, images=images)
            assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def watch_images(monkeypatch, module) -> list[int]:
    """The numbers of images of all passes of a module from now on."""
    taken, forward = [], module.forward
    monkeypatch.setattr(module, "forward", lambda images: taken.append(len(images)) or forward(images))
    return taken


@torch.no_grad()
def test_controls_share_the_passes_of_the_stitches(networks, monkeypatch):
    """The front network sees besides the partners that are in no batch with their images: at most one a class."""
    train_set = label_only(digit_images(train=True), seed=SEED)
    layers, _ = build_layers(*networks, FRONTS, ENDS, "rc2c_pre", image_shape=SHAPE, seed=0)
    front, end = (watch_images(monkeypatch, network.module) for network in networks)
    both = with_controls(layers, ["", "labels"])
    match_layers(*networks, both, *matching_batches(train_set, N, 64, seed=SEED))
    assert sum(end) == N < sum(front) <= N + 10 * 5
    alone = with_controls(layers, ["labels"])
    match_layers(*networks, alone, *matching_batches(train_set, N, 64, seed=SEED))
    assert all(torch.equal(layer.transform.weight, both[pair].transform.weight) for pair, layer in alone.items())
