"""Every command in the README and in misc/docs is one that the scripts take; the first steps print
what it shows."""

import importlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import ROOT, save_network

DOCS = ("methods", "differences", "costs", "paper", "ground_truth")
PAGES = ["README.md", *(f"misc/docs/{name}.md" for name in DOCS)]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
RECORD = f"""#!{sys.executable}
import json, sys
with open("commands.jsonl", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""


def commands(page: str, folder: Path) -> list[list[str]]:
    """The arguments of every call of Python in the blocks of a page; bash expands its loops and
    variables."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("python", "bash", "make"):
        (programs / name).write_text(RECORD if name == "python" else "")
        (programs / name).chmod(stat.S_IRWXU)
    (folder / "misc").mkdir()  # a command changes to it
    blocks = "\n".join(
        code for language, code in BLOCK.findall((ROOT / page).read_text()) if language == "bash"
    )
    run = subprocess.run(
        ["/bin/bash", "-c", blocks],
        cwd=folder,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
    )
    assert "syntax error" not in run.stderr
    lines = [
        line
        for path in sorted(folder.rglob("commands.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("page", "at_least"), list(zip(PAGES, (25, 20, 0, 0, 0, 1), strict=True)))
def test_the_scripts_take_the_commands(page, at_least, tmp_path, monkeypatch):
    found = commands(page, tmp_path)
    assert len(found) >= at_least
    (tmp_path / "my_digits").mkdir(exist_ok=True)
    for name in ("negatives.npz", "nets.py", "others.py", "mine.py"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for script, *arguments in found:
        name = script.removesuffix(".py").replace("/", ".")
        module = importlib.import_module(name if (ROOT / script).exists() else f"misc.{name}")
        try:
            module.parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page}: {script} {' '.join(arguments)}")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^):]+)\)", BLOCK.sub("", (ROOT / page).read_text()))
    assert all((ROOT / page).parent.joinpath(link).is_file() for link in links), links


def test_the_lines_of_python_run(in_tmp_path, capsys):
    """On fresh weights in the place of those that the README trains."""
    for seed in "01":
        (folder := in_tmp_path / "models" / f"digits{seed}").mkdir(parents=True)
        save_network(folder / "model_20.pt", "small_cnn", n_classes=10, n_channels=1)
    (code,) = [
        code
        for language, code in BLOCK.findall((ROOT / PAGES[1]).read_text())
        if language == "python" and "from src" in code
    ]
    exec(code, found := {})
    assert torch.equal(found["logits"], found["model"](found["images"])) and found[
        "scores"
    ].shape == (360,)
    assert "'cka': " in capsys.readouterr().out


@pytest.mark.slow
def test_the_first_steps_print_what_the_readme_shows(tmp_path):
    """All but the digits, which depend on the processor."""
    for name in ("exec_train.py", "exec_stitch.py", "exec_eval_stitcher_ood.py", "misc", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "python").chmod(stat.S_IRWXU)
    section = (ROOT / "README.md").read_text().split("\n## First steps\n")[1].split("\n## ")[0]
    blocks = [
        code for language, code in BLOCK.findall(section) if language == "bash" and "python" in code
    ]
    shown = [
        line
        for language, code in BLOCK.findall(section)
        if language == "text"
        for line in code.splitlines()
    ]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-ec", "\n".join(blocks)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = {without_digits(line) for line in done.stdout.splitlines()}
    assert {without_digits(line) for line in shown if line != "…"} <= printed


def without_digits(line: str) -> str:
    return re.sub(r"[\d.]+", "0", line)
