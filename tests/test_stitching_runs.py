"""Options of stitches that have no effect; the runs of a folder that are resumed, their agreement
and predictions."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

import exec_stitch
from src.core.values import Metrics
from src.models import build_model
from src.results import stitch_runs
from src.results.stitch_runs import GridRun, check_options, resume
from src.results.stitches import RunFiles, metrics_of, read_stitches
from src.stitching import Pair, build_layers, build_stitching_layer
from src.stitching.closed_forms import Matching
from src.stitching.grid import GridMetrics, agreement_of
from src.training import EpochLog, HeadResult
from tests.commands import ON_DIGITS, run, says
from tests.conftest import few_images
from tests.goldens import DATA
from tests.run_content import content

PAIR = Pair("layer2.0", "layer3.0")
INSIDE = ["layer2.0", "layer3.0.conv1", "layer3.0.bn2"]  # but the first
WORDS = ["f.pt", "g.pt", "resnet18", "resnet18", *PAIR, "rc2c_pre"]


def options_of(*arguments: str) -> dict:
    return vars(exec_stitch.parser().parse_args([*WORDS, *arguments]))


@pytest.fixture(scope="module")
def networks():
    return [
        build_model("resnet18_samewidth", n_channels=1, image_shape=(1, 8, 8)) for _ in range(2)
    ]


@pytest.fixture(scope="module")
def layer(networks):
    return build_layers(
        *networks, *([name] for name in PAIR), "rc2c_pre", image_shape=(1, 8, 8), seed=0
    )[0][PAIR]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--front-pinv-rank", "8"],
            "--front-pinv-rank has an effect only with -i pinv, covariance, ortho",
        ),
        (
            ["-pinv-samples", "auto"],
            "-pinv-samples has an effect only with -i pinv, covariance, ortho",
        ),
        (["-e", "0"], "-e 0 -i rand: a random stitching layer is measured"),
        ([], "without --mod-only-stitch the BatchNorm statistics of both networks move"),
        (["--mod-only-stitch"], ""),
        (["-e", "0", "-i", "pinv"], ""),
        (["--mod-only-stitch", "--front-stitch-rank", "64"], ""),
        (
            ["--mod-only-stitch", "--front-stitch-rank", "65"],
            "rank 65 is above the width of layer2.0 (64)",
        ),
    ],
    ids=str,
)
def test_options_without_effect_are_named(arguments, line, networks, layer, capsys):
    check_options(options_of(*arguments), {PAIR: layer}, *networks)
    err = capsys.readouterr().err
    assert line in err and bool(line) == bool(err)


def test_auto_says_what_it_chooses(networks, capsys):
    shapes = [((8, 4, 4), (6,)), ((8,), (6,)), ((8,), (6, 4, 4)), ((5, 8), (5, 6))]
    layers = {
        Pair(f"x{place}", "fc"): build_stitching_layer("auto", *sides)
        for place, sides in enumerate(shapes)
    }
    options = options_of("--mod-only-stitch") | {"stitching_type": "auto"}
    check_options(options, layers, *networks)
    (chosen,) = (line for line in capsys.readouterr().err.splitlines() if "auto chooses" in line)
    assert says(chosen, "c2v for 1 pair (a mean over positions)", "v2v for 1 pair,")
    assert says(chosen, "v2c for 1 pair (one value at all positions)", "t2t for 1 pair")


def test_cuts_around_which_the_images_go_on_are_noted_once(networks, layer, capsys):
    pairs = dict.fromkeys(
        (Pair(front, end) for front in ("layer1.0", "layer2.0") for end in INSIDE), layer
    )
    check_options(options_of("--mod-only-stitch"), pairs, *networks)
    (line,) = capsys.readouterr().err.splitlines()
    assert says(
        line, "layer3.0.conv1, layer3.0.bn2", "inside a block", "shortcut carries information"
    )


def resumed(folder: Path, layers, options) -> GridRun:
    """The runs of a folder that go on with these options."""
    runs = GridRun(folder, layers, options)
    resume(folder, [runs])
    return runs


def test_a_finished_run_of_the_public_code_is_finished(layer, tmp_path, capsys):
    """Its scheduler is "", and it has no options that are new."""
    public = min((DATA / "public_runs" / "trained").iterdir())
    shutil.copytree(public, tmp_path / public.name)
    written = json.loads((public / "config.txt").read_text())
    assert "objective" not in written
    (tmp_path / public.name / "config.txt").write_text(json.dumps(written | {"scheduler": ""}))
    pair = Pair(written["front_layer"], written["end_layer"])
    options = options_of() | written
    layers = {pair: layer}
    assert not resumed(tmp_path, layers, options).layers
    assert not resumed(tmp_path, layers, options | {"learning_rate": 7}).layers  # of no training
    assert resumed(tmp_path, layers, options | {"batch_size": 7}).layers == layers
    assert resumed(tmp_path, layers, options | {"seed": 7}).layers == layers
    trained = {"objective": "hint", "n_epochs": 3}
    assert resumed(tmp_path, layers, options | trained).layers == layers


def logs_of(losses) -> dict[Pair, EpochLog]:
    """The logs of an epoch with these losses."""
    logs = {}
    for pair, loss in losses.items():
        result = HeadResult(0.5, loss, loss)
        logs[pair] = EpochLog(result, result)
    return logs


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_whole_networks_are_one_folder_with_a_folder_a_pair(epochs, tmp_path):
    """Interrupted after so many of four epochs, its finished pairs count, and the others go on beside
    them."""
    given = ["exec_stitch.py", "-", "-", "small_cnn", "small_cnn", "pool3,pool4", "pool4", "rc2c_pre",
             *ON_DIGITS, "-e", 2, "-dir", "s", "--resume"]  # fmt: skip
    logged = []
    folders_read = []

    def interrupted(self, history, state):
        log(self, history, state)
        logged.append(self)
        if len(logged) == epochs:
            raise KeyboardInterrupt

    log = GridRun.log
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    with few_images(64, n_test=30):
        run(*given, cwd=tmp_path / "whole")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GridRun, "log", interrupted)
            run(*given, cwd=tmp_path / "cut", status=130)
        finished, _ = read_stitches(tmp_path / "cut/results/s")
        assert len(finished) == (epochs == 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                stitch_runs,
                "read_stitches",
                lambda path: folders_read.append(path) or read_stitches(path),
            )
            run(*given, cwd=tmp_path / "cut")
    assert len(folders_read) == 1  # whatever the number of pairs
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    stitches, skipped = read_stitches(tmp_path / "cut/results/s")
    (call,) = (tmp_path / "cut/results/s").iterdir()
    assert {stitch.folder for stitch in stitches} == {call} and not skipped
    assert [stitch.place for stitch in stitches] == [
        (call.name, Pair(front, "pool4")) for front in ("pool3", "pool4")
    ]


def test_pairs_that_were_begun_together_go_on_together(layer, tmp_path, capsys):
    """In other batches they could round otherwise."""
    others = [Pair("layer2.0", "layer3.1"), Pair("layer1.0", "layer3.1")]
    pairs = dict.fromkeys([PAIR, *others], layer)
    options = options_of("--mod-only-stitch", "-e", "1", "-gpu", "-1")
    begun = GridRun(tmp_path, pairs, options)
    assert not list(tmp_path.iterdir())  # a failure in the first epoch leaves nothing
    losses = {pair: float(number) for number, pair in enumerate(reversed(pairs))}
    begun.log([logs_of(losses)], {"history": torch.ones(1, 3, 2, 3), "weight": torch.ones(1)})
    epochs = RunFiles(begun.folder, list(pairs)).epochs
    assert {pair: float(row["train_loss"]) for pair, (row,) in epochs.items()} == losses
    (state,) = tmp_path.glob("*/resume.pt")
    assert state.parent == begun.folder
    folder = begun.folder
    del begun  # an interrupted process has no lock
    GridRun(tmp_path, pairs, options)  # claims nothing
    again = resumed(tmp_path, pairs, options)
    assert list(again.layers) == list(pairs) and again.folder == folder
    assert again.state["weight"] == 1
    other = resumed(tmp_path, pairs, options | {"n_epochs": 2})  # a further experiment
    assert not other.folder and not other.state


MATCHED = Matching(torch.zeros(1, 1), torch.zeros(1), error=0.5, r2=0.5, rank=1, n_samples=9)


@pytest.mark.parametrize(
    ("matching", "line"),
    [
        (MATCHED, ""),
        (
            MATCHED._replace(truncated=True),
            "the cutoff of singular values truncates the fit of layer2.0 -> layer3.0: .*; give "
            "--pinv-cutoff exact",
        ),
        (
            MATCHED._replace(r2=0.9),
            "too few fitting samples for layer2.0 -> layer3.0: R² .*; raise -pinv-samples, .*",
        ),
    ],
)
def test_a_fit_to_doubt_has_one_line(matching, line, layer, tmp_path, capsys):
    options = options_of("-i", "pinv", "-e", "0", "-gpu", "-1")
    metrics = Metrics(
        accuracy=0.5, end_accuracy=0.5, representation_difference=0.5, agreement=0.5, r2_test=0.5
    )
    score = GridMetrics(
        {PAIR: metrics}, dict.fromkeys((PAIR, "front", "end", "labels"), torch.arange(3))
    )
    runs = GridRun(tmp_path, {PAIR: layer}, options)
    runs.write(score, {PAIR: matching}, whole_networks=None)
    runs.finish()
    warnings = re.findall("warning: (.*)", capsys.readouterr().err)
    assert len(warnings) == bool(line) and all(re.fullmatch(line, text) for text in warnings)
    ((run,), _) = read_stitches(tmp_path)
    assert run.record["truncated"] == metrics_of(run.record).is_truncated == matching.truncated


def test_kappa_at_its_limits():
    one = torch.tensor([0, 1, 2, 0])
    assert agreement_of(one, one) == (1, 1)
    assert agreement_of(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])) == (
        0.5,
        0,
    )  # as by chance
    agreement, kappa = agreement_of(0 * one, 0 * one)
    assert agreement == 1 and math.isnan(kappa)
