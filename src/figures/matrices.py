"""Prints and draws matrices of the accuracy and evaluation of stitches over pairs of layers."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from src.choices.datasets import dataset_label
from src.core.console import listed, note, note_once, result, table
from src.figures.maps import Map, draw_layers
from src.figures.pages import on_data, remove_figure
from src.results.evaluation import TYPICAL_AUROC
from src.results.grid_matrices import shown_experiments
from src.results.matrices import known, pivot
from src.results.network_names import counted
from src.results.quantities import DETECTOR, IN_EVALUATION, QUANTITIES, shown_in
from src.results.stitches import corresponding_layers

EXPLANATION = (
    "AUROC: area under the ROC curve of the detector, ½ if it cannot tell stitched "
    "activations from the end network's. AUPR: area under its precision-recall curve. FPR95: share "
    "of stitched activations that it accepts when it accepts 95 percent of the end network's."
)


def source_of(rows: Sequence[Any]) -> str:
    """Return the caption's sentence on the networks and the images of stitches."""
    images = {(row.dataset, row.n_images) for row in rows}
    return on_data(counted({row.network_keys for row in rows}), images)


def draw_grid(path: Path, rows: Sequence[Any]) -> list[Path]:
    """Draw the accuracies of stitches as a heat map over layers for each experiment. Return the written
    paths."""
    maps = []
    for title, of_map in shown_experiments(rows).items():
        matrix = pivot(of_map, lambda row: row.accuracy)
        maps.append(Map("accuracy", matrix, title, corresponding_layers(of_map)))
    return draw_layers(path, maps, source=source_of(rows))


def report(
    table_path: Path,
    stitches: Mapping[str, Sequence[Any]],
    rows: Sequence[Any],
    *,
    own_scores: Mapping[str, Mapping[str, Any]],
    checks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Print the evaluation of stitches, and draw the figures of skill and of each detector.

    Args:
        table_path: of the evaluation; figures go beside it.
        stitches: by experiment, in the order of the rows.
        own_scores: of the end network's activations, by detector and layer.
        checks: the metrics of sanity checks, by detector and layer.
    """
    evaluated = {row.place: row for row in rows}

    def skill(stitch: Any, column: str) -> float:
        return getattr(evaluated[stitch.place], column)

    maps = _print_matrices(stitches, ["skill", "skill_at_end"], skill)
    networks = counted({row.network_keys for row in chain.from_iterable(stitches.values())})
    source = on_data(networks, {(row.dataset, row.n_images) for row in rows})
    _draw(table_path, maps, source=source)
    scored = [name for name in own_scores if any(name in row.detectors for row in rows)]
    for number, name in enumerate(scored):
        if len(scored) > 1:
            result(f"DETECTOR: {name}")

        def measured(stitch: Any, column: str) -> float:
            row = evaluated[stitch.place]
            if column == "accuracy":
                return known(row, name=column)
            return known(row.detectors[name], name=column)  # noqa: B023

        of_detector = {}
        for title, of_experiment in stitches.items():
            with_scores = [row for row in of_experiment if name in evaluated[row.place].detectors]
            if with_scores:
                of_detector[title] = with_scores
        columns = list(shown_in(IN_EVALUATION))
        not_printed = ["accuracy"] if number else []  # accuracies are those of the first detector
        maps = _print_matrices(
            of_detector, columns, measured, detector=name, not_printed=not_printed
        )
        of_layers = checks.get(name, {})
        _print_detectors(name, rows[0].sanity_dataset, own_scores[name], of_layers)
        _note_typical(name, list(chain.from_iterable(of_detector.values())), measured)
        _draw(table_path.with_stem(f"{table_path.stem}_{name}"), maps, source=source)
    if scored:
        note_once(EXPLANATION)


def _note_typical(
    detector: str, rows: Sequence[Any], measured: Callable[[Any, str], float]
) -> None:
    """Print a note on stitches whose activations a detector finds more typical than those of the end
    network."""
    typical = [row.pair for row in rows if measured(row, "auroc") < TYPICAL_AUROC]
    if typical:
        note(
            f"{detector}: the AUROC of {len(typical)} stitches is below {TYPICAL_AUROC}. They are "
            "more typical than the end network's activations, as activations of little variance "
            f"are ({listed(typical)})"
        )


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
    """Draw the maps of an evaluation to files beside its table, unless it is of a single stitch."""
    remove_figure(path)  # of an earlier evaluation, of more stitches
    if any(len(item.values.rows) * len(item.values.columns) > 1 for item in maps):
        for figure in draw_layers(path.with_suffix(".png"), maps, source=source)[:1]:
            note(f"wrote {figure}")


def _print_detectors(
    name: str, sanity_dataset: str | None, own_scores: Mapping[str, Any], checks: Mapping[str, Any]
) -> None:
    """Print each detector's mean score on the end network's activations, and its sanity check."""
    columns = ["mean ID energy" if name == "energy" else "mean ID score"]
    title = "OOD detectors"
    if sanity_dataset:
        columns += ["AUROC", "AUPR", "FPR95"]
        title = f"OOD detector sanity checks: {dataset_label(sanity_dataset)}"
    lines = [[float(scores.mean()), *checks.get(layer, ())] for layer, scores in own_scores.items()]
    table(f"{title} ({name})", list(own_scores), columns, lines)
