"""Runs: finished ones, claims, states; a training run that is interrupted ends as one that never was, and
a script that gets back the options that it wrote down leaves the same bytes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from src.core.errors import UserError
from src.results.public import read_options
from src.results.run import Run
from src.training import Classification, Settings, train
from tests.commands import MODEL, ON_DIGITS, PAIR, run, says
from tests.conftest import few_images
from tests.run_content import content
from tests.tiny_datasets import few_grey_images

OPTIONS = {"learning_rate": 0.1, "gpu": -1, "resume": False}
SETTINGS = [
    Settings(3, 8),
    Settings(3, 8, optimizer="adamw", scheduler="cosine", grad_clip=0.1),
    Settings(3, 8, optimizer="sgd", reduce_lr_epochs=[1, 2]),
    Settings(3, 8, reduce_lr_epochs=[4], reduce_lr_unit="updates"),
]


def task() -> Classification:
    torch.manual_seed(3)
    layers = (nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    return Classification(nn.Sequential(*layers))


def weights_of(trained: Classification) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in trained.head.state_dict().items()}


def claimed(folder: Path, *, resume: bool = False, **changes) -> Run:
    run = Run(folder, OPTIONS | changes)
    run.claim(resume=resume)
    return run


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("at", [1, 3])
def test_a_training_that_goes_on_from_a_state_ends_as_one_that_was_not_interrupted(
    settings, at, tmp_path
):
    whole, images = task(), few_grey_images(20, 4, n_classes=2)
    weights = {}
    for history, _ in train(whole, images, images, settings):
        weights[len(history)] = weights_of(whole)

    epochs, run = train(task(), images, images, settings), claimed(tmp_path)
    for _ in range(at):
        _, state = next(epochs)
    run.save(loop=state)
    run.unlock()
    again, run = task(), claimed(tmp_path, resume=True)
    torch.rand(7)  # the global generator is somewhere else
    yielded = []
    for again_history, _ in train(again, images, images, settings, state=run.state["loop"]):
        yielded.append(len(again_history))
        assert all(
            torch.equal(value, weights[len(again_history)][key])
            for key, value in weights_of(again).items()
        )
    assert yielded == list(range(at, 4)) and again_history == history


def test_a_finished_run_is_skipped_when_it_is_resumed(tmp_path, capsys):
    run = claimed(tmp_path)
    assert not run.skip_if_finished(resume=True)
    run.save(loop=None)
    run.finish()
    assert run.skip_if_finished(resume=True) and "nothing is left to do" in capsys.readouterr().err
    assert not run.skip_if_finished(resume=False)  # written over
    assert says(capsys.readouterr().err, "replaces the finished run", "--resume keeps it")
    other = Run(tmp_path, OPTIONS | {"learning_rate": 0.2})
    with pytest.raises(UserError, match="learning_rate was 0.1, now 0.2.*or give --overwrite"):
        other.skip_if_finished(resume=False)
    with pytest.raises(UserError, match="give the same options, or choose another folder"):
        other.skip_if_finished(resume=True)
    assert not other.skip_if_finished(resume=False, overwrite=True)


def test_empty_options_of_the_public_code(tmp_path):
    """It writes "" for no scheduler, and 0 for the full rank."""
    path = tmp_path / "config.txt"
    path.write_text(json.dumps({"scheduler": "", "front_stitch_rank": 0, "seed": 0}))
    assert read_options(path) == {"scheduler": "none", "front_stitch_rank": None, "seed": 0}


COMMANDS = {  # script: (arguments, where its options are written down)
    "exec_stitch.py": (
        [*PAIR, "layer3.0", "layer4.1", "rc2c_pre", *ON_DIGITS, "-e", "1", "-b", "512", "-i", "pinv", "-l1", "1e-4"],
        "results/*/config.txt",
    ),
    "exec_probe.py": (
        ["f.pt", MODEL, "-l", "layer3.0", "layer4.1", *ON_DIGITS, "-e", "1", "-ranks", "4", "1", "-o", "p.csv"],
        "p.json",
    ),
    "exec_compute_low_rank_sim_metrics.py": (
        [*PAIR, "layer3.0", "layer4.1", *ON_DIGITS, "-m1r", "8", "2", "-n", "100", "-o", "s.csv"],
        "s.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("script", COMMANDS)
def test_a_run_is_repeated_by_its_config(script, network_folder):
    first, second = network_folder("first"), network_folder("second")
    arguments, pattern = COMMANDS[script]
    with few_images():
        printed = run(script, *arguments, cwd=first).out
        (config,) = first.glob(pattern)
        shutil.copy(config, second.parent / "options.json")
        again = run(script, "--config", "../options.json", cwd=second).out
    assert content(first) == content(second)
    assert printed == again or script == "exec_probe.py"  # which prints its command line
