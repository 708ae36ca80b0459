"""Objectives of stitching: goldens of the authors' functions, limits, gradients, and what a grid
computes for them."""

import pytest
import torch

from src.stitching.objectives import feature_loss, functional_loss, hint_loss, soft_label_loss
from tests.goldens import numbers, random, tensor

LAYERS = ["l0", "l1", "l2", "l3"]


def golden(j: int) -> tuple[list, list]:
    return [
        [tensor("objectives", f"{side}/{name}") for name in LAYERS[j:]]
        for side in ("stitched", "end")
    ]


def test_equals_the_authors_functions():
    values = numbers("objectives")
    logits = [tensor("objectives", f"{side}/logits") for side in ("stitched", "end")]
    assert soft_label_loss(*logits).item() == pytest.approx(float(values["soft"]), rel=1e-12)
    for j in range(4):
        stitched, targets = golden(j)
        assert hint_loss(stitched[0], targets[0]).item() == pytest.approx(
            float(values[f"hint/{j}"]), rel=1e-12
        )
        assert functional_loss(stitched, targets).item() == pytest.approx(
            float(values[f"fula/{j}"]), rel=1e-12
        )


PAIRWISE = {
    "soft": (lambda h, g: soft_label_loss(h[0], g[0]), [(6, 10)]),
    "hint": (lambda h, g: hint_loss(h[0], g[0]), [(6, 4, 3, 3)]),
    "fula": (functional_loss, [(6, 4, 3, 3), (6, 7, 5)]),
    "feature": (lambda h, g: feature_loss(h[0], g[0]), [(6, 7, 5)]),
}


@pytest.mark.parametrize("name", PAIRWISE)
def test_several_pairs_at_once_equal_each_alone(name):
    loss, shapes = PAIRWISE[name]
    targets = [random(*shape) for shape in shapes]
    stitched = [random(3, *shape, seed=1) for shape in shapes]
    together = loss(stitched, targets)
    assert together.shape == (3,)
    for i in range(3):
        torch.testing.assert_close(loss([h[i] for h in stitched], targets), together[i])


@pytest.mark.parametrize("name", PAIRWISE)
def test_no_gradient_reaches_the_target_and_none_is_nan_where_both_are_equal(name):
    loss, shapes = PAIRWISE[name]
    targets = [random(*shape).requires_grad_() for shape in shapes]
    stitched = [target.detach().clone().requires_grad_() for target in targets]
    value = loss(stitched, targets)
    assert value.item() == pytest.approx(0, abs=1e-12)
    value.backward()
    assert all(target.grad is None for target in targets) and all(
        h.grad.isfinite().all() for h in stitched
    )


def test_a_target_of_zeros_counts_nothing_but_is_among_the_layers():
    g, zeros = random(4, 3), torch.zeros(4, 3, dtype=torch.float64)
    h = random(4, 3, seed=1).requires_grad_()
    hint_loss(h, zeros).backward()
    assert hint_loss(h, zeros) == 0 and h.grad.abs().max() == 0
    assert functional_loss([h, h], [g, zeros]).item() == pytest.approx(hint_loss(h, g).item() / 2)
    assert hint_loss(h * torch.nan, g).isnan() and hint_loss(h, g * torch.nan).isnan()


def test_sums_are_in_single_precision_at_least():
    h, g = (random(2000, 100, seed=seed).bfloat16() for seed in (0, 1))
    for loss in (hint_loss, feature_loss, soft_label_loss):
        value = loss(h, g)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(loss(h.double(), g.double()).item(), rel=1e-5)
