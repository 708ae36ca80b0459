"""Messages advise what works: options and scripts exist, and calls from Python get arguments."""

import ast
import itertools
import re
from functools import cache
from pathlib import Path

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
