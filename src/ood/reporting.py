"""What the OOD evaluation of a folder of stitching runs prints and writes."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, spearmanr

from src.captions import caption, common, networks
from src.console import result, table, warn
from src.errors import UserError
from src.figures import HeatMap, maps
from src.files import write_bytes, write_csv, write_json
from src.models import Network
from src.ood.evaluation import PairEvaluation
from src.ood.metrics import OODMetrics, ood_metrics
from src.stitching.reporting import method
from src.stitching.results import Run, natural_order
from src.stitching.stitched_model import Pair

TITLES = {
    "accuracy": "STITCHING ACCURACY",
    "auroc": "STITCHING OOD Detection AUROC",
    "aupr": "STITCHING OOD Detection AUPR",
    "fpr95": "STITCHING OOD Detection FPR95",
}
NAMES = ("AUROC", "AUPR", "FPR95")
DISTANCES = ("auroc", "aupr")  # high where activations are far from the end network's own
TRUSTED = 0.8  # AUROC on the sanity-check data, from which on a detector does its job


class Row(NamedTuple):
    """One stitch: a row of `ood_evaluation.csv`."""

    front_layer: str
    end_layer: str
    accuracy: float
    auroc: float
    aupr: float
    fpr95: float
    mean_energy: float  # the mean score, of whatever detector
    mean_id_energy: float
    folder: str
    detector: str = "energy"
    detector_id_data: str = ""  # what the detector was made with
    detector_ood_data: str = ""
    id_dataset: str = ""
    sanity_dataset: str = ""
    sanity_auroc: float | None = None  # of the detector of the end layer; None: not checked
    dataset: str = ""
    front_model_path: str = ""
    end_model_path: str = ""
    front_model_type: str = ""
    end_model_type: str = ""
    stitching_type: str = ""

    @property
    def is_trusted(self) -> bool | None:
        """Whether the detector does its job; None where that was not checked."""
        return None if self.sanity_auroc is None else self.sanity_auroc >= TRUSTED

    @classmethod
    def read(cls, record: Mapping[str, str]) -> "Row":
        """Return the row that a line of the file holds; columns that an older file lacks have their defaults.

        Raises:
            KeyError, ValueError: it is damaged.
        """
        given = {name: record[name] for name in cls._fields if record.get(name) or name not in cls._field_defaults}
        numbers = (*(name.lower() for name in NAMES), "accuracy", "mean_energy", "mean_id_energy", "sanity_auroc")
        return cls(**{name: float(text) if name in numbers else text for name, text in given.items()})


def file_stem(detector: str) -> str:
    """Return the name of the files of an evaluation, without their suffixes."""
    return "ood_evaluation" if detector == "energy" else f"ood_evaluation_{detector}"


def energy_folder(detector: str) -> str:
    """Return the folder of the scores of all images, in the evaluated one."""
    return "energies" if detector == "energy" else f"energies_{detector}"


def read_evaluations(folder: Path) -> dict[str, list[Row]]:
    """Return the OOD evaluations of a folder of stitching runs, by detector.

    Raises:
        UserError: a file is damaged; names it.
    """
    evaluations: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("ood_evaluation*.csv")):
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = [Row.read(record) for record in csv.DictReader(file)]
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); evaluate the folder again") from error
        for row in rows:
            evaluations.setdefault(row.detector, []).append(row)
    return evaluations


def check(
    id_energies: Mapping[str, np.ndarray], energies: Mapping[str, np.ndarray], folder: Path, *, name: str
) -> dict[str, OODMetrics]:
    """Measure how well the detector of each layer tells ID data from the data `name`; save the scores of these."""
    for layer, values in energies.items():
        write_energies(folder / layer / f"{name}.npy", values)
    return {layer: ood_metrics(id_energies[layer], values) for layer, values in energies.items()}


def rows_of(
    id_energies: np.ndarray,
    sanity: OODMetrics | None,
    stitches: Mapping[Pair, PairEvaluation],
    runs: Mapping[Pair, Run],
    made_with: Mapping[str, str],
    energies_to: Path,
) -> list[Row]:
    """Return the rows of the stitches into one end layer; writes their scores.

    Args:
        made_with: the fields of the rows behind `folder`, but for `sanity_auroc`.
        energies_to: the folder that the scores of each stitch are written to.
    """
    rows = []
    for pair, (accuracy, energies) in stitches.items():
        metrics = ood_metrics(id_energies, energies)
        means = (float(energies.mean()), float(id_energies.mean()))
        row = Row(*pair, accuracy, *metrics, *means, runs[pair].folder.name, **made_with)
        write_energies(energies_to / f"{pair.front_layer}.npy", energies)
        rows.append(row if sanity is None else row._replace(sanity_auroc=sanity.auroc))
    return rows


def finish(
    folder: Path,
    rows: Sequence[Row],
    front: Network,
    end: Network,
    id_energies: Mapping[str, np.ndarray],
    sanity: Mapping[str, OODMetrics],
    runs: Iterable[Run],
    *,
    n_images: int,
) -> Path:
    """Print the four matrices and a table of the detectors; write CSV, JSON and figure into the folder.

    Args:
        id_energies: (N,) of each layer that has a detector.
        sanity: metrics of each detector on the sanity-check dataset, if there is one.
        runs: those that were evaluated; the figure names their method.
        n_images: how many were stitched; the figure names it.
    Returns:
        The path of the CSV.
    """
    fronts = _axis(front, [row.front_layer for row in rows])
    ends = _axis(end, [row.end_layer for row in rows])
    by_pair = {(row.front_layer, row.end_layer): row._asdict() for row in rows}
    matrices = {}
    for name, title in TITLES.items():
        matrices[name] = [[by_pair.get((f, e), {}).get(name, math.nan) for e in ends] for f in fronts]
        table(title, fronts, ends, matrices[name])
    title = f"OOD detector sanity checks: {rows[0].sanity_dataset}" if sanity else "OOD detectors"
    values = [[float(energies.mean()), *sanity.get(layer, ())] for layer, energies in id_energies.items()]
    table(title, list(id_energies), ["mean ID energy", *(NAMES if sanity else ())], values)
    failing = [layer for layer, metrics in sanity.items() if metrics.auroc < TRUSTED]
    if failing:
        warn(f"detectors of {', '.join(failing)} do not find {rows[0].sanity_dataset} OOD (AUROC below {TRUSTED}): "
             "their values say little")  # fmt: skip

    detector = rows[0].detector
    path = folder / f"{file_stem(detector)}.csv"
    records = [row._asdict() for row in rows]
    checks = {layer: metrics._asdict() for layer, metrics in sanity.items()}
    write_csv(path, Row._fields, records)
    agreement = _agreement(read_evaluations(folder), detector)
    content = {"stitches": records, "sanity_checks": checks, "rank_correlations": agreement}
    write_json(path.with_suffix(".json"), content)
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
    """Rank correlations of AUROC over the runs that both `energy` and another detector evaluated; prints them.

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


def write_energies(path: Path, energies: np.ndarray) -> None:
    """Write energies (N,) as float32 `.npy`."""
    buffer = io.BytesIO()
    np.save(buffer, energies.astype(np.float32), allow_pickle=False)
    write_bytes(path, buffer.getvalue())
