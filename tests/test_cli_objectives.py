"""exec_stitch.py --objective, and the closed forms beside pinv, as a user runs them."""

import pytest

from src.checkpoints import load_state
from tests.commands import MODEL, ON_DIGITS, pair_of, read_csv, read_json, read_metrics, save_network
from tests.conftest import few_images

pytestmark = pytest.mark.usefixtures("few_test_images")

TRAINED = [*ON_DIGITS, "--mod-only-stitch", "-e", "1", "-b", "128", "-lr", "1e-2"]


@pytest.fixture
def train(stitch):
    """Train stitches on 256 images; returns what `stitch` does."""

    def run(*arguments, **options):
        with few_images():
            return stitch(*arguments, **options)

    return run


def logs(folder) -> list[dict[str, str]]:
    return read_csv(folder / "training_logs.csv")


def test_a_grid_logs_and_writes_its_objective(train):
    folders = train("layer3.0,layer4.0", "layer3.1,layer4.1", *TRAINED, "--objective", "hint", "-dir", "g").folders
    rows = {pair_of(row): row for row in read_csv("results/g/grid.csv")}
    assert len(rows) == len(folders) == 4 and {row["objective"] for row in rows.values()} == {"hint"}
    for folder in folders:
        (log,) = logs(folder)
        assert list(log) == ["train_acc", "train_loss", "val_acc", "val_loss"] and float(log["train_loss"]) > 0
        assert log["train_acc"] == ""  # not measured
        assert float(log["val_acc"]) == read_metrics(folder)["accuracy"] == float(rows[pair_of(folder)]["accuracy"])
        assert read_json(folder / "config.txt")["objective"] == "hint"
        assert load_state(folder / "final_model.pt").keys() == {"transform.weight", "transform.bias"}
        assert read_metrics(folder)["matching_error"] is None
        assert "Normalized PINV difference: 0.0000\n" in (folder / "summary.txt").read_text()


def test_the_logged_loss_is_the_objective(train):
    """Over a single batch of all test images, d² is the representation difference."""
    folder = train("layer3.0", "layer2.0", *TRAINED, "--objective", "hint").newest
    difference = read_metrics(folder)["representation_difference"]
    assert float(logs(folder)[0]["val_loss"]) ** 2 == pytest.approx(difference, rel=1e-4)


@pytest.fixture(scope="module")
def vit_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit") / "vit.pt"
    return save_network(path, "vit_tiny_patch4_32", n_channels=1, image_shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("objective", "types", "layers", "kind", "options"),
    [
        ("soft", "vit vit", ("blocks.2", "blocks.5"), "t2t", ["-i", "ortho", "-l1", "1e-4"]),
        ("fula", "vit cnn", ("blocks.2", "layer3.0"), "t2c", ["-i", "pinv", "-t2c-cls", "add", "--amp", "bf16"]),
        ("task", "vit cnn", ("blocks.2", "layer2.0"), "t2c", ["-t2c-cls", "only", "-upsample", "nearest"]),
        ("hint", "cnn vit", ("layer3.0", "blocks.2"), "c2t", ["-i", "ridge", "-c2t-cls", "learn"]),
        ("task", "cnn vit", ("layer3.0", "blocks.2"), "c2t", ["-i", "pinv", "-c2t-cls", "pool"]),
        ("feature", "cnn cnn", ("layer2.0", "layer2.1"), "c2c", ["-i", "eye", "--front-stitch-rank", "9"]),
        ("fula", "cnn cnn", ("layer2", "layer3.0.conv2"), "rc2c_pre", ["-i", "ridge", "--front-pinv-rank", "9"]),
        ("hint", "cnn cnn", ("layer3.0", "layer4.1"), "rc2c_post", ["--amp", "bf16", "--grad-clip", "1"]),
    ],
    ids=str,
)
def test_every_stitching_type_and_start(objective, types, layers, kind, options, train, digit_networks, vit_checkpoint):
    known = {"vit": ("vit_tiny_patch4_32", vit_checkpoint), "cnn": (MODEL, digit_networks[0])}
    names, paths = zip(*(known[name] for name in types.split()), strict=True)
    folder = train(*layers, *TRAINED, "--objective", objective, *options, networks=paths, types=names, kind=kind).newest
    assert 0 < float(logs(folder)[0]["train_loss"]) and read_metrics(folder)["representation_difference"] > 0
    assert (read_metrics(folder)["matching_error"] is None) == (not {"ortho", "pinv", "ridge"} & {*options})
    assert ("ridge_penalty" in read_metrics(folder)) == ("ridge" in options)
