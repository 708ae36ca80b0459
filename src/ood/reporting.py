"""What the OOD evaluation of a folder of stitching runs prints and writes."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.figures import heat_maps
from src.files import write_bytes, write_csv, write_json
from src.models import Network
from src.ood.evaluation import PairEvaluation
from src.ood.metrics import OODMetrics, ood_metrics
from src.report import result
from src.stitching.results import Run, natural_order
from src.stitching.stitched_model import Pair

TITLES = {
    "accuracy": "STITCHING ACCURACY",
    "auroc": "STITCHING OOD Detection AUROC",
    "aupr": "STITCHING OOD Detection AUPR",
    "fpr95": "STITCHING OOD Detection FPR95",
}
NAMES = ("AUROC", "AUPR", "FPR95")


class Row(NamedTuple):
    """One stitch: a row of `ood_evaluation.csv`."""

    front_layer: str
    end_layer: str
    accuracy: float
    auroc: float
    aupr: float
    fpr95: float
    mean_energy: float
    mean_id_energy: float
    folder: str


def report_layer(
    layer: str,
    id_energies: np.ndarray,
    sanity: OODMetrics | None,
    stitches: Mapping[Pair, PairEvaluation],
    runs: Mapping[Pair, Run],
) -> list[Row]:
    """Print an end layer: mean ID energy, how its detector does on the sanity-check data, and each stitch into it."""
    result(f"Evaluating layer {layer}\n{id_energies.mean()}")
    if sanity is not None:
        result(f"Sanity checking {layer}'s OOD detector:\n{_lines(sanity)}\n")
    rows = []
    for pair, (accuracy, energies) in stitches.items():
        metrics = ood_metrics(id_energies, energies)
        result(f"{pair.front_layer}\nAccuracy: {accuracy}\n{_lines(metrics)}\n")
        means = (float(energies.mean()), float(id_energies.mean()))
        rows.append(Row(*pair, accuracy, *metrics, *means, runs[pair].folder.name))
    return rows


def _lines(metrics: OODMetrics) -> str:
    return "\n".join(f"{name}: {value}" for name, value in zip(NAMES, metrics, strict=True))


def finish(
    folder: Path,
    rows: Sequence[Row],
    front: Network,
    end: Network,
    sanity: Mapping[str, OODMetrics],
    checked: str | None,
) -> None:
    """Print the four matrices and the sanity checks; write `ood_evaluation.csv`, `.json` and `.png` into the folder.

    Args:
        sanity: metrics of each detector on the sanity-check dataset.
        checked: the name of that dataset; None when there is none.
    """
    fronts = _axis(front, [row.front_layer for row in rows])
    ends = _axis(end, [row.end_layer for row in rows])
    by_pair = {(row.front_layer, row.end_layer): row._asdict() for row in rows}
    matrices = {}
    for name, title in TITLES.items():
        matrices[name] = [[by_pair.get((f, e), {}).get(name, math.nan) for e in ends] for f in fronts]
        result(f"{title}\n{matrices[name]}")
    if checked is not None:
        result(f"OOD detector sanity checks: {checked}")
        for name, values in zip(NAMES, zip(*sanity.values(), strict=True), strict=True):
            result(f"{name}: {';'.join(map(str, values))}")

    table = [row._asdict() for row in rows]
    checks = {layer: metrics._asdict() for layer, metrics in sanity.items()}
    write_csv(folder / "ood_evaluation.csv", Row._fields, table)
    write_json(folder / "ood_evaluation.json", {"stitches": table, "sanity_checks": checks})
    labels = {"row_label": "front layer", "column_label": "end layer"}
    heat_maps(folder / "ood_evaluation.png", matrices, rows=fronts, columns=ends, **labels)


def _axis(network: Network, layers: Sequence[str]) -> list[str]:
    """The blocks of the network, all of them as the paper's code has it, unless other layers were stitched."""
    return list(network.block_names) if set(layers) <= set(network.block_names) else natural_order(layers)


def write_energies(path: Path, energies: np.ndarray) -> None:
    """Write energies (N,) as float32 `.npy`."""
    buffer = io.BytesIO()
    np.save(buffer, energies.astype(np.float32), allow_pickle=False)
    write_bytes(path, buffer.getvalue())
