"""Many processes at once in one folder of stitches: all results are there, unmixed."""

import pytest

from src.results.checkpoints import load_state
from tests.commands import ON_DIGITS, PAIR, pair_of, read_json, start, stitch_rows

LAYERS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


@pytest.mark.slow
def test_eight_processes(network_folder):
    folder = network_folder("many")
    pairs = [(front, "layer4.1") for front in LAYERS]
    options = ["rc2c_pre", *ON_DIGITS, "-e", "0", "-i", "pinv", "-dir", "all"]
    processes = [start("exec_stitch.py", *PAIR, *pair, *options, cwd=folder) for pair in pairs]
    printed = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, printed
    runs = sorted(folder.glob("results/all/2*"))
    for run in runs:
        assert (run / "config.txt").exists() and read_json(run / "run.json")["end"]
        assert load_state(run / "final_model.pt")["transform.weight"].shape == (64, 64, 1, 1)
    rows = stitch_rows(folder / "results" / "all")
    assert {row["folder"] for row in rows} == {run.name for run in runs}
    assert sorted(map(pair_of, runs)) == sorted(map(pair_of, rows)) == sorted(pairs)
    accuracies = set()
    for output, _ in printed:
        (line,) = [line for line in output.splitlines() if "accuracy" in line]
        accuracies.add(line.split(": ")[-1])
    assert accuracies == {f"{float(row['accuracy']):.2%}" for row in rows}
