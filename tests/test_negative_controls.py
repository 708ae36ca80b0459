"""Fronts that learned nothing, or hardly anything, into networks that read digits: none is similar."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.judge import judge
from src.judgement import JudgedStitch
from src.models import Network
from src.skill import baseline
from src.verdict import INCONCLUSIVE, SIMILAR, Limits
from tests.commands import digit_images

LAYER = "8"  # a vector of 100 numbers
FIVE_DRAWS = 5


class Shown(nn.Module):
    """A front that looks up what it shows of an input, by name; it has no logits of its own."""

    def __init__(self, inputs: Tensor, shown: dict[str, Tensor]):
        super().__init__()
        self.places = {image.numpy().tobytes(): place for place, image in enumerate(inputs)}
        self.shown, self.block_names = shown, tuple(shown)
        self.weight = nn.Parameter(torch.zeros(1))
        for name in shown:
            setattr(self, name, nn.Identity())

    def forward(self, inputs: Tensor) -> Tensor:
        found = [self.places.get(image.contiguous().numpy().tobytes(), 0) for image in inputs]
        for name, values in self.shown.items():
            made = getattr(self, name)(values[found])
        return made


def trained(inputs: Tensor, labels: Tensor, *, n_classes: int, seed: int) -> nn.Module:
    """A small network after a few epochs."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(96, 100), nn.ReLU(), nn.Linear(100, n_classes)),
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
    with torch.enable_grad():
        for _ in range(12):
            for rows in torch.randperm(len(inputs)).split(100):
                optimizer.zero_grad()
                F.cross_entropy(module(inputs[rows]), labels[rows]).backward()
                optimizer.step()
    return module.eval().requires_grad_(False)


class Trained:
    """Two networks that read digits into some classes, and fronts into the second one."""

    def __init__(self, n_classes: int):
        self.sides = []
        for train in (True, False):
            ((inputs, labels),) = digit_images(train=train).batches(2000)
            self.sides.append((inputs, labels % n_classes))
        (self.inputs, self.labels), _ = self.sides
        self.front, self.end = (
            trained(self.inputs, self.labels, n_classes=n_classes, seed=seed) for seed in (0, 1)
        )
        self.all = torch.cat([inputs for inputs, _ in self.sides])
        self.logits = self.end(self.all)
        self.given_class = F.one_hot(self.logits.argmax(1), n_classes).float()

    def random_features(self, n_filters: int, seed: int = 9) -> Tensor:
        """The class beside means over 4×4 cells of filters of 5×5 with a ReLU."""
        draws = torch.Generator().manual_seed(seed)
        filters = 0.28 * torch.randn(n_filters, 1, 5, 5, generator=draws)
        inputs = (self.all - self.all.mean()) / self.all.std()
        maps = F.conv2d(inputs, filters, 0.3 * torch.randn(n_filters, generator=draws), padding=2)
        features = F.adaptive_avg_pool2d(maps.relu(), 4).flatten(1)
        return torch.cat([features, self.given_class], 1)

    def judged(self, shown: dict[str, Tensor], n_train: int = 2000) -> dict[str, JudgedStitch]:
        """The rows of fronts, by name."""
        train, test = ([(x[:n_train], y[:n_train])] for x, y in self.sides)
        rows = judge(
            Shown(self.all, shown).eval(),
            self.end,
            train,
            test,
            layers=(list(shown), [LAYER]),
            forms="covariance",
            limits=Limits(pairwise=True),
        )
        return {row.front_layer: row for row in rows}


@pytest.fixture(scope="module", params=[10, 2])
def networks(request):
    with torch.no_grad():
        return Trained(request.param)


@pytest.fixture(autouse=True)
def five_draws(monkeypatch):
    monkeypatch.setattr(baseline, "N_DRAWS", FIVE_DRAWS)


@torch.no_grad()
def test_the_class_beside_features_that_learned_nothing_is_not_similar(networks):
    """Random features, the class alone, and the class times the confidence of another network."""
    logits = networks.front(networks.all)
    fronts = {
        "random_16": networks.random_features(1),
        "random_160": networks.random_features(10),
        "class": networks.given_class,
        "confidence": networks.given_class * logits.softmax(1).amax(1, keepdim=True),
        "margin": networks.given_class * -logits.topk(2).values.diff(dim=1),
    }
    for name, row in networks.judged(fronts).items():
        assert row.verdict != SIMILAR, name


@torch.no_grad()
def test_random_features_wider_than_the_inputs_allow_are_inconclusive(networks):
    row = networks.judged({"random_640": networks.random_features(40)})["random_640"]
    assert row.verdict == INCONCLUSIVE
    assert "too few inputs for the baseline" in row.reason or "do almost as well" in row.reason


@pytest.mark.parametrize("n_train", [250, 500, 1000])
@torch.no_grad()
def test_few_inputs_make_logits_of_another_network_no_more_similar(networks, n_train):
    row = networks.judged({"logits": networks.front(networks.all)}, n_train)["logits"]
    assert row.verdict != SIMILAR
    assert ("too few inputs for the baseline" in row.reason) == (
        n_train < 10 * (100 + networks.given_class.shape[1])
    )


@torch.no_grad()
def test_channels_that_say_nothing_change_no_baseline(networks):
    """Empty, repeated and permuted channels, and rotations."""
    shown = networks.random_features(4)
    n = shown.shape[1]
    rotation = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(0)))[0]
    fronts = {
        "own": shown,
        "padded": F.pad(shown, (0, 1600 - n)),
        "repeated": torch.cat([shown, shown], 1),
        "permuted": shown.flip(1),
        "rotated": shown @ rotation,
    }
    rows = networks.judged(fronts)
    own = rows.pop("own")
    for name, row in rows.items():
        assert (row.baseline, row.baseline_at_end) == (own.baseline, own.baseline_at_end), name
        assert row.skill == pytest.approx(own.skill, abs=1e-3)


@torch.no_grad()
def test_the_end_network_itself_has_a_skill_of_1(networks):
    own = Network(copy.deepcopy(networks.end))
    shown = own.activations(networks.all, [LAYER])[LAYER]
    row = networks.judged({"itself": shown})["itself"]
    assert (row.skill, row.skill_at_end) == pytest.approx((1, 1), abs=1e-3)
    assert row.verdict == SIMILAR or "do almost as well" in row.reason
