"""Logits and activations of the public code, for every network of which it has them."""

import json
from pathlib import Path

import pytest
import torch

from src.models import build_model, vit
from tests.golden_weights import golden_input, load_golden_weights

GOLDENS = json.loads((Path(__file__).parent / "data" / "models" / "forward.json").read_text())


@pytest.fixture(scope="module", params=GOLDENS)
def run(request):
    """A golden, the logits in single precision, and the activations in double precision (`logits` among them)."""
    golden = GOLDENS[request.param]
    network = build_model(golden["model"], representation_shape=golden["representation_shape"])
    load_golden_weights(network).eval()
    images = golden_input(golden["input_shape"])
    with torch.no_grad():
        logits = network(images)
        activations = network.double().activations(images.double(), [*golden["layers"], network.output_name])
    return golden, logits, activations


def test_logits_in_double_precision(run):
    golden, _, activations = run
    *_, logits = activations.values()
    expected = torch.tensor(golden["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


def test_logits_in_single_precision(run):
    golden, logits, _ = run
    expected = torch.tensor(golden["logits_float32"])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_activations_in_double_precision(run):
    golden, _, activations = run
    for name, expected in golden["layers"].items():
        activation = activations[name]
        assert list(activation.shape) == expected["shape"], name
        values = activation.flatten()
        statistics = [values.mean().item(), values.std(correction=0).item()]
        tolerance = 1e-9 * values.abs().max().item()
        assert statistics == pytest.approx(expected["stats"], rel=1e-9, abs=tolerance), name
        assert values[:8].tolist() == pytest.approx(expected["first"], rel=1e-9, abs=tolerance), name
        assert values[-8:].tolist() == pytest.approx(expected["last"], rel=1e-9, abs=tolerance), name


def test_only_infinite_weights_are_clamped(monkeypatch):
    """To -2, as by timm, whose networks of the same seed are then equal to the last weight."""
    monkeypatch.setattr(
        torch.Tensor, "uniform_", lambda self, low, high: self.copy_(torch.tensor([-1.0, 0.0, 0.9999999]))
    )
    weight = torch.empty(3)
    vit.draw_normal(weight)
    assert weight[0] == -2 and weight[1] == 0 and weight[2] == pytest.approx(0.02 * 5.3, rel=0.05)
