"""Every option of the public code, in every spelling, with its name in `config.txt` and its
default."""

import re

import pytest

from src.cli.parser import FREQUENT, RARE
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_help_has_every_option_once_and_the_rare_ones_last(script):
    parser = parser_of(script)
    options = [action for action in parser._actions if action.option_strings]
    before, rare = parser.format_help().split("\nrarely needed:\n")
    for action in options:
        heading = f"\n  {action.option_strings[0]}"
        part, other = (rare, before) if action.dest in RARE else (before, rare)
        assert len(re.findall(rf"{heading}[ ,\n]", f"\n{part}")) == 1
        assert not re.search(rf"{heading}[ ,\n]", f"\n{other}")
    frequent = [FREQUENT.index(action.dest) for action in options if action.dest in FREQUENT]
    shown = before.split("\nmost runs need:\n")[1]
    first = next(action for action in options if action.dest == FREQUENT[min(frequent)])
    assert shown.startswith(f"  {first.option_strings[0]} ")


def test_options_in_the_order_of_the_help_exist():
    scripts = [
        *SCRIPTS,
        "misc/all_pairs.py",
        "misc/ground_truth.py",
        "misc/imagenet_train_main.py",
        "misc/verdict.py",
    ]
    known = {action.dest for script in scripts for action in parser_of(script)._actions}
    assert not {*FREQUENT, *RARE} - known
    assert len({*FREQUENT, *RARE}) == len(FREQUENT) + len(RARE)


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
