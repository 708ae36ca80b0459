"""Every option of the public code, in every spelling, with its name in `config.txt` and its default."""

import argparse
import importlib
import json
import re

import pytest

from misc import make_docs
from tests.conftest import ROOT
from tests.goldens import DATA

FLAGS = json.loads((DATA / "cli_flags.json").read_text())
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
}
# What the README calls required, and the public parser only misses later.
REQUIRED = {"model_type", "finetune_id_dataset", "finetune_ood_dataset", "layer_names"}
# Spellings that only the README of the public code names.
README_ONLY = {"exec_stitch": ["-sched", "--grad-clip"]}


def actions(script: str) -> dict[str, argparse.Action]:
    parser = importlib.import_module(script).parser()
    return {name: action for action in parser._actions for name in [*action.option_strings, action.dest]}


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


def test_the_page_of_options_is_that_of_the_parsers():
    page = (ROOT / "misc" / "docs" / "options.md").read_text()
    assert page == make_docs.options(), "run python misc/make_docs.py"
    for script in SCRIPTS:
        section = page[page.index(f"## `{script}.py`") :].split("\n## ")[0]
        for action in importlib.import_module(script).parser()._actions:
            if action.dest != "help":
                name = action.option_strings[0] if action.option_strings else action.dest
                assert re.search(rf"^\| `{re.escape(name)}`.*\|$", section, re.MULTILINE), f"{script}: {name}"
