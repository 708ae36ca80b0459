"""The report of the OOD evaluation of a folder of stitching runs: what it prints, and the files
that it writes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from src.choices.datasets import dataset_label
from src.console import listed, note, result, table
from src.files import write_json
from src.ood.evaluation_rows import (
    COLLAPSED,
    COLLAPSED_AUROC,
    IN_DISTRIBUTION,
    OFF,
    EvaluationRow,
    ValidityLimits,
    evaluation_file,
    side_of,
)
from src.ood.reference import Reference
from src.results.captions import caption, common, describe_method, short, stitched_networks
from src.results.heat_maps import HeatMap
from src.results.matrices import Matrix, is_known, known, pivot
from src.results.quantities import DETECTOR, IN_EVALUATION, QUANTITIES, Quantity, shown_in
from src.results.tables import to_record, write_table
from src.stitching.experiments import by_experiment
from src.stitching.grid_tables import draw


def report(
    folder: Path,
    evaluations: Mapping[str, Sequence[EvaluationRow]],
    reference: Reference,
    *,
    other_data: str = "",
    figure: str = ".png",
    title: str = "",
) -> None:
    """Print the evaluations by each detector, and write their tables, figures and JSON into the
    folder.

    Args:
        other_data: the name of the data, where they are not those of the stitches.
        figure: the ending of its name, .png or .pdf.
    """
    for name, rows in evaluations.items():
        if len(evaluations) > 1:
            result(f"DETECTOR: {name}")
        matrices = {
            experiment: _matrices(of_experiment)
            for experiment, of_experiment in by_experiment(rows).items()
        }
        for experiment, of_experiment in matrices.items():
            if experiment:
                result(f"EXPERIMENT: {experiment}")
            for column, matrix in of_experiment.items():
                table(heading(QUANTITIES[column], name), *matrix)
        _print_detectors(name, rows, reference)
        path = evaluation_file(folder, name, other_data=other_data)
        write_table(path, EvaluationRow, rows)
        checks = {
            layer: metrics._asdict()
            for layer, metrics in reference.of_score(name, reference.checks).items()
        }
        write_json(
            path.with_suffix(".json"),
            {"stitches": list(map(to_record, rows)), "sanity_checks": checks},
        )
        panels = {
            experiment: {
                f"{QUANTITIES[column].title}\n{experiment}".strip(): HeatMap.of(
                    matrix, QUANTITIES[column]
                )
                for column, matrix in of_experiment.items()
            }
            for experiment, of_experiment in matrices.items()
        }
        draw(
            path,
            panels,
            figure=figure,
            title=title,
            caption=describe(rows, n_images=len(reference.options.test)),
        )
    if reference.noise_costs:
        limit = f"{ValidityLimits().noise_dose:.0%}"
        costs = [[cost] for cost in reference.noise_costs.values()]
        title = f"Accuracy that noise at the limit of its dose, {limit}, costs the end network"
        table(title, list(reference.noise_costs), ["lost"], costs)
    validity = {
        row.folder: row.validity for rows in evaluations.values() for row in rows if row.validity
    }
    sides = Counter(filter(None, map(side_of, validity.values())))
    if sides:
        counts = ", ".join(f"{sides[side]} {side}" for side in (IN_DISTRIBUTION, OFF, COLLAPSED))
        result(f"Doses of {sides.total()} stitches: {counts}")


def heading(quantity: Quantity, detector: str) -> str:
    """Return the title of a printed matrix, such as the public code's of the evaluation by a
    detector."""
    if quantity.measured_by == DETECTOR:
        return f"STITCHING OOD Detection {quantity.title} ({detector})"
    return f"STITCHING {quantity.title.upper()}"


def _matrices(rows: Sequence[EvaluationRow]) -> dict[str, Matrix]:
    """Return the matrices that the evaluation shows, by column; without those that have no
    value."""
    return {
        name: pivot(rows, partial(known, name=name))
        for name in shown_in(IN_EVALUATION)
        if is_known(rows, name)
    }


def _print_detectors(name: str, rows: Sequence[EvaluationRow], reference: Reference) -> None:
    """Print a line for each detector, and a note on stitches that it finds more typical than own
    activations."""
    data, own = rows[0].sanity_dataset, reference.of_score(name, reference.own)
    title = f"OOD detector sanity checks: {dataset_label(data)}" if data else "OOD detectors"
    columns = [
        "mean ID energy" if name == "energy" else "mean ID score",
        *(["AUROC", "AUPR", "FPR95"] if data else []),
    ]
    values = [
        [float(scores.mean()), *reference.checks.get((name, layer), ())]
        for layer, scores in own.items()
    ]
    table(f"{title} ({name})", list(own), columns, values)
    typical = [row.pair for row in rows if row.auroc < COLLAPSED_AUROC]
    if typical:
        note(
            f"{name}: the AUROC of {len(typical)} stitches is below {COLLAPSED_AUROC}: more typical than the end "
            f"network's own activations, which is no sign of being alike ({listed(typical)})"
        )


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
