"""What a run left, so that two runs can be compared byte by byte."""

import json
from pathlib import Path

from src.results.tables import read_table
from src.stitching.rows import StitchRow
from tests.commands import pair_of, read_csv


def content(folder: Path) -> dict[str, bytes]:
    """The files that a run left, by paths in which times and detector ids are replaced by what they stand for.

    Left out is what has to differ: versions and times in `run.json`, and the command line in `summary.txt`; and what
    never got a final name.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        name, data = str(path.relative_to(folder)), path.read_bytes()
        if path.name.endswith(("run.json", ".lock", ".part")):
            continue
        if (path.parent / "summary.txt").exists():
            name = " -> ".join(pair_of(path.parent)) + f"/{path.name}"
            if path.name == "summary.txt":
                data = b"\n".join(line for line in data.splitlines() if not line.startswith(b"Command"))
        elif (path.parent / "meta.json").exists():
            name = f"{path.parent.name}/detector" if path.suffix == ".pt" else name
            data = data if path.suffix == ".pt" else json.dumps(list(json.loads(data).values())).encode()
        elif path.name in ("grid.csv", "ood_evaluation.csv"):  # they name the run folders
            data = json.dumps(sorted([row | {"folder": None} for row in read_csv(path)], key=str)).encode()
        assert name not in found, f"{name} is there twice"
        found[name] = data
    return found


def grid_rows(folder: Path) -> list[StitchRow]:
    """The rows of the `grid.csv` in a folder of stitches."""
    return read_table(folder / "grid.csv", StitchRow)
