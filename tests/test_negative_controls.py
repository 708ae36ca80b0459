"""Fronts that learned nothing, or hardly anything, into networks that read digits: none is similar."""

import copy
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.datasets import load_dataset
from src.judge import judge
from src.models import Network
from src.skill import baseline
from src.verdict import ACCURATE_ONLY, INCONCLUSIVE, SIMILAR, Limits

LAYER = "8"  # a vector of 100 numbers
MAP = "5"  # 24 channels of 2×2 positions
FIVE_DRAWS = 5  # tests that only compare baselines take one


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


def trained(
    inputs: Tensor, labels: Tensor, *, n_classes: int, n_epochs: int, seed: int
) -> nn.Module:
    """A small network after a few epochs."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(96, 100), nn.ReLU(), nn.Linear(100, n_classes)),
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
    with torch.enable_grad():
        for _ in range(n_epochs):
            for rows in torch.randperm(len(inputs)).split(100):
                optimizer.zero_grad()
                F.cross_entropy(module(inputs[rows]), labels[rows]).backward()
                optimizer.step()
    return module.eval().requires_grad_(False)


class Trained:
    """Two networks that read digits into some classes, and fronts into the second one.

    Args:
        n_train: training images, of which those behind the last one come again, shifted by a pixel.
    """

    def __init__(
        self,
        n_classes: int,
        dataset: str = "digits",
        n_train: int | None = None,
        *,
        n_epochs: int = 6,
    ):
        self.sides = []
        for train in (True, False):
            ((inputs, labels),) = load_dataset(dataset, "", train=train).batches(10_000)
            if train:
                inputs = torch.cat([inputs, inputs.roll(1, 3)])[: n_train or len(inputs)]
            self.sides.append((inputs, (labels % n_classes).repeat(2)[: len(inputs)]))
        (self.inputs, self.labels), _ = self.sides
        options = {"n_classes": n_classes, "n_epochs": n_epochs}
        self.front, self.end = (
            trained(self.inputs, self.labels, seed=seed, **options) for seed in (0, 1)
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

    def patch_features(self, n_means: int) -> Tensor:
        """The class beside the closeness to k-means of 5×5 patches, averaged over 2×2 cells."""
        draws = torch.Generator().manual_seed(9)
        patches = F.unfold(self.all, 5, padding=2).mT  # (n, 64, 25)
        some = patches[: len(self.inputs)].flatten(0, 1)
        some = some[torch.randint(len(some), (4000,), generator=draws)]
        means = some[:n_means]
        for _ in range(10):
            nearest = F.one_hot(torch.cdist(some, means).argmin(1), n_means).float()
            means = nearest.T @ some / nearest.sum(0)[:, None].clamp(min=1)
        distances = torch.cdist(patches, means)
        closeness = (distances.mean(2, keepdim=True) - distances).relu().mT.unflatten(2, (8, 8))
        features = F.adaptive_avg_pool2d(closeness, 2).flatten(1)
        return torch.cat([features, self.given_class], 1)

    def compressed(self, features: Tensor, n: int) -> Tensor:
        """Their first principal components."""
        centred = features - features[: len(self.inputs)].mean(0)
        _, _, axes = torch.linalg.svd(centred[: len(self.inputs)], full_matrices=False)
        return torch.cat([centred @ axes[:n].T, self.given_class], 1)

    def told_the_class(self) -> dict[str, Tensor]:
        """Fronts that know the class and learned nothing else."""
        logits = self.front(self.all)
        patches = self.patch_features(16)
        return {
            "random_16": self.random_features(1),
            "random_160": self.random_features(10),
            "class": self.given_class,
            "confidence": self.given_class * logits.softmax(1).amax(1, keepdim=True),
            "margin": self.given_class * -logits.topk(2).values.diff(dim=1),
            "patches": patches,
            "compressed_patches": self.compressed(patches, 20),
        }

    def judged(
        self,
        shown: dict[str, Tensor],
        n_train: int = 2000,
        *,
        layer: str = LAYER,
        forms: Sequence[str] = ("covariance",),
    ) -> dict:
        """The rows of fronts, by form and name."""
        (inputs, labels), test = self.sides
        train = zip(inputs[:n_train].split(100), labels[:n_train].split(100), strict=True)
        rows = judge(
            Shown(self.all, shown).eval(),
            self.end,
            list(train),
            [test],
            layers=(list(shown), [layer]),
            forms=forms,
            limits=Limits(pairwise=True),
            learning_rate=0.01,
            scheduler="cosine",
        )
        return {(row.method, row.front_layer): row for row in rows}


@pytest.fixture(scope="module", params=[10, 2])
def networks(request):
    with torch.no_grad():
        return Trained(request.param)


@pytest.fixture
def five_draws(monkeypatch):
    monkeypatch.setattr(baseline, "N_DRAWS", FIVE_DRAWS)


@pytest.mark.usefixtures("five_draws")
@torch.no_grad()
def test_the_class_beside_features_that_learned_nothing_is_not_similar(networks):
    """Random features, k-means features, the class alone, and the class times the confidence of another
    network."""
    rows = networks.judged(networks.told_the_class(), forms=("covariance", "pinv"))
    for name, row in rows.items():
        assert row.verdict != SIMILAR, name
    assert ACCURATE_ONLY in [row.verdict for row in rows.values()]


@pytest.fixture(scope="module", params=[10, 5, 2])
def networks_of_more_images(request):
    with torch.no_grad():
        return Trained(request.param, "mnist5k", 5000, n_epochs=12)


@pytest.mark.slow
@pytest.mark.usefixtures("five_draws")
@pytest.mark.parametrize("layer", [LAYER, MAP])
@pytest.mark.parametrize("n_train", [250, 500, 1000, 2000, 5000])
@torch.no_grad()
def test_no_front_that_learned_nothing_is_similar(networks_of_more_images, n_train, layer):
    """By closed forms and by training. Nor are logits of another network, but at the last layer, where the
    end network uses nothing else: there closed forms find them similar, padded or not."""
    networks = networks_of_more_images
    logits = networks.front(networks.all)
    fronts = networks.told_the_class() | {"logits": logits}
    if layer == LAYER:
        fronts["padded_logits"] = F.pad(logits, (0, 1600 - logits.shape[1]))
    elif n_train == 5000:
        fronts["random_640"] = networks.random_features(40)
    closed_forms = ("covariance", "pinv")
    forms = (*closed_forms, "task:10")
    rows = networks.judged(fronts, n_train, layer=layer, forms=forms)
    assert len(rows) == len(forms) * len(fronts)
    similar = {key for key, row in rows.items() if row.verdict == SIMILAR}
    if layer == LAYER:
        for form in closed_forms:
            assert rows[form, "padded_logits"].verdict == rows[form, "logits"].verdict
            similar -= {(form, "logits"), (form, "padded_logits")}
    assert similar == set()


@pytest.mark.parametrize("networks", [10], indirect=True)
@torch.no_grad()
def test_random_features_wider_than_the_inputs_allow_are_inconclusive(networks):
    (row,) = networks.judged({"random_320": networks.random_features(20)}).values()
    assert row.verdict == INCONCLUSIVE
    assert "too few inputs for the baseline" in row.reason


@pytest.mark.parametrize("networks", [10], indirect=True)
@pytest.mark.parametrize("n_train", [250, 500, 1000])
@torch.no_grad()
def test_few_inputs_make_logits_of_another_network_no_more_similar(networks, n_train):
    """Nor do they if they are padded with empty channels."""
    logits = networks.front(networks.all)
    fronts = {"logits": logits}
    if n_train == 1000:
        fronts["padded"] = F.pad(logits, (0, 1600 - logits.shape[1]))
    for row in networks.judged(fronts, n_train).values():
        assert row.verdict != SIMILAR
        assert ("too few inputs for the baseline" in row.reason) == (
            n_train < 10 * (100 + networks.given_class.shape[1])
        )


@pytest.mark.parametrize("networks", [10], indirect=True)
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
    rows = {name: row for (_, name), row in networks.judged(fronts).items()}
    own = rows.pop("own")
    for name, row in rows.items():
        assert (row.baseline, row.baseline_at_end) == (own.baseline, own.baseline_at_end), name
        assert row.skill == pytest.approx(own.skill, abs=1e-3)


@torch.no_grad()
def test_the_end_network_itself_has_a_skill_of_1(networks):
    own = Network(copy.deepcopy(networks.end))
    shown = own.activations(networks.all, [LAYER])[LAYER]
    (row,) = networks.judged({"itself": shown}).values()
    assert (row.skill, row.skill_at_end) == pytest.approx((1, 1), abs=1e-3)
    assert row.verdict == SIMILAR or "do almost as well" in row.reason
