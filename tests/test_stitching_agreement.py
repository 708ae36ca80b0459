"""Predictions of a stitch and its end network: their agreement, and the file that keeps them."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from src.results.experiments import Pair
from src.stitching.agreement import agreement
from src.stitching.grid import GridScore, PairScore
from src.stitching.predictions import read_predictions, write_predictions


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_scikit_learns_kappa(seed):
    generator = torch.Generator().manual_seed(seed)
    one, noise = (torch.randint(4, (200,), generator=generator) for _ in "12")
    other = torch.where(torch.rand(200, generator=generator) < 0.2 * seed, noise, one + 1 * (one == 2))
    found = agreement(one, other)
    assert found.agreement == (one == other).double().mean().item()
    assert found.kappa == pytest.approx(cohen_kappa_score(one, other))


def test_kappa_at_its_limits():
    one = torch.tensor([0, 1, 2, 0])
    assert agreement(one, one) == (1, 1)
    assert agreement(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])).kappa == 0  # as by chance
    assert math.isnan(agreement(0 * one, 0 * one).kappa) and agreement(0 * one, 0 * one).agreement == 1


@pytest.mark.parametrize(("n_classes", "dtype"), [(10, np.int16), (40_000, np.int32)])
def test_predictions_are_kept_in_few_bytes(tmp_path, n_classes, dtype):
    pair, classes = Pair("a", "b"), torch.arange(n_classes)
    score = GridScore({pair: PairScore(1.0, 0.5, classes)}, 0.5, 0.5, classes.flip(0), 0 * classes, classes)
    write_predictions(tmp_path / "predictions.npz", score.predictions_of(pair))
    with np.load(tmp_path / "predictions.npz") as arrays:
        found = dict(arrays)
    assert {name: values.dtype for name, values in found.items()} == dict.fromkeys(found, dtype)
    assert list(found) == ["stitched", "front", "end", "labels"]
    np.testing.assert_array_equal(found["front"], classes.flip(0))
    read = read_predictions(tmp_path / "predictions.npz")
    assert all(np.array_equal(read[name], found[name]) for name in found)
