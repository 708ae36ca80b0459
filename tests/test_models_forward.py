"""Logits and activations of the public code, for every network of which it has them."""

import json
from pathlib import Path

import pytest
import torch

from src.models import build_model, vit
from tests.golden_weights import golden_input, load_golden_weights

GOLDENS = json.loads((Path(__file__).parent / "data" / "models" / "forward.json").read_text())


@pytest.mark.parametrize("name", GOLDENS)
@torch.no_grad()
def test_equals_the_public_code(name):
    golden = GOLDENS[name]
    network = build_model(golden["model"], representation_shape=golden["representation_shape"])
    load_golden_weights(network).double().eval()
    images = golden_input(golden["input_shape"]).double()
    acts = network.activations(images, [*golden["layers"], network.output_name])
    *_, logits = acts.values()
    for key, rounding in (("logits", 1e-9), ("logits_float32", 1e-4)):
        expected = torch.tensor(golden[key], dtype=torch.float64)
        torch.testing.assert_close(logits, expected, rtol=0, atol=rounding * expected.abs().max().item())
    for layer, expected in golden["layers"].items():
        values = acts[layer].flatten()
        assert list(acts[layer].shape) == expected["shape"], layer
        found = {"stats": [values.mean(), values.std(correction=0)], "first": values[:8], "last": values[-8:]}
        tolerance = 1e-9 * values.abs().max().item()
        for key, numbers in found.items():
            assert [float(number) for number in numbers] == pytest.approx(expected[key], rel=1e-9, abs=tolerance), layer


def test_only_infinite_weights_are_clamped(monkeypatch):
    """To -2, as by timm, whose networks of the same seed are then equal to the last weight."""
    monkeypatch.setattr(
        torch.Tensor, "uniform_", lambda self, low, high: self.copy_(torch.tensor([-1.0, 0.0, 0.9999999]))
    )
    weight = torch.empty(3)
    vit.draw_normal(weight)
    assert weight[0] == -2 and weight[1] == 0 and weight[2] == pytest.approx(0.02 * 5.3, rel=0.05)
