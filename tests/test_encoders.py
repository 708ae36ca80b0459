"""Encoders without a class head: fronts as they are, classifiers with a linear probe from a
checkpoint."""

from pathlib import Path

import pytest
import torch

from src.ground.activations import pool
from src.ground.errors import UserError
from src.ground.images import ImageSpec
from src.models import build_model
from src.models.heads import LinearProbe
from src.results.checkpoints import load_model, save_state
from src.results.network_names import NetworkName
from tests.commands import ON_DIGITS, error_line, read_csv, run, says, stitch_rows
from tests.conftest import few_images

pytestmark = pytest.mark.usefixtures("few_figures")

FILE = """
import torch
from torch import nn


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


class Turn(nn.Module):
    def forward(self, x):
        return (x[0] if isinstance(x, tuple) else x).transpose(0, 1)


def maps(n_channels):
    return nn.Sequential(nn.Conv2d(n_channels, 6, 2, stride=2), nn.ReLU(), nn.Conv2d(6, 5, 1))


def tokens(n_channels):
    return nn.Sequential(maps(n_channels), Tokens(), nn.TransformerEncoderLayer(5, 1, 8, batch_first=True))


def sequence(n_channels):
    tokens = [maps(n_channels), Tokens(), nn.Linear(5, 5)]
    return nn.Sequential(*tokens, Turn(), nn.LSTM(5, 5), Turn(), nn.Flatten(), nn.Linear(80, 10))


def flat(n_channels):
    return nn.Sequential(maps(n_channels), nn.Flatten(), nn.Linear(80, 12))
"""
IMAGES = ImageSpec(10, (1, 8, 8))
SHAPES = {"maps": (5, 4, 4), "tokens": (16, 5), "flat": (12,)}


@pytest.fixture(autouse=True)
def few():
    with few_images(96, n_test=60):
        yield


@pytest.mark.parametrize("kind", SHAPES)
def test_a_checkpoint_with_a_probe_makes_a_classifier(kind, tmp_path):
    (tmp_path / "nets.py").write_text(FILE)
    name = f"{tmp_path}/nets.py:{kind}"
    encoder = build_model(name, n_channels=1, image_shape=(1, 8, 8), encoder=True).eval()
    assert encoder.is_encoder and encoder.output_shape == SHAPES[kind]
    images = torch.rand(3, 1, 8, 8)
    features = pool(encoder(images, until="output"))
    probe = torch.nn.Linear(features.shape[1], 10)
    weights = {f"linear_probe.{key}": value for key, value in probe.state_dict().items()}
    save_state(tmp_path / "encoder.pt", encoder.state_dict())
    save_state(tmp_path / "head.pt", encoder.state_dict() | weights)
    of_encoder, of_head = (
        NetworkName(f"{tmp_path}/{file}.pt", name) for file in ("encoder", "head")
    )
    with pytest.raises(UserError, match="not the logits of 10 classes.*--with-head DIR"):
        load_model(of_encoder, IMAGES)
    torch.testing.assert_close(pool(load_model(of_encoder, IMAGES, encoder=True)(images)), features)
    network = load_model(of_head, IMAGES)
    assert not network.is_encoder and network.output_name == LinearProbe.NAME
    logits = network(images)
    torch.testing.assert_close(logits, probe(features))
    assert torch.equal(network(network(images, until="0"), after="0"), logits)
    with pytest.raises(UserError, match="linear_probe.weight"):
        load_model(of_head, IMAGES._replace(n_classes=7))


def test_every_script_takes_an_encoder(in_tmp_path):
    """As a front network, compared, probed and listed; with a trained head as an end network."""
    Path("nets.py").write_text(FILE)
    made = {"n_channels": 1, "image_shape": (1, 8, 8), "encoder": True}
    encoder = build_model(f"{in_tmp_path}/nets.py:maps", **made)
    save_state(in_tmp_path / "e.pt", encoder.state_dict())
    run("exec_train.py", "small_cnn", *ON_DIGITS, "-e", 0, "-dir", "c")
    listed = run("misc/list_layers.py", "nets.py:sequence", "-d", "digits")
    assert says(listed.err, "left out", "3, 4") and says(listed.err, "all was inferred", "'0.*'")
    dm = [*ON_DIGITS, "-e", 0, "-i", "pinv", "--mod-only-stitch"]
    pair = ["e.pt", "c/model_0.pt", "nets.py:maps", "small_cnn"]
    run("exec_stitch.py", *pair, "0", "pool1", "rc2c_pre", *dm, "-dir", "from_encoder")
    (row,) = stitch_rows("results/from_encoder")
    assert row["front_accuracy"] == "nan" and float(row["matching_error"]) < 1
    ood = ["exec_eval_stitcher_ood.py", "results/from_encoder", *ON_DIGITS, "--detector", "none"]
    assert says(error_line(*ood), "code", "not run by itself")
    run(*ood, "--own-types", "nets.py:maps")
    pooled = ["--alignment", "pool", "-n", 40, "-o", "s.csv"]
    run("exec_compute_low_rank_sim_metrics.py", *pair, "0,output", "pool1", *ON_DIGITS, *pooled)
    assert len(read_csv("s.csv")) == 2

    back = ["c/model_0.pt", "e.pt", "small_cnn", "nets.py:maps", "pool1", "0", "rc2c_pre"]
    assert says(error_line("exec_stitch.py", *back, *dm), "exec_probe.py", "-l output")
    probe = ["exec_probe.py", "e.pt", "nets.py:maps", *ON_DIGITS, "-e", 1, "-lr", 0.01]
    assert says(error_line(*probe, "-l", "0", "--with-head", "h"), "--with-head", "one probe")
    # In the folder of a training, a head is not written
    assert "c/model_0.pt" in error_line(*probe, "-l", "output", "-e", 0, "--with-head", "c")
    printed = run(*probe, "-l", "output", "--with-head", "h").out
    back[1] = "h/model_1.pt"
    run("exec_stitch.py", *back, *dm, "-dir", "to_encoder")
    (row,) = stitch_rows("results/to_encoder")
    assert f"Rank None: {row['end_accuracy']}" in printed  # the head is the probe


def test_a_head_at_chance_level_is_written_with_a_warning(in_tmp_path):
    (in_tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\n"
        "def pixels():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32))\n"
    )
    given = ["exec_probe.py", "-", "nets.py:pixels", *ON_DIGITS, "-l", "output", "--with-head", "h"]
    assert says(run(*given, "-e", "1", "-lr", "1e-6").err, "warning: ", "chance")
    assert "chance" not in run(*given, "-e", "20", "-lr", "0.1").err
