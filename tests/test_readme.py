"""Every command in the README and in misc/docs is one that the scripts take, and the recipes run. The
commands of the paper's README run word by word."""

import importlib
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import (
    BLOCK,
    ON_DIGITS,
    ROOT,
    blocks_of,
    read_csv,
    run,
    save_network,
    section_of,
)
from tests.conftest import few_images, small_networks

DOCS = (
    "guide",
    "methods",
    "files",
    "differences",
    "costs",
    "paper",
    "ground_truth",
    "study",
)
PAGES = ["README.md", *(f"misc/docs/{name}.md" for name in DOCS)]
GUIDE = (ROOT / "misc/docs/guide.md").read_text()
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
    ("page", "at_least"), list(zip(PAGES, (25, 30, 0, 0, 0, 0, 0, 0, 0), strict=True))
)
def test_the_scripts_take_the_commands(page, at_least, tmp_path, monkeypatch):
    found = commands(page, tmp_path)
    assert len(found) >= at_least
    (tmp_path / "my_digits").mkdir()
    for name in ("negatives.npz", "nets.py", "others.py", "mine.py", "elsewhere.py"):
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


def python_of(page: str, title: str) -> list[str]:
    """The blocks of Python in a section of a page."""
    return [code for language, code in blocks_of(page, title) if language == "python"]


def test_the_example_of_the_readme_runs(in_tmp_path, capsys):
    """On random weights instead of trained ones, and on few images."""
    save_weights("models/digits0", "models/digits1")
    (code,) = python_of("README.md", "In Python")
    variables = {}
    with few_images(128, n_test=60):
        exec(code.replace("task:20", "task:2"), variables)
    rows = variables["rows"]
    assert rows.forms == ("pinv", "task:2") and len(rows) == 2 * 4 * 4
    assert str(rows) in capsys.readouterr().out
    assert (in_tmp_path / "maps.pdf").is_file() and rows.figure().caption


def save_weights(*folders: str) -> None:
    """Write checkpoints of networks for digits, with random weights."""
    for folder in map(Path, folders):
        folder.mkdir(parents=True)
        save_network(folder / "model_15.pt", "small_cnn", n_classes=10, n_channels=1)


def test_the_tour_of_the_guide_runs(in_tmp_path, capsys):
    """On random weights instead of trained ones, and on few images."""
    save_weights("models/digits0", "models/digits1")
    variables = {}
    with few_images(128, n_test=60):
        for code in python_of("misc/docs/guide.md", "From Python"):
            exec(code, variables)
    # The end network behind the layer that it was cut at computes its own logits
    end, images = variables["end"], variables["images"]
    assert torch.allclose(variables["logits"], end(images), atol=1e-5)
    # Both networks have the same weights, so the stitch follows the end network
    assert variables["r"].value == pytest.approx(1, abs=1e-3)
    assert len(variables["rows"]) == 4
    said = capsys.readouterr().out
    assert "'cka': " in said
    assert all(len(line) < 400 for line in said.splitlines())


PUBLIC = "models/test/model_5.pt models/test2/model_5.pt resnet18 resnet18 layer4.1"
PUBLIC_COMMANDS = {  # of the README of the paper's code: small settings that are given behind
    f"exec_stitch.py {PUBLIC} layer1.0 rc2c_pre -d cifar10 -e 0 -b 512 -i pinv --mod-only-stitch": (
        "-dir stitching_m1_to_m2"
    ),
    "exec_train_representation_classifier.py models/test2/model_5.pt resnet18 layer1.0 -m repr_cls_resnet18 "
    "-d cifar10 -e 100 -b 512 -ftidd cifar5m -ftoodd outlier_exposure "
    "-ftooddata /location/to/300k_random_images/oe -dir models/test_ood -fe 10": (
        "-e 1 -fe 1 -ftidd digits -ftoodd photo_patches"
    ),
    "exec_eval_stitcher_ood.py results/stitching_m1_to_m2/ -d cifar10 -b 64 -scd svhn": (
        "-scd photo_patches"
    ),
    "exec_probe.py models/test2/model_5.pt resnet18 -l layer4.0 layer4.1 -d cifar10 -b 256 "
    "-ranks 512 448 384 320 256 192 128 64 32 16 8 4 2 1": "-e 1",
    f"exec_compute_low_rank_sim_metrics.py {PUBLIC} layer3.0 -m1r 512 448 -m2r 256 128": "",
}


def test_the_commands_of_the_papers_readme_run_word_by_word(in_tmp_path):
    """On few digits, which are given behind the words: the last of equal options counts."""
    with few_images(64, n_test=32), small_networks("resnet18", "repr_cls_resnet18"):
        for name in ("models/test", "models/test2"):
            Path(name).mkdir(parents=True)
            save_network(f"{name}/model_5.pt", "resnet18", n_classes=10, n_channels=1)
        for command, small in PUBLIC_COMMANDS.items():
            script, *words = shlex.split(command)
            said = run(script, *words, *ON_DIGITS, *small.split())
            assert "error" not in said.err
    (row,) = read_csv("results/stitching_m1_to_m2/evaluation.csv")
    assert (row["front_layer"], row["end_layer"]) == ("layer4.1", "layer1.0")


def test_files_md_has_columns_of_the_tables(in_tmp_path):
    for name in "ab":
        save_network(f"{name}.pt", "small_cnn", n_classes=10, n_channels=1)
    networks = ["a.pt", "b.pt", "small_cnn", "small_cnn", "pool4", "pool4"]
    stitch = ["rc2c_pre", "-e", 0, "-i", "pinv", "--mod-only-stitch", "-dir", "r"]
    with few_images(64, n_test=32):
        run("exec_stitch.py", *networks, *stitch, *ON_DIGITS)
        run("exec_eval_stitcher_ood.py", "results/r", "--detector", "mahalanobis", *ON_DIGITS)
        run("exec_compute_low_rank_sim_metrics.py", *networks, "-o", "c.csv", *ON_DIGITS)
        run("exec_probe.py", "a.pt", "small_cnn", "-l", "pool4", "-e", 1, "-o", "p.csv", *ON_DIGITS)
    run("misc/verdict.py", "results/r", "-sim", "c.csv", "-o", "v.csv")
    (grid,) = Path("results/r").glob("*/grid.csv")
    tables = {
        "G": grid,
        "S": "results/r/evaluation.csv",
    }
    tables |= {"V": "v.csv", "C": "c.csv", "P": "p.csv"}
    columns = {letter: read_csv(path)[0].keys() for letter, path in tables.items()}
    page = (ROOT / "misc/docs/files.md").read_text()
    lines = [line.split(" | ") for line in page.split("| columns | in |")[1].splitlines()]
    named = {
        (name, letter)
        for names, letters, *_ in lines[2:]
        for name in re.findall(r"`(\w+)`", names)
        for letter in letters.partition(", also")[0].split()
        if letter in tables
    }
    assert len(named) >= 60
    missing = [
        f"{name} in {letter}" for name, letter in sorted(named) if name not in columns[letter]
    ]
    assert ", ".join(missing) == ""


def test_the_pages_stay_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    words = {page: len((ROOT / page).read_text().split()) for page in PAGES[1:]}
    assert sum(words.values()) <= 11_000, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the blocks of the pages run, with the networks of the guide."""
    path = tmp_path_factory.mktemp("pages")
    for name in ("misc", "src", *(script.name for script in ROOT.glob("exec_*.py"))):
        (path / name).symlink_to(ROOT / name)
    (path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (path / "python").chmod(stat.S_IRWXU)
    run_blocks(GUIDE.split("\n## ")[0], path)
    return path


@pytest.mark.slow
def test_the_recipes_of_the_readme_run_without_a_warning(folder):
    """All but its first lines, which make an environment; of one section after another."""
    run_blocks((ROOT / "README.md").read_text().split("\n## Data\n")[1], folder)


RECIPES = [
    title
    for title in re.findall(r"^## (.*)$", GUIDE, re.MULTILINE)
    if "```" in section_of("misc/docs/guide.md", title)
    and title != "From Python"
    and "/data/" not in section_of("misc/docs/guide.md", title)
]


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_the_recipes_of_the_guide_run_without_a_warning(title, folder):
    run_blocks(section_of("misc/docs/guide.md", title), folder)


def run_blocks(section: str, folder: Path) -> str:
    """What the bash blocks of a section print, without those that need a cluster or a download.

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
        if language == "bash" and "sbatch" not in code and "cifar10" not in code
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
