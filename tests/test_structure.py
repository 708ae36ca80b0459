"""Rules of the code: layers, imports, requirements; a choice is one row beside its
function, and messages advise what works."""

import ast
import graphlib
import itertools
import pkgutil
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from src import __version__, results
from src.core.choices.datasets import DATASETS, INTERVENTIONS
from src.core.choices.models import MODELS
from src.core.choices.scores import SCORES
from src.core.choices.similarity import MEASURES
from src.core.choices.stitching import FORMS, OBJECTIVES
from src.core.choices.training import OPTIMIZERS, PENALTIES, SCHEDULERS
from tests.commands import ROOT, parser_of

# A module imports only from subpackages below its own, and not from its neighbours in one line of the
# table in ARCHITECTURE.md: the line of each subpackage
LINES = re.findall(r"^\| \w+ \| ([`\w ]+) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
DEPTHS = {name: depth for depth, line in enumerate(LINES) for name in re.findall(r"`(\w+)`", line)}


# The steps up: the result of a call from Python draws its figure, and writes its runs
STEPS_UP = {
    ("judge", "src.figures.verdicts.figure_of_verdicts"),
    ("judge", "src.results.frame.frame_of_judged"),
    ("judge", "src.results.stitch_runs.write_judged_run"),
}


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> list[str]:
    """The modules and names that a file imports."""
    found = []
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def test_imports_point_downwards():
    upwards = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        inner = path.relative_to(ROOT / "src").parts[0].removesuffix(".py")
        if inner == "__init__":
            continue
        assert inner in DEPTHS, f"{inner} has no place among the layers"
        for module in imports(path):
            if module.startswith("src.") and module != "src.__version__":
                other = module.split(".")[1]
                is_upwards = other != inner and DEPTHS[other] <= DEPTHS[inner]
                if is_upwards and (inner, module) not in STEPS_UP:
                    upwards.append(f"{path.relative_to(ROOT)} imports {module}")
    assert upwards == []


def test_no_imports_form_a_circle():
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "src").rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    needs = {}
    for name, path in modules.items():
        imported = imports(path)
        imported += [module.rpartition(".")[0] for module in imported if module not in modules]
        needs[name] = {module for module in imported if module in modules and module != name}
    graphlib.TopologicalSorter(needs).prepare()


def test_environment_requirements_and_package_name_the_same_packages():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = {line.replace("pytorch>=", "torch>=") for line in environment["dependencies"]}
    assert conda - required == {"python>=3.10"} and required <= conda
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())["project"]
    assert required == {*project["dependencies"], *project["optional-dependencies"]["dev"]}


def test_the_version_to_cite_is_that_of_the_code():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


@pytest.mark.parametrize("has_packages", [False, True])
def test_make_builds_an_environment_unless_there_is_one(has_packages, tmp_path):
    """An environment of the user's, here a link, is asked for what it lacks, and not built again."""
    for name in ("Makefile", "requirements.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "environment" / "bin").mkdir(parents=True)
    scripts = {
        "environment/bin/python": 'echo "asked: $*"',
        "builder": 'echo "built: $*"\nln -s environment "$3"',
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    if has_packages:
        (tmp_path / ".venv").symlink_to("environment")
    make = ["make", "help", f"PYTHON={tmp_path / 'builder'}"]
    said = [subprocess.check_output(make, cwd=tmp_path, text=True) for _ in range(2)]
    assert ("built: -m venv .venv" in said[0]) == (not has_packages)
    assert "asked: -m pip install" in said[0] and "asked" not in said[1]


def test_each_row_has_its_function_beside_the_functions_of_its_kind():
    functions = [row.function for row in (*MEASURES.values(), *INTERVENTIONS.values())]
    functions += [row.read for row in DATASETS.values() if row.read]
    functions += [row.build for row in MODELS.values()]
    functions += [form.solver for form in FORMS.values()]
    functions += [objective.loss for objective in OBJECTIVES.values() if objective.loss]
    assert all(callable(pkgutil.resolve_name(function)) for function in functions)


@pytest.mark.parametrize("table", [SCORES, OPTIMIZERS, SCHEDULERS, PENALTIES])
def test_each_row_names_a_function(table):
    for row in table.values():
        assert row.description and callable(pkgutil.resolve_name(row.function))


OPTION = re.compile(r"(?<![\w.<`-])--?[a-z][\w-]*")
SCRIPT = re.compile(r"(?<![\w/])(?:misc/)?[a-z]\w*\.py\b(?!:)")
FILES = sorted([*ROOT.glob("exec_*.py"), *ROOT.glob("misc/*.py")])
SCRIPTS = [str(path.relative_to(ROOT)) for path in FILES if "cli.Parser(" in path.read_text()]


@pytest.mark.parametrize("script", [name for name in SCRIPTS if "/" not in name])
def test_functions_of_scripts_import_only_what_the_start_does_without(script):
    path = ROOT / script
    tree = ast.parse(path.read_text())
    inner = set()
    for function in tree.body:
        if isinstance(function, ast.FunctionDef):
            inner |= {
                node.module for node in ast.walk(function) if isinstance(node, ast.ImportFrom)
            }
    code = f"import sys, {path.stem}; print(*sys.modules)"
    started = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert "torch" not in started
    assert inner & set(started) - {"src", "src.results"} == set()


def test_packages_import_their_modules_when_these_are_used():
    code = "import sys; from src import results; print(*sys.modules, results.tables.__name__)"
    *before, used = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, text=True
    ).split()
    assert used == "src.results.tables" and not {used, "torch", "numpy"} & {*before}
    with pytest.raises(AttributeError, match="'src.results' has no attribute 'nothing'"):
        results.nothing  # noqa: B018


@cache
def texts(folder: str) -> list[tuple[str, str]]:
    """The texts in the code below a folder, without docstrings, by file and line."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        nodes = nodes_of(path)
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
    assert {*found} - options == {"-model"}  # the end of --front-model
    assert len(found) > 40
    advice = [text for _, text in (*texts("src"), *texts("misc"))]
    named = [*itertools.chain.from_iterable(map(SCRIPT.findall, advice))]
    files = {str(path.relative_to(ROOT)) for path in FILES} | {path.name for path in FILES}
    assert {*named} <= files and len(named) > 20
