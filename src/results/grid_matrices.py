"""Selects the experiments in a folder of stitching runs that are printed and drawn as matrices."""

from collections.abc import Sequence

from src.core.console import note_once
from src.results.experiments import experiments_of, keys_of, told_apart
from src.results.stitches import StitchRow

MAX_EXPERIMENTS = 12  # that are printed and drawn


def shown_experiments(rows: Sequence[StitchRow]) -> dict[str, list[StitchRow]]:
    """Return the rows of the first twelve experiments by title; the last of repeated rows counts."""
    told = told_apart(rows)
    newest = {(key, row.pair): row for key, row in zip(keys_of(told), told, strict=True)}
    experiments: dict[str, list[StitchRow]] = {}
    for title, row in zip(experiments_of(list(newest.values())), newest.values(), strict=True):
        experiments.setdefault(title, []).append(row)
    if len(experiments) > MAX_EXPERIMENTS:
        note_once(
            f"{MAX_EXPERIMENTS} of {len(experiments)} experiments are shown; the CSV has all of them"
        )
    return dict(list(experiments.items())[:MAX_EXPERIMENTS])
