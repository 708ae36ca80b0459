"""How well a measure of similarity does in the two tests of Ding, Denain and Steinhardt 2021 (arXiv 2108.01661).

Sensitivity: does it fall as probes of a layer, cut to fewer principal components, lose accuracy? Specificity: does it
find the corresponding layer of another network to be the most similar one? Of a distance the negative is taken, so
higher always means more similar.

Any two curves that rise with the rank correlate, so the rank itself is tested as well: a measure tells something of
sensitivity where it does better than that baseline.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from scipy.stats import kendalltau, rankdata, spearmanr

from src.measurements import FULL, Measurement, Tables, by_series, over_ranks
from src.probing.rows import ProbeRow
from src.results.experiments import grouped

BASELINE = "rank itself"
MIN_RANKS = 10  # for p-values
MIXED = "alignments differ"  # a note on specificity: the measure may rank them instead of the layers


class RankTestRow(NamedTuple):
    """A sensitivity or specificity test of a measure: a row of the table of `misc/rank_statistics.py`."""

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


class Correlation(NamedTuple):
    """Rank correlations with two-sided p-values; where there are none NaN and None, with a note."""

    n: int
    spearman: float = math.nan
    spearman_p: float | None = None
    kendall: float = math.nan
    kendall_p: float | None = None
    note: str = ""


def correlation(values: Sequence[float], accuracies: Sequence[float]) -> Correlation:
    """Spearman's rho and Kendall's tau-b of two sequences, whose NaN are left out in pairs.

    Spearman's p-value is that of Student's distribution; Kendall's is exact as long as there are no ties. Below ten
    ranks there are none: Spearman's is too small there (0 for a third of all orders of three ranks), and Kendall's is
    left out with it.
    """
    pairs = [pair for pair in zip(values, accuracies, strict=True) if not any(map(math.isnan, pair))]
    n_lacking = len(values) - len(pairs)
    notes = [f"ranks without a value: {n_lacking} of {len(values)}"] if n_lacking else []
    if len(pairs) < 3:
        return Correlation(len(pairs), note="; ".join([*notes, "fewer than 3 common ranks"]))
    columns = list(zip(*pairs, strict=True))
    for name, column in zip(("measure", "accuracy"), columns, strict=True):
        if len(set(column)) == 1:
            return Correlation(len(pairs), note="; ".join([*notes, f"the {name} is constant"]))
    rho, tau = spearmanr(*columns), kendalltau(*columns)
    if len(pairs) < MIN_RANKS:
        note = "; ".join([*notes, f"fewer than {MIN_RANKS} ranks: no p-values"])
        return Correlation(len(pairs), float(rho.statistic), kendall=float(tau.statistic), note=note)
    numbers = (rho.statistic, rho.pvalue, tau.statistic, tau.pvalue)
    return Correlation(len(pairs), *map(float, numbers), note="; ".join(notes))


def place(similarities: Mapping[str, float], own: str) -> tuple[int, float]:
    """Count the similarities, and return the place of `own` among them: 1 is best, and ties count against it.

    What is NaN is left out; the place is NaN if that is `own`.
    """
    defined = {name: value for name, value in similarities.items() if not math.isnan(value)}
    if own not in defined:
        return len(defined), math.nan
    places = rankdata([-value for value in defined.values()], method="max")
    return len(defined), int(places[list(defined).index(own)])


def sensitivity(tables: Tables) -> Iterator[RankTestRow]:
    """Yield the correlation of each measure with the accuracy of probes, over the ranks of one layer of each pair.

    The other layer is at full rank or, where that was not measured, at its highest rank (with a note). The measures of
    a setting are followed by the correlations of the rank itself, over the same ranks of the same layers.
    """
    for same in grouped(by_series(tables.measurements), lambda series: series[0].setting).values():
        baselines = {}
        for series in same:
            for curves in _curves(tables, series):
                yield _correlated(series[0], curves)
                if curves.ranks:
                    itself = curves._replace(values=range(len(curves.ranks)), notes=[])
                    baselines[curves.layers, curves.side, curves.ranks] = itself
        for curves in baselines.values():
            yield _correlated(same[0][0]._replace(measure=BASELINE), curves)


def specificity(tables: Tables) -> Iterator[RankTestRow]:
    """Yield the place of the layer of the same name among all layers of the other network, at full rank.

    Once among the second layers for each first one (`varied` is layer2), once the other way round.
    """
    for series in by_series(tables.measurements):
        full = [each for each in series if each.ranks == (FULL, FULL)]
        seconds = {each.layers[1] for each in full}
        for own in dict.fromkeys(each.layers[0] for each in full if each.layers[0] in seconds):
            for side, other in ((1, 0), (0, 1)):
                line = [each for each in full if each.layers[other] == own]
                if len(line) > 1:
                    n, rank_of_own = place({each.layers[side]: each.value for each in line}, own)
                    mixed = dict.fromkeys(each.alignment for each in line if each.alignment)
                    notes = ["its similarity has no value"] if math.isnan(rank_of_own) else []
                    notes += [f"{MIXED}: {', '.join(mixed)}"] if len(mixed) > 1 else []
                    texts = {"n": n, "place": rank_of_own, "note": "; ".join(notes)}
                    yield _row("specificity", series[0], (own, own), side, **texts)


def summary_of_correlations(rows: Sequence[RankTestRow]) -> str:
    """Return the mean correlations; how many are significant is not counted, as layers depend on each other."""
    defined = [row for row in rows if not math.isnan(row.spearman)]
    if not defined:
        return "no correlation is defined"
    means = [f"mean {label} {fmean(getattr(row, name) for row in defined):.4f}" for label, name in
             (("rho", "spearman"), ("tau", "kendall"))]  # fmt: skip
    return ", ".join(means)


def summary_of_places(rows: Sequence[RankTestRow]) -> str:
    """Describe how often the corresponding layer comes first, and its mean place, among either network's layers."""
    parts = []
    for varied in ("layer2", "layer1"):
        places = [row.place for row in rows if row.varied == varied and not math.isnan(row.place)]
        if places:
            parts.append(f"{varied}: first in {places.count(1)} of {len(places)}, mean place {fmean(places):.2f}")
    return "; ".join(parts) or "no place is defined"


class _Curves(NamedTuple):
    """A measure of two layers and the accuracy of probes, over the ranks of one of them."""

    layers: tuple[str, str]
    side: int  # of the truncated layer
    ranks: tuple[float, ...]  # ascending
    values: Sequence[float]
    accuracies: list[float]
    notes: list[str]


def _curves(tables: Tables, series: Sequence[Measurement]) -> Iterator[_Curves]:
    for side in (0, 1):
        for layers, reference, measured in over_ranks(series, side):
            probes, of_probes = _probes(tables, series[0], side, layers[side])
            common, n_repeated = _common_ranks(measured, probes)
            notes = [] if reference == FULL else [f"{layers[1 - side]} at rank {reference:.0f}"]
            notes += [f"ranks above the width left out: {n_repeated}"] if n_repeated else []
            notes += [of_probes] if of_probes else []
            accuracies = [probes[rank].accuracy for rank in common]
            yield _Curves(layers, side, tuple(common), [measured[rank] for rank in common], accuracies, notes)


def _correlated(measured: Measurement, curves: _Curves) -> RankTestRow:
    found = correlation(curves.values, curves.accuracies)
    # Without probes there are no common ranks; the reason says more.
    notes = curves.notes if curves.notes and not curves.ranks else [*curves.notes, found.note]
    found = found._replace(note="; ".join(filter(None, notes)))
    return _row("sensitivity", measured, curves.layers, curves.side, **found._asdict())


def _row(
    test: str, measured: Measurement, layers: tuple[str, str], side: int, **values: float | str | None
) -> RankTestRow:
    return RankTestRow(test, measured.measure, measured.setting, *layers, ("layer1", "layer2")[side], **values)


def _probes(tables: Tables, measured: Measurement, side: int, layer: str) -> tuple[dict[float, ProbeRow], str]:
    """Return the probes of a layer of a measurement on its data by rank, and a note on which they are, or are not."""
    model, data = measured.models[side], measured.dataset
    known = [key for key in tables.probes if (key.model, key.layer) == (model, layer)]
    keys = [key for key in known if data is None or key.dataset == data]
    if not keys:
        on = f" on {data}" if known else ""
        return {}, f"no probes of {layer} of {tables.names[model].path}{on}"
    epochs = [str(key.epochs) for key in keys]
    note = f"probes of {epochs[-1]} epochs, the newest of those of {', '.join(epochs)}" if len(keys) > 1 else ""
    return tables.probes[keys[-1]], note


def _common_ranks(measured: Mapping[float, float], probes: Mapping[float, ProbeRow]) -> tuple[list[float], int]:
    """List the ranks of both, ascending, and count those left out: all above the width of the layer but the first."""
    common = sorted(set(measured) & set(probes))
    different = [
        rank
        for lower, rank in zip([None, *common], common, strict=False)
        if lower is None or probes[lower].loss != probes[rank].loss
    ]
    return different, len(common) - len(different)
