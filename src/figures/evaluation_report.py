"""The report of an OOD evaluation: printed matrices, tables, figures and JSON files."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from src.choices.datasets import dataset_label
from src.figures.figure_files import remove_figure
from src.figures.grid_tables import source_of
from src.figures.layers import draw_layers
from src.figures.shown import Shown, of_matrix
from src.ground.console import listed, note, note_once, result, table
from src.ground.files import write_json
from src.ground.grouping import grouped
from src.ood import OODMetrics
from src.ood.reference import Reference
from src.runs.scored_runs import ScoredRun, skill_rows
from src.tables.architectures import corresponding_layers
from src.tables.evaluation_rows import TYPICAL_AUROC, EvaluationFiles, EvaluationRow, SkillRow
from src.tables.matrices import Matrix, is_known, known, pivot
from src.tables.quantities import DETECTOR, IN_EVALUATION, QUANTITIES, Quantity, shown_in
from src.tables.tables import to_record, write_table

EXPLANATION = (
    "AUROC: area under the ROC curve of the detector, ½ if it cannot tell stitched from own "
    "activations. AUPR: area under its precision-recall curve. FPR95: share of the stitched "
    "activations that it accepts when it accepts 95 percent of the own ones."
)

Matrices = dict[str, dict[str, Matrix]]  # by experiment and column


def report_skill(path: Path, scored: Sequence[ScoredRun], *, title: str = "") -> None:
    """Print the skill of stitches at both places, and write the table."""
    rows = skill_rows(scored)
    shown: list[Shown] = []
    skills = {row.folder: row for row in rows}
    for experiment, of_experiment in grouped(scored, lambda item: item.experiment).items():
        if experiment:
            result(f"EXPERIMENT: {experiment}")
        stitches = [item.run.row for item in of_experiment]
        at_output = pivot(stitches, lambda row: skills[row.folder].skill)
        table(heading(QUANTITIES["skill"], ""), *at_output)
        at_end = pivot(stitches, lambda row: skills[row.folder].skill_at_end)
        table(heading(QUANTITIES["skill_at_end"], ""), *at_end)
        framed = corresponding_layers(stitches)
        shown += of_matrix(at_output, "skill", experiment, framed)
        shown += of_matrix(at_end, "skill_at_end", experiment, framed)
    write_table(path, SkillRow, rows)
    _draw(path, shown, source_of([item.run.row for item in scored]), title=title)


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
    for number, (name, rows) in enumerate(evaluations.items()):
        by_experiment = grouped(rows, lambda row: row.experiment)
        matrices = {
            experiment: _matrices(rows_of_experiment)
            for experiment, rows_of_experiment in by_experiment.items()
        }
        checks = reference.checks.get(name, {})
        detectors = _detectors(name, rows[0].sanity_dataset, reference.id_scores[name], checks)
        if len(evaluations) > 1:
            result(f"DETECTOR: {name}")
        _print_matrices(name, matrices, with_accuracy=number == 0)
        table(*detectors)
        _note_typical_stitches(name, rows)

        path = files.tables[name]
        content = _content(rows, checks)
        write_table(path, EvaluationRow, rows)
        write_json(path.with_suffix(".json"), content)
        shown: list[Shown] = []
        for experiment, matrix_of_column in matrices.items():
            framed = corresponding_layers(by_experiment[experiment])
            for column, matrix in matrix_of_column.items():
                shown += of_matrix(matrix, column, experiment, framed)
        source = source_of(rows, len(reference.options.test))
        _draw(path, shown, source, title=title)
    if evaluations:
        note_once(EXPLANATION)


def _draw(path: Path, shown: Sequence[Shown], source: str, *, title: str) -> None:
    """Draw maps of an evaluation beside its table, unless it is of a single stitch."""
    remove_figure(path)  # of an earlier evaluation, of more stitches
    drawn = []
    if len({row.layers for row in shown}) > 1:
        drawn = draw_layers(path.with_suffix(".png"), shown, title=title, source=source)
    note(f"wrote {listed([path, *drawn[:1]])}")


def _matrices(rows: Sequence[EvaluationRow]) -> dict[str, Matrix]:
    """Return the matrix of each column that the evaluation shows, except columns without values."""
    return {
        name: pivot(rows, partial(known, name=name))
        for name in shown_in(IN_EVALUATION)
        if is_known(rows, name)
    }


def _print_matrices(name: str, matrices: Matrices, *, with_accuracy: bool) -> None:
    """Print the matrices of a detector, under a heading for each experiment."""
    columns = dict.fromkeys(chain(*matrices.values()))
    headings = {column: heading(QUANTITIES[column], name) for column in columns}
    for experiment, matrix_of_column in matrices.items():
        if experiment:
            result(f"EXPERIMENT: {experiment}")
        for column, matrix in matrix_of_column.items():
            if with_accuracy or column != "accuracy":
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
