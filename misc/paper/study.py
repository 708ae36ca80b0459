#!/usr/bin/env python3
"""Answer the study of training against attacks (misc/docs/study.md) from finished results."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from misc.paper import study_statistics as statistics
from misc.paper.study_report import (
    CONTROL,
    DIFFERENT_TYPES,
    DOSE,
    EXCESS,
    GROUPS,
    H1,
    H2,
    LAYERS,
    MATCHED,
    MEAN,
    MEASURES,
    NETWORK,
    PAIR,
    PARTS,
    RAW,
    REGRESSION,
    TEST,
    TWINS,
    StudyRow,
    answers,
    draw,
    table_of,
)
from misc.paper.study_singles import N_PARTS, ROBUST, TWIN, SingleRow
from src import cli

SIMILAR = "similar"
AGREEMENT = "agreement"
COVARIATE = {SIMILAR: "identification", AGREEMENT: "cka_debiased"}  # whose twins' values are taken
KINDS = ((True, True), (False, False), (True, False))  # of pairs: whether each network is robust


class Networks(NamedTuple):
    """The networks that are compared."""

    rows: list[SingleRow]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [row.name for row in self.rows]

    @property
    def is_robust(self) -> np.ndarray:
        """Whether each is of the robust group, (N,)."""
        return np.array([row.group == ROBUST for row in self.rows])

    @property
    def robustness(self) -> np.ndarray:
        """The accuracy of each under attack at 2/255, divided by its accuracy, (N,)."""
        return np.array([row.accuracy_2 / row.accuracy for row in self.rows])


class Values(NamedTuple):
    """A measure of all pairs, by front network, end network and their parts of the depth."""

    raw: np.ndarray  # (N, N, parts, parts), or (N, N, 1, 1) of whole networks
    twins: np.ndarray | None = None  # the same of what untrained networks give; None: nothing

    def of(self, kind: str) -> np.ndarray:
        """Return the raw values, the values of twins (0 if untrained networks give nothing), or the excess."""
        twins = np.zeros_like(self.raw) if self.twins is None else self.twins
        return {RAW: self.raw, TWINS: twins, EXCESS: self.raw - twins}[kind]

    def of_pairs(self, kind: str, parts: Sequence[int] | None = None) -> np.ndarray:
        """Return the values (N, N) of pairs: means over corresponding layers and both directions.

        Args:
            kind: RAW, TWINS or EXCESS.
            parts: of the depth; None: all.
        """
        values = self.of(kind)
        chosen = range(self.n_parts) if parts is None else parts
        corresponding = np.stack([values[:, :, part, part] for part in chosen])
        both = np.concatenate([corresponding, corresponding.transpose(0, 2, 1)])
        return mean_of_numbers(both)

    @property
    def n_parts(self) -> int:
        """The number of parts of the depth; 1: the values are of whole networks."""
        return self.raw.shape[2]


def parser() -> cli.Parser:
    options = cli.Parser(
        "Test the hypotheses of the study on the results of misc/all_pairs.py; write all numbers (.csv), the table "
        "(.md) and the figures."
    )
    add = options.add_argument
    add("lists", help="folder of misc/paper/study_singles.py")
    add(
        "results",
        help="folder of misc/all_pairs.py, with verdict.csv and grid_measurements.csv",
    )
    add(
        "--matched",
        nargs="+",
        default=[],
        metavar="NAME",
        help="networks of both groups that hardly differ in architecture, for a control",
    )
    add("-o", "--output", type=cli.csv_file, default="study.csv", help="CSV to write")
    return options


def work(args) -> None:
    from src.ground.console import note, result
    from src.ground.files import write_text
    from src.runs.outputs import outputs
    from src.tables.tables import write_table

    networks = read_singles(Path(args.lists))
    values = read_values(Path(args.lists), Path(args.results), networks)
    rows = [*rows_of_networks(networks)]
    for measure, of_measure in values.items():
        rows += rows_of_pairs(measure, of_measure, networks)
        rows += rows_of_layers(measure, of_measure, networks)
    rows += tests(values, networks)
    rows += controls(values, networks, args.matched)
    rows += doses(values, networks)

    rows = [row.rounded for row in rows]
    path = Path(args.output)
    table = table_of(rows)
    with outputs(path, __file__):
        write_table(path, StudyRow, rows)
        write_text(path.with_suffix(".md"), table)
        draw(path, rows)
    result(table)
    for hypothesis, text in answers(rows).items():
        result(f"{hypothesis}: {text}.")
    note(f"wrote {path}; its table (.md) and figures are beside it")


def read_singles(folder: Path) -> Networks:
    """Read the networks that are compared."""
    from src.tables.tables import read_table

    rows = read_table(folder / "singles.csv", SingleRow)
    return Networks([row for row in rows if not row.excluded])


def read_values(lists: Path, results: Path, networks: Networks) -> dict[str, Values]:
    """Read all measures of all pairs."""
    from src.collected.measurements import MeasurementRow
    from src.tables.tables import read_table
    from src.tables.verdict_rows import VerdictRow

    places = {}
    for row in networks.rows:
        parts = row.layers.split(",")
        places[row.name] = parts
        places[f"{TWIN}{row.name}"] = parts
    names = networks.names
    twins = [f"{TWIN}{name}" for name in names]
    table = table_of_values(read_table(results / "grid_measurements.csv", MeasurementRow))
    values = {}
    for measure in ("cka_debiased", "mutual_knn"):
        raw = directed(table[measure], names, names, places)
        of_twins = directed(table[measure], twins, twins, places)
        values[measure] = Values(both_ways(raw), both_ways(of_twins))
    shares = table["identification"]
    raw = directed(shares, names, names, places)
    values["identification"] = Values(raw, directed(shares, twins, names, places))
    verdicts = {}
    for row in read_table(results / "verdict.csv", VerdictRow):
        key = (row.front_network, row.end_network, row.front_layer, row.end_layer)
        verdicts[key] = float(row.verdict == SIMILAR)
    values[SIMILAR] = Values(directed(verdicts, names, names, places))
    values[AGREEMENT] = Values(agreements(lists / "predictions.csv", names))
    return {measure: values[measure] for measure in MEASURES}


LayersOfNetworks = tuple[str, str, str, str]  # front and end network, front and end layer


def table_of_values(rows) -> dict[str, dict[LayersOfNetworks, float]]:
    """Return measurements by measure, and by networks and layers."""
    table: dict[str, dict[LayersOfNetworks, float]] = {}
    for row in rows:
        key = (row.front_network, row.end_network, row.front_layer, row.end_layer)
        table.setdefault(row.measure, {})[key] = row.value
    return table


def directed(
    values: Mapping[LayersOfNetworks, float],
    fronts: Sequence[str],
    ends: Sequence[str],
    places: Mapping[str, Sequence[str]],
) -> np.ndarray:
    """Return values (N, N, parts, parts) by front, end and parts of the depth; NaN: no value.

    Args:
        fronts, ends: names of networks (N,).
        places: by name, the layer of each part.
    """
    array = np.full((len(fronts), len(ends), N_PARTS, N_PARTS), math.nan)
    for i, j, s, t in np.ndindex(array.shape):
        front, end = fronts[i], ends[j]
        if i != j:
            key = (front, end, places[front][s], places[end][t])
            array[i, j, s, t] = values.get(key, math.nan)
    return array


def both_ways(array: np.ndarray) -> np.ndarray:
    """Fill in the values of pairs in reversed order, for a measure without a direction."""
    turned = array.transpose(1, 0, 3, 2)
    return np.where(np.isnan(array), turned, array)


def agreements(path: Path, names: Sequence[str]) -> np.ndarray:
    """Return the κ of the predictions of both networks within labels, (N, N, 1, 1)."""
    from src.statistics.kappa import kappa_within

    with open(path, encoding="utf-8") as file:
        header = file.readline().strip().split(",")
        columns = dict(zip(header, np.loadtxt(file, delimiter=",", dtype=int).T, strict=True))
    array = np.full((len(names), len(names), 1, 1), math.nan)
    for i, j in np.ndindex(array.shape[:2]):
        if i != j:
            kappa = kappa_within(columns[names[i]], columns[names[j]], columns["label"])
            array[i, j] = kappa.value
    return array


def mean_of_numbers(arrays: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis, without NaN; NaN where there is nothing else."""
    is_number = ~np.isnan(arrays)
    sums = np.where(is_number, arrays, 0.0).sum(0)
    n_numbers = is_number.sum(0)
    return np.where(n_numbers > 0, sums / np.maximum(n_numbers, 1), math.nan)


def kinds_of(values: Values) -> list[str]:
    """Return the kinds of values of a measure: raw values, and with twins their values and the excess."""
    return [RAW] if values.twins is None else [RAW, TWINS, EXCESS]


def rows_of_networks(networks: Networks) -> Iterator[StudyRow]:
    """Yield the rows of single networks."""
    for row in networks.rows:
        for quantity in ("n_parameters", "n_blocks", "accuracy", "accuracy_2", "accuracy_8"):
            value = float(getattr(row, quantity))
            yield StudyRow(NETWORK, "", quantity, row.name, row.group, value)


def rows_of_pairs(measure: str, values: Values, networks: Networks) -> Iterator[StudyRow]:
    """Yield rows of the values of each pair of networks, and of their means."""
    for kind in kinds_of(values):
        of_pairs = values.of_pairs(kind)
        for i, j in combinations(range(len(networks.names)), 2):
            first, second = networks.names[i], networks.names[j]
            yield StudyRow(PAIR, measure, kind, first, second, float(of_pairs[i, j]))
        means = statistics.means_of_groups(of_pairs, networks.is_robust)
        for (first, second), mean in zip(GROUPS, means, strict=True):
            yield StudyRow(MEAN, measure, kind, first, second, mean)


def rows_of_layers(measure: str, values: Values, networks: Networks) -> Iterator[StudyRow]:
    """Yield the means of each pair of layers, over ordered pairs of networks of each kind.

    The two groups are those of the front and of the end network.
    """
    if values.n_parts == 1:
        return
    for kind in kinds_of(values):
        for (first, second), (is_first, is_second) in zip(GROUPS, KINDS, strict=True):
            of_fronts = values.of(kind)[networks.is_robust == is_first]
            of_both = of_fronts[:, networks.is_robust == is_second]
            means = mean_of_numbers(of_both.reshape(-1, values.n_parts, values.n_parts))
            for s, t in np.ndindex(means.shape):
                place = f"{kind}: {PARTS[s]} → {PARTS[t]}"
                yield StudyRow(LAYERS, measure, place, first, second, float(means[s, t]))


def tests(values: Mapping[str, Values], networks: Networks) -> list[StudyRow]:
    """Return the rows of the tests of both hypotheses, adjusted together."""
    tested = []
    for measure, of_measure in values.items():
        excess = of_measure.of_pairs(EXCESS)
        raw = statistics.means_of_groups(of_measure.of_pairs(RAW), networks.is_robust)
        h1 = statistics.difference_of_h1(excess, networks.is_robust)
        h2 = statistics.difference_of_h2(excess, networks.is_robust)
        tested.append((measure, H1, h1, raw.more_alike))
        tested.append((measure, H2, h2, raw.shared))
    adjusted = statistics.holm([difference.p_value for _, _, difference, _ in tested])
    rows = []
    for (measure, hypothesis, difference, raw_value), p in zip(tested, adjusted, strict=True):
        reading = statistics.reading(difference, p, raw_value)
        row = StudyRow.of(TEST, measure, hypothesis, difference)
        rows.append(row._replace(p_adjusted=float(p), reading=reading))
    return rows


def controls(
    values: Mapping[str, Values], networks: Networks, matched: Sequence[str]
) -> Iterator[StudyRow]:
    """Yield the rows of the controls that the plan names; they are not adjusted for many tests."""
    types = np.array([row.type for row in networks.rows])
    is_of_one_type = types[:, None] == types[None]
    is_matched = np.isin(networks.names, matched)
    for measure, of_measure in values.items():
        for kind in (RAW, TWINS) if of_measure.twins is not None else ():
            yield from differences(measure, kind, of_measure.of_pairs(kind), networks.is_robust)
        excess = of_measure.of_pairs(EXCESS)
        unlike = np.where(is_of_one_type, math.nan, excess)
        yield from differences(measure, DIFFERENT_TYPES, unlike, networks.is_robust)
        if of_measure.n_parts > 1:
            for part, title in enumerate(PARTS):
                of_part = of_measure.of_pairs(EXCESS, [part])
                yield from differences(measure, f"{title} layers", of_part, networks.is_robust)
        if matched:
            of_matched = excess[np.ix_(is_matched, is_matched)]
            yield from differences(measure, MATCHED, of_matched, networks.is_robust[is_matched])
        covariates = covariates_of(values[COVARIATE.get(measure, measure)], networks)
        raw = of_measure.of_pairs(RAW)
        adjusted = statistics.adjusted_h1(raw, networks.is_robust, covariates)
        yield StudyRow.of(CONTROL, measure, f"{H1}, {REGRESSION}", adjusted)


def differences(
    measure: str, kind: str, values: np.ndarray, is_robust: np.ndarray
) -> Iterator[StudyRow]:
    """Yield the rows of both differences of a control."""
    h1 = statistics.difference_of_h1(values, is_robust)
    h2 = statistics.difference_of_h2(values, is_robust)
    yield StudyRow.of(CONTROL, measure, f"{H1}, {kind}", h1)
    yield StudyRow.of(CONTROL, measure, f"{H2}, {kind}", h2)


def covariates_of(values: Values, networks: Networks) -> list[np.ndarray]:
    """Return the covariates (N, N) of pairs in the regression.

    Args:
        values: of the measure whose twins' values are one of the covariates.
    """
    accuracy = np.array([row.accuracy for row in networks.rows])
    depth = np.log([row.n_blocks for row in networks.rows])
    return [
        values.of_pairs(TWINS),
        (accuracy[:, None] + accuracy[None]) / 2,
        np.abs(accuracy[:, None] - accuracy[None]),
        np.abs(depth[:, None] - depth[None]),
    ]


def doses(values: Mapping[str, Values], networks: Networks) -> Iterator[StudyRow]:
    """Yield the robustness of each network, its mean excess over all other networks, and correlations."""
    from scipy.stats import spearmanr

    for name, robustness in zip(networks.names, networks.robustness, strict=True):
        yield StudyRow(DOSE, "", "robustness", name, "", float(robustness))
    for measure, of_measure in values.items():
        excess = of_measure.of_pairs(EXCESS)
        np.fill_diagonal(excess, math.nan)
        means = mean_of_numbers(excess)
        for name, mean in zip(networks.names, means, strict=True):
            yield StudyRow(DOSE, measure, "mean excess", name, "", float(mean))
        correlation = spearmanr(networks.robustness, means).statistic
        yield StudyRow(DOSE, measure, "Spearman's correlation", value=float(correlation))


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
