"""Planted stitches of a trained network, whose validity is known: the word of the verdict on each."""

from pathlib import Path

import pytest
import torch

from src.models import Network
from src.network_names import NetworkName
from src.ood.evaluation import evaluate_stitches, score_stitches
from src.ood.reference import Setting, make_reference
from src.ood.rows import StitchValidity
from src.results.experiments import Pair
from src.stitching import build_stitching_layer, direct_matching
from src.stitching.folders import StitchingRun
from src.stitching.stitched_model import class_partners
from src.verdict import Limits, judge
from tests.commands import digit_images
from tests.result_rows import OPTIONS, evaluation_row, stitch_row
from tests.tiny_networks import PLAIN, plain_network

LAYER, DETECTORS = "4", ("mahalanobis", "rmd")
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


class Planted:
    """Stands for a grid: makes the activations of all stitches from the end network's own."""

    front_layers = end_layers = (LAYER,)

    def __init__(self, end, makers):
        self.front, self.end, self.makers, self.n_seen = end, end, makers, 0
        self.pairs = [Pair(name, LAYER) for name in makers]

    def train(self, mode):
        self.n_seen = 0

    def truncated(self, sources):
        return sources

    def stitched(self, recorded, sources):
        images = recorded.images
        made = torch.stack([make(sources[LAYER], images, self.n_seen) for make in self.makers.values()])
        self.n_seen += len(images)
        yield self.pairs, made, self.front(made.flatten(0, 1), after=LAYER).unflatten(0, (len(made), -1))


def stitches_of(end) -> dict:
    """What each planted stitch makes of the end network's own activations, the images, and the place of the first."""
    ((images, labels),) = digit_images(train=True).batches(2000)
    test_labels, acts = digit_images(train=False).labels, end(images, until=LAYER)
    mean, std = acts.mean((0, 2, 3), keepdim=True), acts.std((0, 2, 3))[:, None, None]
    class_means = torch.stack([acts[labels == label].mean(0) for label in range(10)])
    torch.manual_seed(0)
    noise, fresh = torch.randn(len(test_labels), *acts.shape[1:]), plain_network().eval()
    matched = build_stitching_layer("rc2c_pre", acts.shape[1:], acts.shape[1:])
    weight, bias, *_ = direct_matching(fresh(images, until=LAYER), acts, cutoff="exact")
    matched.transform.weight.copy_(weight[:, :, None, None])
    matched.transform.bias.copy_(bias)

    order = torch.randperm(acts[0, 0].numel())

    return {
        "itself": lambda own, *_: own,
        "class means": lambda own, *_: class_means[end(own, after=LAYER).argmax(1)],
        "half-way to class means": lambda own, _, n: (own + class_means[test_labels[n : n + len(own)]]) / 2,
        "shrunk to 0.7": lambda own, *_: mean + 0.7 * (own - mean),
        "noise": lambda own, _, n: own + 0.7 * std * noise[n : n + len(own)],
        "constant maps": lambda own, *_: own.mean((2, 3), keepdim=True).expand_as(own),
        "shuffled positions": lambda own, *_: own.flatten(2)[:, :, order].view_as(own),
        "fresh front": lambda _, images, n: matched(fresh(images, until=LAYER)),
    }


@torch.no_grad()
def test_the_word_on_each(end):
    """Constant and shuffled maps leave every score of pooled features as it is; density sees them."""
    train_set, test_set = digit_images(train=True), digit_images(train=False)
    name, measured = NetworkName("end.pt", "planted"), {"scores": DETECTORS, "store": "nowhere", "with_validity": False}
    setting = Setting(name, (LAYER,), **measured, batch_size=128, dataset="digits", test=test_set)
    reference = make_reference(end, setting, lambda: train_set)
    assert not reference.missing
    grid = Planted(end, stitches_of(end))
    runs = [StitchingRun(Path(name), OPTIONS, stitch_row(front_layer=name, end_layer=LAYER)) for name in grid.makers]
    of_grid = [(grid, dict(zip(grid.pairs, runs, strict=True)))]
    stitches = score_stitches(of_grid, reference)
    evaluated = [evaluate_stitches(name, stitches, reference) for name in DETECTORS]
    ((images, labels),) = test_set.batches(1000)
    grid.train(False)
    sources, recorded = end.record(images, [LAYER], after=[LAYER])
    ((_, _, logits),) = grid.stitched(recorded, sources)
    for run_of_stitch, answers, *rows in zip(runs, logits.argmax(2), *evaluated, strict=True):
        run_of_stitch.evaluations.update({row.detector: row for row in rows})
        predictions = {"stitched": answers, "front": answers, "end": end(images).argmax(1), "labels": labels}
        run_of_stitch.__dict__["predictions"] = {name: each.numpy() for name, each in predictions.items()}
    verdicts = {row.pair.front_layer: row for row in judge(runs, limits=Limits(tolerance=0.05))}
    assert {name: row.side for name, row in verdicts.items()} == SIDES
    assert {name: verdicts[name].verdict for name in WORDS} == WORDS
    assert verdicts["itself"].reason == "accurate, but there is no label-only control"
    for name in ("constant maps", "shuffled positions"):
        assert verdicts[name].others["auroc_mahalanobis"] == pytest.approx(0.5, abs=1e-3)


VALID = StitchValidity(0.9, 0.8, 0.1, 1.0, 0.9, 0.05, 0.01, 0.02)


def stitched_answers(end: Network, source: dict, form: str, *, on_labels: bool) -> torch.Tensor:
    """The classes of the test images by a stitch, or its label-only control, from front activations of both splits."""
    ((images, labels),) = digit_images(train=True).batches(2000)
    partners = class_partners(labels, torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)))
    shown = source["train"][partners] if on_labels else source["train"]
    weight, bias, *_ = direct_matching(shown, end(images, until=LAYER), form=form, cutoff="exact")
    stitched = torch.einsum("oc,nchw->nohw", weight.float(), source["test"]) + bias.float()[:, None, None]
    return end(stitched, after=LAYER).argmax(1)


def judged(end: Network, source: dict, form: str):
    """The verdict on a stitch whose activations are in distribution."""
    ((images, labels),) = digit_images(train=False).batches(2000)
    own, runs = end(images).argmax(1), []
    for control in ("", "labels"):
        row = stitch_row(front_layer=LAYER, end_layer=LAYER, control=control, n_epochs=0, init=form)
        valid = evaluation_row(**VALID._asdict())
        answers = stitched_answers(end, source, form, on_labels=bool(control))
        runs.append(StitchingRun(Path(f"of {control}"), OPTIONS, row, {"energy": valid}))
        predictions = {"stitched": answers, "front": own, "end": own, "labels": labels}
        runs[-1].__dict__["predictions"] = {name: each.numpy() for name, each in predictions.items()}
    (verdict,) = (row for row in judge(runs, limits=Limits(tolerance=0.05)) if row.control != "labels")
    return verdict


@torch.no_grad()
def test_a_stitch_to_itself_has_a_beta_of_1(end):
    source = {}
    for split in ("train", "test"):
        ((images, _),) = digit_images(train=split == "train").batches(2000)
        source[split] = end(images, until=LAYER)
    verdict = judged(end, source, "pinv")
    assert verdict.beta == 1 and verdict.beta_low > 0.8 and verdict.verdict == "similar"


@pytest.mark.parametrize("form", ["pinv", "repair", "covariance"])
@torch.no_grad()
def test_features_clustered_by_class_are_never_similar(end, form):
    """A front of the class and noise (Smith et al. 2025): its stitches are accurate, and make class means."""
    draw, source = torch.Generator().manual_seed(0), {}
    centres = torch.eye(160).unflatten(0, (10, 16)).transpose(1, 2).unflatten(2, (4, 4))  # of each class and position
    for split in ("train", "test"):
        labels = digit_images(train=split == "train").labels
        source[split] = centres[labels] + 0.03 * torch.randn(len(labels), 160, 4, 4, generator=draw)
    verdict = judged(end, source, form)
    assert verdict.verdict == "accurate by the label alone" and verdict.beta <= 0
