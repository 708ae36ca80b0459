"""What the OOD evaluation of a folder of stitching runs prints, and the files that it writes there."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from src.captions import caption, common, networks
from src.console import note, result, table, warn
from src.datasets import dataset_label
from src.errors import UserError
from src.figures import HeatMap, maps
from src.files import write_csv, write_json
from src.models import Network
from src.ood.metrics import OODMetrics
from src.ood.results import TRUSTED, Row, file_stem, read_evaluations
from src.ood.scores import SCORES
from src.stitching.reporting import MAX_PANELS, method
from src.stitching.results import Run
from src.stitching.rows import by_experiment, natural_order

TITLES = {
    "accuracy": "STITCHING ACCURACY",
    "auroc": "STITCHING OOD Detection AUROC",
    "aupr": "STITCHING OOD Detection AUPR",
    "fpr95": "STITCHING OOD Detection FPR95",
}
NAMES = ("AUROC", "AUPR", "FPR95")
DISTANCES = ("auroc", "aupr")  # high where activations are far from the end network's own


def report(
    folder: Path,
    rows: Sequence[Row],
    pair_of_networks: tuple[Network, Network],
    id_energies: Mapping[str, np.ndarray],
    sanity: Mapping[str, OODMetrics],
    runs: Iterable[Run],
    *,
    n_images: int,
    figure: str = ".png",
    title: str = "",
) -> None:
    """Print the evaluation by one detector; write its CSV and figure into the folder, a matrix for each experiment.

    Args:
        pair_of_networks: front and end.
        id_energies: (N,) of each layer that has a detector.
        sanity: metrics of each detector on the sanity-check dataset, if there is one.
        runs: those that were evaluated; the figure names their method.
        n_images: how many were stitched; the figure names it.
        figure: the ending of its name, .png or .pdf.
    """
    layers = [(row.front_layer, row.end_layer) for row in rows]
    fronts, ends = (_axis(*side) for side in zip(pair_of_networks, zip(*layers, strict=True), strict=True))
    failing = [layer for layer, metrics in sanity.items() if metrics.auroc < TRUSTED]
    marked = [f"{layer}*" if layer in failing else layer for layer in ends]
    panels = {}
    for experiment, group in by_experiment(rows).items():
        by_pair = {(row.front_layer, row.end_layer): row._asdict() for row in group}
        if experiment:
            result(f"EXPERIMENT: {experiment}")
        for name, heading in TITLES.items():
            matrix = [[by_pair.get((f, e), {}).get(name, math.nan) for e in ends] for f in fronts]
            table(heading, fronts, marked, matrix)
            short = "accuracy" if name == "accuracy" else name.upper()
            scale = (1, 0) if name in DISTANCES else (0, 1)
            panels[f"{short}\n{experiment}".strip()] = HeatMap(matrix, scale=scale)
    _print_detectors(rows[0], id_energies, sanity, failing)

    path = folder / f"{file_stem(rows[0].detector)}.csv"
    write_csv(path, Row._fields, [row._asdict() for row in rows])
    if len(panels) > MAX_PANELS:
        note(f"{path.with_suffix(figure)} shows the last {MAX_PANELS // 4} of {len(panels) // 4} experiments")
    below = describe(rows, stitched_by=method([run.row for run in runs]), n_images=n_images)
    below += f" *: the detector does not find {rows[0].sanity_dataset} OOD." if failing else ""
    labels = {"row_label": "front layer", "column_label": "end layer", "title": title, "caption": below}
    shown = dict(list(panels.items())[-MAX_PANELS:])
    maps(path.with_suffix(figure), shown, rows=fronts, columns=marked, **labels)


def _print_detectors(
    row: Row, id_energies: Mapping[str, np.ndarray], sanity: Mapping[str, OODMetrics], failing: Sequence[str]
) -> None:
    """Print a line for each detector, and a warning of those that fail."""
    title = f"OOD detector sanity checks: {dataset_label(row.sanity_dataset)}" if sanity else "OOD detectors"
    values = [[float(energies.mean()), *sanity.get(layer, ())] for layer, energies in id_energies.items()]
    mean = "mean ID energy" if row.detector == "energy" else "mean ID score"
    table(title, list(id_energies), [mean, *(NAMES if sanity else ())], values)
    if failing:
        warn(f"detectors of {', '.join(failing)} (*) do not find {row.sanity_dataset} OOD (AUROC below {TRUSTED}): "
             "their values say little")  # fmt: skip


def write_results(folder: Path, checks: Mapping[str, Mapping[str, OODMetrics]]) -> dict[str, Path]:
    """Write the JSON beside each table, and print the rank correlations between `energy` and other detectors.

    Args:
        checks: by detector whose table was written: its metrics on the sanity-check data, by layer.
    Returns:
        The tables, by detector.
    """
    evaluations = read_evaluations(folder, checks)
    for other in SCORES.keys() - checks.keys():
        try:
            evaluations |= read_evaluations(folder, [other])
        except UserError as error:
            warn(f"no rank correlation with {other}: {error}")
    correlations = {name: _correlation(evaluations, name) for name in evaluations if name != "energy"}
    for name, values in correlations.items():
        if values and not checks.keys().isdisjoint((name, "energy")):
            figures = f"rho {values['spearman']:.4f}, tau {values['kendall']:.4f}"
            result(f"AUROC of energy and {name} over {values['n']} stitches: {figures}")
    tables = {name: folder / f"{file_stem(name)}.csv" for name in checks}
    for name, table_path in tables.items():
        content = {
            "stitches": [row._asdict() for row in evaluations[name]],
            "sanity_checks": {layer: metrics._asdict() for layer, metrics in checks[name].items()},
            "rank_correlations": {k: v for k, v in correlations.items() if v and name in (k, "energy")},
        }
        write_json(table_path.with_suffix(".json"), content)
    return tables


def describe(rows: Sequence[Row], *, stitched_by: str, n_images: int) -> str:
    """Return the text below the figure of an evaluation."""
    made_with = {"ID": common(rows, "detector_id_data"), "OOD": common(rows, "detector_ood_data")}
    made_with = ", ".join(f"{kind} {data}" for kind, data in made_with.items() if data)
    data, id_data = common(rows, "dataset"), common(rows, "id_dataset")
    return caption(
        networks=networks(rows, "front_model", "end_model"),
        data=data if id_data == data else f"{data}, ID {id_data}",
        method=stitched_by,
        detector=common(rows, "detector") + (f" ({made_with})" if made_with else ""),
        images=n_images,
    )


def _correlation(evaluations: Mapping[str, Sequence[Row]], detector: str) -> dict[str, float]:
    """Compute the rank correlations of the AUROCs of `energy` and another detector over the runs that both evaluated.

    Returns:
        An empty dict where there are fewer than three runs, or all values of a detector are equal.
    """
    one, other = (
        {(row.folder, row.dataset, row.id_dataset): row.auroc for row in evaluations.get(key, [])}
        for key in ("energy", detector)
    )
    common = [key for key in one if key in other]
    columns = [[values[key] for key in common] for values in (one, other)]
    if len(common) < 3 or any(len(set(column)) == 1 for column in columns):
        return {}
    rho, tau = float(spearmanr(*columns).statistic), float(kendalltau(*columns).statistic)
    return {"n": len(common), "spearman": rho, "kendall": tau}


def _axis(network: Network, layers: Sequence[str]) -> list[str]:
    """Return the blocks of the network, all of them as the paper's code has it, unless other layers were stitched."""
    return list(network.block_names) if set(layers) <= set(network.block_names) else natural_order(layers)
