"""The experiments of a folder of stitching runs, under the titles of printed matrices and maps."""

from collections.abc import Sequence

from src.core.console import note_once
from src.core.grouping import grouped
from src.results.experiments import by_experiment, method_names
from src.results.groups import Names
from src.results.measurements import named_pair
from src.results.spec import NETWORKS, told_apart
from src.results.stitch_rows import StitchRow

MAX_EXPERIMENTS = 12  # that are printed and drawn


def shown_experiments(
    rows: Sequence[StitchRow], names: Names | None = None
) -> dict[str, list[StitchRow]]:
    """Return the rows of the first twelve experiments, by title; of repeated runs the last row
    counts.

    Args:
        names: of the networks; None: titles have the settings in which experiments differ.
    """
    experiments = _experiments_of(rows, names)
    if len(experiments) > MAX_EXPERIMENTS:
        note_once(
            f"{MAX_EXPERIMENTS} of {len(experiments)} experiments are shown; the CSV has all of them"
        )
    return dict(list(experiments.items())[:MAX_EXPERIMENTS])


def _experiments_of(rows: Sequence[StitchRow], names: Names | None) -> dict[str, list[StitchRow]]:
    """Group rows of stitches by experiment; arguments as for `shown_experiments`."""
    newest = list({(row.key, row.pair): row for row in told_apart(rows)}.values())
    if names is None:
        return by_experiment(newest)
    methods = method_names(newest, apart_from=NETWORKS)
    titled = []
    for row, method in zip(newest, methods, strict=True):
        front, end = named_pair(row, names)
        titled.append((f"{front.name} → {end.name}, {method}", row))
    groups = grouped(titled, lambda item: item[0])
    return {title: [row for _, row in items] for title, items in groups.items()}
