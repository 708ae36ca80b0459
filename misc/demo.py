#!/usr/bin/env python3
"""The paper on embedded digits: train two networks, stitch layers in four ways, judge, and report.

Every step is a command that could be typed; it is printed, and writes the files of the command, but
only the figures that the report shows. Its own output goes to a log. On two cores, steps that do not
need each other run side by side. Give the same line again after an interruption: finished steps are
left out, and interrupted ones go on.
"""

import contextlib
import csv
import functools
import inspect
import io
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import exec_compute_low_rank_sim_metrics
import exec_eval_stitcher_ood
import exec_probe
import exec_stitch
import exec_train
from misc import collect_results, rank_statistics, sensitivity_figure, verdict
from misc import report as page
from src import cli
from src.choices.similarity import measure_of
from src.cli.groups import n_cores
from src.ground.console import note, result
from src.ground.errors import UserError
from src.ground.figures import left_out
from src.ground.files import write_text
from src.verdict import ACCURATE_ONLY, SIMILAR, UNDECIDED

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
DIRECT = f"-i pinv --pinv-cutoff exact {MATCHED}"
PAPER = {  # title of the paper's method: (folder in results/, front network, options)
    "direct matching": ("dm", FRONT, DIRECT),
    "task loss matching": ("tlm", FRONT, TRAINED),
}
FURTHER = {  # other closed forms, likewise
    "repair": ("repair", FRONT, f"-i repair --pinv-cutoff exact {MATCHED}"),
    "covariance": ("covariance", FRONT, f"-i covariance {MATCHED}"),
}
METHODS = PAPER | FURTHER
CONTROLS = {
    "a network to itself": ("self", END, DIRECT),
    "an untrained network": ("untrained", "-", DIRECT),
}
PICTURE = "paper.png"  # of the verdict on the paper's two methods
PAGE = "page.html"

CUT = "pool3"  # the layer of the front network that is cut to fewer ranks
RANKS = (64, 16, 8, 4, 2, 1)
MEASURES = {"cka": "linear CKA", "pwcca": "PWCCA", "procrustes": "Procrustes"}

FINISHED = "steps.txt"  # the commands that have finished
LOG = "log.txt"  # the commands with their outputs

Row = dict[str, str]


class Step(NamedTuple):
    """A command, to be typed in the demo's folder."""

    title: str
    function: Callable[..., None]  # that the script calls
    options: str
    output: str  # the file or folder that it writes
    figures: Sequence[str] = ()  # that the report shows

    @property
    def command(self) -> str:
        """The line that a user would type."""
        return self.command_by(inspect.getfile(self.function))

    def command_in(self, folder: Path) -> str:
        """The line that a user would type in a folder, with the path of the script from there."""
        return self.command_by(os.path.relpath(inspect.getfile(self.function), folder))

    def command_by(self, script: str) -> str:
        """The line that a user would type, with this path of the script."""
        return f"python {shlex.quote(script)} {self.options}"

    @property
    def text(self) -> str:
        """The title and the command, as lines of bash."""
        return f"# {self.title}\n{self.command}"

    def waits_for(self, earlier: "Step") -> bool:
        """Return whether an earlier step writes a file that this step reads or writes."""
        return earlier.output in self.options or earlier.output == self.output


class Outcome(NamedTuple):
    """The end of a step."""

    status: int  # its exit code
    output: str
    seconds: float


def steps() -> Iterator[Step]:
    """Yield all steps in order: the steps of the first picture come first."""
    for seed in (0, 1):
        folder = f"models/{seed}"
        options = f"{MODEL} {DATA} {TRAINING} -s {seed} -dir {folder} --resume"
        yield Step(f"Train network {seed}", exec_train.train, options, folder)

    yield from stitch_all(dict(reversed(PAPER.items())))  # the longest training first
    table = "paper.csv"
    options = f"{results_of(PAPER)} -o {table}"
    title = "Judge the paper's two methods"
    yield Step(title, verdict.give_verdict, options, table, [PICTURE])

    yield from stitch_all(FURTHER | CONTROLS)

    yield compare("layers", LAYERS, "--alignment pool", "similarity.csv", ["similarity.png"])
    yield from cut_to_fewer_ranks()

    table = "verdict.csv"
    options = f"{results_of(METHODS)} -sim similarity.csv -o {table}"
    yield Step("Give the verdict", verdict.give_verdict, options, table, ["verdict.png"])
    table = "controls.csv"
    options = f"{results_of(CONTROLS)} -o {table}"
    yield Step("Give the verdict on the controls", verdict.give_verdict, options, table)
    options = f"{results_of(PAPER)} -o {PAGE}"
    maps = ["verdict.png", "verdict_numbers.png"]
    yield Step("Write one page of HTML to send", page.report, options, PAGE, maps)


def pair(layers: str, front: str = FRONT) -> str:
    """Return the words of a command that name two networks and the layers of both."""
    return f"{front} {END} {MODEL} {MODEL} {layers} {layers}"


def stitch_all(experiments: dict[str, tuple[str, str, str]]) -> Iterator[Step]:
    """Yield the steps that stitch all pairs of `LAYERS`, and that evaluate these stitches."""
    for title, (folder, front, options) in experiments.items():
        stitches = stitch(title, pair(LAYERS, front), options, folder)
        yield stitches
        results = stitches.output
        options = f"{results} {DATA}"
        title = f"Which images do the stitches in {results} show?"
        yield Step(title, exec_eval_stitcher_ood.evaluate, options, results)


def stitch(title: str, networks: str, options: str, folder: str) -> Step:
    """Return the step that stitches pairs of layers, into a folder of results."""
    options = f"{networks} rc2c_pre {DATA} {options} --mod-only-stitch -dir {folder} --resume"
    return Step(f"Stitch: {title}", exec_stitch.stitch, options, f"results/{folder}")


def results_of(experiments: dict[str, tuple[str, str, str]]) -> str:
    """Return the folders of results of some experiments, separated by blanks."""
    return " ".join(f"results/{folder}" for folder, *_ in experiments.values())


def compare(title: str, layers: str, options: str, table: str, figures: Sequence[str] = ()) -> Step:
    """Return the step that measures the similarity of pairs of layers."""
    options = f"{pair(layers)} {DATA} --metrics {' '.join(MEASURES)} {options} -o {table}"
    function = exec_compute_low_rank_sim_metrics.compute
    return Step(f"Compare {title}", function, options, table, figures)


def cut_to_fewer_ranks() -> Iterator[Step]:
    """Yield the steps that compare, probe and stitch a layer cut to few principal components."""
    ranks = " ".join(map(str, RANKS))
    yield compare(f"{CUT} at fewer and fewer ranks", CUT, f"-m1r {ranks}", "ranks.csv")

    options = f"{FRONT} {MODEL} -l {CUT} {DATA} -ranks {ranks} -lr 1e-2 -o probes.csv --resume"
    yield Step(f"Probe {CUT} at these ranks", exec_probe.probe, options, "probes.csv")

    for rank in RANKS:
        cut = f"--front-stitch-rank {rank} --front-pinv-rank {rank}"
        options = f"-i pinv -pinv-samples 1000 -e 0 -b 512 {cut}"
        yield stitch(f"{CUT}, direct matching at rank {rank}", pair(CUT), options, "ranks")
    stitches = "results/ranks"
    yield Step("Collect these stitches", collect_results.collect, stitches, stitches)

    tables = f"ranks.csv probes.csv {stitches}/grid.csv"
    figure = "sensitivity.png"
    options = f"{tables} -o {figure}"
    yield Step("Draw the sensitivity curves", sensitivity_figure.draw, options, figure, [figure])
    table = "statistics.csv"
    options = f"{tables} similarity.csv results/dm/grid.csv -o {table}"
    yield Step("Test which measure can be trusted", rank_statistics.statistics, options, table)


def take(todo: Sequence[Step]) -> None:
    """Run the steps that have not finished in the working folder. A failure ends the demo."""
    finished = Path(FINISHED).read_text().splitlines() if Path(FINISHED).exists() else []
    unfinished = [step for step in todo if step.command not in finished]
    ended = ((step, run_recorded(step)) for step in unfinished)
    if n_cores() > 1 and sys.platform == "linux":  # elsewhere forks may crash
        ended = side_by_side(unfinished)
    with contextlib.closing(ended):
        for number, (step, outcome) in enumerate(ended, start=len(todo) - len(unfinished) + 1):
            with open(LOG, "a") as log:
                print(step.text, outcome.output, sep="\n", file=log)
            title, command = step.text.splitlines()
            note(f"{title} ({outcome.seconds:.1f} s; {number} of {len(todo)})\n{command}")
            if outcome.status:
                note(outcome.output)
                sys.exit(outcome.status)
            with open(FINISHED, "a") as file:
                print(step.command, file=file)
            if PICTURE in step.figures:
                note(f"The first picture is {Path(PICTURE).resolve()}")


def side_by_side(todo: Sequence[Step]) -> Generator[tuple[Step, Outcome]]:
    """Run two steps at a time, in forks of this process; yield each when it ends."""
    unfinished = list(todo)
    running: dict[Future, Step] = {}
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), obey_the_demo) as workers:
        try:
            while unfinished:
                for step in ready(unfinished, running.values())[: 2 - len(running)]:
                    running[workers.submit(run_recorded, step)] = step
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    unfinished.remove(step)
                    yield step, future.result()
        except BaseException:  # an interruption, or no step is wanted any more
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def ready(unfinished: Sequence[Step], running: Collection[Step]) -> list[Step]:
    """Return the steps that can begin, in their order."""
    return [
        step
        for number, step in enumerate(unfinished)
        if step not in running and not any(map(step.waits_for, unfinished[:number]))
    ]


def obey_the_demo() -> None:
    """Let only the demo end this worker: by a signal to the step that runs, or by its own end."""

    def end_with(demo):
        demo.join()
        os._exit(1)

    os.setpgrp()  # the terminal interrupts the demo alone
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which ends a step, and no idle worker
    threading.Thread(target=end_with, args=[multiprocessing.parent_process()], daemon=True).start()


def run_recorded(step: Step) -> Outcome:
    """Run a step without printing its output."""
    output = io.StringIO()
    start = time.monotonic()
    with contextlib.redirect_stderr(output):
        status = run_step(step)
    return Outcome(status, output.getvalue(), time.monotonic() - start)


def run_step(step: Step) -> int:
    """Run a step in this process, as its command line does; return the exit code."""
    words = shlex.split(step.command)[1:]
    module = sys.modules[step.function.__module__]
    experiment = step.function
    if "session" in inspect.signature(experiment).parameters:  # the others read tables
        experiment = functools.partial(experiment, session=session())
    words_of_demo = sys.argv
    sys.argv = words  # which the files record as their command
    try:
        with contextlib.redirect_stdout(sys.stderr), left_out(except_for=step.figures):
            status = cli.run(module.parser(), experiment, words[1:])
    finally:
        sys.argv = words_of_demo
    return status


@functools.cache
def session() -> "Session":
    """Return the session of this process."""
    from src.runs.session import Session

    return Session()


def report(folder: Path) -> Path:
    """Write the report, a short article on the results of the steps; return its path."""
    verdicts = read(folder / "verdict.csv")
    controls = read(folder / "controls.csv")
    sections = [
        "# Stitching two networks that read handwritten digits",
        question(read(folder / "results/dm/grid.csv")[0]),
        f"**{answer(verdicts)}**",
        f"![Accuracy, skill and verdict of all pairs of layers, by two methods]({PICTURE})",
        f"*Figure 1. The paper's two methods, {' and '.join(PAPER)}. Rows are front layers, columns "
        "are end layers, and frames mark layers of one name. Skill is 0 for a stitch that follows the end "
        "network within a class no better than the class beside untrained networks does, and 1 for the end "
        "network itself.*",
        "## Backwards through the network",
        backwards(verdicts),
        "## Other closed forms",
        f"Direct matching is least squares. Two other closed forms, {' and '.join(FURTHER)}, keep "
        "the spread of the activations, which least squares shrinks.",
        "![Accuracy, skill and verdict of all pairs of layers](verdict.png)",
        "*Figure 2. As Figure 1, for all four methods.*",
        "## How sure is that?",
        certainty(verdicts, controls),
        "## What do measures of similarity say?",
        specificity(read(folder / "statistics.csv")),
        "![Similarity of all pairs of layers](similarity.png)",
        "*Figure 3. Linear CKA, and the distances of PWCCA (last panel: with weights over shared "
        "directions only) and Procrustes, between activations that were averaged over positions.*",
        sensitivity(read(folder / "ranks.csv"), read(folder / "probes.csv")),
        "![Probes, stitching and measures over the rank of a layer](sensitivity.png)",
        f"*Figure 4. Accuracy of probes and stitches, and similarity, over the rank of `{CUT}`.*",
        "## The rule, in full",
        *rule(folder / "verdict.md"),
        "## The commands",
        "In the folder of this report, in an environment with the suite's packages:",
        "```bash\n" + "\n".join(step.command_in(folder) for step in steps()) + "\n```",
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
        "hold: the stitched network is as accurate as the end network; and it follows the end network "
        "within a class, at the end layer and at the output."
    )


def answer(rows: Sequence[Row]) -> str:
    """Return a sentence that counts the accurate pairs of each method, and the similar ones."""
    parts = []
    for method in unique(rows, "method"):
        verdicts = Counter(row["verdict"] for row in rows if row["method"] == method)
        n_similar = verdicts[SIMILAR]
        n_accurate = n_similar + verdicts[ACCURATE_ONLY]
        parts.append(f"by {method} {n_accurate} are accurate, and {n_similar} similar")
    return f"Of {verdicts.total()} pairs of layers, with 95% certainty, {'; '.join(parts)}."


def backwards(rows: Sequence[Row]) -> str:
    """Return a list of the methods with their stitch from the last to the first layer."""
    stitches = last_to_first(rows)
    last, first = stitches[0]["front_layer"], stitches[0]["end_layer"]
    lines = [
        f"Backwards through the network, from `{last}` to `{first}`, a stitch should fail. By "
        "chance, 10% of the images are classified correctly. Of the stitches,",
        "",
    ]
    for row in stitches:
        lines.append(
            f"* {row['method']} classifies {float(row['accuracy']):.1%} correctly, with a skill of "
            f"{float(row['skill_at_end']):.2f} at the end layer and {float(row['skill']):.2f} at the output;"
        )
    return "\n".join(lines).removesuffix(";") + "."


def last_to_first(rows: Sequence[Row]) -> list[Row]:
    """Return each method's stitch from the last front layer to the first end layer."""
    layers = (unique(rows, "front_layer")[-1], unique(rows, "end_layer")[0])
    return [row for row in rows if (row["front_layer"], row["end_layer"]) == layers]


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
    """Return sentences on the measures when a layer is cut to fewer and fewer ranks."""
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
        f"In Figure 4, `{CUT}` of the front network is cut to fewer and fewer principal components. "
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


def rule(path: Path) -> list[str]:
    """Return the sentences of a verdict without its command; what is said of methods, once."""
    _, _, *lines = path.read_text().splitlines()
    of_methods = "Not matched is said of the method"
    first = next((line for line in lines if line.startswith(of_methods)), "")
    return [
        line for line in lines if line == first or not line.startswith((of_methods, "Command: "))
    ]


def in_short(rows: Sequence[Row]) -> list[str]:
    """Return two lines of results: the stitch that should fail, and the similar pairs."""
    of_the_paper = [row for row in rows if row["method"] in PAPER]
    parts = []
    for row in last_to_first(of_the_paper):
        accuracy = float(row["accuracy"])
        skill = float(row["skill"])
        parts.append(
            f"{row['method']} is right about {accuracy:.0%} of the images, with a skill of {skill:.2f}"
        )
    counts = []
    for method in unique(rows, "method"):
        words = [row["verdict"] for row in rows if row["method"] == method]
        counts.append(f"{words.count(SIMILAR)} by {method}")
    similar = {(row["front_layer"], row["end_layer"]) for row in rows if row["verdict"] == SIMILAR}
    return [
        "From the last block of one network to the first of the other, where a stitch should fail, "
        f"{'; '.join(parts)} (chance: 10%).",
        f"Of {len(words)} pairs of blocks, similar are {', '.join(counts)}: {len(similar)} by one or more.",
    ]


def unique(rows: Sequence[Row], column: str) -> list[str]:
    """Return the distinct values of a column in their order."""
    return list(dict.fromkeys(row[column] for row in rows))


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV."""
    with open(path) as file:
        return list(csv.DictReader(file))


def parser() -> cli.Parser:
    options = cli.Parser(
        "Run the paper on embedded digits, and report; half a minute on two quiet cores, a minute on busy "
        "ones. Give the same command again after an interruption."
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
    if any(folder.iterdir()) and not (folder / FINISHED).exists():
        raise UserError(f"{folder} has other files than the demo's; give a new folder")
    (folder / FINISHED).touch()
    note(
        f"All files go to {folder}, where the commands are given. Steps are printed when they end, and their outputs "
        f"go to {LOG}"
    )
    before = os.getcwd()
    os.chdir(folder)
    try:
        take(list(steps()))
    except (KeyboardInterrupt, SystemExit):
        note("To go on, give the command of the demo again")
        raise
    finally:
        os.chdir(before)
    for line in in_short(read(folder / "verdict.csv")):
        result(line)
    result(f"Open {folder / PICTURE}, {report(folder)} or {folder / PAGE}")


def main(argv=None) -> int:
    return cli.run(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
