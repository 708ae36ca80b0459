"""The five doors: a toy of each kind is one row of a table beside its function, and the scripts take it."""

import pytest
import torch
from torch import nn

from src.checkpoints import load_state
from src.choices import models
from src.choices.measures import GRAMS, MEASURES, Measure
from src.choices.scores import SCORES, Score
from src.choices.stitching import AT_END, OBJECTIVES, Objective
from src.datasets import small_sets
from src.datasets.in_memory import ImageSet
from src.datasets.registry import DATASETS, DatasetInfo
from src.models import small_cnn
from src.ood import detectors
from src.similarity import measures
from src.stitching import objectives
from tests.commands import MODEL, ON_DIGITS, parser_of, read_csv, read_json, run

pytestmark = pytest.mark.usefixtures("few_test_images", "in_tmp_path")

DM = [*ON_DIGITS, "--mod-only-stitch", "-i", "pinv"]


def help_of(script: str) -> str:
    return " ".join(parser_of(script).format_help().split())


def test_a_network(monkeypatch, tmp_path):
    def two_pixels(n_channels: int, n_classes: int) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(2 * n_channels, n_classes))

    monkeypatch.setattr(small_cnn, "two_pixels", two_pixels, raising=False)
    monkeypatch.setitem(models.MODELS, "two_pixels", models.Entry("small_cnn.two_pixels", {}))
    run("exec_train.py", "two_pixels", *ON_DIGITS, "-e", "1", "-dir", "trained")
    assert load_state(tmp_path / "trained" / "model_1.pt")["2.weight"].shape == (10, 2)


def test_a_data_set(monkeypatch):
    def load_stripes(info, root, *, train, device, loading):
        images = (255 * torch.eye(8, dtype=torch.uint8)[:, None, :, None]).expand(8, 1, 8, 8)
        return ImageSet(images, torch.arange(8) % 2, n_classes=info.n_classes, device=device)

    monkeypatch.setattr(small_sets, "load_stripes", load_stripes, raising=False)
    monkeypatch.setitem(DATASETS, "stripes", DatasetInfo("small_sets.load_stripes", "stripes", 2, (1, 8, 8)))
    run("exec_train.py", "small_cnn", "-d", "stripes", "-gpu", "-1", "-e", "1", "-dir", "trained")
    assert read_json("trained/config.txt")["dataset"] == "stripes"


def test_an_objective(monkeypatch, stitch):
    def twice(stitched, target):
        return 2 * objectives.hint_loss(stitched, target)

    monkeypatch.setattr(objectives, "twice", twice, raising=False)
    monkeypatch.setitem(OBJECTIVES, "toy", Objective("twice the hint", "objectives.twice", AT_END))
    assert "toy: twice the hint" in help_of("exec_stitch.py")
    losses = []
    for name in ("toy", "hint"):
        folder = stitch("layer4.0", "layer4.1", *DM, "-e", "1", "-b", "300", "--objective", name).newest
        losses.append(float(read_csv(folder / "training_logs.csv")[0]["train_loss"]))
    assert losses[0] == pytest.approx(2 * losses[1], rel=1e-3)  # Adam does not see the factor


def test_a_measure_of_similarity(monkeypatch, digit_networks):
    def same_norms(of_layer):
        return of_layer.centred.diagonal(dim1=1, dim2=2).sqrt().diag_embed()

    monkeypatch.setattr(measures, "norms", same_norms, raising=False)
    row = Measure("Norms", "cosine of norms", "do images have the same norms?", GRAMS, 1, 0)
    monkeypatch.setitem(MEASURES, "norms", row)
    assert "norms: do images have the same norms?" in help_of("exec_compute_low_rank_sim_metrics.py")
    given = [*digit_networks, MODEL, MODEL, "layer3.0", "layer3.0,layer4.0", *ON_DIGITS, "-n", "40"]
    options = ["--metrics", "norms", "--permutations", "19", "-o", "n.csv"]
    printed = run("exec_compute_low_rank_sim_metrics.py", *given, *options).out
    assert "Norms:\nModel1 rank None:\n\tModel2 rank None: 0.9" in printed
    first, _ = read_csv("n.csv")
    assert 0.9 < float(first["norms"]) <= 1 and float(first["norms_p_value"]) >= 1 / 20


def test_an_ood_score(monkeypatch, stitch):
    class Norm(detectors.Detector):
        """How far the norm is from that of the mean."""

        normalised = False

        def fit(self) -> None:
            self.norm = self.moments.mean.norm()

        def score(self, activations):
            return (self.features(activations).norm(dim=1) - self.norm).abs()

    monkeypatch.setattr(detectors, "Norm", Norm, raising=False)
    monkeypatch.setitem(SCORES, "norm", Score("norm", "is the norm another one?", "detectors.Norm"))
    assert "norm: is the norm another one?" in help_of("exec_eval_stitcher_ood.py")
    stitch("layer4.0", "layer4.1", *DM, "-e", "0", "-dir", "runs")
    run("exec_eval_stitcher_ood.py", "results/runs", *ON_DIGITS, "--detector", "norm")
    (row,) = read_csv("results/runs/ood_evaluation_norm.csv")
    assert row["detector"] == "norm" and float(row["mean_energy"]) >= 0
