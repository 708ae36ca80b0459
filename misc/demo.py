#!/usr/bin/env python3
"""The paper on embedded digits: train two networks, stitch layers in four ways, judge, and report.

Every step is a command that could be typed; it is printed before it runs, and writes the files of
the command. All steps run in this process, and share networks and images. Give the same line again
after an interruption: finished steps are left out, and the interrupted one goes on.
"""

import contextlib
import csv
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import exec_compute_low_rank_sim_metrics
import exec_eval_stitcher_ood
import exec_probe
import exec_stitch
import exec_train
from misc import collect_results, rank_statistics, sensitivity_figure, verdict
from src import cli
from src.choices.similarity import measure_of
from src.ground.console import note, result
from src.ground.files import write_text
from src.verdict import LOST, SIMILAR, UNDECIDED, VERDICTS, Limits

if TYPE_CHECKING:
    from src.runs.session import Session

MODEL = "small_cnn"
LAYERS = "all"  # its four blocks
DATA = "-d mnist5k -gpu -1"
FRONT, END = "models/0/model_15.pt", "models/1/model_15.pt"
TRAINING = "-e 15 -b 32 -lr 3e-3 -sched cosine"

# The learning rate decays to 0, so that a training converges and the results depend little on the
# rounding of the processor
MATCHED = "-pinv-samples auto -e 0"
TRAINED = "-i rand -e 20 -b 128 -lr 1e-2 -sched cosine"
PAPER = {  # title of the paper's method: (folder in results/, options of exec_stitch.py)
    "direct matching": ("dm", f"-i pinv --pinv-cutoff exact {MATCHED}"),
    "task loss matching": ("tlm", TRAINED),
}
FURTHER = {  # other closed forms, likewise
    "repair": ("repair", f"-i repair --pinv-cutoff exact {MATCHED}"),
    "covariance": ("covariance", f"-i covariance {MATCHED}"),
}
METHODS = PAPER | FURTHER
CONTROLS = {  # title: (folder in results/, front network)
    "a network to itself": ("self", END),
    "an untrained network": ("untrained", "-"),
}
PICTURE = "paper.png"  # of the verdict on the paper's two methods

CUT = "pool3"  # the layer of the front network that is cut to fewer ranks
RANKS = (64, 16, 8, 4, 2, 1)
MEASURES = {"cka": "linear CKA", "pwcca": "PWCCA", "procrustes": "Procrustes"}

Row = dict[str, str]


class Script(NamedTuple):
    """A script, and the function that its command line calls."""

    module: ModuleType
    function: Callable[..., None]


SCRIPTS = {
    "exec_train.py": Script(exec_train, exec_train.train),
    "exec_stitch.py": Script(exec_stitch, exec_stitch.stitch),
    "exec_eval_stitcher_ood.py": Script(exec_eval_stitcher_ood, exec_eval_stitcher_ood.evaluate),
    "exec_probe.py": Script(exec_probe, exec_probe.probe),
    "exec_compute_low_rank_sim_metrics.py": Script(
        exec_compute_low_rank_sim_metrics, exec_compute_low_rank_sim_metrics.compute
    ),
    "misc/verdict.py": Script(verdict, verdict.give_verdict),
    "misc/collect_results.py": Script(collect_results, collect_results.collect),
    "misc/sensitivity_figure.py": Script(sensitivity_figure, sensitivity_figure.draw),
    "misc/rank_statistics.py": Script(rank_statistics, rank_statistics.statistics),
}


class Step(NamedTuple):
    """A command, to be typed in the demo's folder."""

    title: str
    script: str  # a key of `SCRIPTS`
    options: str
    picture: str = ""  # a figure that it draws, to look at while the demo goes on

    @property
    def command(self) -> str:
        """The line that a user would type."""
        return f"python {shlex.quote(str(ROOT / self.script))} {self.options}"


def steps() -> Iterator[Step]:
    """Yield all steps in their order: what the first picture shows comes first."""
    for seed in (0, 1):
        options = f"{MODEL} {DATA} {TRAINING} -s {seed} -dir models/{seed} --resume"
        yield Step(f"Train network {seed}", "exec_train.py", options)

    yield from stitch_by(PAPER)
    folders = results_of(PAPER.values())
    options = f"{folders} -o {Path(PICTURE).with_suffix('.csv')}"
    yield Step("Judge the paper's two methods", "misc/verdict.py", options, PICTURE)

    yield from stitch_by(FURTHER)
    matching = PAPER["direct matching"][1]
    for title, (folder, front) in CONTROLS.items():
        yield stitch(f"layers of {title}", front, folder, matching)
        yield evaluate(folder)

    yield from compare()
    yield from cut_to_fewer_ranks()
    yield from judge()


def stitch_by(methods: dict[str, tuple[str, str]]) -> Iterator[Step]:
    """Yield the steps that stitch by some methods, and that evaluate these stitches."""
    for title, (folder, options) in methods.items():
        yield stitch(f"layers by {title}", FRONT, folder, options)
        yield evaluate(folder)


def stitch(title: str, front: str, folder: str, options: str) -> Step:
    """Return the step that stitches all pairs of `LAYERS`, into a folder of results."""
    networks = f"{front} {END} {MODEL} {MODEL} {LAYERS} {LAYERS} rc2c_pre {DATA}"
    options = f"{networks} {options} --mod-only-stitch -dir {folder} --resume"
    return Step(f"Stitch {title}", "exec_stitch.py", options)


def evaluate(folder: str) -> Step:
    """Return the step that asks which images the stitches of a folder show."""
    options = f"results/{folder} {DATA} --detector mahalanobis"
    return Step(f"Which images does {folder} show?", "exec_eval_stitcher_ood.py", options)


def compare() -> Iterator[Step]:
    """Yield the step that measures the similarity of all pairs of `LAYERS`."""
    networks = f"{FRONT} {END} {MODEL} {MODEL} {LAYERS} {LAYERS} {DATA}"
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


def judge() -> Iterator[Step]:
    """Yield the steps that give the verdicts: on the methods, and on the controls."""
    options = f"{results_of(METHODS.values())} -sim similarity.csv -o verdict.csv"
    yield Step("Give the verdict", "misc/verdict.py", options)
    options = f"{results_of(CONTROLS.values())} -o controls.csv"
    yield Step("Give the verdict on the controls", "misc/verdict.py", options)


def results_of(experiments: Iterable[tuple[str, str]]) -> str:
    """Return the folders of results of some experiments, with blanks between them."""
    return " ".join(f"results/{folder}" for folder, _ in experiments)


def take(todo: Sequence[Step]) -> None:
    """Run the steps that have not finished in the working folder. A step that fails ends the
    demo."""
    from src.runs.session import Session

    log = Path("steps.txt")
    finished = log.read_text().splitlines() if log.exists() else []
    session = Session()
    for number, step in enumerate(todo, start=1):
        if step.command in finished:
            continue
        note(f"\n# Step {number} of {len(todo)}. {step.title}\n{step.command}")
        start = time.monotonic()
        status = run_step(step, session)
        if status:
            note("To go on with this step, give the command of the demo again")
            sys.exit(status)
        with open(log, "a") as file:
            print(step.command, file=file)
        note(f"{time.monotonic() - start:.1f} s")
        if step.picture:
            note(f"\nThe first picture is {Path(step.picture).resolve()}")


def run_step(step: Step, session: "Session") -> int:
    """Run a step in this process, as its command line does; return the exit code."""
    words = [str(ROOT / step.script), *shlex.split(step.options)]
    module, function = SCRIPTS[step.script]
    experiment = function
    if step.script.startswith("exec_"):  # the other scripts read tables
        experiment = partial(function, session=session)
    words_of_demo = sys.argv
    sys.argv = words  # which the files record as their command
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return cli.run(module.parser(), experiment, words[1:])
    finally:
        sys.argv = words_of_demo


def report(folder: Path) -> Path:
    """Write the report, a short article on the results of the steps; return its path."""
    draw_backwards(folder)
    verdicts = read(folder / "verdict.csv")
    controls = read(folder / "controls.csv")
    sections = [
        "# Stitching two networks that read handwritten digits",
        question(read(folder / "results/dm/grid.csv")[0]),
        answer(verdicts),
        f"![Accuracy, identification and verdict of all pairs of layers, by two methods]({PICTURE})",
        f"*Figure 1. The paper's two methods, {' and '.join(PAPER)}. Rows are front layers, columns "
        "are end layers. An AUROC near 1 says that a detector tells the stitched activations from the "
        "end network's own: it has never seen such activations.*",
        "## Where is the image lost?",
        backwards(verdicts),
        "![Share of identified images from the end layer to the output](backwards.png)",
        "*Figure 2. Stitches backwards through the network: the share of identified images at the end "
        "layer, at each block behind it, and in the output.*",
        "## Other closed forms",
        f"Direct matching is least squares. Two other closed forms, {' and '.join(FURTHER)}, keep "
        "the spread of the activations, which least squares shrinks. The verdicts on all pairs:",
        table_of(verdicts),
        "![Accuracy, identification and verdict of all pairs of layers](verdict.png)",
        "*Figure 3. As Figure 1, for all four methods.*",
        "## How sure is that?",
        certainty(verdicts, controls),
        "## What do measures of similarity say?",
        specificity(read(folder / "statistics.csv")),
        "![Similarity of all pairs of layers](similarity.png)",
        "*Figure 4. Linear CKA, and the distances of PWCCA and Procrustes, between activations that "
        "were averaged over positions.*",
        sensitivity(read(folder / "ranks.csv"), read(folder / "probes.csv")),
        "![Probes, stitching and measures over the rank of a layer](sensitivity.png)",
        f"*Figure 5. Accuracy of probes and stitches, and similarity, over the rank of `{CUT}`.*",
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
        "Each block of the front network was stitched to each of the end network, in four ways: "
        f"{', '.join(METHODS)}. A pair of layers is *similar* if two things "
        "hold: the stitched network is as accurate as the end network; and each image can be "
        "recognised, from the stitched layer to the output, as the image that it is."
    )


def answer(rows: Sequence[Row]) -> str:
    """Return a sentence that counts the accurate pairs of each method, and the similar ones."""
    parts = []
    for method, verdicts in verdicts_by_method(rows).items():
        n_similar = verdicts[SIMILAR]
        n_accurate = n_similar + verdicts[LOST]
        parts.append(f"by {method} {n_accurate} are accurate, and {n_similar} similar")
    return f"**Of {verdicts.total()} pairs of layers, {'; '.join(parts)}.**"


def table_of(rows: Sequence[Row]) -> str:
    """Return a table that counts the verdicts of each method."""
    lines = [
        f"| method | {' | '.join(VERDICTS)} |",
        f"|---|{'---|' * len(VERDICTS)}",
    ]
    for method, verdicts in verdicts_by_method(rows).items():
        cells = " | ".join(str(verdicts[word]) for word in VERDICTS)
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
    for method in PAPER:
        lines: dict[str, dict[str, float]] = {}
        for row in rows:
            front = row["front_layer"]
            end = row["end_layer"]
            if row["method"] == method and depths.index(front) > depths.index(end):
                lines.setdefault(f"{front} → {end}", {})[row["layer"]] = float(row["share"])
        panels.append(
            CurvePanel(
                lines,
                "identified images",
                (0.4, 1.0),
                title=method,
                limit=Limits().identification,
            )
        )
    curves(
        folder / "backwards.png",
        panels,
        x_label="layer of the end network",
        layers=unique(rows, "layer"),
        caption=f"Stitches backwards through the network, by two methods. The image is lost where a line "
        f"falls below {Limits().identification:g}; chance is 0.5.",
    )


def certainty(rows: Sequence[Row], controls: Sequence[Row]) -> str:
    """Return sentences on undecided verdicts, on intervals and on the controls."""
    n_undecided = sum(row["verdict"] == UNDECIDED for row in rows)
    widths = [
        float(row["penalty_high"]) - float(row["penalty_low"])
        for row in rows
        if row["penalty_low"] not in ("", "nan")
    ]
    own_layers = [
        row["verdict"] == SIMILAR
        for row in controls
        if row["control"] == "self" and row["front_layer"] == row["end_layer"]
    ]
    untrained = [row["verdict"] == SIMILAR for row in controls if row["control"] == "fresh"]
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


def sensitivity(ranks: Sequence[Row], probes: Sequence[Row]) -> str:
    """Return sentences on what the measures do where a layer is cut to fewer and fewer ranks."""
    accuracies = [float(row["accuracy"]) for row in probes]
    rises = []
    parts = []
    for measure, title in MEASURES.items():
        first, *_, last = [measure_of(measure).similarity(float(row[measure])) for row in ranks]
        if last > first:
            rises.append(title)
        verb = "rises" if last > first else "falls"
        parts.append(f"{title} {verb} from {first:.2f} to {last:.2f}")
    text = (
        f"In Figure 5, `{CUT}` of the front network is cut to fewer and fewer principal components. "
        f"From {RANKS[0]} components to {RANKS[-1]}, the accuracy of linear probes falls from "
        f"{accuracies[0]:.1%} to {accuracies[-1]:.1%}: less and less of the classes is left. A "
        "measure is sensitive if it falls with the probes. As similarities, where 1 is equal, "
        f"{', '.join(parts)}."
    )
    if rises:
        text += (
            f" {' and '.join(rises)} calls the layer the more similar, the less is left of it: it "
            "compares the directions that remain, and does not see that others are gone."
        )
    return text


def unique(rows: Sequence[Row], column: str) -> list[str]:
    """Return the distinct values of a column in their order."""
    return list(dict.fromkeys(row[column] for row in rows))


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV."""
    with open(path) as file:
        return list(csv.DictReader(file))


def parser() -> cli.Parser:
    options = cli.Parser(
        "Run the paper on embedded digits, and report; two minutes on two cores. Give the same "
        "command again after an interruption."
    )
    options.add_argument("folder", nargs="?", default="demo", help="folder to write to")
    return options


def run(args) -> None:
    import torch

    # Threads that share images of 8×8 pixels wait for each other, beside other work ten times as
    # long as they compute
    torch.set_num_threads(1)
    folder = Path(args.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    note(f"All files go to {folder}")
    before = os.getcwd()
    os.chdir(folder)
    try:
        take(list(steps()))
    finally:
        os.chdir(before)
    result(str(report(folder)))


def main(argv=None) -> int:
    return cli.run(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
