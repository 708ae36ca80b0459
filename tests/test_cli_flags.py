"""Every option of the public code, in every spelling, with its name in `config.txt` and its default."""

import argparse

import pytest

from src.choices import OPTIMIZERS
from src.choices.stitching import INITS
from src.datasets import DATASET_NAMES
from tests.commands import parser_of, read_json
from tests.goldens import DATA

FLAGS = read_json(DATA / "cli_flags.json")
SCRIPTS = [
    "exec_train",
    "exec_eval",
    "exec_stitch",
    "exec_train_representation_classifier",
    "exec_eval_stitcher_ood",
    "exec_probe",
    "exec_compute_low_rank_sim_metrics",
]
# Where ours differs on purpose: the README's default wins over the public parser's, and "" has a name.
DEFAULTS = {
    ("exec_train", "save_frequency"): 0,
    ("exec_train", "scheduler"): "none",
    ("exec_train_representation_classifier", "save_frequency"): 0,
    ("exec_train_representation_classifier", "dataset"): "cifar10",
    ("exec_probe", "weight_decay"): 1e-5,
    ("exec_eval_stitcher_ood", "energy_dir"): None,  # in the evaluated folder, so that evaluations keep theirs
    ("exec_probe", "ranks"): [],
    **{(script, "n_workers"): None for script in SCRIPTS},  # one a core
}
# What the README calls required, and the public parser only misses later.
REQUIRED = {"model_type", "finetune_id_dataset", "finetune_ood_dataset", "layer_names"}
# Spellings that only the README of the public code names.
README_ONLY = {"exec_stitch": ["-sched", "--grad-clip"]}


def actions(script: str) -> dict[str, argparse.Action]:
    return {name: action for action in parser_of(script)._actions for name in [*action.option_strings, action.dest]}


@pytest.mark.parametrize(
    ("script", "flag"), [(script, flag) for script in SCRIPTS for flag in FLAGS[f"{script}.py"]], ids=str
)
def test_flag_of_the_public_code(script, flag):
    known = actions(script)
    for spelling in flag["flags"]:
        assert spelling in known, spelling
        assert known[spelling].dest == flag["dest"]
    action = known[flag["flags"][0]]
    assert action.default == DEFAULTS.get((script, flag["dest"]), flag["default"])
    assert action.required == (flag.get("required", False) or flag["dest"] in REQUIRED)
    assert set(flag.get("choices", [])) - {None} <= set(action.choices or flag.get("choices", []))
    assert action.help


@pytest.mark.parametrize(("script", "spellings"), README_ONLY.items())
def test_flags_that_only_the_readme_names(script, spellings):
    assert set(spellings) <= set(actions(script))


TRAIN, STITCH = "small_cnn -d digits -dir m", "a b resnet18 resnet18 layer1.0 layer1.0 rc2c_pre"


@pytest.mark.parametrize(
    ("script", "given", "dest", "value"),
    [
        *(("exec_train", f"{TRAIN} -d{name}", "dataset", name) for name in DATASET_NAMES),
        *(("exec_train", f"{TRAIN} -o{name}", "optimizer", name) for name in OPTIMIZERS),
        *(("exec_stitch", f"{STITCH} -i{name}", "init", name) for name in INITS),
        ("exec_train", f"{TRAIN} -e30", "n_epochs", 30),
        ("exec_train", f"{TRAIN} -b8", "batch_size", 8),
        ("exec_train", f"{TRAIN} -lr=1e-2", "learning_rate", 0.01),
        ("exec_train", f"{TRAIN} -wd 1e-5", "weight_decay", 1e-5),
        ("exec_stitch", f"{STITCH} --front-stitch-rank 0", "front_stitch_rank", None),
        ("exec_stitch", f"{STITCH} --front-pinv-rank 0", "front_pinv_rank", None),
    ],
)
def test_values_that_follow_their_option_at_once_and_ranks_of_0(script, given, dest, value):
    """As argparse reads them, and as the public code takes ranks."""
    assert vars(parser_of(script).parse_args(given.split()))[dest] == value


def test_an_empty_scheduler_is_none():
    assert parser_of("exec_train").parse_args([*TRAIN.split(), "-sched", ""]).scheduler == "none"
