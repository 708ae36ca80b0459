#!/usr/bin/env python3
"""The paper on embedded digits: train two networks, stitch layers in two ways, judge, and report.

Every step is a command that could be typed in the demo's folder; it is printed, and writes the files
of the command, but only the figures that are to be looked at. Its own output goes to a log. Give the
same line again after an interruption: finished steps are left out, and interrupted ones go on.
"""

import contextlib
import functools
import inspect
import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import exec_compute_low_rank_sim_metrics
import exec_eval_stitcher_ood
import exec_probe
import exec_stitch
import exec_train
from misc import collect_results, rank_statistics, verdict
from misc import report as page
from src import cli
from src.figures.pages import left_out
from src.ground.console import note, points, result
from src.ground.errors import UserError
from src.ground.files import read_csv
from src.verdict import SIMILAR

if TYPE_CHECKING:
    from src.results.session import Session

MODEL = "small_cnn"
DATA = "-d mnist5k -gpu -1"
FRONT, END = "models/0/model_15.pt", "models/1/model_15.pt"
TRAINING = "-e 15 -b 32 -lr 3e-3 -sched cosine"

# The learning rate decays to 0, so that a training converges and the results depend little on the
# rounding of the processor
METHODS = {  # folder in results/: options
    "dm": "-i pinv --pinv-cutoff exact -pinv-samples auto -e 0",
    "tlm": "-i rand -e 20 -b 128 -lr 1e-2 -sched cosine",
}
STITCHES = "results/dm results/tlm"
METRICS = "--metrics cka pwcca procrustes"

CUT = "pool3"  # the layer of the front network that is cut to fewer ranks
RANKS = (64, 16, 8, 4, 2, 1)
TO_OPEN = ("page.html", "page.png", "verdict.png", "similarity.png", "sensitivity.png")

FINISHED = "steps.txt"  # the commands that have finished
LOG = "log.txt"  # the commands with their outputs

Row = dict[str, str]


class Step(NamedTuple):
    """A command, to be typed in the demo's folder."""

    title: str
    function: Callable[..., None]  # that the script calls
    options: str

    @property
    def command(self) -> str:
        """The line that a user would type."""
        return f"python {shlex.quote(inspect.getfile(self.function))} {self.options}"


def steps() -> Iterator[Step]:
    """Yield all steps in order."""
    for seed in (0, 1):
        options = f"{MODEL} {DATA} {TRAINING} -s {seed} -dir models/{seed} --resume"
        yield Step(f"Train network {seed}", exec_train.train, options)
    for folder, options in METHODS.items():
        yield stitch("all", options, folder)
        options = f"results/{folder} {DATA}"
        yield Step("Measure their skill", exec_eval_stitcher_ood.evaluate, options)
    options = f"{STITCHES} -o verdict.csv"
    yield Step("Judge the stitches", verdict.give_verdict, options)
    yield Step("Write one page to send", page.report, f"{STITCHES} -o page.html")
    yield compare("all", "--alignment pool", "similarity.csv")
    yield from cut_to_fewer_ranks()


def pair(layers: str) -> str:
    """Return the words of a command that name both networks and the layers of both."""
    return f"{FRONT} {END} {MODEL} {MODEL} {layers} {layers}"


def stitch(layers: str, options: str, folder: str) -> Step:
    """Return the step that stitches pairs of layers, into a folder of results."""
    options = f"{pair(layers)} rc2c_pre {DATA} {options} --mod-only-stitch -dir {folder} --resume"
    return Step(f"Stitch {layers} to {layers}: {folder}", exec_stitch.stitch, options)


def compare(layers: str, options: str, table: str) -> Step:
    """Return the step that measures the similarity of pairs of layers."""
    options = f"{pair(layers)} {DATA} {METRICS} {options} -o {table}"
    return Step(f"Compare {layers} to {layers}", exec_compute_low_rank_sim_metrics.compute, options)


def cut_to_fewer_ranks() -> Iterator[Step]:
    """Yield the steps that compare, probe and stitch a layer cut to few principal components."""
    ranks = " ".join(map(str, RANKS))
    yield compare(CUT, f"-m1r {ranks}", "ranks.csv")
    options = f"{FRONT} {MODEL} -l {CUT} {DATA} -ranks {ranks} -lr 1e-2 -o probes.csv --resume"
    yield Step(f"Probe {CUT} at fewer and fewer ranks", exec_probe.probe, options)
    for rank in RANKS:
        cut = f"--front-stitch-rank {rank} --front-pinv-rank {rank}"
        yield stitch(CUT, f"-i pinv -pinv-samples 1000 -e 0 -b 512 {cut}", "ranks")
    yield Step("Collect these stitches", collect_results.collect, "results/ranks")
    options = "ranks.csv probes.csv results/ranks -o sensitivity.csv"
    yield Step("Test and draw the sensitivity of measures", rank_statistics.statistics, options)


def take(todo: Sequence[Step]) -> None:
    """Run the steps that have not finished in the working folder. A failure ends the demo."""
    finished = Path(FINISHED).read_text().splitlines()
    for number, step in enumerate(todo, start=1):
        if step.command in finished:
            continue
        note(f"# {number} of {len(todo)}: {step.title}\n{step.command}")
        start = time.monotonic()
        output = io.StringIO()
        with contextlib.redirect_stderr(output):
            status = run_step(step)
        note(f"# {time.monotonic() - start:.1f} s")
        with open(LOG, "a") as log:
            print(f"# {step.title}", step.command, output.getvalue(), sep="\n", file=log)
        if status:
            note(output.getvalue())
            sys.exit(status)
        with open(FINISHED, "a") as file:
            print(step.command, file=file)


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
        with contextlib.redirect_stdout(sys.stderr), left_out(except_for=TO_OPEN):
            status = cli.run(module.parser(), experiment, words[1:])
    finally:
        sys.argv = words_of_demo
    return status


@functools.cache
def session() -> "Session":
    """Return the session of this process."""
    from src.results.session import Session

    return Session()


def in_short(rows: Sequence[Row]) -> Iterator[str]:
    """Yield two lines on the rows of the verdict: similar pairs, and stitches from the last block to the
    second."""
    words: dict[str, list[str]] = {}
    for row in rows:
        words.setdefault(row["method"], []).append(row["verdict"])
    counts = [f"{of_method.count(SIMILAR)} by {method}" for method, of_method in words.items()]
    yield f"Of {len(rows) // len(words)} pairs of blocks, similar are {' and '.join(counts)}."
    parts = []
    for row in rows:
        if (row["front_layer"], row["end_layer"]) == ("pool4", "pool2"):
            accuracy, end_accuracy, at_end, at_output = (
                float(row[name]) for name in ("accuracy", "end_accuracy", "skill_at_end", "skill")
            )
            parts.append(
                f"{row['method']} keeps {points(accuracy)} of {points(end_accuracy)} points of accuracy (skill "
                f"{at_end:.2f} at the end layer, {at_output:.2f} at the output)"
            )
    yield f"Backwards, from the last block to the second, {'; '.join(parts)}."


def parser() -> cli.Parser:
    options = cli.Parser(
        "Run the paper on embedded digits; a minute on a quiet core. Give the same command again after an interruption."
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
        f"All files go to {folder}, where the commands are given. Each step is printed when it begins, and its output "
        f"goes to {LOG}"
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
    for line in in_short(read_csv(folder / "verdict.csv")):
        result(line)
    result(f"Open {', '.join(str(folder / name) for name in TO_OPEN)}")


def main(argv=None) -> int:
    return cli.run(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
