"""Encoders without a class head: fronts as they are, classifiers with a linear probe from a checkpoint."""

import pytest
import torch

from src.checkpoints import load_model, save_state
from src.errors import UserError
from src.images import ImageSpec
from src.models import Network, build_model
from src.models.heads import LinearProbe, pool
from src.networks import NetworkName

FILE = """
import torch
from torch import nn


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


def maps(n_channels):
    return nn.Sequential(nn.Conv2d(n_channels, 6, 2, stride=2), nn.ReLU(), nn.Conv2d(6, 5, 1))


def tokens(n_channels):
    return nn.Sequential(maps(n_channels), Tokens(), nn.TransformerEncoderLayer(5, 1, 8, batch_first=True))


def flat(n_channels):
    return nn.Sequential(maps(n_channels), nn.Flatten(), nn.Linear(80, 12))
"""
IMAGES = ImageSpec(10, (1, 8, 8))
SHAPES = {"maps": (5, 4, 4), "tokens": (16, 5), "flat": (12,)}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_checkpoint_with_a_probe_makes_a_classifier(kind, tmp_path):
    (tmp_path / "nets.py").write_text(FILE)
    name = f"{tmp_path}/nets.py:{kind}"
    encoder = build_model(name, n_channels=1, image_shape=(1, 8, 8), encoder=True).eval()
    assert encoder.is_encoder and encoder.output_shape == SHAPES[kind]
    images = torch.rand(3, 1, 8, 8)
    features = pool(encoder(images, until="output"))
    width = features.shape[1]
    probe = torch.nn.Linear(width, 10)
    save_state(tmp_path / "encoder.pt", encoder.state_dict())
    save_state(tmp_path / "head.pt", encoder.state_dict() | {f"linear_probe.{key}": value
                                                             for key, value in probe.state_dict().items()})  # fmt: skip
    with pytest.raises(UserError, match=r"not the logits of 10 classes.*exec_probe.py .* --with-head DIR"):
        load_model(NetworkName(str(tmp_path / "encoder.pt"), name), IMAGES)
    loaded = load_model(NetworkName(str(tmp_path / "encoder.pt"), name), IMAGES, encoder=True)
    torch.testing.assert_close(pool(loaded(images)), features)
    network = load_model(NetworkName(str(tmp_path / "head.pt"), name), IMAGES)
    assert isinstance(network, Network) and not network.is_encoder and network.output_name == LinearProbe.NAME
    logits = network(images)
    torch.testing.assert_close(logits, probe(features))
    assert set(network.layer_names) == {*encoder.layer_names, LinearProbe.NAME}
    assert torch.equal(network(network(images, until="0"), after="0"), logits)
    with pytest.raises(UserError, match="linear_probe.weight"):
        load_model(NetworkName(str(tmp_path / "head.pt"), name), IMAGES._replace(n_classes=7))
