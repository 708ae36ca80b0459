"""Stitching runs of the public code, repeated here with its weights, images and samples."""

import numpy as np
import pytest
import torch

from src.checkpoints import load_state
from src.models import build_model
from src.stitching import Grid, Pair, build_layers, match_layers
from tests.commands import read_json
from tests.golden_weights import load_golden_weights
from tests.goldens import DATA

RUNS = DATA / "public_runs"
GOLDENS = read_json(DATA / "det_unrounded.json")
GOLDENS = {name: golden for name, golden in GOLDENS.items() if isinstance(golden, dict) and "accuracy" in golden}


@pytest.fixture(scope="module")
def networks():
    return [load_golden_weights(build_model("resnet18"), base).eval().requires_grad_(False) for base in (0, 10000)]


def batches(split: str, *, indices=slice(None)):
    with np.load(DATA / "data_small.npz") as arrays:
        gray = torch.from_numpy(arrays[f"{split}_gray"])[indices]
        labels = torch.from_numpy(arrays[f"{split}_labels"])[indices]
    images = gray[:, None].repeat(1, 3, 1, 1).float() / 255
    return list(zip(images.split(64), labels.split(64), strict=True))


@pytest.mark.parametrize("name", GOLDENS)
def test_direct_matching_repeats_the_run(networks, name):
    golden = GOLDENS[name]
    folder = RUNS / golden["results_dir"].removeprefix("results/")
    pair = Pair(golden["front_layer"], golden["end_layer"])
    (samples,) = (golden[key] for key in golden if key.startswith("pinv_sample_indices"))
    layers, _ = build_layers(
        *networks, [pair.front_layer], [pair.end_layer], "rc2c_pre", image_shape=(3, 32, 32), seed=0
    )
    grid = Grid(*networks, layers, front_rank=golden["front_stitch_rank"])

    errors = match_layers(*networks, layers, batches("train", indices=samples), rank=golden["front_pinv_rank"])
    state = load_state(folder / "final_model.pt")
    for key, value in layers[pair].state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=7e-6)
    error = golden["loss of float64 pinv weights, cutoff max(rows,cols)*eps32"]
    assert errors[pair].error == pytest.approx(error, rel=1e-5)

    score = grid.evaluate(batches("test"))
    assert score.pairs[pair].accuracy == pytest.approx(golden["accuracy"])
    difference = golden["repr_diff over all samples at once"]
    assert score.pairs[pair].representation_difference == pytest.approx(difference, rel=1e-4)
