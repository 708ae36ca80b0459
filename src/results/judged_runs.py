"""Writes the stitches of `judge` to disk as a stitching run."""

import sys
from collections.abc import Mapping
from pathlib import Path

from src.choices import Options
from src.core.files import durable_together
from src.results.evaluation import EvaluationFiles, columns_of_skill
from src.results.public import chosen_options
from src.results.quantities import EVALUATIONS
from src.results.run import Run, new_folder
from src.results.spec import short_images
from src.results.stitches import EpochRow, StitchRow, columns_of
from src.results.tables import write_table
from src.results.writing import write_logs_of_pairs, write_stitches
from src.values import MeasuredStitch, Pair


def write_judged_run(
    directory: Path, options: Options, stitches: Mapping[Pair, MeasuredStitch]
) -> None:
    """Write a run, without its stitching layers, and its evaluation to a folder with a unique name.

    Args:
        directory: of the folder.
        options: of `exec_stitch.py`.
    Raises:
        UserError: a file cannot be written.
    """
    folder = new_folder(directory)
    rows = {}
    evaluations = []
    epochs = {}
    for pair, stitch in stitches.items():
        of_pair = chosen_options({**options, **pair._asdict()}, stitch.chosen)
        settings = {**columns_of(of_pair), **pair._asdict()}
        rows[pair] = StitchRow(**settings, **vars(stitch.metrics), folder=folder.name)
        evaluation = {
            **pair._asdict(),
            **short_images(options),
            "folder": folder.name,
            "dataset": rows[pair].dataset,
            "accuracy": stitch.metrics.accuracy,
            **columns_of_skill(stitch.skill),
        }
        evaluations.append(evaluation)
        if stitch.losses:
            epochs[pair] = [
                EpochRow(train_acc=None, train_loss=loss, val_acc=None, val_loss=None)
                for loss in stitch.losses
            ]
    predictions = {pair: stitch.predictions for pair, stitch in stitches.items()}
    with durable_together():
        command = " ".join(sys.argv)
        write_stitches(folder, rows, states={}, predictions=predictions, command=command)
        write_table(EvaluationFiles(folder).table, EVALUATIONS, evaluations)
        write_logs_of_pairs(folder, epochs)
    if len(stitches) == 1:
        options = of_pair
    Run(folder, options).finish()
