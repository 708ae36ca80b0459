"""The report of the OOD evaluation of a folder of stitching runs: what it prints, and the files that it writes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from src.console import listed, note, result, table
from src.datasets import dataset_label
from src.files import write_json
from src.ood.evaluated import evaluation_file
from src.ood.evaluation import Evaluation
from src.ood.rows import EvaluationRow
from src.ood.validity_limits import COLLAPSED, COLLAPSED_AUROC, IN_DISTRIBUTION, OFF, side_of
from src.results.captions import caption, common, describe_method, short, stitched_networks
from src.results.experiments import by_experiment
from src.results.heat_maps import HeatMap, maps
from src.results.matrices import Matrix, pivot
from src.results.tables import to_record, write_table
from src.stitching.grid_tables import AXES, MAX_PANELS

TITLES = {
    "accuracy": "STITCHING ACCURACY",
    "auroc": "STITCHING OOD Detection AUROC ({})",
    "aupr": "STITCHING OOD Detection AUPR ({})",
    "fpr95": "STITCHING OOD Detection FPR95 ({})",
    "noise_dose": "STITCHING NOISE DOSE",
    "shrinkage_dose": "STITCHING SHRINKAGE DOSE",
}
SHORT = {"accuracy": "accuracy", "auroc": "AUROC", "aupr": "AUPR", "fpr95": "FPR95",
         "noise_dose": "noise dose", "shrinkage_dose": "shrinkage dose"}  # fmt: skip
LARGEST_DOSES = {"noise_dose": 0.2, "shrinkage_dose": 0.3}
NAMES = ("AUROC", "AUPR", "FPR95")


def report(
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    *,
    n_images: int,
    other_data: str = "",
    figure: str = ".png",
    title: str = "",
) -> None:
    """Print the evaluations by each detector, and write their tables, figures and JSON into the folder.

    Args:
        n_images: how many were stitched; the figure names it.
        other_data: the name of the data, where they are not those of the stitches.
        figure: the ending of its name, .png or .pdf.
    """
    for name, evaluation in evaluations.items():
        if len(evaluations) > 1:
            result(f"DETECTOR: {name}")
        matrices = _matrices(evaluation)
        for experiment, of_experiment in matrices.items():
            if experiment:
                result(f"EXPERIMENT: {experiment}")
            for column, matrix in of_experiment.items():
                table(TITLES[column].format(name), *matrix)
        _print_detectors(name, evaluation)
        path = evaluation_file(folder, name, other_data=other_data)
        write_table(path, EvaluationRow, evaluation.rows)
        sanity_checks = {layer: metrics._asdict() for layer, metrics in evaluation.sanity.items()}
        stitches = [to_record(row) for row in evaluation.rows]
        write_json(path.with_suffix(".json"), {"stitches": stitches, "sanity_checks": sanity_checks})
        _draw(path.with_suffix(figure), evaluation, matrices, n_images=n_images, title=title)
    _print_validity({row.folder: row for evaluation in evaluations.values() for row in evaluation.rows}.values())


def _matrices(evaluation: Evaluation) -> dict[str, dict[str, Matrix]]:
    """Return the matrix of each column by experiment."""
    matrices = {}
    for experiment, rows in by_experiment(evaluation.rows).items():
        names = [name for name in TITLES if any(_value(row, name=name) is not None for row in rows)]
        matrices[experiment] = {name: pivot(rows, partial(_value, name=name)) for name in names}
    return matrices


def _value(row: EvaluationRow, *, name: str) -> float | None:
    return getattr(row.validity if name.endswith("_dose") else row, name, None)


def _print_detectors(name: str, evaluation: Evaluation) -> None:
    """Print a line for each detector, and a note on stitches that it finds more typical than own activations."""
    data = evaluation.rows[0].sanity_dataset
    title = f"OOD detector sanity checks: {dataset_label(data)}" if data else "OOD detectors"
    values = [[float(own.mean()), *evaluation.sanity.get(layer, ())] for layer, own in evaluation.own.items()]
    mean = "mean ID energy" if name == "energy" else "mean ID score"
    table(f"{title} ({name})", list(evaluation.own), [mean, *(NAMES if data else ())], values)
    collapsed = [str(row.pair) for row in evaluation.rows if row.auroc < COLLAPSED_AUROC]
    if collapsed:
        note(
            f"{name}: the AUROC of {len(collapsed)} stitches is below {COLLAPSED_AUROC}, collapsed: they are more "
            f"typical than the end network's own activations ({listed(collapsed)})"
        )


def _print_validity(rows: Iterable[EvaluationRow]) -> None:
    """Print how many stitches are in distribution, and on which side the others fail."""
    sides = Counter(filter(None, (side_of(row.validity) for row in rows if row.validity)))
    if sides:
        counts = ", ".join(f"{sides[side]} {side}" for side in (IN_DISTRIBUTION, OFF, COLLAPSED))
        result(f"Doses of {sides.total()} stitches: {counts}")


def _draw(
    path: Path, evaluation: Evaluation, matrices: Mapping[str, Mapping[str, Matrix]], *, n_images: int, title: str
) -> None:
    """Draw the last experiments, a panel for each column."""
    n_shown = MAX_PANELS // len(TITLES)
    if len(matrices) > n_shown:
        note(f"{path} shows the last {n_shown} of {len(matrices)} experiments")
    panels = {}
    for experiment, of_experiment in list(matrices.items())[-n_shown:]:
        for name, matrix in of_experiment.items():
            panels[f"{SHORT[name]}\n{experiment}".strip()] = _panel(name, matrix)
    below = describe(evaluation.rows, n_images=n_images)
    maps(path, panels, **AXES, title=title, caption=below)


def _panel(name: str, matrix: Matrix) -> HeatMap:
    if name == "auroc":
        return HeatMap(matrix, is_diverging=True)
    if name in LARGEST_DOSES:
        return HeatMap(matrix, (0, LARGEST_DOSES[name]))
    return HeatMap(matrix, (1, 0) if name == "aupr" else (0, 1))


def describe(rows: Sequence[EvaluationRow], *, n_images: int) -> str:
    """Return the text below the figure of an evaluation."""
    made_with = {"ID": common(rows, "detector_id_data"), "OOD": common(rows, "detector_ood_data")}
    made_with = ", ".join(f"{kind} {short(data)}" for kind, data in made_with.items() if data)
    data, id_data = short(common(rows, "dataset")), short(common(rows, "id_dataset"))
    return caption(
        networks=stitched_networks(rows),
        data=data if id_data == data else f"{data}, ID {id_data}",
        method=describe_method(rows),
        detector=common(rows, "detector") + (f" ({made_with})" if made_with else ""),
        images=n_images,
    )
