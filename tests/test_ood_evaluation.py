"""The evaluation of stitches, from networks and images alone: what a stitch that changes nothing, or
diverged, is measured as."""

import numpy as np
import pytest
import torch

from src.choices.scores import scores_by_title
from src.models import build_model
from src.ood.evaluation import detection_of, score_grid
from src.ood.reference import EvaluationOptions, make_reference
from src.results.checkpoints import freeze
from src.stitching import Grid, Pair, build_layers
from tests.tiny_datasets import few_grey_images

IMAGES = few_grey_images(120, 8, n_classes=3)
LAYERS = ["pool1", "pool2"]
SCORE = "mahalanobis"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return freeze(build_model("small_cnn", n_classes=3, n_channels=1), "cpu")


@pytest.fixture(scope="module")
def reference(network):
    options = EvaluationOptions(
        tuple(LAYERS), scores_by_title([SCORE]), IMAGES, 50, "images", IMAGES
    )
    return make_reference(network, options, trained={})


def grid_of(network, *, init: str) -> Grid:
    layers, _ = build_layers(
        network,
        network,
        LAYERS,
        LAYERS,
        "rc2c_pre",
        image_shape=IMAGES.image_shape,
        seed=0,
        init=init,
    )
    return Grid(network, network, {Pair(name, name): layers[name, name] for name in LAYERS})


def test_a_stitch_that_changes_nothing_is_the_network_itself(network, reference):
    right = [network(images).argmax(1) == labels for images, labels in IMAGES.batches(50)]
    for pair, scores in score_grid(grid_of(network, init="eye"), reference).items():
        own = reference.id_scores[SCORE][pair.end_layer]
        assert scores.is_finite and scores.accuracy == torch.cat(right).double().mean()
        np.testing.assert_allclose(scores.scores[SCORE], own, rtol=1e-4)
        for place in scores.skill[:2]:
            assert (place.correlation, place.skill) == pytest.approx((1, 1), abs=1e-5)
            assert place.floor < 1
        assert scores.skill.n_images == len(IMAGES)
        detection = detection_of(own, own, is_paired=True)
        assert detection.metrics.auroc == 0.5 and detection.mean_stitched == detection.mean_own
