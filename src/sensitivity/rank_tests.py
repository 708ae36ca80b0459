"""How well a measure of similarity does in the two tests of Ding, Denain and Steinhardt 2021 (arXiv
2108.01661).

Sensitivity: does it fall as probes of a layer, cut to fewer principal components, lose accuracy?
Specificity: does it find the corresponding layer of another network to be the most similar one? Of
a distance the negative is taken, so higher always means more similar.

Any two curves that rise with the rank correlate, so the rank itself is tested as well: a measure
tells something of sensitivity where it does better than that baseline."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from statistics import fmean
from typing import NamedTuple

from scipy.stats import kendalltau, spearmanr

from src.grouping import grouped
from src.probing.probe_rows import ProbeRow
from src.sensitivity.measurements import FULL, Measurement, Measurements, by_series, over_ranks

BASELINE = "rank itself"
MIN_RANKS = 10  # for p-values
MIXED = (
    "alignments differ"  # a note on specificity: the measure may rank them instead of the layers
)


class RankTestRow(NamedTuple):
    """A sensitivity or specificity test of a measure: a row of the table of
    `misc/rank_statistics.py`."""

    test: str
    measure: str
    setting: str  # the networks, and of stitches the method
    layer1: str
    layer2: str
    varied: str  # layer1 or layer2
    n: int  # ranks, or layers
    spearman: float | None = None
    spearman_p: float | None = None
    kendall: float | None = None
    kendall_p: float | None = None
    place: float | None = None  # of the corresponding layer; 1 is the most similar
    note: str = ""


def correlation(
    values: Sequence[float], accuracies: Sequence[float]
) -> dict[str, float | str | None]:
    """Spearman's rho and Kendall's tau-b of two sequences, whose NaN are left out in pairs.

    Spearman's p-value is that of Student's distribution; Kendall's is exact as long as there are no
    ties. Below ten ranks there are none: Spearman's is too small there (0 for a third of all orders
    of three ranks), and Kendall's is left out with it.

    Returns:
        The columns of `RankTestRow` from `n` on; NaN with a note where there is no correlation.
    """
    pairs = [
        pair for pair in zip(values, accuracies, strict=True) if not any(map(math.isnan, pair))
    ]
    n, columns = len(pairs), list(zip(*pairs, strict=True))
    notes = (
        [f"ranks without a value: {len(values) - n} of {len(values)}"] if n < len(values) else []
    )
    found = {"n": n, "spearman": math.nan, "kendall": math.nan}
    if n < 3:
        notes.append("fewer than 3 common ranks")
    elif 1 in (distinct := [len(set(column)) for column in columns]):
        notes.append(f"the {('measure', 'accuracy')[distinct.index(1)]} is constant")
    else:
        rho, tau = spearmanr(*columns), kendalltau(*columns)
        found |= {"spearman": float(rho.statistic), "kendall": float(tau.statistic)}
        if n >= MIN_RANKS:
            found |= {"spearman_p": float(rho.pvalue), "kendall_p": float(tau.pvalue)}
        else:
            notes.append(f"fewer than {MIN_RANKS} ranks: no p-values")
    return found | {"note": "; ".join(notes)}


def sensitivity(tables: Measurements) -> Iterator[RankTestRow]:
    """Yield the correlation of each measure with the accuracy of probes, over the ranks of one
    layer of each pair.

    The other layer is at full rank or, where that was not measured, at its highest rank (with a
    note). The measures of a setting are followed by the correlations of the rank itself, over the
    same ranks of the same layers."""
    for same in grouped(by_series(tables.measurements), lambda series: series[0].setting).values():
        baselines = {}
        for series, side in product(same, (0, 1)):
            for layers, reference, values in over_ranks(series, side):
                probes = _probes(tables, series[0], side, layers[side])
                common = sorted(set(values) & set(probes))
                # All ranks above the width of the layer are the full one, by their loss: only the
                # first of them counts.
                ranks = sorted({probes[rank].loss: rank for rank in reversed(common)}.values())
                accuracies = [probes[rank].accuracy for rank in ranks]
                found = correlation([values[rank] for rank in ranks], accuracies)
                notes = [f"{layers[1 - side]} at rank {reference:.0f}"] if reference != FULL else []
                if len(ranks) < len(common):
                    notes.append(f"ranks above the width left out: {len(common) - len(ranks)}")
                if not probes:
                    model, data = tables.titles[series[0].models[side]], series[0].dataset
                    found["note"] = f"no probes of {layers[side]} of {model}" + (
                        f" on {data}" if data else ""
                    )
                found["note"] = "; ".join(filter(None, [*notes, found["note"]]))
                yield _row("sensitivity", series[0], layers, side, **found)
                if ranks:
                    baselines[layers, side, tuple(ranks)] = correlation(ranks, accuracies)
        for (layers, side, _), found in baselines.items():
            yield _row("sensitivity", same[0][0]._replace(measure=BASELINE), layers, side, **found)


def _probes(
    tables: Measurements, measured: Measurement, side: int, layer: str
) -> dict[float, ProbeRow]:
    """Return the probes of a layer of a measurement on its data, by rank."""
    model, data = measured.models[side], measured.dataset
    keys = [key for key in tables.probes if key[:2] == (model, layer) and data in (None, key[2])]
    return tables.probes[keys[-1]] if keys else {}


def specificity(tables: Measurements) -> Iterator[RankTestRow]:
    """Yield the place of the layer of the same name among all layers of the other network, at full
    rank.

    Once among the second layers for each first one (`varied` is layer2), once the other way round.
    Ties count against it; what is NaN is left out."""
    for series in by_series(tables.measurements):
        full = [each for each in series if each.ranks == (FULL, FULL)]
        seconds = {each.layers[1] for each in full}
        for own in dict.fromkeys(each.layers[0] for each in full if each.layers[0] in seconds):
            for side, other in ((1, 0), (0, 1)):
                line = [each for each in full if each.layers[other] == own]
                if len(line) < 2:
                    continue
                value = next((each.value for each in line if each.layers[side] == own), math.nan)
                defined = [each.value for each in line if not math.isnan(each.value)]
                place = math.nan if math.isnan(value) else sum(each >= value for each in defined)
                notes = ["its similarity has no value"] if math.isnan(value) else []
                mixed = dict.fromkeys(each.alignment for each in line if each.alignment)
                notes += [f"{MIXED}: {', '.join(mixed)}"] if len(mixed) > 1 else []
                columns = {"n": len(defined), "place": place, "note": "; ".join(notes)}
                yield _row("specificity", series[0], (own, own), side, **columns)


def summary_of_correlations(rows: Sequence[RankTestRow]) -> str:
    """Return the mean correlations; how many are significant is not counted, as layers depend on
    each other."""
    defined = [row for row in rows if not math.isnan(row.spearman)]
    if not defined:
        return "no correlation is defined"
    rho, tau = (fmean(getattr(row, name) for row in defined) for name in ("spearman", "kendall"))
    return f"mean rho {rho:.4f}, mean tau {tau:.4f}"


def summary_of_places(rows: Sequence[RankTestRow]) -> str:
    """Describe how often the corresponding layer comes first, and its mean place, among either
    network's layers."""
    parts = []
    for varied in ("layer2", "layer1"):
        places = [row.place for row in rows if row.varied == varied and not math.isnan(row.place)]
        if places:
            parts.append(
                f"{varied}: first in {places.count(1)} of {len(places)}, mean place {fmean(places):.2f}"
            )
    return "; ".join(parts) or "no place is defined"


def _row(
    test: str, measured: Measurement, layers: tuple[str, str], side: int, **values
) -> RankTestRow:
    return RankTestRow(
        test, measured.measure, measured.setting, *layers, ("layer1", "layer2")[side], **values
    )
