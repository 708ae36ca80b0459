"""Many processes at once in one folder of stitches: all results are there, unmixed."""

import pytest

from src.checkpoints import load_state
from tests.commands import ON_DIGITS, PAIR, pair_of, read_csv, read_json, start

LAYERS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


@pytest.mark.slow
def test_sixteen_processes(network_folder):
    folder = network_folder("many")
    (folder / "results" / "all").mkdir(parents=True)
    (folder / "results" / "all" / "grid.csv").touch()  # all of them write it anew
    pairs = [(front, end) for front in LAYERS for end in ("layer4.0", "layer4.1")]
    options = ["rc2c_pre", *ON_DIGITS, "-e", "0", "-i", "pinv", "-dir", "all"]
    processes = [start("exec_stitch.py", *PAIR, *pair, *options, cwd=folder) for pair in pairs]
    printed = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0] * 16, printed
    runs, rows = (
        sorted(folder.glob("results/all/2*")),
        read_csv(folder / "results" / "all" / "grid.csv"),
    )
    for run in runs:
        assert (run / "config.txt").exists() and read_json(run / "run.json")["end"]
        assert load_state(run / "final_model.pt")["transform.weight"].shape == (64, 64, 1, 1)
    assert {row["folder"] for row in rows} == {run.name for run in runs}
    assert sorted(map(pair_of, runs)) == sorted(map(pair_of, rows)) == sorted(pairs)
    said = {
        line.split(": ")[-1]
        for output, _ in printed
        for line in output.splitlines()
        if "accuracy" in line
    }
    assert said == {f"{float(row['accuracy']):.2%}" for row in rows}
