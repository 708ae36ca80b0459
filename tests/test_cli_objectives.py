"""exec_stitch.py --objective, and the closed forms beside pinv, as a user runs them."""

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import exec_stitch
from src.checkpoints import load_model, load_state, save_state
from src.datasets import load_dataset
from src.low_rank import as_rows
from src.models import build_model
from src.stitching.objectives import OBJECTIVES
from tests.conftest import few_images

pytestmark = pytest.mark.usefixtures("few_test_images")

MODEL = "resnet18_samewidth"
COMMON = ["-d", "digits", "-gpu", "-1", "--mod-only-stitch"]
TRAINED = [*COMMON, "-e", "1", "-b", "128", "-lr", "1e-2"]


@pytest.fixture
def stitch(digit_networks, tmp_path, monkeypatch, capsys):
    """Run exec_stitch.py in an empty folder; returns the newest run folder, or with `status` the error."""
    monkeypatch.chdir(tmp_path)

    def run(front: str, end: str, *arguments: str, kind="rc2c_pre", networks=None, status=0):
        paths, types = networks or (digit_networks, [MODEL, MODEL])
        with few_images(256 if "-b" in arguments else None):  # matched directly: all
            assert exec_stitch.main([*map(str, paths), *types, front, end, kind, *arguments]) == status
        if status:
            return capsys.readouterr().err.splitlines()[-1]
        return max((path.parent for path in tmp_path.glob("results/**/config.txt")), key=lambda path: path.name)

    return run


def read(folder, name="metrics.json"):
    return json.loads((folder / name).read_text())


def logs(folder) -> list[dict[str, str]]:
    with open(folder / "training_logs.csv") as file:
        return list(csv.DictReader(file))


def rows_of(folder) -> list[dict[str, str]]:
    with open(folder / "grid.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_grid_gives_each_pair_what_it_gets_alone(stitch, tmp_path, objective):
    options = [*TRAINED, "--objective", objective]
    stitch("layer2.0,layer4.0", "layer3.1,layer4.1", *options, "-dir", "g")
    rows = rows_of(tmp_path / "results" / "g")
    assert len(rows) == 4 and {row["objective"] for row in rows} == {objective}
    for row in rows[1:3]:
        alone = stitch(row["front_layer"], row["end_layer"], *options, "-dir", "alone")
        assert read(alone, "config.txt")["objective"] == objective
        assert float(row["accuracy"]) == pytest.approx(read(alone)["accuracy"], abs=0.02)
        (one,), (other,) = logs(tmp_path / "results" / "g" / row["folder"]), logs(alone)
        assert list(one) == ["train_acc", "train_loss", "val_acc", "val_loss"]
        assert float(one["train_loss"]) == pytest.approx(float(other["train_loss"]), rel=1e-3)
        assert (one["train_acc"] == "") == (objective == "hint")
        assert float(other["val_acc"]) == read(alone)["accuracy"]


def test_the_logged_loss_is_the_objective(stitch):
    """Over a single batch of all test images, d² is the representation difference."""
    folder = stitch("layer3.0", "layer2.0", *TRAINED, "--objective", "hint")
    assert float(logs(folder)[0]["val_loss"]) ** 2 == pytest.approx(read(folder)["representation_difference"], rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "types", "layers", "kind", "options"),
    [
        ("soft", ("vit", "vit"), ("blocks.2", "blocks.5"), "t2t", ["-i", "ortho", "-l1", "1e-4"]),
        ("fula", ("vit", "cnn"), ("blocks.2", "layer3.0"), "t2c", ["-i", "pinv", "-t2c-cls", "add", "--amp", "bf16"]),
        ("hint", ("cnn", "vit"), ("layer3.0", "blocks.2"), "c2t", ["-i", "ridge", "-c2t-cls", "learn"]),
        ("feature", ("cnn", "cnn"), ("layer2.0", "layer2.1"), "c2c", ["-i", "eye", "--front-stitch-rank", "9"]),
        ("fula", ("cnn", "cnn"), ("layer2", "layer3.0.conv2"), "rc2c_pre", ["-i", "ridge", "--front-pinv-rank", "9"]),
        ("hint", ("cnn", "cnn"), ("layer3.0", "layer4.1"), "rc2c_post", ["--amp", "bf16", "--grad-clip", "1"]),
    ],
    ids=str,
)
def test_every_stitching_type_and_start(
    objective, types, layers, kind, options, stitch, digit_networks, vit_checkpoint
):
    names = {"vit": ("vit_tiny_patch4_32", vit_checkpoint), "cnn": (MODEL, digit_networks[0])}
    networks = [names[kind][1] for kind in types], [names[kind][0] for kind in types]
    folder = stitch(*layers, *TRAINED, "--objective", objective, *options, kind=kind, networks=networks)
    assert 0 < float(logs(folder)[0]["train_loss"]) and read(folder)["representation_difference"] > 0
    assert (read(folder)["matching_error"] is None) == (not {"ortho", "pinv", "ridge"} & {*options})


@pytest.fixture(scope="module")
def vit_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit") / "vit.pt"
    save_state(path, build_model("vit_tiny_patch4_32", n_channels=1, image_shape=(1, 8, 8)).state_dict())
    return path


def test_with_statistics_that_move(stitch):
    still = [option for option in TRAINED if option != "--mod-only-stitch"]
    folder = stitch("layer3.0", "layer3.1", *still, "--objective", "fula", "-dir", "moving")
    state = load_state(folder / "final_model.pt")
    assert state["end_model.model.layer4.1.bn2.num_batches_tracked"] > 0 and float(logs(folder)[0]["val_acc"]) > 0


def test_an_objective_without_training_is_refused(stitch):
    line = stitch("layer3.0", "layer3.0", *COMMON, "-e", "0", "-i", "pinv", "--objective", "hint", status=2)
    assert "--objective hint with -e 0: nothing is trained" in line


def test_objectives_are_experiments_of_their_own(stitch, tmp_path):
    """Runs that name no objective, as the public code's, were trained on the task."""
    options = [*TRAINED, "-dir", "x", "--resume"]
    first = stitch("layer4.0", "layer4.1", *options)
    config = read(first, "config.txt")
    assert config.pop("objective") == "task"
    (first / "config.txt").write_text(json.dumps(config))
    assert stitch("layer4.0", "layer4.1", *options) == first  # nothing is left to do
    second = stitch("layer4.0", "layer4.1", *options, "--objective", "soft")
    assert second != first and stitch("layer4.0", "layer4.1", *options, "--objective", "soft") == second
    assert len(list((tmp_path / "results" / "x").glob("2*"))) == 2


@pytest.fixture
def activations(digit_networks):
    """Rows of layer3.1 of the one network and of layer3.0 of the other, over the first 200 matched images."""
    images = {"n_classes": 10, "image_shape": (1, 8, 8)}
    front, end = (load_model(path, MODEL, **images) for path in digit_networks)
    train_set = load_dataset("digits", "", train=True)
    ((x, _),) = train_set.batches(200, indices=train_set.permutation(0)[:200])
    acts = front(x, until="layer3.1"), end(x, until="layer3.0")
    return [as_rows(act.detach()).double().numpy() for act in acts]


def test_ridge_is_scikit_learns(stitch, activations):
    folder = stitch("layer3.1", "layer3.0", *COMMON, "-e", "0", "-i", "ridge", "-pinv-samples", "200")
    state, found = load_state(folder / "final_model.pt"), read(folder)
    expected = Ridge(alpha=found["ridge_penalty"]).fit(*activations)
    np.testing.assert_allclose(state["transform.weight"][:, :, 0, 0], expected.coef_, atol=1e-4)
    np.testing.assert_allclose(state["transform.bias"], expected.intercept_, atol=1e-4)
    residual = np.square(expected.predict(activations[0]) - activations[1]).sum()
    assert found["matching_error"] == pytest.approx(residual / np.square(activations[1]).sum(), rel=1e-4)


def test_orthogonal_maps_keep_distances(stitch, activations):
    folder = stitch("layer3.1", "layer3.0", *COMMON, "-e", "0", "-i", "ortho", "-pinv-samples", "200")
    state, found = load_state(folder / "final_model.pt"), read(folder)
    weight = state["transform.weight"][:, :, 0, 0]
    torch.testing.assert_close(weight @ weight.T, torch.eye(64), atol=1e-5, rtol=0)
    source, target = activations
    residual = source @ weight.T.double().numpy() + state["transform.bias"].double().numpy() - target
    assert found["matching_error"] == pytest.approx(np.square(residual).sum() / np.square(target).sum(), rel=1e-4)
    assert "ridge_penalty" not in found


def test_least_squares_has_the_least_matching_error(stitch):
    options = [*COMMON, "-e", "0", "-pinv-samples", "200"]
    errors = [read(stitch("layer3.1", "layer2.0", *options, "-i", form))["matching_error"]
              for form in ("pinv", "ridge", "ortho")]  # fmt: skip
    assert errors == sorted(errors)
