"""Every option of the public code, in every spelling, with its name in `config.txt` and its
default."""

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
# Where ours differs on purpose: the README's default wins over the public parser's, and "" has a
# name.
DEFAULTS = {
    ("exec_train", "save_frequency"): 0,
    ("exec_train", "scheduler"): "none",
    ("exec_train_representation_classifier", "save_frequency"): 0,
    ("exec_train_representation_classifier", "dataset"): "cifar10",
    ("exec_probe", "weight_decay"): 1e-5,
    (
        "exec_eval_stitcher_ood",
        "energy_dir",
    ): None,  # in the evaluated folder, so that evaluations keep theirs
    # The default folder may be missing, and a given one not
    ("exec_eval_stitcher_ood", "ood_detector_dir"): None,
    ("exec_probe", "ranks"): [],
    **{(script, "n_workers"): None for script in SCRIPTS},  # one a core
}
# What the README calls required, and the public parser only misses later.
REQUIRED = {"model_type", "finetune_id_dataset", "finetune_ood_dataset", "layer_names"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_of_the_public_code(script):
    known = {
        name: action
        for action in parser_of(script)._actions
        for name in [*action.option_strings, action.dest]
    }
    for flag in FLAGS[f"{script}.py"]:
        action = known[flag["dest"]]
        assert all(known[spelling] is action for spelling in flag["flags"]), flag
        assert action.default == DEFAULTS.get((script, flag["dest"]), flag["default"]), flag
        assert action.required == (flag.get("required", False) or flag["dest"] in REQUIRED), flag
        assert set(flag.get("choices", [])) - {None} <= set(
            action.choices or flag.get("choices", [])
        ), flag
        assert action.help
    assert (
        script != "exec_stitch" or {"-sched", "--grad-clip"} <= known.keys()
    )  # which only its README names


def test_values_that_follow_their_option_at_once_ranks_of_0_and_an_empty_scheduler():
    """As argparse reads them among options such as -data and -dir, and as the public code takes the
    others."""
    words = "a b resnet18 resnet18 layer1.0 layer1.0 rc2c_pre -ddigits -ipinv -e0 -lr=1e-2".split()
    words += ["--front-stitch-rank", "0", "-sched", ""]
    args = parser_of("exec_stitch").parse_args(words)
    found = (
        args.dataset,
        args.init,
        args.n_epochs,
        args.learning_rate,
        args.front_stitch_rank,
        args.scheduler,
    )
    assert found == ("digits", "pinv", 0, 0.01, None, "none")
