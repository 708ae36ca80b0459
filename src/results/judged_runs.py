"""Writes the stitches of a call from Python as a run, which `folders` reads."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from src.choices import Options
from src.core.files import durable_together
from src.results.evaluation_rows import EvaluationFiles, SkillRow
from src.results.experiments import Experiment
from src.results.run import Run, new_folder
from src.results.stitch_rows import StitchRow
from src.results.tables import write_table
from src.results.training_rows import EpochRow
from src.results.writing import write_logs_of_pairs, write_stitches
from src.values import MeasuredStitch, Pair


def write_judged_run(
    directory: Path, options: Options, stitches: Mapping[Pair, MeasuredStitch]
) -> None:
    """Write a run without its stitching layers, in a folder named by the time, with its skill.

    Args:
        directory: of the folder.
        options: of `exec_stitch.py`.
    Raises:
        UserError: a file cannot be written.
    """
    chosen = {pair: stitch.chosen for pair, stitch in stitches.items()}
    experiment = replace(Experiment.of(options), chosen=chosen)
    folder = new_folder(directory)
    if len(stitches) == 1:
        options = experiment.config(*stitches)
    run = Run(folder, options)
    rows = {}
    skills = []
    epochs = {}
    for pair, stitch in stitches.items():
        settings = experiment.settings_of(pair)
        rows[pair] = StitchRow(**settings, **vars(stitch.metrics), folder=folder.name)
        skills.append(SkillRow.of(folder.name, pair, stitch.skill, experiment.test_images))
        if stitch.losses:
            epochs[pair] = [
                EpochRow(train_acc=None, train_loss=loss, val_acc=None, val_loss=None)
                for loss in stitch.losses
            ]
    predictions = {pair: stitch.predictions for pair, stitch in stitches.items()}
    with durable_together():
        command = " ".join(sys.argv)
        write_stitches(folder, rows, states={}, predictions=predictions, command=command)
        write_table(EvaluationFiles(folder).skill, SkillRow, skills)
        write_logs_of_pairs(folder, epochs)
    run.finish()
