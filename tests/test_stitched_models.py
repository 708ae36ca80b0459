"""Stitched networks of the public code: their logits and activations, whole checkpoints, and runs
repeated here."""

import copy
from functools import cache

import numpy as np
import pytest
import torch

from src.low_rank import low_rank_approx
from src.models import build_model
from src.results.checkpoints import load_state
from src.stitching import (
    Grid,
    Pair,
    StitchedModel,
    build_layers,
    build_stitching_layer,
    match_layers,
)
from tests.commands import read_json
from tests.goldens import DATA, load_golden_weights, notes, numbers

NAME = "stitched_models"
GOLDENS = {golden["tag"]: golden for golden in notes(NAME)}
LONG = [tag for tag in GOLDENS if "vit_small" in tag]  # the widths of t2t differ in test_any_layers


@cache
def golden_network(name: str, base: int):
    return load_golden_weights(build_model(name), base).double().eval().requires_grad_(False)


def stitched(golden) -> StitchedModel:
    options = {name: value for name, value in golden["options"].items() if name != "init"}
    layer = build_stitching_layer(
        golden["type"], golden["shapes"]["front"][1:], golden["shapes"]["end"][1:], **options
    )
    front, end = golden_network(golden["front"], 0), golden_network(golden["end"], 10000)
    pair = Pair(golden["front_layer"], golden["end_layer"])
    layer = load_golden_weights(layer, 500).double()
    return StitchedModel(front, end, layer, pair, front_rank=golden["front_rank"])


@pytest.fixture(scope="module")
def images():
    x = torch.sin(torch.arange(2 * 3 * 32 * 32, dtype=torch.float64) * 0.01)
    return x.float().double().reshape(2, 3, 32, 32)


@pytest.mark.parametrize(
    "tag", [pytest.param(tag, marks=pytest.mark.slow) if tag in LONG else tag for tag in GOLDENS]
)
@torch.no_grad()
def test_equals_the_public_code(tag, images):
    model = stitched(GOLDENS[tag])
    source = low_rank_approx(model.front(images, until=model.pair.front_layer), model.front_rank)
    made, target = model.stitching_layer(source), model.end(images, until=model.pair.end_layer)
    found = {
        "logits": model(images),
        "stitched_stats": torch.stack([made.mean(), made.std(correction=0)]),
        "repr_diff": (made - target).square().sum() / target.square().sum(),
    }
    for key, value in found.items():
        golden = torch.as_tensor(numbers(NAME)[f"{tag}/{key}64"])
        torch.testing.assert_close(value, golden, rtol=1e-9, atol=1e-9, msg=key)


def test_whole_state_has_the_keys_of_the_public_code():
    golden = GOLDENS["resnet18:layer3.1->resnet18:layer2.0|rc2c_pre"]
    front, end = golden_network("resnet18", 0), golden_network("resnet18", 10000)
    layer = build_stitching_layer("rc2c_pre", (256, 8, 8), (128, 16, 16))
    state = StitchedModel(front, end, layer, Pair("layer3.1", "layer2.0")).state_dict()
    assert len(state) == golden["n_state_keys"]
    doubled = {key for key in state if ".stitch_from_layer." in key or ".stitch_to_layer." in key}
    assert set(golden["state_keys_with_prefix_stitch_from_layer_or_stitch_to_layer"]) <= doubled
    assert torch.equal(state["front_model.model.fc.bias"], front.module.fc.bias)


# Stitching runs of the public code, with its weights, images and samples


RUNS = DATA / "public_runs"
DET_RUNS = read_json(DATA / "det_unrounded.json")
DET_RUNS = {
    name: golden
    for name, golden in DET_RUNS.items()
    if isinstance(golden, dict) and "accuracy" in golden
}


@pytest.fixture(scope="module")
def networks():
    return [
        copy.deepcopy(golden_network("resnet18", base)).to(torch.float32) for base in (0, 10000)
    ]


def batches(split: str, *, indices=slice(None)):
    with np.load(DATA / "data_small.npz") as arrays:
        gray = torch.from_numpy(arrays[f"{split}_gray"])[indices]
        labels = torch.from_numpy(arrays[f"{split}_labels"])[indices]
    images = gray[:, None].repeat(1, 3, 1, 1).float() / 255
    return list(zip(images.split(64), labels.split(64), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if "frontstitch" in name else pytest.mark.slow)
        for name in DET_RUNS
    ],
)
def test_direct_matching_repeats_the_run(networks, name):
    golden = DET_RUNS[name]
    folder = RUNS / golden["results_dir"].removeprefix("results/")
    pair = Pair(golden["front_layer"], golden["end_layer"])
    (samples,) = (golden[key] for key in golden if key.startswith("pinv_sample_indices"))
    layers, _ = build_layers(
        *networks, [pair.front_layer], [pair.end_layer], "rc2c_pre", image_shape=(3, 32, 32), seed=0
    )
    grid = Grid(*networks, layers, front_rank=golden["front_stitch_rank"])

    errors = match_layers(
        *networks, layers, batches("train", indices=samples), rank=golden["front_pinv_rank"]
    )
    state = load_state(folder / "final_model.pt")
    for key, value in layers[pair].state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=7e-6)
    error = golden["loss of float64 pinv weights, cutoff max(rows,cols)*eps32"]
    assert errors[pair].error == pytest.approx(error, rel=1e-5)

    score = grid.evaluate(batches("test"))
    assert score.pairs[pair].accuracy == pytest.approx(golden["accuracy"])
    difference = golden["repr_diff over all samples at once"]
    assert score.pairs[pair].representation_difference == pytest.approx(difference, rel=1e-4)
