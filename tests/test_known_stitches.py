"""Negative controls: stitches of a trained network, whose image is known: the verdict on each."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.core.values import Predictions
from src.models import Network
from src.ood import make_detector, ood_metrics
from src.results.frame import judge_stitches
from src.results.stitches import (
    Stitch,
    columns_of_skill,
)
from src.skill.baseline import Baselines
from src.skill.running import Following
from src.skill.skills import skill_of
from src.stitching import direct_matching
from tests.commands import digit_images
from tests.frames import rows_of
from tests.result_rows import stitch
from tests.tiny_networks import PLAIN, plain_network

LAYER = "4"
WORDS = {
    "itself": "similar",
    "class means": "accurate only",
    "shrunk to 0.7": "similar",
    "noise": "similar",
    "constant maps": "not matched",
    "shuffled positions": "not matched",
    "untrained front": "not matched",
}


def judged(*results):
    return rows_of(judge_stitches(*results))


@pytest.fixture(scope="module")
def end() -> Network:
    """The network as it was trained once: no verdict depends on the rounding of a training run."""
    trained = plain_network()
    trained.module.load_state_dict(torch.load(PLAIN, weights_only=True))
    return trained.eval().requires_grad_(False)


def digits(*, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ((images, labels),) = digit_images(train=train).batches(2000)
    return images, labels


@pytest.fixture(scope="module")
def baselines(end) -> Baselines:
    train, test = (digit_images(train=is_train) for is_train in (True, False))
    return Baselines(end, train, test, torch.arange(len(test)), batch_size=360)


def run_of(baselines: Baselines, made: torch.Tensor, name: str, layer: str = LAYER) -> Stitch:
    """A run whose stitch gives the end network these activations of the test images."""
    images, labels = digits(train=False)
    end, key = baselines.end, baselines.key(layer, made.shape[1])
    logits = end(made, after=layer)
    following = Following(end, [layer], image_shape=images.shape[1:])
    following.add_end(end.activations(images, [layer, end.output_name]))
    following.add_stitches([name], layer, made[None], logits[None])
    skill = skill_of(following.products(name), baselines.measured([key])[key])
    made_stitch = stitch(front_layer=name, end_layer=layer, n_epochs=0)
    own = end(images).argmax(1)
    classes = logits.argmax(1), own, own, labels
    predictions = Predictions(*(of_images.numpy() for of_images in classes))
    made_stitch.files.__dict__["predictions"] = {made_stitch.pair: predictions}
    return replace(made_stitch, folder=Path(name), evaluation=columns_of_skill(skill))


def controls_of(end: Network) -> dict[str, torch.Tensor]:
    """The activations that each negative control makes of the test images."""
    (images, labels), (test_images, _) = (digits(train=train) for train in (True, False))
    acts, own = end(images, until=LAYER), end(test_images, until=LAYER)
    mean, std = acts.mean((0, 2, 3), keepdim=True), acts.std((0, 2, 3))[:, None, None]
    class_means = torch.stack([acts[labels == label].mean(0) for label in range(10)])
    torch.manual_seed(0)
    noise, untrained = torch.randn_like(own), plain_network().eval()
    weight, bias, *_ = direct_matching(untrained(images, until=LAYER), acts, cutoff="exact")
    return {
        "itself": own,
        "class means": class_means[end(own, after=LAYER).argmax(1)],
        "shrunk to 0.7": mean + 0.7 * (own - mean),
        "noise": own + 0.7 * std * noise,
        "constant maps": own.mean((2, 3), keepdim=True).expand_as(own),
        "shuffled positions": own.flatten(2)[:, :, torch.randperm(own[0, 0].numel())].view_as(own),
        "untrained front": stitched(untrained(test_images, until=LAYER), weight, bias),
    }


def stitched(source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oc,nchw->nohw", weight.float(), source) + bias.float()[:, None, None]


@torch.no_grad()
def test_the_word_on_each(end, baselines):
    """Constant and shuffled maps leave every score of pooled features as it is."""
    (images, labels), made = digits(train=True), controls_of(end)
    detector = make_detector("mahalanobis")
    detector.add(end(images, until=LAYER), labels)
    detector.fit()
    runs = [run_of(baselines, acts, name) for name, acts in made.items()]
    verdicts = {row.front_layer: row for row in judged(runs)}
    assert {name: row.verdict for name, row in verdicts.items()} == WORDS
    skills = {name: row.skill for name, row in verdicts.items()}
    assert skills["itself"] == pytest.approx(1) and skills["shrunk to 0.7"] > 0.9
    for name in ("constant maps", "shuffled positions"):
        scores = [detector.score(acts) for acts in (made["itself"], made[name])]
        assert ood_metrics(*scores).auroc == pytest.approx(0.5, abs=1e-3)


def other_images(end: Network) -> dict[str, torch.Tensor]:
    """The training image that each cheat shows in the place of a test image, as its index."""
    (images, labels), (test_images, _) = (digits(train=train) for train in (True, False))
    logits, test_logits = end(images), end(test_images)
    is_of_class = labels == test_logits.argmax(1)[:, None]  # (n_test, n_train)
    drawn = torch.multinomial(is_of_class.float(), 1, generator=torch.Generator().manual_seed(0))
    nearest = torch.cdist(test_logits, logits).argmin(1)
    return {"nearest in logits": nearest, "random of the predicted class": drawn[:, 0]}


@torch.no_grad()
def test_another_image_is_never_similar(end, baselines):
    """It is accurate, by real activations of the end network, two blocks before its end."""
    images, _ = digits(train=True)
    acts = end(images, until="2")
    runs = [run_of(baselines, acts[shown], name, "2") for name, shown in other_images(end).items()]
    nearest, drawn = judged(runs)
    for row in (nearest, drawn):
        assert row.accuracy_drop < 0.05 and row.verdict == "accurate only"
    assert drawn.skill < 0 and nearest.skill_at_end < 0


@pytest.mark.parametrize("form", ["pinv", "covariance"])
@torch.no_grad()
def test_features_clustered_by_class_are_never_similar(end, baselines, form):
    """A front of the class and noise (Smith et al. 2025): its stitches are accurate, and make class
    means."""
    draw, source = torch.Generator().manual_seed(0), {}
    centres = (
        torch.eye(160).unflatten(0, (10, 16)).transpose(1, 2).unflatten(2, (4, 4))
    )  # of each class and position
    for train in (True, False):
        labels = digits(train=train)[1]
        source[train] = centres[labels] + 0.03 * torch.randn(len(labels), 160, 4, 4, generator=draw)
    target = end(digits(train=True)[0], until=LAYER)
    weight, bias, *_ = direct_matching(source[True], target, form=form, cutoff="exact")
    (verdict,) = judged([run_of(baselines, stitched(source[False], weight, bias), form)])
    assert verdict.verdict == "accurate only" and verdict.skill < 0
