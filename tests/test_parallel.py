"""Many processes at once, in one folder of stitches or one store of detectors: all results are there, unmixed."""

from pathlib import Path

import pytest

from src.checkpoints import load_state
from tests.commands import MODEL, ON_DIGITS, PAIR, pair_of, read_csv, read_json, start

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


def detector(layer: str, number: int) -> list[str]:
    command = ["exec_train_representation_classifier.py", "g.pt", MODEL, layer, "-m", "repr_cls_resnet18", *ON_DIGITS]
    options = ["-b", "512", "-e", "0", "-fe", "1", "-ftidd", "digits", "-ftoodd", "photo_patches", "-s", str(number)]
    return [*command, *options, "-dir", f"detectors/{number}", "-fdir", "store"]


def evaluation(energies: str) -> list[str]:
    command = ["exec_eval_stitcher_ood.py", "results/all", *ON_DIGITS, "-b", "512", "-detectors", "store"]
    return [*command, "-scd", "photo_patches", "-ed", energies]


def runs_in(folder: Path) -> list[Path]:
    """The run folders, of which each has to be finished."""
    runs = sorted((folder / "results" / "all").glob("2*"))
    for run in runs:
        assert (run / "config.txt").exists() and read_json(run / "run.json")["end"]
        assert load_state(run / "final_model.pt")["transform.weight"].shape == (64, 64, 1, 1)
    return runs


def check_store(folder: Path, layers: list[str]) -> None:
    """Every detector is entered, with a whole checkpoint of its own."""
    entries = read_json(folder / "store" / "meta.json")
    assert sorted(entry["source_layer"] for entry in entries.values()) == sorted(layers)
    assert len({(folder / "store" / name).read_bytes() for name in entries}) == len(layers)
    assert sorted(path.name for path in (folder / "store").glob("*.pt")) == sorted(entries)


def check_evaluations(folder: Path, printed: list[str]) -> None:
    """Both said the same but for their command, and the files are those of one evaluation."""
    assert len(set(printed)) == 1
    assert read_json(folder / "results" / "all" / "ood_evaluation.json")["stitches"]
    ours, theirs = ({path.relative_to(root): path.read_bytes() for path in root.rglob("*.npy")}
                    for root in (folder / "one", folder / "two"))  # fmt: skip
    assert ours == theirs and ours


@pytest.mark.slow
def test_sixteen_processes(network_folder):
    folder = network_folder("many")
    pairs = [(front, end) for front in LAYERS for end in ("layer4.0", "layer4.1")]
    run_together([stitching("layer1.0,layer1.1", "layer4.0")], folder)  # makes the table that all others write to
    printed = run_together([stitching(*pair) for pair in pairs[4:]] + [stitching("layer1.0,layer1.1", "layer4.1")] * 4,
                           folder)  # fmt: skip
    assert len(printed) == 16
    runs, rows = runs_in(folder), read_csv(folder / "results" / "all" / "grid.csv")
    assert len(runs) == 2 + 12 + 8 and {row["folder"] for row in rows} == {run.name for run in runs}
    stitched = [*pairs[:4:2], *pairs[4:], *[(layer, "layer4.1") for layer in LAYERS[:2]] * 4]
    assert sorted(map(pair_of, runs)) == sorted(map(pair_of, rows)) == sorted(stitched)
    said = {line.split(": ")[-1] for output in printed for line in output.splitlines() if "accuracy" in line}
    assert said <= {f"{float(row['accuracy']):.2%}" for row in rows}
    run_together([detector(LAYERS[6 + number % 2], number) for number in range(16)], folder)
    check_store(folder, [LAYERS[6 + number % 2] for number in range(16)])
    check_evaluations(folder, run_together([evaluation("one"), evaluation("two")], folder))
