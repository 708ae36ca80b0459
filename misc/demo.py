#!/usr/bin/env python3
"""The paper on the embedded digits: train two networks, stitch all their layers in four ways, judge, and report.

Every step is a command that could be typed; it is printed before it runs.
"""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src import cli
from src.console import note, result
from src.files import write_text
from src.results.captions import caption
from src.results.heat_maps import HeatMap, maps
from src.results.matrices import Matrix

MODEL = "resnet18_samewidth"
LAYERS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
COMMON = ["-d", "digits", "-gpu", "-1"]
MATCHED = ["-pinv-samples", "auto", "--pinv-cutoff", "exact", "-e", "0"]
METHODS = {  # title: (folder in results/, options)
    "direct matching": ("demo_dm", ["-i", "pinv", *MATCHED]),
    "repair": ("demo_repair", ["-i", "repair", *MATCHED]),
    "covariance": ("demo_covariance", ["-i", "covariance", *MATCHED]),
    "task loss matching": ("demo_tlm", ["-i", "pinv", "-pinv-samples", "500", "-e", "10", "-lr", "3e-3", "-b", "128"]),
}
CONTROLS = ("demo_self", "demo_fresh")
LABEL_ONLY = ("demo_dm", "demo_covariance", *CONTROLS)  # have a label-only control each
UNTRAINED = "mahalanobis,rmd"  # detectors that need no training
AS_PAPER = ("demo_dm", "demo_tlm")  # are evaluated by the trained ones, too
DETECTOR = ["-m", "repr_cls_resnet18", "-e", "1", "-fe", "1", "-ftidd", "digits", "-ftoodd", "photo_patches"]
RANKS = ["64", "32", "16", "8", "4", "2", "1"]
CUT_LAYER = "layer3.0"  # of the front network, for the sensitivity test
MEASURES = {"cka": "linear CKA", "pwcca": "PWCCA distance", "procrustes": "Procrustes distance"}

Row = dict[str, str]


def step(title: str, script: str, *arguments: str, folder: Path) -> None:
    """Show a command, to be typed in the demo's folder, and run it there; its failure ends the demo."""
    note(f"\n# {title}\npython {ROOT / script} {' '.join(arguments)}")
    status = subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=folder, stdout=sys.stderr).returncode
    if status:
        sys.exit(status)


def train(folder: Path) -> list[str]:
    """Train two networks that differ in their seed; returns their checkpoints."""
    for seed in ("0", "1"):
        options = ["-e", "10", "-rlre", "8", "-s", seed, "-dir", f"models/{seed}"]
        step(f"Train network {seed}", "exec_train.py", MODEL, *COMMON, *options, folder=folder)
    return [f"models/{seed}/model_10.pt" for seed in ("0", "1")]


def stitch(folder: Path, checkpoints: list[str]) -> None:
    """Stitch all pairs of layers in every way; as controls, layers to themselves, and those of an untrained network."""
    front, end = checkpoints
    grids = [(f"all pairs of layers by {title}", front, *method) for title, method in METHODS.items()]
    directly = METHODS["direct matching"][1]
    grids.append(("control: a network to itself", end, CONTROLS[0], directly))
    grids.append(("control: an untrained network", "-", CONTROLS[1], directly))
    for title, front, name, options in grids:
        stitch_all(folder, title, [front, end], name, options)
        if name in LABEL_ONLY:
            options = [*options, "--control", "labels"]
            stitch_all(folder, f"{title}, on other images of the class", [front, end], f"{name}_labels", options)


def stitch_all(folder: Path, title: str, checkpoints: list[str], name: str, options: list[str]) -> None:
    """Stitch all layers of one network to all of the other, into a folder of results."""
    shutil.rmtree(folder / "results" / name, ignore_errors=True)
    networks = [*checkpoints, MODEL, MODEL, "all", "all", "rc2c_pre"]
    step(f"Stitch {title}", "exec_stitch.py", *networks, *COMMON, *options, "--mod-only-stitch", "-dir", name,
         folder=folder)  # fmt: skip


def judge(folder: Path, checkpoint: str) -> None:
    """Train an OOD detector for every block of the end network, evaluate all grids, and give the verdict."""
    options = [checkpoint, MODEL, "all", *COMMON, *DETECTOR, "-dir", "models/detectors", "-fdir", "models/store"]
    step("Train OOD detectors", "exec_train_representation_classifier.py", *options, folder=folder)
    names = [*(name for name, _ in METHODS.values()), *CONTROLS]
    for name in names:
        options = [f"results/{name}", *COMMON, "-detectors", "models/store", "-scd", "photo_patches"]
        step(f"Are the activations of {name} like the end network's own?", "exec_eval_stitcher_ood.py", *options,
             "--detector", f"energy,{UNTRAINED}" if name in AS_PAPER else UNTRAINED, folder=folder)  # fmt: skip
    folders = [f"results/{name}" for name in (*names, *(f"{name}_labels" for name in LABEL_ONLY))]
    step("Give the verdict", "misc/verdict.py", *folders, "-sim", "similarity.csv", "-o", "verdict.csv", folder=folder)


def compare(folder: Path, checkpoints: list[str]) -> None:
    """Measure the similarity of all pairs of layers, and how everything falls as one layer is cut to fewer ranks."""
    networks = [*checkpoints, MODEL, MODEL]
    script = "exec_compute_low_rank_sim_metrics.py"
    for alignment, name in (("pool", "similarity"), ("auto", "similarity_paper")):
        step(f"Compare all pairs of layers, alignment {alignment}", script, *networks, "all", "all", *COMMON,
             "--alignment", alignment, "-o", f"{name}.csv", folder=folder)  # fmt: skip
    pair = [CUT_LAYER, CUT_LAYER]
    step(f"Compare {CUT_LAYER} at fewer and fewer ranks", script, *networks, *pair, *COMMON, "-m1r", *RANKS,
         "-o", "ranks.csv", folder=folder)  # fmt: skip
    step(f"Probe {CUT_LAYER} at these ranks", "exec_probe.py", checkpoints[0], MODEL, "-l", CUT_LAYER, *COMMON,
         "-ranks", *RANKS, "-lr", "1e-2", "-o", "probes.csv", folder=folder)  # fmt: skip
    shutil.rmtree(folder / "results" / "demo_ranks", ignore_errors=True)
    for rank in RANKS:
        options = ["-i", "pinv", "-e", "0", "--front-stitch-rank", rank, "--front-pinv-rank", rank, "-b", "512"]
        step(f"Stitch {CUT_LAYER} by direct matching at rank {rank}", "exec_stitch.py", *networks, *pair, "rc2c_pre",
             *COMMON, *options, "--mod-only-stitch", "-dir", "demo_ranks", folder=folder)  # fmt: skip
    step("Collect them", "misc/collect_results.py", "results/demo_ranks", folder=folder)
    tables = ["ranks.csv", "probes.csv", "results/demo_ranks/grid.csv"]
    step("Draw the sensitivity curves", "misc/sensitivity_figure.py", *tables, "-o", "sensitivity.png", folder=folder)
    step("Test which measure can be trusted", "misc/rank_statistics.py", *tables, "similarity.csv",
         "results/demo_dm/grid.csv", "-o", "statistics.csv", folder=folder)  # fmt: skip


def report(folder: Path) -> Path:
    """Write the report and its figures; returns the path of the report."""
    names = {title: name for title, (name, _) in METHODS.items()}
    grids = {title: read(folder / "results" / name / "grid.csv") for title, name in names.items()}
    evaluations = {title: read(folder / "results" / name / "ood_evaluation_rmd.csv") for title, name in names.items()}
    row = next(iter(grids.values()))[0]
    lines = [
        "# Stitching two networks that read handwritten digits",
        "",
        f"Two `{MODEL}` were trained on `digits` with different seeds; on the test images they reach "
        f"{float(row['front_accuracy']):.1%} (front) and {float(row['end_accuracy']):.1%} (end). Every layer of "
        f"the one was stitched to every layer of the other, by {', '.join(METHODS)}; training went on from direct "
        "matching. Density and recall say whether stitched activations lie where the end network's own do, and "
        "detectors looked at them as well: two that need no training, and for direct and task loss matching those "
        "of the paper, which learned to tell activations of digits from those of patches of photographs.",
        "",
        "![verdict](verdict.png)",
        "",
        *(folder / "verdict.md").read_text().splitlines()[2:],
        "",
        "Similarity without stitching; the distances are 0 where layers are equal:",
        "",
        "![similarity](similarity.png)",
        "",
        *similarity_finding(read(folder / "statistics.csv")),
        "",
        "The same with the paper's alignment, which takes positions as samples where shapes agree:",
        "",
        "![similarity, as in the paper](similarity_paper.png)",
        "",
        f"Cut to fewer principal components, `{CUT_LAYER}` of the front network keeps less of what probes, stitching "
        "and measures find in it:",
        "",
        "![sensitivity](sensitivity.png)",
    ]
    below = caption(networks=f"two {MODEL}", data="digits", method="rc2c_pre", detector="relative Mahalanobis")
    for name, title, table in (("accuracy", "accuracy", grids), ("auroc", "AUROC", evaluations)):
        matrices = {f"{title} of {method}": matrix(rows, name) for method, rows in table.items()}
        panels = {
            heading: HeatMap(Matrix(LAYERS, LAYERS, values), is_diverging=name == "auroc")
            for heading, values in matrices.items()
        }
        maps(folder / f"{name}.png", panels, row_label="front layer", column_label="end layer", caption=below)
        lines += ["", f"![{title}]({name}.png)"]
        for heading, values in matrices.items():
            lines += ["", f"## {capital(heading)}", "", *markdown(values)]
    write_text(folder / "report.md", "\n".join(lines) + "\n")
    return folder / "report.md"


def similarity_finding(rows: list[Row]) -> list[str]:
    """Write one sentence that says how often the layer of the same name is the most similar one."""
    parts = []
    for measure, title in {**MEASURES, "stitching accuracy": "stitching by direct matching"}.items():
        places = [row["place"] for row in rows if row["test"] == "specificity" and row["measure"] == measure]
        parts.append(f"{title} {sum(float(place) == 1 for place in places)} times of {len(places)}")
    return [f"**The layer of the same name comes first by {', '.join(parts)}.**"]


def capital(text: str) -> str:
    """Return the text with a capital in front, the rest as it is."""
    return text[0].upper() + text[1:]


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV."""
    with open(path) as file:
        return list(csv.DictReader(file))


def matrix(rows: list[Row], name: str) -> list[list[float]]:
    """One column of a table as a matrix, front layers × end layers."""
    values = {(row["front_layer"], row["end_layer"]): float(row[name]) for row in rows}
    return [[values[front, end] for end in LAYERS] for front in LAYERS]


def markdown(values: list[list[float]]) -> list[str]:
    """Write a matrix in Markdown."""
    lines = [f"| front \\ end | {' | '.join(LAYERS)} |", f"|---{'|---' * len(LAYERS)}|"]
    for layer, line in zip(LAYERS, values, strict=True):
        lines.append(f"| **{layer}** | {' | '.join(f'{value:.2f}' for value in line)} |")
    return lines


def parser() -> cli.Parser:
    options = cli.Parser("Run the paper on the embedded digits, and report; a few minutes on two cores.")
    options.add_argument("folder", nargs="?", default="demo", help="folder to write to")
    return options


def run(args) -> None:
    folder = Path(args.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = train(folder)
    stitch(folder, checkpoints)
    compare(folder, checkpoints)
    judge(folder, checkpoints[1])
    result(str(report(folder)))


def main(argv=None) -> int:
    return cli.run(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
