"""Every option of the public code, in every spelling, with its name in `config.txt` and its default."""

import pytest

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
README_ONLY = {"exec_stitch": {"-sched", "--grad-clip"}}


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_of_the_public_code(script):
    known = {name: action for action in parser_of(script)._actions for name in [*action.option_strings, action.dest]}
    for flag in FLAGS[f"{script}.py"]:
        action = known[flag["dest"]]
        assert all(known[spelling] is action for spelling in flag["flags"]), flag
        assert action.default == DEFAULTS.get((script, flag["dest"]), flag["default"]), flag
        assert action.required == (flag.get("required", False) or flag["dest"] in REQUIRED), flag
        assert set(flag.get("choices", [])) - {None} <= set(action.choices or flag.get("choices", [])), flag
        assert action.help
    assert README_ONLY.get(script, set()) <= known.keys()


TRAIN, STITCH = "small_cnn -d digits -dir m", "a b resnet18 resnet18 layer1.0 layer1.0 rc2c_pre"


@pytest.mark.parametrize(
    ("script", "given", "values"),
    [
        (
            "exec_train",
            f"{TRAIN} -dcifar10 -osgd -e30 -b8 -lr=1e-2",
            {"dataset": "cifar10", "optimizer": "sgd", "n_epochs": 30, "batch_size": 8, "learning_rate": 0.01},
        ),
        ("exec_stitch", f"{STITCH} -ipinv --front-stitch-rank 0", {"init": "pinv", "front_stitch_rank": None}),
    ],
)
def test_values_that_follow_their_option_at_once_and_ranks_of_0(script, given, values):
    """As argparse reads them among options such as -data and -dir, and as the public code takes ranks."""
    parsed = vars(parser_of(script).parse_args(given.split()))
    assert {name: parsed[name] for name in values} == values


def test_an_empty_scheduler_is_none():
    assert parser_of("exec_train").parse_args([*TRAIN.split(), "-sched", ""]).scheduler == "none"
