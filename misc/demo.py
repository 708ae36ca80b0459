#!/usr/bin/env python3
"""The paper on embedded digits: train two networks, stitch layers in four ways, judge, and report.

Every step is a command that could be typed; it is printed before it runs. Give the same line again
after an interruption: finished steps are left out, and the interrupted one goes on.
"""

import csv
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src import cli
from src.ground.console import note, result
from src.ground.files import write_text

MODEL = "resnet18_samewidth"
DATA = "-d mnist5k -gpu -1"
FRONT, END = "models/0/model_8.pt", "models/1/model_8.pt"
LAYERS = "layer*.1"  # the last block of each of the four stages
TRAINING = "-e 8 -b 64 -lr 3e-3 -sched cosine"

# Training starts from least squares. Its learning rate decays to 0, so that the training converges
# and the results depend little on the rounding of the processor.
MATCHED = "-pinv-samples auto -e 0"
TRAINED = "-i pinv -pinv-samples 1000 -e 12 -b 128 -lr 3e-3 -sched cosine"
METHODS = {  # title: (folder in results/, options of exec_stitch.py)
    "direct matching": ("dm", f"-i pinv --pinv-cutoff exact {MATCHED}"),
    "repair": ("repair", f"-i repair --pinv-cutoff exact {MATCHED}"),
    "covariance": ("covariance", f"-i covariance {MATCHED}"),
    "task loss matching": ("tlm", TRAINED),
}
CONTROLS = {  # title: (folder in results/, front network)
    "a network to itself": ("self", END),
    "an untrained network": ("untrained", "-"),
}

DETECTED = "layer3.1"  # the layer of the end network that gets one of the paper's detectors
DETECTOR = "-m repr_cls_resnet18 -e 1 -fe 1 -ftidd mnist5k -ftoodd photo_patches"
CUT = "layer3.1"  # the layer of the front network that is cut to fewer ranks
RANKS = (64, 16, 8, 4, 2, 1)
MEASURES = {"cka": "linear CKA", "pwcca": "PWCCA", "procrustes": "Procrustes"}
VERDICTS = ("similar", "the image is lost", "not matched", "undecided")
ACCURATE = ("similar", "the image is lost")
COMPARED = ("direct matching", "task loss matching")  # in the figure of the way

Row = dict[str, str]


class Step(NamedTuple):
    """A command, to be typed in the demo's folder."""

    title: str
    script: str
    options: str

    @property
    def command(self) -> str:
        """The line that a user would type."""
        return f"python {shlex.quote(str(ROOT / self.script))} {self.options}"


def steps() -> Iterator[Step]:
    """Yield all steps in their order."""
    for seed in (0, 1):
        options = f"{MODEL} {DATA} {TRAINING} -s {seed} -dir models/{seed} --resume"
        yield Step(f"Train network {seed}", "exec_train.py", options)

    for title, (folder, options) in METHODS.items():
        yield stitch(f"layers by {title}", FRONT, folder, options)
    matching = METHODS["direct matching"][1]
    for title, (folder, front) in CONTROLS.items():
        yield stitch(f"layers of {title}", front, folder, matching)

    yield from compare()
    yield from cut_to_fewer_ranks()
    yield from evaluate()
    yield from judge()


def stitch(title: str, front: str, folder: str, options: str) -> Step:
    """Return the step that stitches all pairs of `LAYERS`, into a folder of results."""
    networks = f"{front} {END} {MODEL} {MODEL} '{LAYERS}' '{LAYERS}' rc2c_pre {DATA}"
    options = f"{networks} {options} --mod-only-stitch -dir {folder} --resume"
    return Step(f"Stitch {title}", "exec_stitch.py", options)


def compare() -> Iterator[Step]:
    """Yield the step that measures the similarity of all pairs of `LAYERS`."""
    networks = f"{FRONT} {END} {MODEL} {MODEL} '{LAYERS}' '{LAYERS}' {DATA}"
    options = f"{networks} --metrics {' '.join(MEASURES)} --alignment pool -o similarity.csv"
    yield Step("Compare layers", "exec_compute_low_rank_sim_metrics.py", options)


def cut_to_fewer_ranks() -> Iterator[Step]:
    """Yield the steps that compare, probe and stitch a layer cut to few principal components."""
    ranks = " ".join(map(str, RANKS))
    pair = f"{FRONT} {END} {MODEL} {MODEL} {CUT} {CUT}"
    options = f"{pair} {DATA} --metrics {' '.join(MEASURES)} -m1r {ranks} -o ranks.csv"
    script = "exec_compute_low_rank_sim_metrics.py"
    yield Step(f"Compare {CUT} at fewer and fewer ranks", script, options)

    options = f"{FRONT} {MODEL} -l {CUT} {DATA} -ranks {ranks} -lr 1e-2 -o probes.csv --resume"
    yield Step(f"Probe {CUT} at these ranks", "exec_probe.py", options)

    for rank in RANKS:
        cut = f"--front-stitch-rank {rank} --front-pinv-rank {rank}"
        options = f"{pair} rc2c_pre {DATA} -i pinv -pinv-samples 1000 -e 0 -b 512 {cut}"
        options = f"{options} --mod-only-stitch -dir ranks --resume"
        yield Step(f"Stitch {CUT} by direct matching at rank {rank}", "exec_stitch.py", options)
    yield Step("Collect these stitches", "misc/collect_results.py", "results/ranks")

    tables = "ranks.csv probes.csv results/ranks/grid.csv"
    options = f"{tables} -o sensitivity.png"
    yield Step("Draw the sensitivity curves", "misc/sensitivity_figure.py", options)
    options = f"{tables} similarity.csv results/dm/grid.csv -o statistics.csv"
    yield Step("Test which measure can be trusted", "misc/rank_statistics.py", options)


def evaluate() -> Iterator[Step]:
    """Yield the steps that ask whether stitched activations are like the end network's own."""
    store = "-dir models/detectors -fdir models/store"
    options = f"{END} {MODEL} {DETECTED} {DATA} {DETECTOR} {store} --resume"
    yield Step("Train an OOD detector", "exec_train_representation_classifier.py", options)

    paper = ("dm", "tlm")  # the paper's two methods are evaluated by the paper's detector as well
    for folder, _ in (*METHODS.values(), *CONTROLS.values()):
        detectors = "energy,mahalanobis" if folder in paper else "mahalanobis"
        options = f"results/{folder} {DATA} -detectors models/store -scd photo_patches"
        options = f"{options} --detector {detectors}"
        title = f"Are the activations of {folder} like the end network's own?"
        yield Step(title, "exec_eval_stitcher_ood.py", options)


def judge() -> Iterator[Step]:
    """Yield the steps that give the verdicts: on the methods, and on the controls."""
    script = "misc/verdict.py"
    folders = " ".join(f"results/{folder}" for folder, _ in METHODS.values())
    options = f"{folders} -sim similarity.csv -o verdict.csv"
    yield Step("Give the verdict", script, options)
    folders = " ".join(f"results/{folder}" for folder, _ in CONTROLS.values())
    yield Step("Give the verdict on the controls", script, f"{folders} -o controls.csv")


def take(todo: Sequence[Step], folder: Path) -> None:
    """Run the steps that have not finished in this folder. A step that fails ends the demo."""
    log = folder / "steps.txt"
    finished = log.read_text().splitlines() if log.exists() else []
    for number, step in enumerate(todo, start=1):
        if step.command in finished:
            continue
        note(f"\n# Step {number} of {len(todo)}. {step.title}\n{step.command}")
        words = [sys.executable, str(ROOT / step.script), *shlex.split(step.options)]
        status = subprocess.run(words, cwd=folder, stdout=sys.stderr).returncode
        if status:
            sys.exit(status)
        with open(log, "a") as file:
            print(step.command, file=file)


def report(folder: Path) -> Path:
    """Write the report, a short article on the results of the steps; return its path."""
    draw_backwards(folder)
    verdicts = read(folder / "verdict.csv")
    controls = read(folder / "controls.csv")
    sections = [
        "# Stitching two networks that read handwritten digits",
        question(read(folder / "results/dm/grid.csv")[0]),
        answer(verdicts),
        "## What came out",
        table_of(verdicts),
        "![Accuracy, identification and verdict of all pairs of layers](verdict.png)",
        "*Figure 1. Rows of panels are methods. In each panel, rows are front layers and columns are "
        "end layers.*",
        "## Where is the image lost?",
        backwards(verdicts),
        "![Share of identified images from the end layer to the output](backwards.png)",
        "*Figure 2. Stitches backwards through the network: the share of identified images at the end "
        "layer, at each block behind it, and in the output.*",
        "## How sure is that?",
        certainty(verdicts, controls),
        "## What do measures of similarity say?",
        specificity(read(folder / "statistics.csv")),
        "![Similarity of all pairs of layers](similarity.png)",
        "*Figure 3. Linear CKA, and the distances of PWCCA and Procrustes, between activations that "
        "were averaged over positions.*",
        f"In Figure 4, `{CUT}` of the front network is cut to fewer and fewer principal components. "
        "Linear probes say how much of the classes is left. A measure is sensitive if it falls "
        "where the probes fall.",
        "![Probes, stitching and measures over the rank of a layer](sensitivity.png)",
        f"*Figure 4. Accuracy of probes and stitches, and similarity, over the rank of `{CUT}`.*",
        "## The rule, in full",
        *(folder / "verdict.md").read_text().splitlines()[2:],
        "## The commands",
        "```bash\n" + "\n".join(step.command for step in steps()) + "\n```",
    ]
    write_text(folder / "report.md", "\n\n".join(filter(None, sections)) + "\n")
    return folder / "report.md"


def question(row: Row) -> str:
    """Return the paragraph with the question of the demo, from the row of a stitch."""
    front_accuracy = float(row["front_accuracy"])
    end_accuracy = float(row["end_accuracy"])
    return (
        f"Two networks of the type `{MODEL}` were trained on 3,000 digits, with different seeds. "
        f"They classify {front_accuracy:.1%} (front) and {end_accuracy:.1%} (end) of "
        f"{row['n_images']} test images correctly. Which of their layers are functionally similar? "
        "The last block of each stage of the front network was stitched to each of the end "
        f"network, in four ways: {', '.join(METHODS)}. A pair of layers is *similar* if two things "
        "hold: the stitched network is as accurate as the end network; and each image can be "
        "recognised, from the stitched layer to the output, as the image that it is."
    )


def answer(rows: Sequence[Row]) -> str:
    """Return a sentence that counts the accurate pairs of each method, and the similar ones."""
    parts = []
    for method, verdicts in verdicts_by_method(rows).items():
        n_accurate = sum(verdicts[verdict] for verdict in ACCURATE)
        parts.append(f"by {method} {n_accurate} are accurate, and {verdicts['similar']} similar")
    return f"**Of {verdicts.total()} pairs of layers, {'; '.join(parts)}.**"


def table_of(rows: Sequence[Row]) -> str:
    """Return a table that counts the verdicts of each method."""
    lines = [
        f"| method | {' | '.join(VERDICTS)} |",
        f"|---|{'---|' * len(VERDICTS)}",
    ]
    for method, verdicts in verdicts_by_method(rows).items():
        cells = " | ".join(str(verdicts[verdict]) for verdict in VERDICTS)
        lines.append(f"| {method} | {cells} |")
    return "\n".join(lines)


def verdicts_by_method(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """Return the number of pairs of layers with each verdict, by method."""
    return {
        method: Counter(row["verdict"] for row in rows if row["method"] == method)
        for method in unique(rows, "method")
    }


def backwards(rows: Sequence[Row]) -> str:
    """Return a list of what each method makes of the stitch from the last to the first layer."""
    last, first = unique(rows, "front_layer")[-1], unique(rows, "end_layer")[0]
    lines = [
        f"Backwards through the network, from `{last}` to `{first}`, a stitch should fail. By "
        "chance, 10% of the images are classified correctly, and 50% are identified. Of the stitches,",
        "",
    ]
    for row in rows:
        if (row["front_layer"], row["end_layer"]) == (last, first):
            accuracy = float(row["accuracy"])
            identification = float(row["identification"])
            lines.append(
                f"* {row['method']} classifies {accuracy:.1%} correctly, and identifies "
                f"{identification:.1%};"
            )
    return "\n".join(lines).removesuffix(";") + "."


def draw_backwards(folder: Path) -> None:
    """Draw the way of the stitches from later to earlier layers, by two methods."""
    from src.reports.curves import CurvePanel, curves

    rows = read(folder / "verdict_way.csv")
    depths = unique(rows, "end_layer")
    panels = []
    for method in COMPARED:
        lines: dict[str, dict[str, float]] = {}
        for row in rows:
            front = row["front_layer"]
            end = row["end_layer"]
            if row["method"] == method and depths.index(front) > depths.index(end):
                lines.setdefault(f"{front} → {end}", {})[row["layer"]] = float(row["share"])
        panels.append(CurvePanel(lines, "identified images", (0.4, 1.0), title=method, limit=0.75))
    curves(
        folder / "backwards.png",
        panels,
        x_label="layer of the end network",
        layers=unique(rows, "layer"),
    )


def certainty(rows: Sequence[Row], controls: Sequence[Row]) -> str:
    """Return sentences on undecided verdicts, on intervals and on the controls."""
    n_undecided = sum(row["verdict"] == "undecided" for row in rows)
    widths = [
        float(row["penalty_high"]) - float(row["penalty_low"])
        for row in rows
        if row["penalty_low"] not in ("", "nan")
    ]
    own_layers = [
        row["verdict"] == "similar"
        for row in controls
        if row["control"] == "self" and row["front_layer"] == row["end_layer"]
    ]
    untrained = [row["verdict"] == "similar" for row in controls if row["control"] == "fresh"]
    return (
        f"Of {len(rows)} verdicts {n_undecided} are undecided. The losses of accuracy have "
        f"intervals (95%) that are at most {100 * max(widths):.1f} points wide. They are over test "
        "images: two other networks may give other numbers.\n\n"
        f"Controls: of {len(own_layers)} layers stitched to themselves {sum(own_layers)} are "
        f"similar (all must be); of {len(untrained)} stitches from a network that was never "
        f"trained {sum(untrained)} are (none may be)."
    )


def specificity(rows: Sequence[Row]) -> str:
    """Return a sentence on how often each measure ranks the layer of the same name first."""
    titles = MEASURES | {"stitching accuracy": "the accuracy of direct matching"}
    parts = []
    for measure, title in titles.items():
        places = [
            float(row["place"])
            for row in rows
            if row["test"] == "specificity" and row["measure"] == measure
        ]
        parts.append(f"{title} {places.count(1)} of {len(places)} times")
    return (
        "Which layer of the one network is the most similar to a layer of the other? It should be "
        f"the layer of the same name. It is, by {', '.join(parts)}."
    )


def unique(rows: Sequence[Row], column: str) -> list[str]:
    """Return the distinct values of a column in their order."""
    return list(dict.fromkeys(row[column] for row in rows))


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV."""
    with open(path) as file:
        return list(csv.DictReader(file))


def parser() -> cli.Parser:
    options = cli.Parser(
        "Run the paper on embedded digits, and report; a few minutes on two cores."
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
