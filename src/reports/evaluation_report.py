"""The report of an OOD evaluation: printed matrices, tables, figures and JSON files."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from src.choices.datasets import dataset_label
from src.choices.scores import SCORES
from src.ground.console import listed, note, note_once, result, table
from src.ground.figure_files import remove_figure
from src.ground.figures import joined
from src.ground.files import write_json
from src.ground.grouping import grouped
from src.ood import OODMetrics
from src.ood.reference import Reference
from src.reports.captions import common, describe_stitches
from src.reports.grid_figures import labels_of
from src.reports.grid_tables import draw
from src.reports.map_panels import HeatMap
from src.reports.verdict_maps import heat_map
from src.runs.scored_runs import ScoredRun, skill_rows
from src.tables.evaluation_rows import TYPICAL_AUROC, EvaluationFiles, EvaluationRow, SkillRow
from src.tables.matrices import Matrix, is_known, known, pivot
from src.tables.quantities import DETECTOR, IN_EVALUATION, QUANTITIES, Quantity, shown_in
from src.tables.tables import to_record, write_table
from src.verdict import Limits

EXPLANATION = (
    "AUROC: area under the ROC curve of the detector, ½ if it cannot tell stitched from own "
    "activations. AUPR: area under its precision-recall curve. FPR95: share of the stitched "
    "activations that it accepts when it accepts 95 percent of the own ones."
)

Matrices = dict[str, dict[str, Matrix]]  # by experiment and column


def report_skill(path: Path, scored: Sequence[ScoredRun]) -> None:
    """Print the skill of stitches at both places, and write the table."""
    rows = skill_rows(scored)
    skills = {row.folder: row for row in rows}
    for experiment, of_experiment in grouped(scored, lambda item: item.experiment).items():
        if experiment:
            result(f"EXPERIMENT: {experiment}")
        stitches = [item.run.row for item in of_experiment]
        at_output = pivot(stitches, lambda row: skills[row.folder].skill)
        table(heading(QUANTITIES["skill"], ""), *at_output)
        at_end = pivot(stitches, lambda row: skills[row.folder].skill_at_end)
        table(heading(QUANTITIES["skill_at_end"], ""), *at_end)
    write_table(path, SkillRow, rows)


def report(
    files: EvaluationFiles,
    evaluations: Mapping[str, Sequence[EvaluationRow]],
    reference: Reference,
    *,
    title: str = "",
) -> None:
    """Print the evaluations, and write the table, the figure and the JSON file of each detector.

    A single stitch has no figure.

    Args:
        evaluations: rows by name of the detector; no list is empty.
        title: the title of the figure.
    """
    for name, rows in evaluations.items():
        by_experiment = grouped(rows, lambda row: row.experiment)
        matrices = {
            experiment: _matrices(rows_of_experiment)
            for experiment, rows_of_experiment in by_experiment.items()
        }
        checks = reference.checks.get(name, {})
        detectors = _detectors(name, rows[0].sanity_dataset, reference.id_scores[name], checks)
        if len(evaluations) > 1:
            result(f"DETECTOR: {name}")
        _print_matrices(name, matrices)
        table(*detectors)
        _note_typical_stitches(name, rows)

        path = files.tables[name]
        content = _content(rows, checks)
        write_table(path, EvaluationRow, rows)
        write_json(path.with_suffix(".json"), content)
        remove_figure(path, start=2)  # pages of an earlier evaluation of more stitches
        if len(rows) > 1:
            caption_of_figure = describe(rows, n_images=len(reference.options.test))
            labels = labels_of(by_experiment)
            draw(path, _panels(matrices), labels=labels, title=title, caption=caption_of_figure)
        else:
            remove_figure(path)
            note(f"wrote {path}")
    if evaluations:
        note_once(EXPLANATION)


def _matrices(rows: Sequence[EvaluationRow]) -> dict[str, Matrix]:
    """Return the matrix of each column that the evaluation shows, except columns without values."""
    return {
        name: pivot(rows, partial(known, name=name))
        for name in shown_in(IN_EVALUATION)
        if is_known(rows, name)
    }


def _print_matrices(name: str, matrices: Matrices) -> None:
    """Print the matrices of a detector, under a heading for each experiment."""
    columns = dict.fromkeys(chain(*matrices.values()))
    headings = {column: heading(QUANTITIES[column], name) for column in columns}
    for experiment, matrix_of_column in matrices.items():
        if experiment:
            result(f"EXPERIMENT: {experiment}")
        for column, matrix in matrix_of_column.items():
            table(headings[column], *matrix)


def heading(quantity: Quantity, detector: str) -> str:
    """Return the title of a printed matrix; for a detector's quantities, as in the public code."""
    if quantity.measured_by == DETECTOR:
        return f"STITCHING OOD Detection {quantity.title} ({detector})"
    return f"STITCHING {quantity.title.upper()}"


def _detectors(
    name: str,
    sanity_dataset: str | None,
    id_scores: Mapping[str, np.ndarray],
    checks: Mapping[str, OODMetrics],
) -> tuple[str, list[str], list[str], list[list[float]]]:
    """Return the mean ID score of the detector of each layer, and its sanity check, for `table`."""
    mean = "mean ID energy" if name == "energy" else "mean ID score"
    columns = [mean]
    title = "OOD detectors"
    if sanity_dataset:
        columns += ["AUROC", "AUPR", "FPR95"]
        title = f"OOD detector sanity checks: {dataset_label(sanity_dataset)}"

    lines = [[float(scores.mean()), *checks.get(layer, ())] for layer, scores in id_scores.items()]
    return f"{title} ({name})", list(id_scores), columns, lines


def _note_typical_stitches(name: str, rows: Sequence[EvaluationRow]) -> None:
    """Note the stitches that the detector finds more typical than the network's own activations."""
    typical = [row.pair for row in rows if row.auroc < TYPICAL_AUROC]
    if typical:
        note(
            f"{name}: the AUROC of {len(typical)} stitches is below {TYPICAL_AUROC}. They are "
            "more typical than the end network's own activations, as activations of little variance "
            f"are ({listed(typical)})"
        )


def _content(rows: Sequence[EvaluationRow], checks: Mapping[str, OODMetrics]) -> dict[str, object]:
    """Return the content of the JSON file: the rows of a detector, and its sanity checks by layer."""
    return {
        "stitches": [to_record(row) for row in rows],
        "sanity_checks": {layer: metrics._asdict() for layer, metrics in checks.items()},
    }


def _panels(matrices: Matrices) -> dict[str, dict[str, HeatMap]]:
    """Return the heat map of each matrix, by experiment and title."""
    panels: dict[str, dict[str, HeatMap]] = {}
    for experiment, matrix_of_column in matrices.items():
        panels[experiment] = {}
        for column, matrix in matrix_of_column.items():
            panels[experiment][QUANTITIES[column].title] = heat_map(column, matrix, Limits())
    return panels


def describe(rows: Sequence[EvaluationRow], *, n_images: int) -> str:
    """Return the caption of the figure: networks, data, method, detector and images."""
    text = describe_stitches(rows, n_images=n_images)
    id_data = common(rows, "id_dataset")
    if id_data != common(rows, "dataset"):
        text = joined(text, f"In distribution: {dataset_label(id_data)}.")
    detector = common(rows, "detector")
    if detector in SCORES:
        detector = SCORES[detector].description
    made_with = []
    for kind, column in (("ID", "detector_id_data"), ("OOD", "detector_ood_data")):
        dataset = common(rows, column)
        if dataset:
            made_with.append(f"{kind} {dataset_label(dataset)}")
    if made_with:
        detector += f" ({', '.join(made_with)})"
    return joined(text, definitions=f"Detector: {detector}.")
