"""What a session of Python gives and gets: arrays in the place of tensors, and short texts."""

import numpy as np
import pytest
import torch
from src.ood.identifying import choose_foils

from src.ground.runtime import seeded
from src.low_rank import low_rank_approx, principal_components
from src.models import build_model
from src.ood import Validity, along_the_way, energy, identification, make_detector
from src.statistics.moments import Moments, Rows
from src.stitching import direct_matching
from src.stitching.objectives import feature_loss, functional_loss, hint_loss, soft_label_loss
from src.values import Predictions


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


def validity(maps, others):
    measured = Validity()
    measured.add(maps)
    measured.fit()
    return torch.tensor(measured.measure(others))


CALLS = {
    "identification": lambda a, b, logits, labels: identification(a, b, logits),
    "validity": lambda a, b, logits, labels: validity(a, b),
    "mahalanobis": lambda a, b, logits, labels: scores("mahalanobis", a, b, labels),
    "rmd": lambda a, b, logits, labels: scores("rmd", a, b, labels),
    "knn": lambda a, b, logits, labels: scores("knn", a, b, labels),
    "residual": lambda a, b, logits, labels: scores("residual", a, b, labels),
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


def test_arrays_of_any_float_go_along_the_way():
    with seeded(0):
        network = build_model("small_cnn", n_classes=10, n_channels=1).eval().requires_grad_(False)
    images = torch.from_numpy(draw(40, 1, 8, 8, seed=3))
    stitched = network(images, until="pool2") + 0.1
    of_tensors = along_the_way(network, "pool2", stitched, images)
    of_arrays = along_the_way(network, "pool2", stitched.double().numpy(), images.numpy())
    assert of_arrays.keys() == of_tensors.keys()
    for layer, values in of_tensors.items():  # NaN: an image that is alone in its class
        torch.testing.assert_close(of_arrays[layer], values, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "value",
    [
        direct_matching(MAPS, OTHERS),
        choose_foils(torch.from_numpy(LOGITS), torch.arange(60)),
        Moments(),
        Rows.of(torch.from_numpy(MAPS)),
        Rows.of(torch.from_numpy(MAPS)).moments(),
        principal_components(torch.from_numpy(MAPS), 2),
        Predictions(LABELS, LABELS, LABELS, LABELS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tuples_of_tensors_print_in_a_line(value):
    """With the shape of each."""
    text = repr(value)
    assert text.startswith(f"{type(value).__name__}({value._fields[0]}=")
    assert "\n" not in text and len(text) < 250
    for item in value:
        if getattr(item, "shape", ()):
            assert str(tuple(item.shape)) in text
