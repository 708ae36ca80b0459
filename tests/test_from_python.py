"""What a session of Python gives and gets: arrays in the place of tensors, and short texts."""

import numpy as np
import pytest
import torch

from src.low_rank import low_rank_approx
from src.ood import energy, make_detector
from src.stitching import direct_matching
from src.stitching.objectives import feature_loss, functional_loss, hint_loss, soft_label_loss


def draw(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


MAPS = draw(60, 4, 4, 4, seed=0)
OTHERS = MAPS + draw(60, 4, 4, 4, seed=1)
LOGITS = draw(60, 3, seed=2)
LABELS = np.arange(60) % 3


def scores(name: str, maps, others, labels):
    detector = make_detector(name)
    detector.add(maps, labels)
    detector.fit()
    return detector.score(others)


CALLS = {
    "mahalanobis": lambda a, b, logits, labels: scores("mahalanobis", a, b, labels),
    "energy": lambda a, b, logits, labels: energy(logits),
    "low_rank_approx": lambda a, b, logits, labels: low_rank_approx(a, 2),
    "full rank": lambda a, b, logits, labels: low_rank_approx(a, None),
    "soft": lambda a, b, logits, labels: soft_label_loss(logits, logits + 1),
    "hint": lambda a, b, logits, labels: hint_loss(a, b),
    "functional": lambda a, b, logits, labels: functional_loss([a, b], [b, a]),
    "feature": lambda a, b, logits, labels: feature_loss(a, b),
    "direct_matching": lambda a, b, logits, labels: direct_matching(a, b).weight,
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_are_taken_where_tensors_are(name):
    arrays = (MAPS, OTHERS, LOGITS, LABELS)
    of_arrays = CALLS[name](*arrays)
    of_tensors = CALLS[name](*map(torch.from_numpy, arrays))
    assert isinstance(of_arrays, torch.Tensor)
    assert torch.equal(of_arrays, of_tensors)
