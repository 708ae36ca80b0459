"""Commands as a user gives them, in this process and in others; what they print and what they
write.

Scripts are named by their paths in the checkout: `exec_train.py`, `misc/verdict.py`.
"""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from src import cli
from src.core import console, user_code

ROOT = Path(__file__).parents[1]
MODEL = "resnet18_samewidth"
ON_DIGITS = ["-d", "digits", "-gpu", "-1"]
PAIR = ["f.pt", "g.pt", MODEL, MODEL]  # in a folder of the fixture `network_folder`
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)  # of a page: language and code
PNG, PDF = b"\x89PNG\r\n\x1a\n", b"%PDF"
SIMILARITY_HEADINGS = {
    "CKA": "cka",
    "CCA": "pwcca",
    "Orth. Procr": "procrustes",
}


class Output(NamedTuple):
    """What a command printed."""

    out: str
    err: str


class Code:
    """Runs a shell command when it is unpickled by someone who trusts it."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Stitches(NamedTuple):
    """What exec_stitch.py printed, and all run folders in `results/`, the oldest first."""

    folders: list[Path]
    out: str
    err: str

    @property
    def newest(self) -> Path:
        return self.folders[-1]


def section_of(page: str, title: str) -> str:
    """The text of a section of a page."""
    return (ROOT / page).read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks_of(page: str, title: str) -> list[tuple[str, str]]:
    """The blocks in a section of a page: language and code."""
    return BLOCK.findall(section_of(page, title))


def module_of(script: str):
    """A script as a module."""
    return import_module(script.removesuffix(".py").replace("/", "."))


def parser_of(script: str):
    """The parser of a script."""
    return module_of(script).parser()


def run(script: str, *arguments: Any, cwd: Path | str = ".", status: int = 0) -> Output:
    """Run a script in this process, which spares the seconds that importing torch takes. As in a process of its
    own, each warning is given once, and a user's code is read.

    Its exit status has to be `status`; a message in the place of a status is printed and counts as
    1, as in Python."""
    out, err = io.StringIO(), io.StringIO()
    console._said.clear()
    user_code._run.cache_clear()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [str(ROOT / script), *map(str, arguments)])
        try:
            module = module_of(script)
            ended = cli.run(module.parser(), module.main)
        except SystemExit as stop:
            ended = stop.code
        if isinstance(ended, str):
            print(ended, file=sys.stderr)
            ended = 1
    assert ended == status, err.getvalue()
    return Output(out.getvalue(), err.getvalue())


def error_line(script: str, *arguments: Any, cwd: Path | str = ".") -> str:
    """The line on stderr with which a command ends that a user can mend; what stands before it is
    no error."""
    *before, line = run(script, *arguments, cwd=cwd, status=2).err.splitlines()
    assert not [
        said for said in before if "error" in said or "usage" in said or "Traceback" in said
    ], before
    assert line.startswith(f"{Path(script).name}: error: "), line
    return line


def words(script: str, *arguments: Any) -> list[str]:
    """The command line of a script as a process."""
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def start(script: str, *arguments: Any, cwd: Path | str = ".", **options: Any) -> subprocess.Popen:
    """Start a script as a process of its own, with pipes for what it prints."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(words(script, *arguments), cwd=cwd, text=True, **pipes)


def start_code(code: str, *arguments: Any, **options: Any) -> subprocess.Popen:
    """Start lines of Python, which import from the checkout, as a process of their own, with
    pipes."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def run_process(
    script: str, *arguments: Any, cwd: Path | str = ".", status: int = 0, timeout: int = 300
) -> Output:
    """Run a script as a process of its own; its exit status has to be `status`."""
    done = subprocess.run(
        words(script, *arguments), cwd=cwd, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == status, done.stderr
    return Output(done.stdout, done.stderr)


def run_module(name: str, *arguments: Any, cwd: Path | str, timeout: int = 600) -> str:
    """Run a module of the tests as a process of its own, in a folder; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{name}", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stitch(
    front: str, end: str, *arguments: Any, networks, types=(MODEL, MODEL), kind="rc2c_pre"
) -> Stitches:
    """Stitch checkpoints in the working folder, on whatever data the arguments name."""
    printed = run("exec_stitch.py", *networks, *types, front, end, kind, *arguments)
    folders = [path for path in Path("results").rglob("2*") if path.is_dir()]
    return Stitches(sorted(folders, key=lambda path: path.name), *printed)


def read_json(path: Path | str) -> Any:
    """The content of a JSON file, such as a `config.txt`."""
    return json.loads(Path(path).read_text())


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """The rows of a table."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def stitch_rows(folder: Path | str) -> list[dict[str, str]]:
    """The rows of all stitches in the runs of a folder, the oldest run first."""
    tables = sorted(Path(folder).glob("2*/grid.csv"))
    return [row for table in tables for row in read_csv(table)]


def read_metrics(folder: Path) -> dict[str, Any]:
    """The numbers of the only stitch of a run; None where there is none."""
    from src.core.values import Metrics
    from src.results.public import SPARSITY
    from src.results.stitches import GRID
    from src.results.tables import read_table

    (row,) = read_table(folder / "grid.csv", GRID)
    numbers = {entry.name: row[entry.name] for entry in fields(Metrics)}
    sparsity = {
        name.removeprefix(SPARSITY): share for name, share in row.items() if name not in GRID.types
    }
    return {name: None if value != value else value for name, value in numbers.items()} | {
        "sparsity": sparsity
    }


def pair_of(run: Path | dict[str, str]) -> tuple[str, str]:
    """The layers that a run folder, or a row of a table, is of."""
    options = read_json(run / "config.txt") if isinstance(run, Path) else run
    return options["front_layer"], options["end_layer"]


def caption_of(figure) -> str:
    """The text for below a figure."""
    return figure.caption


def heading(axes) -> str:
    """The title of a panel, in one line."""
    return " ".join(f"{axes.get_title()} {axes.get_title(loc='right')}".split())


def panels_of(figure) -> dict:
    """The panels of a figure by their titles, without bars of colours."""
    return {heading(axes): axes for axes in figure.axes if axes.get_label() != "<colorbar>"}


def says(text: str, *words: str) -> bool:
    """Whether a line of a text has all of these words."""
    return any(all(word in line for word in words) for line in text.splitlines())


def names_in(folder: Path) -> set[str]:
    """The names of what lies in a folder."""
    return {path.name for path in folder.iterdir()}


def digit_network(path: Path | str, kind: str = MODEL):
    """Load a network for the digits."""
    from src.core.inputs import InputSpec
    from src.results.checkpoints import load_model
    from src.results.network_names import NamedNetwork

    return load_model(NamedNetwork(str(path), kind), InputSpec(10, (1, 8, 8)))


def digit_images(*, train: bool):
    """Load the digits; the scripts evaluate on their test images."""
    from src.datasets import load_dataset

    return load_dataset("digits", "", train=train)


def save_network(path: Path, name: str, **options: Any) -> Path:
    """Save an untrained network, of seed 0."""
    import torch

    from src.core.tensors import save_state
    from src.models import build_model

    torch.manual_seed(0)
    save_state(path, build_model(name, **options).state_dict())
    return path


def parse_probes(text: str) -> dict[str, dict[str, float]]:
    """The accuracies by layer and rank that exec_probe.py printed."""
    blocks = re.findall(r" -- (\S+)\n((?:Rank \w+: \S+\n)+)\n", text)
    return {
        layer: {rank: float(value) for rank, value in re.findall(r"Rank (\w+): (\S+)", lines)}
        for layer, lines in blocks
    }


def parse_similarity(printed: str) -> dict[tuple[str, ...], float]:
    """(layer1, layer2, measure, rank1, rank2) -> value; the public code prints each value twice."""
    found = {}
    for block in printed.split("\n\n\n\n")[:-1]:
        _, layers, tables = block.split("\n", 2)
        for part in re.split(r"\n\n(?=\D)", tables):
            heading, first, *lines = part.split("\n")
            rows = [line for line in lines if line.startswith("\t")]
            rank1 = re.fullmatch(r"Model1 rank (\w+):", first).group(1)
            for row in rows:
                rank2, value = re.fullmatch(r"\tModel2 rank (\w+): (.*)", row).groups()
                key = (
                    *layers.split(" -- "),
                    SIMILARITY_HEADINGS[heading.removesuffix(":")],
                    rank1,
                    rank2,
                )
                assert key not in found
                found[key] = float(value)
    return found


def parse_matrix(printed: str, title: str) -> dict[tuple[str, str], str]:
    """(row, column) -> value of a printed matrix; the marks of detectors that fail, `*`, are taken
    from the names."""
    _, columns, *lines = printed[printed.index(f"{title}\n") :].replace("*", "").splitlines()
    found = {}
    for line in lines:
        row, *values = line.split() or [""]
        if not values or not all(re.fullmatch(r"nan|-?\d+[./]\d+|\S", value) for value in values):
            break
        found |= {
            (row, column): value for column, value in zip(columns.split(), values, strict=True)
        }
    return found
