"""Two-way identification: foils by hand, loops, invariances, and cheats that show another image or
what the rest of the network ignores."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from src.models import Network
from src.ood import along_the_way, identification
from src.ood.identifying import N_CANDIDATES, OwnLayer, Shown, choose_foils, shares_of
from src.stitching import direct_matching


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def foils_of(logits: Tensor) -> dict[int, int]:
    """The foil of each image that has one."""
    images, foils = choose_foils(logits, torch.arange(len(logits)))
    return dict(zip(images.tolist(), foils.tolist(), strict=True))


def test_the_foil_has_the_class_and_the_nearest_logits():
    """Images 0 to 3 have the first class; 4 is nearer to 0 but of the second, and alone there."""
    logits = torch.tensor([[2.0, 1.9], [5.0, 0.0], [2.5, 1.0], [9.0, 0.0], [1.9, 2.0]])
    assert foils_of(logits) == {0: 2, 1: 2, 2: 0, 3: 1}
    assert foils_of(logits[:1]) == {}


def test_the_foil_is_one_of_ten_of_the_class():
    """Nearer than most of 1,000 images of one class, seldom the nearest, and never the image."""
    logits = torch.randn(1000, 1, generator=draws())
    foils = foils_of(logits)
    places = []
    for image, foil in foils.items():
        assert foil != image
        distances = (logits - logits[image]).abs()[:, 0]
        places.append((distances < distances[foil]).sum().item() - 1)  # without the image itself
    # The least of ten places among 999 is 999 / 11 on average
    assert np.mean(places) == pytest.approx(999 / (N_CANDIDATES + 1), rel=0.1)


def test_a_foil_hangs_on_no_other_image_that_is_identified():
    """Nor on the class of images that are of another class before and after."""
    logits = torch.randn(200, 5, generator=draws())
    all_foils = foils_of(logits)
    some = torch.tensor([3, 50, 120])
    images, foils = choose_foils(logits, some)
    assert torch.equal(images, some)
    assert foils.tolist() == [all_foils[image] for image in some.tolist()]
    moved = logits.clone()
    classes = logits.argmax(1)
    image = next(i for i in range(200) if classes[i] not in classes[some])
    moved[image] = 0
    moved[image, (classes[image] + 1) % 5] = 9
    if moved[image].argmax() not in classes[some]:
        assert torch.equal(choose_foils(moved, some).foils, foils)


def pooled(activation: Tensor) -> np.ndarray:
    """The 2×2 cells of a map (C, 4, 4), as a vector."""
    cells = [activation[:, y : y + 2, x : x + 2].mean((1, 2)) for y in (0, 2) for x in (0, 2)]
    return torch.cat(cells).double().numpy()


def test_by_loops():
    """Moved to the mean of the own activations, scaled to their total variance, and compared."""
    draw = draws()
    own, logits = 5 + torch.randn(40, 3, 4, 4, generator=draw), torch.randn(40, 3, generator=draw)
    shown = 0.3 * (own + 3 * torch.randn(own.shape, generator=draw)) - 7
    foils = foils_of(logits)
    assert len(foils) == 40
    own_cells = np.stack([pooled(activation) for activation in own])
    cells = np.stack([pooled(activation) for activation in shown])
    centred = cells - cells.mean(0)
    own_centred = own_cells - own_cells.mean(0)
    moved = centred * np.sqrt((own_centred**2).sum() / (centred**2).sum()) + own_cells.mean(0)
    values = identification(shown, own, logits).tolist()
    for image, value in enumerate(values):
        to_own = np.linalg.norm(moved[image] - own_cells[image])
        to_foil = np.linalg.norm(moved[image] - own_cells[foils[image]])
        assert value == (to_own < to_foil)
    assert 0 < np.mean(values) < 1


def test_strength_and_mean_do_not_count():
    """Least squares shrinks what it shows: so shrinkage, shifts of channels and positions are no
    difference, and turning the sign is."""
    draw = draws()
    own, logits = torch.randn(300, 6, generator=draw), torch.randn(300, 3, generator=draw)
    shown = own + torch.randn(own.shape, generator=draw)
    values = identification(shown, own, logits)
    assert 0.6 < values.mean() < 0.95
    assert torch.equal(identification(0.01 * shown + 100 * logits[0, 0], own, logits), values)
    shifted = shown + torch.randn(6, generator=draw)
    assert torch.equal(identification(shifted, own, logits), values)
    assert identification(-shown, own, logits).mean() < 0.4


def test_batches_and_groups_of_stitches_change_nothing():
    draw = draws()
    own = 30 + torch.randn(100, 8, generator=draw)
    logits = torch.randn(100, 4, generator=draw)
    shown = own + torch.randn(3, 100, 8, generator=draw)  # of three stitches
    images, foils = choose_foils(logits, torch.arange(100))
    layer = OwnLayer()
    for batch, of_foils in zip(images.split(32), foils.split(32), strict=True):
        layer.add(own[batch], own[of_foils])
    layer.fit()
    sums = [Shown() for _ in range(3)]
    for places in (slice(0, 7), slice(7, 64), slice(64, 100)):
        for stitches in ([0, 1], [2]):
            parts = layer.compare(shown[stitches][:, images[places]], places)
            for i, stitch in enumerate(stitches):
                sums[stitch].add(*parts, i)
    for stitch in range(3):
        expected = identification(shown[stitch], own, logits)
        assert torch.equal(layer.identified(sums[stitch]), expected[images])


def test_limits_and_ties():
    draw = draws()
    own, logits = torch.randn(400, 8, generator=draw), torch.randn(400, 10, generator=draw)
    assert identification(own, own, logits).mean() == 1
    shuffled = own[torch.randperm(400, generator=draw)]
    assert identification(shuffled, own, logits).mean() == pytest.approx(0.5, abs=0.1)
    foils = torch.tensor(list(foils_of(logits).values()))
    assert identification(own[foils], own, logits).mean() < 0.05
    twice = own[:1].repeat(400, 1)  # all images are copies
    assert identification(own, twice, logits).unique().tolist() == [0.5]
    constant = identification(twice, own, logits)
    assert constant.mean() == pytest.approx(0.5, abs=0.1)
    broken = own.clone()
    broken[7, 3] = math.inf
    assert identification(broken, own, logits).isnan().all()
    logits[:, 9] = -9.0
    logits[7] = torch.eye(10)[9]  # alone in its class
    assert identification(own, own, logits).isnan().nonzero().tolist() == [[7]]


def test_a_thousand_classes():
    """With many classes the nearest image in logits has another class; the foil never has, so that
    the class alone tells nothing."""
    draw = draws()
    centres = torch.randn(1000, 32, generator=draw)
    labels = torch.arange(3000) % 1000
    own = centres[labels] + 0.5 * torch.randn(3000, 32, generator=draw)
    logits = own @ centres.T
    classes = logits.argmax(1)
    class_means = centres[classes]
    assert 0.4 < identification(class_means, own, logits).nanmean() < 0.6
    assert identification(own, own, logits).nanmean() == 1


class HalfDead(nn.Module):
    """A network with as many dead channels as live ones: its tail has no weights for them.

    What is in the dead channels is drawn for each image, as an index of its first pixel.
    """

    def __init__(self, n_images: int) -> None:
        super().__init__()
        draw = draws(1)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4))
        self.middle = nn.Identity()
        self.tail = nn.Sequential(nn.Conv2d(32, 24, 1), nn.ReLU())
        self.head = nn.Linear(24 * 4, 5)
        for parameter in self.parameters():
            parameter.data = 0.4 * torch.randn(parameter.shape, generator=draw)
        self.tail[0].weight.data[:, 16:] = 0
        self.register_buffer("noise", torch.randn(n_images, 16, 2, 2, generator=draw))

    def forward(self, images: Tensor) -> Tensor:
        live = self.body(images)
        indices = (images[:, 0, 0, 0] * len(self.noise)).round().long()
        spread = live.std((0, 2, 3), correction=0)[:, None, None]
        dead = self.noise[indices] * spread
        return self.head(self.tail(self.middle(torch.cat([live, dead], 1))).flatten(1))


def shares(end: Network, layer: str, shown: Tensor, images: Tensor) -> dict[str, float]:
    values = along_the_way(end, layer, shown, images)
    return {name: identified.nanmean().item() for name, identified in values.items()}


@torch.no_grad()
def test_dead_channels():
    """An image that is shown where the tail does not look is not recognised behind; and channels
    that no front can know take no image away."""
    n = 1200
    images = torch.rand(n, 3, 8, 8, generator=draws())
    images[:, 0, 0, 0] = torch.arange(n) / n
    end = Network(HalfDead(n).eval())
    own = end(images, until="middle")
    live, dead = own[:, :16], own[:, 16:]
    classes = end(images).argmax(1)
    is_class = nn.functional.one_hot(classes, 5).float()
    means = torch.einsum("nk,n...->k...", is_class, live) / is_class.sum(0)[:, None, None, None]
    cheat = torch.cat([means[classes], dead], 1)
    found = shares(end, "middle", cheat, images)
    assert found["middle"] > 0.9 and min(found.values()) < 0.65

    # A front that knows the live channels and not the dead ones
    noisy_live = live + 0.3 * live.std(0) * torch.randn(live.shape, generator=draws(2))
    source = torch.cat([noisy_live, torch.randn(dead.shape, generator=draws(3))], 1)
    match = direct_matching(source, own, form="covariance")
    mapped = torch.einsum("oc,nchw->nohw", match.weight.float(), source)
    shown = mapped + match.bias.float()[:, None, None]
    found = shares(end, "middle", shown, images)
    only_live = shares(end, "middle", torch.cat([noisy_live, dead], 1), images)
    assert min(found.values()) > 0.85 and min(only_live.values()) > 0.85


@pytest.mark.parametrize(("n_right", "n"), [(98, 100), (0, 40), (40, 40), (7, 20)])
def test_the_share_has_wilsons_interval(n_right, n):
    identified = {
        "some": (np.arange(n) < n_right).astype(float),
        "ties": np.full(10, 0.5),
        "lost": np.full(10, math.nan),
    }
    shares = shares_of(identified)
    value, low, high = shares["some"]
    expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
    assert value == n_right / n and (low, high) == pytest.approx(tuple(expected), abs=1e-4)
    assert shares["ties"].value == 0.5
    assert all(map(math.isnan, shares["lost"]))
