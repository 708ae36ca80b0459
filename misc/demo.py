#!/usr/bin/env python3
"""The paper's experiments on embedded digits: train two networks, stitch by both methods, judge, report.

Each step is a command that can be typed in the demo's folder, and is printed. Its output goes to a log,
and only the figures to open are drawn. After an interruption, the same command resumes: finished training runs
and stitches are kept.
"""

import contextlib
import io
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec_compute_low_rank_sim_metrics as similarity
import exec_eval_stitcher_ood as evaluation
import exec_stitch
import exec_train
from misc import verdict
from src import cli
from src.core.console import note, points, result
from src.core.errors import UserError
from src.figures.pages import left_out
from src.figures.words import conclusion

DATA = "-d mnist5k -gpu -1"
PAIR = "models/0/model_15.pt models/1/model_15.pt small_cnn small_cnn"
# The learning rate decays to 0, so that training converges and the results depend little on rounding
TRAIN = f"small_cnn {DATA} -e 15 -b 32 -lr 3e-3 -sched cosine --resume"
STITCH = f"{PAIR} all all rc2c_pre {DATA} --mod-only-stitch --resume"
DM = "-i pinv --pinv-cutoff exact -pinv-samples auto -e 0"
TLM = "-i rand -e 20 -b 128 -lr 1e-2 -sched cosine"
STEPS = (  # title, script, options
    ("Train a network", exec_train, f"{TRAIN} -s 0 -dir models/0"),
    ("Train another one", exec_train, f"{TRAIN} -s 1 -dir models/1"),
    ("Stitch by direct matching", exec_stitch, f"{STITCH} {DM} -dir dm"),
    ("Stitch by task loss matching", exec_stitch, f"{STITCH} {TLM} -dir tlm"),
    ("Evaluate the first stitches", evaluation, f"results/dm {DATA}"),
    ("Evaluate the others", evaluation, f"results/tlm {DATA}"),
    ("Judge all stitches", verdict, "results/dm results/tlm -o verdict.csv --page page.html"),
    ("Similarity of all layers", similarity, f"{PAIR} all all {DATA} --alignment pool -o similarity.csv"),
    ("Similarity at fewer ranks", similarity, f"{PAIR} pool3 pool3 {DATA} -m1r 64 16 8 4 2 1 -o ranks.csv"),
)  # fmt: skip
TO_OPEN = ("page.html", "verdict.png", "similarity.png", "ranks.png")
LOG = "log.txt"
BACKWARDS = ("pool4", "pool2")  # from the last block to the second


def take(title: str, script: ModuleType, options: str) -> None:
    """Run a command in this process and in the working folder; exit if it fails."""
    sys.argv = [str(script.__file__), *shlex.split(options)]  # which the files record
    command = f"# {title}\npython {shlex.join(sys.argv)}"
    note(command)
    start = time.monotonic()
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        with left_out(except_for=TO_OPEN):
            status = cli.run(script.parser(), script.main)
    with open(LOG, "a") as log:
        print(command, output.getvalue(), sep="\n", file=log)
    if status:
        note(f"{output.getvalue()}To resume, give the command of the demo again")
        sys.exit(status)
    note(f"# {time.monotonic() - start:.1f} s")


def answer(frame: Any) -> Iterator[str]:
    """Yield the conclusions: a line for each stitch from the last block to the second, and the verdicts on
    accurate stitches."""
    for row in frame.itertuples():
        if (row.front_layer, row.end_layer) == BACKWARDS:
            yield (
                f"From the last block back to the second, by {row.method}: {points(row.accuracy)} % accuracy (the end "
                f"network alone: {points(row.end_accuracy)} %), skill {row.skill:.2f} at the output; {row.verdict}."
            )
    yield f"Does an accurate stitch show that two layers are similar? {conclusion(frame)}"


def parser() -> cli.Parser:
    options = cli.Parser(
        "Run the paper's experiments in small on embedded digits, in about a minute on an idle core."
    )
    options.add_argument("folder", nargs="?", default="demo", help="folder to write to")
    return options


def main(args: Namespace) -> None:
    import pandas
    import torch

    torch.set_num_threads(1)  # threads that share images of 8×8 pixels wait for each other
    folder = Path(args.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / LOG).exists():
        raise UserError(f"{folder} has other files than the demo's; give a new folder")
    (folder / LOG).touch()
    note(f"All files go to {folder}, the output of each step to {LOG}")
    os.chdir(folder)
    for step in STEPS:
        take(*step)
    note(f"Open {', '.join(str(folder / name) for name in TO_OPEN)}")
    for line in answer(pandas.read_csv("verdict.csv")):
        result(line)


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
