"""Messages advise what works: options and scripts exist, and calls from Python get arguments."""

import ast
import itertools
import re
from functools import cache

from tests.commands import (
    ROOT,
    parser_of,
)

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
    advice = [text for _, text in (*texts("src"), *texts("misc"))]
    named = [*itertools.chain.from_iterable(map(SCRIPT.findall, advice))]
    files = {str(path.relative_to(ROOT)) for path in FILES} | {path.name for path in FILES}
    assert {*named} <= files and len(named) > 20
