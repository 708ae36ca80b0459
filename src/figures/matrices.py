"""Matrices of stitches and of their evaluation, printed and drawn beside their table."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from src.choices.datasets import dataset_label
from src.core.console import listed, note, note_once, result, table
from src.core.files import write_json
from src.core.grouping import grouped
from src.figures.maps import Map, draw_layers
from src.figures.pages import on_data, remove_figure
from src.results.architectures import corresponding_layers
from src.results.evaluation_rows import TYPICAL_AUROC, EvaluationFiles
from src.results.grid_matrices import shown_experiments
from src.results.matrices import known, pivot
from src.results.pair_kinds import counted
from src.results.quantities import DETECTOR, IN_EVALUATION, QUANTITIES, shown_in
from src.results.tables import to_record, write_table

EXPLANATION = (
    "AUROC: area under the ROC curve of the detector, ½ if it cannot tell stitched from own "
    "activations. AUPR: area under its precision-recall curve. FPR95: share of the stitched "
    "activations that it accepts when it accepts 95 percent of the own ones."
)


def source_of(rows: Sequence[Any], n_images: int | None = None) -> str:
    """Return the sentence of captions on the networks and the images of stitches.

    Args:
        n_images: of the test set; None: rows have it.
    """
    images = {(row.dataset, n_images or getattr(row, "n_images", None)) for row in rows}
    return on_data(counted({row.network_keys for row in rows}), images)


def draw_grid(path: Path, rows: Sequence[Any]) -> list[Path]:
    """Draw the accuracies of stitches as a map of layers for each experiment. Return the written
    paths."""
    maps = []
    for title, of_map in shown_experiments(rows).items():
        matrix = pivot(of_map, lambda row: row.accuracy)
        maps.append(Map("accuracy", matrix, title, corresponding_layers(of_map)))
    return draw_layers(path, maps, source=source_of(rows))


def report_skill(path: Path, stitches: Mapping[str, Sequence[Any]], rows: Sequence[Any]) -> None:
    """Print the skill of stitches at both places, and write the table and its figure.

    Args:
        stitches: by experiment, in the order of the rows.
    """
    skills = {row.place: row for row in rows}

    def skill(stitch: Any, column: str) -> float:
        return getattr(skills[stitch.place], column)

    write_table(path, type(rows[0]), rows)
    maps = _print_matrices(stitches, ["skill", "skill_at_end"], skill)
    source = source_of(list(chain.from_iterable(stitches.values())))
    _draw(path, maps, source=source)


def report(
    files: EvaluationFiles,
    evaluations: Mapping[str, Sequence[Any]],
    *,
    own_scores: Mapping[str, Mapping[str, Any]],
    checks: Mapping[str, Mapping[str, Any]],
    n_images: int,
) -> None:
    """Print the evaluations, and write the table, the figure and the JSON file of each detector.

    Args:
        evaluations: rows by name of the detector; no list is empty.
        own_scores: of the end network's own activations, by detector and layer.
        checks: the metrics of sanity checks, by detector and layer.
        n_images: the number of test images.
    """
    for number, (name, rows) in enumerate(evaluations.items()):
        if len(evaluations) > 1:
            result(f"DETECTOR: {name}")
        experiments = grouped(rows, lambda row: row.experiment)
        columns = list(shown_in(IN_EVALUATION))
        not_printed = ["accuracy"] if number else []  # accuracies are those of the first detector
        maps = _print_matrices(experiments, columns, _known, detector=name, not_printed=not_printed)
        of_layers = checks.get(name, {})
        _print_detectors(name, rows[0].sanity_dataset, own_scores[name], of_layers)
        typical = [row.pair for row in rows if row.auroc < TYPICAL_AUROC]
        if typical:
            note(
                f"{name}: the AUROC of {len(typical)} stitches is below {TYPICAL_AUROC}. They are "
                "more typical than the end network's own activations, as activations of little variance "
                f"are ({listed(typical)})"
            )
        content = {
            "stitches": [to_record(row) for row in rows],
            "sanity_checks": {layer: metrics._asdict() for layer, metrics in of_layers.items()},
        }
        write_table(files.table(name), type(rows[0]), rows)
        write_json(files.table(name).with_suffix(".json"), content)
        _draw(files.table(name), maps, source=source_of(rows, n_images))
    if evaluations:
        note_once(EXPLANATION)


def _known(row: Any, column: str) -> float:
    return known(row, name=column)


def _print_matrices(
    experiments: Mapping[str, Sequence[Any]],
    columns: Sequence[str],
    value: Callable[[Any, str], float],
    *,
    detector: str = "",
    not_printed: Sequence[str] = (),
) -> list[Map]:
    """Print the matrix of each column that has values, under a heading for each experiment;
    return the maps of its figure."""
    maps = []
    for experiment, rows in experiments.items():
        if experiment:
            result(f"EXPERIMENT: {experiment}")
        for column in columns:
            matrix = pivot(rows, lambda row: value(row, column))  # noqa: B023
            if not all(map(math.isnan, chain.from_iterable(matrix.values))):
                maps.append(Map(column, matrix, experiment, corresponding_layers(rows)))
                if column not in not_printed:
                    table(_heading(column, detector), *matrix)
    return maps


def _heading(column: str, detector: str) -> str:
    """Return the title of a printed matrix; for a detector's quantities, as in the public code."""
    title = QUANTITIES[column].title
    if QUANTITIES[column].measured_by == DETECTOR:
        return f"STITCHING OOD Detection {title} ({detector})"
    return f"STITCHING {title.upper()}"


def _draw(path: Path, maps: Sequence[Map], *, source: str) -> None:
    """Draw maps of an evaluation beside its table, unless it is of a single stitch."""
    remove_figure(path)  # of an earlier evaluation, of more stitches
    drawn = []
    if any(len(item.values.rows) * len(item.values.columns) > 1 for item in maps):
        drawn = draw_layers(path.with_suffix(".png"), maps, source=source)
    note(f"wrote {listed([path, *drawn[:1]])}")


def _print_detectors(
    name: str, sanity_dataset: str | None, own_scores: Mapping[str, Any], checks: Mapping[str, Any]
) -> None:
    """Print the mean score of each layer's own activations, and the sanity check of its
    detector."""
    columns = ["mean ID energy" if name == "energy" else "mean ID score"]
    title = "OOD detectors"
    if sanity_dataset:
        columns += ["AUROC", "AUPR", "FPR95"]
        title = f"OOD detector sanity checks: {dataset_label(sanity_dataset)}"
    lines = [[float(scores.mean()), *checks.get(layer, ())] for layer, scores in own_scores.items()]
    table(f"{title} ({name})", list(own_scores), columns, lines)
