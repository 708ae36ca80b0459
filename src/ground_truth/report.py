"""The report of the tests: the table, a figure of ranks, two sentences, and maps of networks."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from src.console import listed
from src.errors import UserError
from src.ground_truth.measures import equal_values
from src.ground_truth.protocol import ALL_LAYERS, tests_of
from src.ground_truth.rows import TruthRow, TruthScore
from src.ground_truth.scaling import classical_scaling
from src.ground_truth.tables import Tables
from src.results.curves import scatter
from src.results.heat_maps import HeatMap, maps
from src.results.matrices import Matrix
from src.results.tables import write_table


def write_scores(path: Path, rows: Sequence[TruthRow]) -> None:
    """Write the CSV, and beside it the figure of ranks."""
    write_table(path, TruthRow, rows)
    draw_ranks(path.with_suffix(".png"), rows)


def main_score(row: TruthRow) -> TruthScore:
    """Return the score that counts in a test: AUPRC of groups, otherwise Spearman."""
    return row.score("auprc") or row.score("spearman")


def sentences(rows: Sequence[TruthRow]) -> list[str]:
    """Return which measures can be believed in each test, as the interval of the mean over layers is above chance."""
    above: dict[str, list[TruthRow]] = {}
    below: dict[str, list[TruthRow]] = {}
    few: dict[str, list[TruthRow]] = {}
    lacking: dict[str, list[TruthRow]] = {}
    for row in (row for row in rows if row.layer == ALL_LAYERS):
        found = main_score(row)
        known = above if found.low > found.chance else below
        kind = lacking if math.isnan(found.value) else few if math.isnan(found.low) else known
        kind.setdefault(row.test, []).append(row)
    said = [
        "Can be believed here, as the interval of the score (of each measure by itself) is above chance: "
        f"{_by_test(above)}.",
        f"Cannot be believed here: {_by_test(below)}.",
    ]
    said += [f"Has no interval, as the networks are too few: {_by_test(few)}."] if few else []
    said += [f"Has no score, as a pair is missing or all are equal at a layer: {_by_test(lacking)}."] if lacking else []
    return said


def _by_test(rows: Mapping[str, Sequence[TruthRow]]) -> str:
    """Name the measures of each test, the best first."""
    parts = []
    for test, of_test in rows.items():
        best = sorted(of_test, key=lambda row: -np.nan_to_num(main_score(row).value, nan=-math.inf))
        parts.append(f"in the test of {test} ({len(best)}) {listed(row.measure for row in best)}")
    return "; ".join(parts) or "none"


def ranks(rows: Sequence[TruthRow]) -> Matrix:
    """Return the ranks (measures, tests) of the scores, 1 the best, ties their mean; measures by their mean rank."""
    found = {(row.measure, row.test): main_score(row).value for row in rows if row.layer == ALL_LAYERS}
    measures, tests = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    values = np.array([[found.get((measure, test), math.nan) for test in tests] for measure in measures])
    placed = rankdata(-values, axis=0, nan_policy="omit")
    order = np.argsort(np.nanmean(placed, axis=1), kind="stable")
    return Matrix([measures[i] for i in order], tests, placed[order].tolist())


def draw_ranks(path: Path, rows: Sequence[TruthRow]) -> None:
    """Draw the ranks of measures in tests as a heat map; bright is good."""
    matrix = ranks(rows)
    panel = HeatMap(matrix, (float(max(2, len(matrix.rows))), 1.0), digits="g")
    below = "Ranks of the scores, means over layers; 1 is the best measure of a test."
    maps(path, {"ranks": panel}, row_label="measure", column_label="test", caption=below)


def draw_maps(path: Path, tables: Tables, groups: Sequence[str], *, measure: str, layer: str) -> list[Path]:
    """Draw a map of the networks of each intervention, or of all without any, by one measure; return the files.

    Raises:
        UserError: the tables have no such measure or layer, or not of all pairs.
    """
    if measure not in tables.values or layer not in tables.layers:
        allowed = f"measures {', '.join(tables.values)}; layers {', '.join(tables.layers)}"
        raise UserError(f"the tables have no {measure!r} at {layer!r}; choose by --map and --map-layer among {allowed}")
    equal = equal_values([measure.partition(" ")[0]])[measure]
    written = []
    for test, members in (tests_of(groups) or {"": np.arange(len(groups))}).items():
        distances = np.maximum(equal - tables.alike(measure, layer)[np.ix_(members, members)], 0)
        np.fill_diagonal(distances, 0)
        if not np.isfinite(distances).all():
            raise UserError(f"{measure} at {layer} lacks pairs of networks; let misc/all_pairs.py finish")
        places = classical_scaling(distances)
        points: dict[str, list[tuple[float, float]]] = {}
        for i, place in zip(members, places.tolist(), strict=True):
            points.setdefault(groups[i] or "networks", []).append(tuple(place))
        written.append(path.with_name(f"{path.stem}_map{'_' * bool(test)}{test}.png"))
        texts = {"x_label": "first axis", "y_label": "second axis", "caption": f"{measure} at {layer}"}
        scatter(written[-1], points, **texts)
    return written
