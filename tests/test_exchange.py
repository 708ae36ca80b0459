"""Runs of several pairs as folders of the public code, a folder a pair."""

import shutil

import numpy as np
import pytest
import torch

from src.results.scoring import load_stitch
from src.results.stitches import Stitch, read_stitches
from tests.commands import (
    ON_DIGITS,
    ROOT,
    error_line,
    names_in,
    pair_of,
    read_csv,
    read_json,
    run,
    save_network,
    says,
)
from tests.conftest import few_images

EXPORT = "misc/export_runs.py"
EVALUATE = "exec_eval_stitcher_ood.py"
CNN, VIT = "small_cnn", "vit_tiny_patch4_32"
COMMON = [*ON_DIGITS, "-b", "32", "--mod-only-stitch", "-dir"]
MATCHED = ["-e", "0", "-i", "pinv"]
GRIDS = {
    "matched": ["cnn.pt", CNN, "pool2,pool3", "pool2,pool4", "rc2c_pre", *MATCHED],
    "auto": ["vit.pt", VIT, "pool2,pool3", "blocks.0", "auto", *MATCHED],
    "trained": ["cnn.pt", CNN, "pool2", "pool3,pool4", "rc2c_pre", "-e", "2"],
}
PUBLIC = {"config.txt", "summary.txt", "final_model.pt"}  # of the public code


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with grids of stitches between random networks, and their exported folders."""
    folder = tmp_path_factory.mktemp("exchange")
    options = {"n_channels": 1, "image_shape": (1, 8, 8)}
    for path, kind in (("cnn.pt", CNN), ("vit.pt", VIT)):
        save_network(folder / path, kind, n_classes=10, **options)
    with (
        pytest.MonkeyPatch.context() as patch,
        few_images(64, n_test=40),
    ):
        patch.chdir(folder)
        for name, (end, kind, *words) in GRIDS.items():
            run("exec_stitch.py", "cnn.pt", end, CNN, kind, *words, *COMMON, name)
            run(EXPORT, f"results/{name}", "-o", f"exported/{name}")
        yield folder


def assert_same(found: Stitch, expected: Stitch) -> None:
    """Compare all that is read of a stitch, apart from its folder."""
    numbers, expected_numbers = ({**of.record, "folder": ""} for of in (found, expected))
    assert repr(numbers) == repr(expected_numbers)  # NaN equals NaN
    for of_images, expected_classes in zip(found.predictions, expected.predictions, strict=True):
        np.testing.assert_array_equal(of_images, expected_classes)
    states = [load_stitch(of.folder, of.pair) for of in (found, expected)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    pair = expected.pair
    assert found.files.epochs.get(pair) == expected.files.epochs.get(pair)
    names = ("stitching_type", "front_layer", "end_layer", "init", "n_epochs", "seed")
    assert [found.options[name] for name in names] == [expected.options[name] for name in names]


@pytest.mark.parametrize("name", GRIDS)
def test_exported_folders_read_to_the_stitches_of_the_run(name, workplace):
    stitches, _ = read_stitches(workplace / "results" / name)
    exported, skipped = read_stitches(workplace / "exported" / name)
    assert not skipped and len({stitch.folder for stitch in exported}) == len(stitches) > 1
    for found, expected in zip(exported, stitches, strict=True):
        assert_same(found, expected)
        logs = {"training_logs.csv"} if name == "trained" else set()
        more = {"grid.csv", "predictions.npz", "run.json"}
        assert names_in(found.folder) == PUBLIC | logs | more
        assert pair_of(found.folder) == expected.pair
        (row,) = read_csv(found.folder / "grid.csv")
        assert row["folder"] == found.folder.name
        config = read_json(found.folder / "config.txt")
        assert config["stitching_type"] == expected.record["stitching_type"] != "auto"


def test_a_folder_without_the_files_of_this_suite_has_the_accuracy_in_its_summary(
    workplace, tmp_path
):
    shutil.copytree(workplace / "exported" / "matched", tmp_path / "public")
    for path in (tmp_path / "public").glob("*/grid.csv"):
        path.unlink()
    stitches, _ = read_stitches(workplace / "results" / "matched")
    public, _ = read_stitches(tmp_path / "public")
    for found, expected in zip(public, stitches, strict=True):
        assert found.pair == expected.pair
        for name in ("accuracy", "matching_error", "representation_difference"):
            value = found.record[name]
            assert value == pytest.approx(expected.record[name], abs=5e-5)


@pytest.mark.parametrize("name", ["auto", "trained"])
def test_exported_stitches_have_the_skill_of_those_of_the_run(name, workplace):
    tables = []
    with few_images(64, n_test=40):
        for source in (f"results/{name}", f"exported/{name}"):
            run(EVALUATE, source, *ON_DIGITS, "--detector", "none", cwd=workplace)
            tables.append(read_csv(workplace / source / "evaluation.csv"))
    for row, expected in zip(*tables, strict=True):
        assert row | {"folder": ""} == expected | {"folder": ""}


def test_what_cannot_be_exported_is_refused(workplace):
    assert says(error_line(EXPORT, "cnn.pt", "-o", "x", cwd=workplace), "cnn.pt is not a folder")
    (workplace / "empty").mkdir()
    assert says(error_line(EXPORT, "empty", "-o", "x", cwd=workplace), "no finished")
    unsaved = ROOT / "tests/data/public_runs/trained"
    line = error_line(EXPORT, "results/trained", unsaved, "-o", "x", cwd=workplace)
    assert says(line, "3 of 4 runs have no ", "final_model.pt", "--no-save")
    line = error_line(EXPORT, "results", "-o", "x", cwd=workplace)
    assert says(line, "results holds no finished", "hold runs: ", "results/auto")
    assert says(error_line(EXPORT, "results/auto", "-o", "exported", cwd=workplace), "exists")
    assert not (workplace / "x").exists()
