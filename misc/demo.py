#!/usr/bin/env python3
"""The main job on the embedded digits: train two networks, stitch all their layers both ways, and report.

Every step is a command that could be typed; it is printed before it runs.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.figures import heat_maps
from src.files import write_text
from src.report import note, result
from src.stitching.results import accuracy_matrix, read_runs

MODEL = "resnet18_samewidth"
COMMON = ["-d", "digits", "-gpu", "-1"]
METHODS = {  # title: (folder in results/, options)
    "direct matching": ("dm", ["-i", "pinv", "-pinv-samples", "500", "-e", "0"]),
    "task loss matching": ("tlm", ["-i", "rand", "-e", "10", "-b", "128", "-lr", "1e-2"]),
}


def step(title: str, script: str, *arguments: str, folder: Path) -> None:
    """Show a command and run it in the demo's folder; its failure ends the demo."""
    note(f"\n# {title}\npython {script} {' '.join(arguments)}")
    status = subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=folder).returncode
    if status:
        sys.exit(status)


def train(folder: Path) -> list[str]:
    """Train two networks that differ in their seed; returns their checkpoints."""
    for seed in ("0", "1"):
        step(f"Train network {seed}", "exec_train.py", MODEL, *COMMON, "-e", "10", "-rlre", "8", "-s", seed,
             "-dir", f"models/{seed}", folder=folder)  # fmt: skip
    return [f"models/{seed}/model_10.pt" for seed in ("0", "1")]


def stitch(folder: Path, checkpoints: list[str]) -> dict[str, list[dict]]:
    """Stitch all pairs of layers in both ways; returns the rows of the newest run of each pair, by title."""
    rows = {}
    for title, (name, options) in METHODS.items():
        shutil.rmtree(folder / "results" / name, ignore_errors=True)
        step(f"Stitch all pairs of layers by {title}", "exec_stitch.py", *checkpoints, MODEL, MODEL, "all", "all",
             "rc2c_pre", *COMMON, *options, "--mod-only-stitch", "-dir", name, folder=folder)  # fmt: skip
        rows[title] = [run.row for run in read_runs(folder / "results" / name)[0]]
    return rows


def report(folder: Path, rows: dict[str, list[dict]]) -> Path:
    """Write the report and its figure; returns the path of the report."""
    matrices = {}
    for title, runs in rows.items():
        fronts, ends, matrices[title] = accuracy_matrix(runs)
    heat_maps(folder / "accuracies.png", matrices, rows=fronts, columns=ends,
              row_label="front layer", column_label="end layer")  # fmt: skip
    donors = next(iter(rows.values()))[0]
    lines = [
        "# Stitching two networks that read handwritten digits",
        "",
        f"Two `{MODEL}` were trained on `digits` with different seeds; on the test images they reach "
        f"{donors['front_accuracy']:.1%} (front) and {donors['end_accuracy']:.1%} (end). Every layer of the one was "
        "stitched to every layer of the other. The matrices show the accuracies of the stitched networks.",
        "",
        "![accuracies](accuracies.png)",
    ]
    for title, matrix in matrices.items():
        mean = fmean(value for line in matrix for value in line)
        lines += ["", f"## {title.capitalize()}: {mean:.1%} on average", "", *_table(fronts, ends, matrix)]
    write_text(folder / "report.md", "\n".join(lines) + "\n")
    return folder / "report.md"


def _table(fronts: list[str], ends: list[str], matrix: list[list[float]]) -> list[str]:
    lines = [f"| front \\ end | {' | '.join(ends)} |", f"|---{'|---' * len(ends)}|"]
    for front, line in zip(fronts, matrix, strict=True):
        lines.append(f"| **{front}** | {' | '.join(f'{accuracy:.1%}' for accuracy in line)} |")
    return lines


def main() -> None:
    """Run the demo in the folder given as argument, or in ./demo."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    result(str(report(folder, stitch(folder, train(folder)))))


if __name__ == "__main__":
    main()
