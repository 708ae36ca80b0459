"""Messages advise what works: options and scripts exist, and calls from Python get arguments."""

import ast
import itertools
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from src.datasets import load_dataset
from src.ground.console import silenced, warn_once
from src.ground.errors import UserError
from src.models import build_model
from src.ood import make_detector
from src.results.reloading import check_images
from src.similarity import compare
from src.stitching import build_layers, direct_matching, matching_batches
from tests.commands import (
    MODEL,
    ON_DIGITS,
    ROOT,
    error_line,
    parse_matrix,
    parser_of,
    read_csv,
    run,
)
from tests.conftest import few_images
from tests.written_runs import runs_of, write_run

OPTION = re.compile(r"(?<![\w.<`-])--?[a-z][\w-]*")
SCRIPT = re.compile(r"(?<![\w/])(?:misc/)?[a-z]\w*\.py\b(?!:)")
FILES = sorted([*ROOT.glob("exec_*.py"), *ROOT.glob("misc/*.py")])
SCRIPTS = [str(path.relative_to(ROOT)) for path in FILES if "cli.Parser(" in path.read_text()]


@cache
def texts(folder: str) -> list[tuple[str, str]]:
    """The texts in the code below a folder, without docstrings, by file and line."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docs
            ):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node.value))
    return found


def test_options_and_scripts_that_messages_name_exist():
    actions = itertools.chain.from_iterable(parser_of(script)._actions for script in SCRIPTS)
    options = {*itertools.chain.from_iterable(action.option_strings for action in actions)}
    below = [text for place, text in texts("src") if not place.startswith("src/cli")]
    found = [*itertools.chain.from_iterable(map(OPTION.findall, below))]
    assert {*found} - options == {"-model", "-type"}  # ends of --front-model and --end-type
    assert len(found) > 40
    advice = [text for _, text in (*texts("src"), *texts("misc")) if " is no script" not in text]
    named = [*itertools.chain.from_iterable(map(SCRIPT.findall, advice))]
    assert {*named} <= {*SCRIPTS} and len(named) > 20


def test_a_missing_store_of_detectors_is_passed_over_only_if_it_was_not_asked_for(in_tmp_path):
    layers = ["layer1.0", "layer1.0", "rc2c_pre"]
    given = ["-", "-", MODEL, MODEL, *layers, *ON_DIGITS, "-e", "0", "-i", "pinv", "-dir", "s"]
    evaluate = ["exec_eval_stitcher_ood.py", "results/s", *ON_DIGITS]
    with few_images(64, n_test=64):
        run("exec_stitch.py", *given)
        for options in (["-detectors", "nowhere"], ["--detector", "energy"]):
            line = error_line(*evaluate, *options)
            option, detector = re.search(r"(--detector) (\w+), which needs no", line).groups()
        assert not list(Path("results/s").glob("skill*"))
        for options in ([], ["--detector", "none"]):
            said = run(*evaluate, *options)
            assert ("models/repr_cls_ood_detectors" in said.err) == (not options)
            assert parse_matrix(said.out, "STITCHING SKILL").keys() == {("layer1.0", "layer1.0")}
            assert read_csv("results/s/skill.csv")
            assert not list(Path("results/s").glob("ood_evaluation*"))
        run(*evaluate, option, detector)


def layers_of(front: str, end: str, kind: str, **options):
    networks = {
        name: build_model(name, n_channels=1, image_shape=(1, 8, 8)).eval() for name in {front, end}
    }
    blocks = [networks[name].block_names[i] for name, i in ((front, 0), (end, -2))]
    sides = networks[front], networks[end], blocks[:1], blocks[1:]
    return build_layers(*sides, kind, image_shape=(1, 8, 8), seed=0, **options)


CALLS = {
    "biased upwards: .* metrics=": lambda x: compare(x, x[:, :, :2, :2]),
    "pwcca, .* give more of them": lambda x: compare(x, x[:, :, :2, :2]),
    "do not correspond; alignment=": lambda x: compare(x, x[:, :, :2, :2], alignment="positions"),
    "unknown measure 'ccka'": lambda x: compare(x, x, ["ccka"]),
    "unknown model 'resnet19'": lambda x: build_model("resnet19"),
    "unknown model 'tv_resnet19'": lambda x: build_model("tv_resnet19"),
    "unknown dataset 'cifar11'": lambda x: load_dataset("cifar11", "", train=True),
    "init eye needs equal widths": lambda x: layers_of(
        "small_cnn", "small_cnn", "rc2c_pre", init="eye"
    ),
    "c2t_cls_token pool or learn": lambda x: layers_of("small_cnn", "vit_tiny_patch4_32", "c2t"),
    "at least two samples": lambda x: direct_matching(x[:1], x[:1], form="ridge"),
    "cutoff papr is not paper, exact": lambda x: direct_matching(x, x, cutoff="papr"),
    "only 1437 training images": lambda x: matching_batches(
        load_dataset("digits", "", train=True), 2000, 9, seed=0
    ),
    "unknown OOD score": lambda x: make_detector("nothing"),
    "needs a trained detector": lambda x: make_detector("energy"),
}


@pytest.mark.parametrize("said", CALLS)
def test_calls_from_python_are_answered_with_arguments(said, capsys):
    torch.manual_seed(0)
    try:
        CALLS[said](torch.rand(9, 8, 4, 4))
    except (UserError, ValueError) as error:
        print(error)
    printed = "".join(capsys.readouterr())
    assert re.search(said, printed)
    assert not OPTION.findall(printed.replace("exec_train.py --help lists", ""))


@pytest.mark.parametrize(
    ("given", "of_runs", "line"),
    [
        (None, [0.5], "1 of 1 runs .*-d digits --shortcut 0.5.*; give"),
        (0.5, [None], "1 of 1 runs .*; give these .*--shortcut"),
        (0.5, [0.5, None], "1 of 2 runs "),
    ],
)
def test_the_shortcut_of_runs_is_advised_as_the_parser_takes_it(given, of_runs, line, tmp_path):
    for i, shortcut in enumerate(of_runs):
        write_run(tmp_path, f"00000{i}", n_right=900, shortcut=shortcut)
    options = {"dataset": "digits", "other_data": False, "shortcut": given}
    with pytest.raises(UserError, match=line):
        check_images(runs_of(tmp_path), options)
    check_images(runs_of(tmp_path), options | {"dataset": "cifar10", "other_data": True})


def test_a_warning_that_was_silenced_is_still_to_come(capsys):
    """Of a text that is given once: a block that prints nothing does not use it up."""
    with silenced():
        warn_once("a text of this test")
    for expected in ("warning: a text of this test\n", ""):
        warn_once("a text of this test")
        assert capsys.readouterr().err == expected
