#!/usr/bin/env python3
"""The paper on the embedded digits: train two networks, stitch all their layers in four ways,
judge, and report.

Every step is a command that could be typed; it is printed before it runs. Give the same line again
after an interruption: finished steps are left out, and the one that was interrupted goes on."""

import csv
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src import cli
from src.console import note, result
from src.files import write_text

MODEL = "resnet18_samewidth"
COMMON = ["-d", "digits", "-gpu", "-1"]
CHECKPOINTS = ["models/0/model_8.pt", "models/1/model_8.pt"]
MATCHED = ["-pinv-samples", "auto", "--pinv-cutoff", "exact", "-e", "0"]
# Learning rates decay to nothing, so that results hang little on the rounding of the processor.
TRAINED = [
    "-i",
    "pinv",
    "-pinv-samples",
    "500",
    "-e",
    "6",
    "-lr",
    "3e-3",
    "-sched",
    "cosine",
    "-b",
    "128",
]
METHODS = {  # title: (folder in results/, options)
    "direct matching": ("demo_dm", ["-i", "pinv", *MATCHED]),
    "repair": ("demo_repair", ["-i", "repair", *MATCHED]),
    "covariance": ("demo_covariance", ["-i", "covariance", *MATCHED]),
    "task loss matching": ("demo_tlm", TRAINED),
}
CONTROLS = {
    "a network to itself": ("demo_self", CHECKPOINTS[1]),
    "an untrained network": ("demo_fresh", "-"),
}
UNTRAINED = "mahalanobis,rmd"  # detectors that need no training
AS_PAPER = ("demo_dm", "demo_tlm")  # are evaluated by the trained ones, too
DETECTOR = [
    "-m",
    "repr_cls_resnet18",
    "-e",
    "1",
    "-fe",
    "1",
    "-ftidd",
    "digits",
    "-ftoodd",
    "photo_patches",
]
DETECTED = "layer3.1"
RANKS = ["64", "32", "16", "8", "4", "2", "1"]
CUT_LAYER = "layer3.0"  # of the front network, for the sensitivity test
MEASURES = {"cka": "linear CKA", "pwcca": "PWCCA distance", "procrustes": "Procrustes distance"}

Row = dict[str, str]


class Step(NamedTuple):
    """A command, to be typed in the demo's folder."""

    title: str
    script: str
    arguments: list[str]


def steps() -> Iterator[Step]:
    """Yield all steps in their order."""
    for seed in ("0", "1"):
        options = ["-e", "8", "-sched", "cosine", "-s", seed, "-dir", f"models/{seed}", "--resume"]
        yield Step(f"Train network {seed}", "exec_train.py", [MODEL, *COMMON, *options])
    for title, (name, options) in METHODS.items():
        yield stitch_all(f"all pairs of layers by {title}", CHECKPOINTS, name, options)
    for title, (name, front) in CONTROLS.items():
        yield stitch_all(
            f"control: {title}", [front, CHECKPOINTS[1]], name, METHODS["direct matching"][1]
        )
    yield from compare()
    yield from judge()


def stitch_all(title: str, checkpoints: list[str], name: str, options: list[str]) -> Step:
    """Stitch all layers of one network to all of the other, into a folder of results."""
    networks = [*checkpoints, MODEL, MODEL, "all", "all", "rc2c_pre"]
    options = [*COMMON, *options, "--mod-only-stitch", "-dir", name, "--resume"]
    return Step(f"Stitch {title}", "exec_stitch.py", [*networks, *options])


def compare() -> Iterator[Step]:
    """Measure the similarity of all pairs of layers, and how everything falls as one layer is cut
    to fewer ranks."""
    networks, pair = [*CHECKPOINTS, MODEL, MODEL], [CUT_LAYER, CUT_LAYER]
    script = "exec_compute_low_rank_sim_metrics.py"
    for alignment, name in (("pool", "similarity"), ("auto", "similarity_paper")):
        options = [
            "all",
            "all",
            *COMMON,
            "--metrics",
            *MEASURES,
            "--alignment",
            alignment,
            "-o",
            f"{name}.csv",
        ]
        yield Step(
            f"Compare all pairs of layers, alignment {alignment}", script, [*networks, *options]
        )
    options = [*COMMON, "--metrics", *MEASURES, "-m1r", *RANKS, "-o", "ranks.csv"]
    yield Step(
        f"Compare {CUT_LAYER} at fewer and fewer ranks", script, [*networks, *pair, *options]
    )
    options = [
        "-l",
        CUT_LAYER,
        *COMMON,
        "-ranks",
        *RANKS,
        "-lr",
        "1e-2",
        "-o",
        "probes.csv",
        "--resume",
    ]
    yield Step(
        f"Probe {CUT_LAYER} at these ranks", "exec_probe.py", [CHECKPOINTS[0], MODEL, *options]
    )
    for rank in RANKS:
        options = [
            "-i",
            "pinv",
            "-e",
            "0",
            "--front-stitch-rank",
            rank,
            "--front-pinv-rank",
            rank,
            "-b",
            "512",
        ]
        options = [*COMMON, *options, "--mod-only-stitch", "-dir", "demo_ranks", "--resume"]
        title = f"Stitch {CUT_LAYER} by direct matching at rank {rank}"
        yield Step(title, "exec_stitch.py", [*networks, *pair, "rc2c_pre", *options])
    yield Step("Collect them", "misc/collect_results.py", ["results/demo_ranks"])
    tables = ["ranks.csv", "probes.csv", "results/demo_ranks/grid.csv"]
    yield Step(
        "Draw the sensitivity curves",
        "misc/sensitivity_figure.py",
        [*tables, "-o", "sensitivity.png"],
    )
    tables += ["similarity.csv", "results/demo_dm/grid.csv"]
    yield Step(
        "Test which measure can be trusted",
        "misc/rank_statistics.py",
        [*tables, "-o", "statistics.csv"],
    )


def judge() -> Iterator[Step]:
    """Train an OOD detector for a block of the end network, evaluate all grids, and give the
    verdict."""
    options = [*COMMON, *DETECTOR, "-dir", "models/detectors", "-fdir", "models/store", "--resume"]
    script = "exec_train_representation_classifier.py"
    yield Step("Train an OOD detector", script, [CHECKPOINTS[1], MODEL, DETECTED, *options])
    names = [name for name, _ in (*METHODS.values(), *CONTROLS.values())]
    for name in names:
        detector = f"energy,{UNTRAINED}" if name in AS_PAPER else UNTRAINED
        options = [
            *COMMON,
            "-detectors",
            "models/store",
            "-scd",
            "photo_patches",
            "--detector",
            detector,
        ]
        title = f"Are the activations of {name} like the end network's own?"
        yield Step(title, "exec_eval_stitcher_ood.py", [f"results/{name}", *options])
    folders = [f"results/{name}" for name in names]
    yield Step(
        "Give the verdict",
        "misc/verdict.py",
        [*folders, "-sim", "similarity.csv", "-o", "verdict.csv"],
    )


def take(todo: list[Step], folder: Path) -> None:
    """Run the steps that have not finished in this folder; the failure of one ends the demo."""
    log = folder / "steps.txt"
    finished = log.read_text().splitlines() if log.exists() else []
    for number, step in enumerate(todo, start=1):
        command = shlex.join(["python", str(ROOT / step.script), *step.arguments])
        if command in finished:
            continue
        note(f"\n# Step {number} of {len(todo)}. {step.title}\n{command}")
        words = [sys.executable, str(ROOT / step.script), *step.arguments]
        status = subprocess.run(words, cwd=folder, stdout=sys.stderr).returncode
        if status:
            sys.exit(status)
        with open(log, "a") as file:
            print(command, file=file)


def report(folder: Path) -> Path:
    """Write the report, which shows the figures that the steps drew; returns its path."""
    row = read(folder / "results/demo_dm/grid.csv")[0]
    lines = [
        "# Stitching two networks that read handwritten digits",
        "",
        f"Two `{MODEL}` were trained on `digits` with different seeds; on the test images they reach "
        f"{float(row['front_accuracy']):.1%} (front) and {float(row['end_accuracy']):.1%} (end). Every layer of "
        f"the one was stitched to every layer of the other, by {', '.join(METHODS)}; training went on from direct "
        "matching. Density and recall say whether stitched activations lie where the end network's own do, and "
        "detectors looked at them as well: two that need no training, and for direct and task loss matching into "
        f"{DETECTED} those of the paper, which learned to tell activations of digits from those "
        "of patches of photographs.",
        "",
        "![verdict](verdict.png)",
        "",
        *(folder / "verdict.md").read_text().splitlines()[2:],
        "",
        "Similarity without stitching; the distances are 0 where layers are equal:",
        "",
        "![similarity](similarity.png)",
        "",
        similarity_finding(read(folder / "statistics.csv")),
        "",
        "The same with the paper's alignment, which takes positions as samples where shapes agree:",
        "",
        "![similarity, as in the paper](similarity_paper.png)",
        "",
        f"Cut to fewer principal components, `{CUT_LAYER}` of the front network keeps less of what probes, stitching "
        "and measures find in it:",
        "",
        "![sensitivity](sensitivity.png)",
        "",
        "Accuracies of all stitches, and what relative Mahalanobis, density and recall find in their activations:",
    ]
    for title, (name, _) in METHODS.items():
        lines += ["", f"![{title}](results/{name}/ood_evaluation_rmd.png)"]
    write_text(folder / "report.md", "\n".join(lines) + "\n")
    return folder / "report.md"


def similarity_finding(rows: list[Row]) -> str:
    """Write one sentence that says how often the layer of the same name is the most similar one."""
    parts = []
    for measure, title in {
        **MEASURES,
        "stitching accuracy": "stitching by direct matching",
    }.items():
        places = [
            row["place"]
            for row in rows
            if row["test"] == "specificity" and row["measure"] == measure
        ]
        parts.append(f"{title} {sum(float(place) == 1 for place in places)} times of {len(places)}")
    return f"**The layer of the same name comes first by {', '.join(parts)}.**"


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV."""
    with open(path) as file:
        return list(csv.DictReader(file))


def parser() -> cli.Parser:
    options = cli.Parser(
        "Run the paper on the embedded digits, and report; a few minutes on two cores."
    )
    options.add_argument("folder", nargs="?", default="demo", help="folder to write to")
    return options


def run(args) -> None:
    folder = Path(args.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    take(list(steps()), folder)
    result(str(report(folder)))


def main(argv=None) -> int:
    return cli.run(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
