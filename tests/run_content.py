"""What a run left, so that two runs can be compared byte by byte."""

import json
import re
from pathlib import Path

from tests.commands import pair_of

TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(\.\d+)?")


def content(folder: Path) -> dict[str, bytes]:
    """The files that a run left, by paths in which times and detector ids are replaced by what they
    stand for.

    Left out is what has to differ: versions and times in `run.json`, and the command line in
    `summary.txt`; and what never got a final name."""
    found, runs = {}, {path.parent.name: path.parent for path in folder.rglob("2*/config.txt")}
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    ):
        name, data, parent = str(path.relative_to(folder)), path.read_bytes(), path.parent
        if path.name.endswith(("run.json", ".lock", ".part")):
            continue
        if time := TIME.search(name):
            run = runs.get(time[0])
            title = " -> ".join(pair_of(run)) if run else "whole networks"
            name = name.replace(time[0], title)
        elif (parent / "meta.json").exists():
            name = f"{parent.name}/detector" if path.suffix == ".pt" else name
            data = (
                data
                if path.suffix == ".pt"
                else json.dumps(list(json.loads(data).values())).encode()
            )
        if path.suffix == ".json" and "options" in (record := json.loads(data)):
            data = json.dumps(record["options"], indent=1).encode()
        if path.suffix in (".csv", ".json"):  # they name run folders
            data = "\n".join(sorted(TIME.sub("TIME", data.decode()).splitlines())).encode()
        if path.name == "summary.txt":
            data = b"\n".join(line for line in data.splitlines() if not line.startswith(b"Command"))
        assert name not in found, f"{name} is there twice"
        found[name] = data
    return found
