"""Many processes at once in one folder of stitches: all results are there, unmixed."""

from pathlib import Path

import pytest

from src.checkpoints import load_state
from tests.commands import ON_DIGITS, PAIR, pair_of, read_csv, read_json, start

LAYERS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


def run_together(commands: list[list[str]], folder: Path) -> list[str]:
    """Start commands at once and wait for all of them; returns what each of them printed."""
    processes = [start(*command, cwd=folder) for command in commands]
    printed = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), printed
    return [output for output, _ in printed]


def stitching(front_layer: str, end_layer: str) -> list[str]:
    command = ["exec_stitch.py", *PAIR, front_layer, end_layer, "rc2c_pre", *ON_DIGITS]
    return [*command, "-e", "0", "-i", "pinv", "-dir", "all"]


@pytest.mark.slow
def test_sixteen_processes(network_folder):
    folder = network_folder("many")
    pairs = [(front, end) for front in LAYERS for end in ("layer4.0", "layer4.1")]
    run_together([stitching("layer1.0,layer1.1", "layer4.0")], folder)  # makes the table that all others write to
    printed = run_together([stitching(*pair) for pair in pairs[4:]] + [stitching("layer1.0,layer1.1", "layer4.1")] * 4,
                           folder)  # fmt: skip
    assert len(printed) == 16
    runs, rows = sorted(folder.glob("results/all/2*")), read_csv(folder / "results" / "all" / "grid.csv")
    for run in runs:
        assert (run / "config.txt").exists() and read_json(run / "run.json")["end"]
        assert load_state(run / "final_model.pt")["transform.weight"].shape == (64, 64, 1, 1)
    assert len(runs) == 2 + 12 + 8 and {row["folder"] for row in rows} == {run.name for run in runs}
    stitched = [*pairs[:4:2], *pairs[4:], *[(layer, "layer4.1") for layer in LAYERS[:2]] * 4]
    assert sorted(map(pair_of, runs)) == sorted(map(pair_of, rows)) == sorted(stitched)
    said = {line.split(": ")[-1] for output in printed for line in output.splitlines() if "accuracy" in line}
    assert said <= {f"{float(row['accuracy']):.2%}" for row in rows}
