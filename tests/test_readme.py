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

from tests.commands import ROOT, read_csv, save_network
from tests.conftest import few_images

DOCS = (
    "guide",
    "methods",
    "files",
    "differences",
    "costs",
    "paper",
    "ground_truth",
    "study",
    "mechanisms",
)
PAGES = ["README.md", *(f"misc/docs/{name}.md" for name in DOCS)]
GUIDE = (ROOT / "misc/docs/guide.md").read_text()
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


@pytest.mark.parametrize(
    ("page", "at_least"), list(zip(PAGES, (7, 30, 0, 0, 0, 0, 0, 18, 0, 0), strict=True))
)
def test_the_scripts_take_the_commands(page, at_least, tmp_path, monkeypatch):
    found = commands(page, tmp_path)
    assert len(found) >= at_least
    for name in ("my_digits", "models/study"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    code = ("nets.py", "others.py", "mine.py", "elsewhere.py", "readers.py")
    for name in ("negatives.npz", "sequences.npz", "models/study/cifar.npz", *code):
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
def test_links_lead_to_files_and_to_headings(page):
    links = re.findall(r"\]\(([^):]+)\)", BLOCK.sub("", (ROOT / page).read_text()))
    for link in links:
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / (name or Path(page).name)
        assert target.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = [
                re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings
            ]
            assert anchor in anchors, link


def section_of(page: str, title: str) -> str:
    """The text of a section of a page."""
    return (ROOT / page).read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def python_of(page: str, title: str) -> list[str]:
    """The blocks of Python in a section of a page."""
    blocks = BLOCK.findall(section_of(page, title))
    return [code for language, code in blocks if language == "python"]


def test_the_example_of_the_readme_runs(in_tmp_path, capsys):
    """On randomly initialised weights in the place of those of the demo, and on few images."""
    save_weights("demo/models/0", "demo/models/1")
    (code,) = python_of("README.md", "In Python")
    variables = {}
    with few_images(128, n_test=60):
        exec(code.replace("task:20", "task:2"), variables)
    rows = variables["rows"]
    assert rows.forms == ("pinv", "task:2") and len(rows) == 2 * 4 * 4
    assert str(rows) in capsys.readouterr().out
    assert (in_tmp_path / "maps.pdf").is_file() and rows.figure().caption


def save_weights(*folders: str) -> None:
    """Write the checkpoints of the digits' networks, with randomly initialised weights."""
    for folder in map(Path, folders):
        folder.mkdir(parents=True)
        save_network(folder / "model_15.pt", "small_cnn", n_classes=10, n_channels=1)


def test_the_tour_of_the_guide_runs(in_tmp_path, capsys):
    """On randomly initialised weights in the place of those that the README trains, and on few images."""
    save_weights("models/digits0", "models/digits1")
    variables = {}
    with few_images(128, n_test=60):
        for code in python_of("misc/docs/guide.md", "From Python"):
            exec(code, variables)
    # The layers were trained since; a pass of the parts and the module are still the same
    end, model, images = (variables[name] for name in ("end", "model", "images"))
    logits = end(variables["stitched"], after="pool1", images=images)
    assert torch.allclose(logits, model(images), atol=1e-5)
    assert len(variables["rows"]) == 2 * 4
    said = capsys.readouterr().out
    assert "Matching(weight=tensor(" in said and "'cka': " in said
    assert all(len(line) < 400 for line in said.splitlines())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the blocks of the pages run, with the networks of the demo."""
    path = tmp_path_factory.mktemp("pages")
    for name in ("misc", "src", *(script.name for script in ROOT.glob("exec_*.py"))):
        (path / name).symlink_to(ROOT / name)
    (path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (path / "python").chmod(stat.S_IRWXU)
    run_blocks(GUIDE.split("\n## ")[0], path)
    (path / "demo").mkdir()
    (path / "demo/models").symlink_to(path / "models")
    for seed in (0, 1):
        (path / f"models/{seed}").symlink_to(path / f"models/digits{seed}")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Two networks", "The experiment by hand", "Many networks"])
def test_the_recipes_of_the_readme_run_without_a_warning(title, folder):
    run_blocks(section_of("README.md", title), folder)


RECIPES = [
    title
    for title in re.findall(r"^## (.*)$", GUIDE, re.MULTILINE)
    if "```bash" in section_of("misc/docs/guide.md", title)
    and "/data/" not in section_of("misc/docs/guide.md", title)
]


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_the_recipes_of_the_guide_run_without_a_warning(title, folder):
    run_blocks(section_of("misc/docs/guide.md", title), folder)


def run_blocks(section: str, folder: Path) -> str:
    """What the bash blocks of a section print, without those that need a cluster.

    Blocks of Python whose first line names a file are written to it; others run before."""
    for language, code in BLOCK.findall(section):
        if language != "python":
            continue
        if name := re.match(r"# (\w+\.py)\n", code):
            (folder / name[1]).write_text(code)
        else:
            subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    blocks = [
        code
        for language, code in BLOCK.findall(section)
        if language == "bash" and "sbatch" not in code
    ]
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-ec", "\n".join(blocks)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "warning: " not in done.stderr
    return done.stdout


def test_the_table_of_the_ground_truth_page_is_of_its_scores():
    scores = {
        (row["measure"], row["test"], row["run"]): row
        for row in read_csv(ROOT / "misc/docs/ground_truth.csv")
    }
    page = (ROOT / "misc/docs/ground_truth.md").read_text()
    table = page[page.index("| measure | `label_noise`") :].split("\n\n")[0]
    header, _, *lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    for measure, *cells in lines:
        for test, cell in zip(header[1:], cells, strict=True):
            for run, text in enumerate(cell.split(" / ")):
                score = scores[measure.strip("*"), test.strip("`"), str(run)]
                signs = ""
                if score["is_above_chance"] == "True":
                    signs = "*†" if score["is_above_baselines"] == "True" else "*"
                assert text.lstrip("-.0123456789") == signs
                assert float(text.rstrip("*†")) == pytest.approx(float(score["value"]), abs=0.006)
    assert len(lines) >= 20
