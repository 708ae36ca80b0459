"""What the OOD evaluation of a folder of stitching runs prints, and the files that it writes there."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from src.captions import caption, common, networks
from src.console import result, table, warn
from src.figures import HeatMap, maps
from src.files import write_csv, write_json
from src.models import Network
from src.ood.metrics import OODMetrics
from src.ood.results import TRUSTED, Row, file_stem, read_evaluations
from src.stitching.reporting import method
from src.stitching.results import Run
from src.stitching.rows import natural_order

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
) -> Path:
    """Print the evaluation by one detector; write its CSV, JSON and figure into the folder.

    Args:
        pair_of_networks: front and end.
        id_energies: (N,) of each layer that has a detector.
        sanity: metrics of each detector on the sanity-check dataset, if there is one.
        runs: those that were evaluated; the figure names their method.
        n_images: how many were stitched; the figure names it.
    Returns:
        The path of the CSV.
    """
    layers = [(row.front_layer, row.end_layer) for row in rows]
    fronts, ends = (_axis(*side) for side in zip(pair_of_networks, zip(*layers, strict=True), strict=True))
    by_pair = {(row.front_layer, row.end_layer): row._asdict() for row in rows}
    matrices = {name: [[by_pair.get((f, e), {}).get(name, math.nan) for e in ends] for f in fronts] for name in TITLES}
    for name, title in TITLES.items():
        table(title, fronts, ends, matrices[name])
    failing = _print_detectors(rows[0], id_energies, sanity)

    path = folder / f"{file_stem(rows[0].detector)}.csv"
    records = [row._asdict() for row in rows]
    write_csv(path, Row._fields, records)
    checks = {layer: metrics._asdict() for layer, metrics in sanity.items()}
    agreement = _agreement(read_evaluations(folder), rows[0].detector)
    write_json(
        path.with_suffix(".json"), {"stitches": records, "sanity_checks": checks, "rank_correlations": agreement}
    )
    panels = {
        title: HeatMap(matrix, scale=(1, 0) if name in DISTANCES else (0, 1))
        for title, (name, matrix) in zip(("accuracy", *NAMES), matrices.items(), strict=True)
    }
    marked = [f"{layer} *" if layer in failing else layer for layer in ends]
    below = describe(rows, stitched_by=method([run.row for run in runs]), n_images=n_images)
    below += f" *: the detector does not find {rows[0].sanity_dataset} OOD." if failing else ""
    labels = {"row_label": "front layer", "column_label": "end layer", "caption": below}
    maps(path.with_suffix(".png"), panels, rows=fronts, columns=marked, **labels)
    return path


def _print_detectors(row: Row, id_energies: Mapping[str, np.ndarray], sanity: Mapping[str, OODMetrics]) -> list[str]:
    """Print a line for each detector; return the layers of those that do not do their job, after a warning."""
    title = f"OOD detector sanity checks: {row.sanity_dataset}" if sanity else "OOD detectors"
    values = [[float(energies.mean()), *sanity.get(layer, ())] for layer, energies in id_energies.items()]
    table(title, list(id_energies), ["mean ID energy", *(NAMES if sanity else ())], values)
    failing = [layer for layer, metrics in sanity.items() if metrics.auroc < TRUSTED]
    if failing:
        warn(f"detectors of {', '.join(failing)} do not find {row.sanity_dataset} OOD (AUROC below {TRUSTED}): "
             "their values say little")  # fmt: skip
    return failing


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


def _agreement(evaluations: Mapping[str, Sequence[Row]], detector: str) -> dict[str, dict[str, float]]:
    """Compute and print the rank correlations of AUROC over the runs that `energy` and another detector evaluated.

    Of `energy` itself with all others, of another detector with `energy` alone.
    """
    others = [name for name in evaluations if name != "energy" and detector in (name, "energy")]
    correlations = {}
    for name in others if "energy" in evaluations else []:
        one, other = ({row.folder: row.auroc for row in evaluations[key]} for key in ("energy", name))
        common = [folder for folder in one if folder in other]
        columns = [[values[folder] for folder in common] for values in (one, other)]
        if len(common) < 3 or any(len(set(column)) == 1 for column in columns):
            continue
        rho, tau = float(spearmanr(*columns).statistic), float(kendalltau(*columns).statistic)
        correlations[name] = {"n": len(common), "spearman": rho, "kendall": tau}
        result(f"AUROC of energy and {name} over {len(common)} stitches: rho {rho:.4f}, tau {tau:.4f}")
    return correlations


def _axis(network: Network, layers: Sequence[str]) -> list[str]:
    """Return the blocks of the network, all of them as the paper's code has it, unless other layers were stitched."""
    return list(network.block_names) if set(layers) <= set(network.block_names) else natural_order(layers)
