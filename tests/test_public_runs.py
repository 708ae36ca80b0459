"""Stitching runs of the public code: repeated here with its weights, images and samples, and read back."""

import json
import math

import numpy as np
import pytest
import torch

from src.checkpoints import load_state
from src.errors import UserError
from src.models import build_model
from src.stitching import Grid, Pair, build_layers
from src.stitching.results import read_run, read_runs
from src.stitching.rows import accuracy_matrix
from tests.golden_weights import load_golden_weights
from tests.goldens import DATA

RUNS = DATA / "public_runs"
GOLDENS = json.loads((DATA / "det_unrounded.json").read_text())
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

    errors = grid.match(batches("train", indices=samples), rank=golden["front_pinv_rank"])
    state = load_state(folder / "final_model.pt")
    for key, value in layers[pair].state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=7e-6)
    error = golden["loss of float64 pinv weights, cutoff max(rows,cols)*eps32"]
    assert errors[pair].error == pytest.approx(error, rel=1e-5)

    score = grid.evaluate(batches("test"))
    assert score.pairs[pair].accuracy == pytest.approx(golden["accuracy"])
    difference = golden["repr_diff over all samples at once"]
    assert score.pairs[pair].representation_difference == pytest.approx(difference, rel=1e-4)


def test_reads_the_folders_of_the_public_code():
    runs, skipped = read_runs(RUNS / "trained")
    assert not skipped
    rows = [run.row for run in runs]
    assert [(*row.pair, row.accuracy) for row in rows] == [
        ("layer2.0", "layer2.0", 0.76),
        ("layer3.1", "layer2.0", 0.77),
        ("layer4.1", "layer1.0", 0.54),
    ]
    assert rows[0].matching_error == 0.0811 and rows[0].representation_difference == 0.0821
    assert rows[0].init == "pinv" and rows[0].seed == 0 and rows[0].objective == "task" and rows[0].n_epochs == 0
    assert math.isnan(rows[0].front_accuracy) and math.isnan(rows[0].kappa)
    fronts, ends, matrix = accuracy_matrix(rows)
    assert (fronts, ends) == (["layer2.0", "layer3.1", "layer4.1"], ["layer1.0", "layer2.0"])
    np.testing.assert_equal(matrix, [[math.nan, 0.76], [math.nan, 0.77], [0.54, math.nan]])


def test_unfinished_and_damaged_runs_are_skipped_and_named(tmp_path):
    import shutil

    shutil.copytree(RUNS / "trained", tmp_path, dirs_exist_ok=True)
    one, two, three = sorted(tmp_path.iterdir())
    (one / "config.txt").unlink()
    (two / "config.txt").write_text("{}")
    (tmp_path / "stray.txt").touch()
    runs, skipped = read_runs(tmp_path)
    assert [run.folder for run in runs] == [three]
    assert len(skipped) == 2
    assert one.name in skipped[0] and "did not finish" in skipped[0]
    assert two.name in skipped[1] and "no folder of a stitching run" in skipped[1]
    with pytest.raises(UserError, match="is no folder"):
        read_runs(tmp_path / "nowhere")
    (three / "summary.txt").unlink()
    with pytest.raises(UserError, match=r"cannot read .*summary\.txt"):
        read_run(three)
