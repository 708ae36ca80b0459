"""Planted stitches of a trained network, whose validity is known: the word of the verdict on each."""

from pathlib import Path

import pytest
import torch

from src.models import Network
from src.ood import make_detector, ood_metrics
from src.ood.rows import StitchValidity
from src.ood.validity import Validity, features
from src.stitching import direct_matching
from src.stitching.folders import StitchingRun
from src.stitching.stitched_model import class_partners
from src.verdict import judge
from tests.commands import digit_images
from tests.result_rows import OPTIONS, evaluation_row, stitch_row
from tests.tiny_networks import PLAIN, plain_network
from tests.written_runs import VALID

LAYER = "4"
OFF, COLLAPSED = "off the manifold", "collapsed"
SIDES = {
    "itself": "in distribution", "class means": COLLAPSED, "half-way to class means": COLLAPSED,
    "shrunk to 0.7": COLLAPSED, "noise": OFF, "constant maps": OFF, "shuffled positions": OFF, "fresh front": OFF,
}  # fmt: skip
WORDS = {
    "itself": "undecided", "class means": "accurate but out of distribution", "constant maps": "not similar",
    "shuffled positions": "not similar", "fresh front": "not similar",
}  # fmt: skip


@pytest.fixture(scope="module")
def end() -> Network:
    """The network as it was trained once: no word hangs on the rounding of a training."""
    trained = plain_network()
    trained.module.load_state_dict(torch.load(PLAIN, weights_only=True))
    return trained.eval().requires_grad_(False)


def digits(*, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ((images, labels),) = digit_images(train=train).batches(2000)
    return images, labels


def run_of(end: Network, made: torch.Tensor, name: str, *, validity: StitchValidity, control: str = "") -> StitchingRun:
    """A run whose stitch gives the end network these activations of the test images."""
    images, labels = digits(train=False)
    row = stitch_row(front_layer=name, end_layer=LAYER, control=control, n_epochs=0)
    run = StitchingRun(Path(f"{name} {control}"), OPTIONS, row, {"energy": evaluation_row(**validity._asdict())})
    own = end(images).argmax(1)
    predictions = {"stitched": end(made, after=LAYER).argmax(1), "front": own, "end": own, "labels": labels}
    run.__dict__["predictions"] = {name: each.numpy() for name, each in predictions.items()}
    return run


def planted(end: Network) -> dict[str, torch.Tensor]:
    """The activations that each planted stitch makes of the test images."""
    (images, labels), (test_images, test_labels) = (digits(train=train) for train in (True, False))
    acts, own = end(images, until=LAYER), end(test_images, until=LAYER)
    mean, std = acts.mean((0, 2, 3), keepdim=True), acts.std((0, 2, 3))[:, None, None]
    class_means = torch.stack([acts[labels == label].mean(0) for label in range(10)])
    torch.manual_seed(0)
    noise, fresh = torch.randn_like(own), plain_network().eval()
    weight, bias, *_ = direct_matching(fresh(images, until=LAYER), acts, cutoff="exact")
    return {
        "itself": own,
        "class means": class_means[end(own, after=LAYER).argmax(1)],
        "half-way to class means": (own + class_means[test_labels]) / 2,
        "shrunk to 0.7": mean + 0.7 * (own - mean),
        "noise": own + 0.7 * std * noise,
        "constant maps": own.mean((2, 3), keepdim=True).expand_as(own),
        "shuffled positions": own.flatten(2)[:, :, torch.randperm(own[0, 0].numel())].view_as(own),
        "fresh front": stitched(fresh(test_images, until=LAYER), weight, bias),
    }


def stitched(source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oc,nchw->nohw", weight.float(), source) + bias.float()[:, None, None]


@torch.no_grad()
def test_the_word_on_each(end):
    """Constant and shuffled maps leave every score of pooled features as it is; density sees them."""
    (images, labels), made = digits(train=True), planted(end)
    acts = end(images, until=LAYER)
    validity, detector = Validity(), make_detector("mahalanobis")
    for each in (validity, detector):
        each.add(acts, labels)
        each.fit()
    validity.add_own(made["itself"])
    validity.fit_own()
    runs = [run_of(end, acts, name, validity=validity.of_stitch(features(acts))) for name, acts in made.items()]
    verdicts = {row.front_layer: row for row in judge(runs)}
    assert {name: row.side for name, row in verdicts.items()} == SIDES
    assert {name: verdicts[name].verdict for name in WORDS} == WORDS
    assert verdicts["itself"].reason == "accurate, but there is no label-only control"
    for name in ("constant maps", "shuffled positions"):
        scores = [detector.score(acts) for acts in (made["itself"], made[name])]
        assert ood_metrics(*scores).auroc == pytest.approx(0.5, abs=1e-3)


def judged(end: Network, source: dict[bool, torch.Tensor], form: str):
    """The verdict on a stitch whose activations are in distribution, from front activations of both splits."""
    images, labels = digits(train=True)
    partners, runs = class_partners(labels, torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))), []
    for control, shown in (("", source[True]), ("labels", source[True][partners])):
        weight, bias, *_ = direct_matching(shown, end(images, until=LAYER), form=form, cutoff="exact")
        made = stitched(source[False], weight, bias)
        runs.append(run_of(end, made, form, validity=VALID, control=control))
    (verdict,) = (row for row in judge(runs) if row.control != "labels")
    return verdict


@torch.no_grad()
def test_a_stitch_to_itself_has_a_beta_of_1(end):
    verdict = judged(end, {train: end(digits(train=train)[0], until=LAYER) for train in (True, False)}, "pinv")
    assert verdict.beta == 1 and verdict.beta_low > 0.8 and verdict.verdict == "similar"


@pytest.mark.parametrize("form", ["pinv", "repair", "covariance"])
@torch.no_grad()
def test_features_clustered_by_class_are_never_similar(end, form):
    """A front of the class and noise (Smith et al. 2025): its stitches are accurate, and make class means."""
    draw, source = torch.Generator().manual_seed(0), {}
    centres = torch.eye(160).unflatten(0, (10, 16)).transpose(1, 2).unflatten(2, (4, 4))  # of each class and position
    for train in (True, False):
        labels = digits(train=train)[1]
        source[train] = centres[labels] + 0.03 * torch.randn(len(labels), 160, 4, 4, generator=draw)
    verdict = judged(end, source, form)
    assert verdict.verdict == "accurate by the label alone" and verdict.beta <= 0
