"""Encoders without a class head: fronts as they are, end networks in one module with a head."""

from pathlib import Path

import pytest
import torch

from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.tensors import save_state
from src.models import build_model
from src.results.checkpoints import load_model
from src.results.network_names import NamedNetwork
from tests.commands import ON_DIGITS, error_line, read_csv, run, says, stitch_rows
from tests.conftest import few_images

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


class WithHead(nn.Module):
    def __init__(self, encoder, width, n_classes):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, n_classes)

    def forward(self, images):
        return self.head(self.encoder(images).mean((2, 3)))


def classifier(n_channels, n_classes):
    return WithHead(maps(n_channels), 5, n_classes)
"""
IMAGES = InputSpec(10, (1, 8, 8))
SHAPES = {"maps": (5, 4, 4), "tokens": (16, 5), "flat": (12,)}


@pytest.fixture(autouse=True)
def few():
    with few_images(96, n_test=60):
        yield


@pytest.mark.parametrize("kind", SHAPES)
def test_an_encoder_is_a_front_and_no_classifier(kind, tmp_path):
    (tmp_path / "nets.py").write_text(FILE)
    name = f"{tmp_path}/nets.py:{kind}"
    encoder = build_model(name, n_channels=1, image_shape=(1, 8, 8), encoder=True).eval()
    assert encoder.is_encoder and encoder.output_shape == SHAPES[kind]
    save_state(tmp_path / "encoder.pt", encoder.state_dict())
    checkpoint = NamedNetwork(f"{tmp_path}/encoder.pt", name)
    with pytest.raises(UserError, match="not the logits of 10 classes.*a head in one module"):
        load_model(checkpoint, IMAGES)
    images = torch.rand(3, 1, 8, 8)
    loaded = load_model(checkpoint, IMAGES, encoder=True)
    torch.testing.assert_close(loaded(images), encoder(images))


def test_every_script_takes_an_encoder(in_tmp_path):
    """As a front network, compared, probed and listed; in one module with a head as an end network."""
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
    assert says(error_line(*ood), "code", "does not run unless the command gives it")
    run(*ood, "--own-types", "nets.py:maps")
    pooled = ["--alignment", "pool", "-n", 40, "-o", "s.csv"]
    run("exec_compute_low_rank_sim_metrics.py", *pair, "0,output", "pool1", *ON_DIGITS, *pooled)
    assert len(read_csv("s.csv")) == 2

    back = ["c/model_0.pt", "e.pt", "small_cnn", "nets.py:maps", "pool1", "0", "rc2c_pre"]
    assert says(error_line("exec_stitch.py", *back, *dm), "a head in one module")
    probed = run("exec_probe.py", "e.pt", "nets.py:maps", *ON_DIGITS, "-e", 1, "-l", "0,output")
    assert probed.out.count("Rank None: ") == 2
    run("exec_train.py", "nets.py:classifier", *ON_DIGITS, "-e", 1, "-dir", "h")
    back = ["c/model_0.pt", "h/model_1.pt", "small_cnn", "nets.py:classifier", "pool1", "encoder.0"]
    run("exec_stitch.py", *back, "rc2c_pre", *dm, "-dir", "to_encoder")
    (row,) = stitch_rows("results/to_encoder")
    assert 0 < float(row["end_accuracy"]) < 1
