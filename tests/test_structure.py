"""The rules of the house that can be checked by reading: layers, prints, requirements."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from misc import make_docs

ROOT = Path(__file__).parents[1]
SCRIPTS = make_docs.PARSERS  # all with options

# From top to bottom; a module imports only from layers below its own, and not from its neighbours in one layer.
LAYERS = (
    ("cli",),
    ("ground_truth", "rank_statistics"),
    ("measurements",),
    ("verdict",),
    ("ood", "probing"),
    ("similarity", "stitching"),
    ("training",),
    ("results",),
    ("loaded",),
    ("checkpoints",),
    ("datasets", "models"),
    ("low_rank", "runtime", "networks", "images", "files", "options", "doors"),
    ("console", "moments"),
    ("errors",),
)
DEPTHS = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    inner = path.relative_to(ROOT / "src").parts[0].removesuffix(".py")
    if inner == "__init__":
        return
    assert inner in DEPTHS, f"{inner} has no place among the layers"
    for module in imports(path):
        if module.startswith("src."):
            other = module.split(".")[1]
            assert other == inner or DEPTHS[other] > DEPTHS[inner], f"{inner} imports {module}"


def test_every_layer_has_its_modules():
    modules = {path.name.removesuffix(".py") for path in (ROOT / "src").iterdir() if not path.name.startswith("__")}
    assert modules == set(DEPTHS)


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_console_prints(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    printing = [call for call in calls if getattr(call.func, "id", "") == "print"]
    assert not printing or path.name == "console.py"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_help_and_usage_errors_come_before_torch(path):
    code = (
        "import runpy, sys; sys.argv = ['x', sys.argv[2]]\n"
        f"try: runpy.run_path({str(path)!r}, run_name='__main__')\n"
        "except SystemExit as stop: print('exit', stop.code, 'torch' in sys.modules, 'torchvision' in sys.modules)\n"
    )
    for argument, status in (("--help", 0), ("--nonsense", 2)):
        command = [sys.executable, "-c", code, "-", argument]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
        assert done.stdout.splitlines()[-1] == f"exit {status} False False", done.stderr


def test_environment_and_requirements_name_the_same_packages():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = {line.replace("pytorch>=", "torch>=") for line in environment["dependencies"]}
    assert conda - required == {"python>=3.10"} and required <= conda
    assert not any(re.search(r"\+cpu|==", line) for line in required)
