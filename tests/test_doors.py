"""The five doors: a toy of each kind is one row of a table beside its function, and the scripts take it."""

import csv
import json

import pytest
import torch
from torch import nn

import exec_compute_low_rank_sim_metrics
import exec_eval_stitcher_ood
import exec_stitch
import exec_train
from src.checkpoints import load_state
from src.datasets import embedded_sets
from src.datasets.in_memory import ImageSet
from src.datasets.registry import DATASETS, DatasetInfo
from src.models import registry, small_cnn
from src.ood.scores import SCORES, Detector, Score
from src.similarity.measures import GRAMS, MEASURES, Measure
from src.stitching.objectives import OBJECTIVES, Objective, hint_loss

pytestmark = pytest.mark.usefixtures("few_test_images")

MODEL = "resnet18_samewidth"
ON_DIGITS = ["-d", "digits", "-gpu", "-1"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stitch(networks, name: str, *options: str) -> None:
    given = [*map(str, networks), MODEL, MODEL, "layer4.0", "layer4.1", "rc2c_pre"]
    assert exec_stitch.main([*given, *ON_DIGITS, "--mod-only-stitch", "-dir", name, *options]) == 0


def read_csv(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def help_of(script) -> str:
    return " ".join(script.parser().format_help().split())


def test_a_network(monkeypatch, folder):
    def two_pixels(n_channels: int, n_classes: int) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(2 * n_channels, n_classes))

    monkeypatch.setattr(small_cnn, "two_pixels", two_pixels, raising=False)
    monkeypatch.setitem(registry.MODELS, "two_pixels", registry.Entry("small_cnn", "two_pixels", {}))
    assert exec_train.main(["two_pixels", *ON_DIGITS, "-e", "1", "-dir", "trained"]) == 0
    assert load_state(folder / "trained" / "model_1.pt")["2.weight"].shape == (10, 2)


def test_a_data_set(monkeypatch, folder):
    def load_stripes(info, root, *, train, device, loading):
        images = (255 * torch.eye(8, dtype=torch.uint8)[:, None, :, None]).expand(8, 1, 8, 8)
        return ImageSet(images, torch.arange(8) % 2, n_classes=info.n_classes, device=device)

    monkeypatch.setattr(embedded_sets, "load_stripes", load_stripes, raising=False)
    monkeypatch.setitem(DATASETS, "stripes", DatasetInfo("embedded_sets.load_stripes", "stripes", 2, (1, 8, 8)))
    assert exec_train.main(["small_cnn", "-d", "stripes", "-gpu", "-1", "-e", "1", "-dir", "trained"]) == 0
    assert json.loads((folder / "trained" / "config.txt").read_text())["dataset"] == "stripes"


def test_an_objective(monkeypatch, folder, digit_networks):
    toy = Objective(
        "twice the hint",
        lambda stitches: 2 * hint_loss(stitches.stitched[0], stitches.targets[0]),
        layers=lambda end_layer, behind: [end_layer],
    )
    monkeypatch.setitem(OBJECTIVES, "toy", toy)
    assert "toy: twice the hint" in help_of(exec_stitch)
    losses = []
    for name in ("toy", "hint"):
        stitch(digit_networks, name, "-i", "pinv", "-e", "1", "-b", "300", "--objective", name)
        (log,) = (folder / "results" / name).glob("*/training_logs.csv")
        losses.append(float(read_csv(log)[0]["train_loss"]))
    assert losses[0] == pytest.approx(2 * losses[1], rel=1e-3)  # Adam does not see the factor


def test_a_measure_of_similarity(monkeypatch, folder, digit_networks, capsys):
    def same_norms(grams):
        return grams.centred.diagonal(dim1=1, dim2=2).sqrt().diag_embed()

    row = Measure("Norms", "cosine of norms", "do images have the same norms?", GRAMS, same_norms, 1, 0)
    monkeypatch.setitem(MEASURES, "norms", row)
    assert "norms: do images have the same norms?" in help_of(exec_compute_low_rank_sim_metrics)
    given = [*map(str, digit_networks), MODEL, MODEL, "layer3.0", "layer3.0,layer4.0", *ON_DIGITS, "-n", "40"]
    options = ["--metrics", "norms", "--permutations", "19", "-o", "n.csv"]
    assert exec_compute_low_rank_sim_metrics.main([*given, *options]) == 0
    assert "Norms:\nModel1 rank None:\n\tModel2 rank None: 0.9" in capsys.readouterr().out
    first, _ = read_csv(folder / "n.csv")
    assert 0.9 < float(first["norms"]) <= 1 and float(first["norms_p_value"]) >= 1 / 20


def test_an_ood_score(monkeypatch, folder, digit_networks):
    class Norm(Detector):
        """How far the norm is from that of the mean."""

        normalised = False

        def fit(self) -> None:
            self.norm = self.moments.mean.norm()

        def score(self, activations):
            return (self.features(activations).norm(dim=1) - self.norm).abs()

    monkeypatch.setitem(SCORES, "norm", Score("norm", "is the norm another one?", Norm))
    assert "norm: is the norm another one?" in help_of(exec_eval_stitcher_ood)
    stitch(digit_networks, "runs", "-i", "pinv", "-e", "0")
    assert exec_eval_stitcher_ood.main(["results/runs", *ON_DIGITS, "--detector", "norm"]) == 0
    (row,) = read_csv(folder / "results" / "runs" / "ood_evaluation_norm.csv")
    assert row["detector"] == "norm" and float(row["mean_energy"]) >= 0
