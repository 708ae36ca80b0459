"""The two tests of measures of similarity of Ding, Denain and Steinhardt 2021 (arXiv 2108.01661).

Sensitivity: when a layer is cut to fewer principal components, does the measure fall as probes of
the layer lose accuracy? Specificity: is the corresponding layer of another network the most similar
one? Distances are taken negative, so higher always means more similar.

Any two curves that rise with the rank correlate. Therefore the rank itself is tested as well: a
measure is sensitive where it does better than this baseline.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

import scipy  # loads a part of it at its first use

from src.choices.similarity import SIMILARITY, measure_of
from src.core.console import decimals
from src.core.grouping import grouped
from src.results.measurements import Measurement
from src.results.rank_measurements import (
    FULL,
    Measurements,
    ProbesByRank,
    Series,
    by_series,
    over_ranks,
    ranks_of,
)
from src.values import Pair

BASELINE = "rank itself"
MIN_RANKS = 10  # for p-values
# A note on specificity: the measure may rank the alignments instead of the layers
MIXED = "alignments differ"
SIDES = ("layer1", "layer2")

Record = dict[str, Any]  # of a test, by column


class Outcome(NamedTuple):
    """The result of a test: of sensitivity a rank correlation, NaN where it is not defined; of
    specificity a place."""

    n: int  # ranks, or layers
    spearman: float | None = None  # Spearman's rho
    spearman_p: float | None = None
    kendall: float | None = None  # Kendall's tau-b
    kendall_p: float | None = None
    place: float | None = None  # of the corresponding layer; 1 is the most similar
    note: str = ""


COLUMNS = ("test", "measure", "setting", "layer1", "layer2", "varied", *Outcome._fields)


def correlation(values: Sequence[float], accuracies: Sequence[float]) -> Outcome:
    """Return Spearman's rho and Kendall's tau-b of two sequences; pairs with a NaN are left out.

    Spearman's p-value is taken from Student's distribution. Kendall's is exact as long as there are
    no ties. Below ten ranks both p-values are None: Spearman's is too small there (0 for a third of
    all orders of three ranks), and Kendall's is left out with it.
    """
    pairs = []
    for value, accuracy in zip(values, accuracies, strict=True):
        if not (math.isnan(value) or math.isnan(accuracy)):
            pairs.append((value, accuracy))
    n = len(pairs)
    n_values = len({value for value, _ in pairs})
    n_accuracies = len({accuracy for _, accuracy in pairs})
    notes = []
    if n < len(values):
        notes.append(f"ranks without a value: {len(values) - n} of {len(values)}")

    # Not defined
    if n < 3:
        notes.append("fewer than 3 common ranks")
    elif n_values == 1:
        notes.append("the measure is constant")
    elif n_accuracies == 1:
        notes.append("the accuracy is constant")
    if n < 3 or n_values == 1 or n_accuracies == 1:
        return Outcome(n, spearman=math.nan, kendall=math.nan, note="; ".join(notes))

    rho = scipy.stats.spearmanr(*zip(*pairs, strict=True))
    tau = scipy.stats.kendalltau(*zip(*pairs, strict=True))
    result = Outcome(n, spearman=float(rho.statistic), kendall=float(tau.statistic))
    if n >= MIN_RANKS:
        result = result._replace(spearman_p=float(rho.pvalue), kendall_p=float(tau.pvalue))
    else:
        notes.append(f"fewer than {MIN_RANKS} ranks: no p-values")
    return result._replace(note="; ".join(notes))


def sensitivity(tables: Measurements) -> Iterator[Record]:
    """Yield the correlation of each measure with the accuracy of probes, over the ranks of a layer.

    There is a record for either layer of two. The other layer is at full rank; where full rank was
    not measured it is at its highest rank, with a note. After the measures of a setting come records
    of the rank itself, over the same ranks of the same layers.
    """
    groups = grouped(by_series(tables.values), lambda values: values[0].setting)
    for group in groups.values():
        baselines: dict[tuple[Pair, int, tuple[float, ...]], Record] = {}
        for values, side in product(group, (0, 1)):
            first = values[0]
            sign = measure_of(first.quantity).sign
            for series in over_ranks(values, side):
                probes = _probes(tables, first, side, series.pair[side])
                ranks = _common_ranks(series, probes)
                accuracies = [probes[rank].accuracy for rank in ranks]
                measured = correlation([sign * series.values[rank] for rank in ranks], accuracies)
                note = _note(first, side, series, probes, measured.note)
                of_test = _columns("sensitivity", first, series.pair, side)
                yield of_test | measured._replace(note=note)._asdict()
                if ranks:
                    of_rank = correlation(ranks, accuracies)._asdict()
                    baseline = of_test | {"measure": BASELINE} | of_rank
                    baselines[series.pair, side, tuple(ranks)] = baseline
        yield from baselines.values()


def _probes(tables: Measurements, measured: Measurement, side: int, layer: str) -> ProbesByRank:
    """Return the probes of a layer of a network of a value, on the data of the value.

    A value that names no data has the probes on any data.
    """
    probes: ProbesByRank = {}
    for (network, probed_layer, dataset), probes_by_rank in tables.probes.items():
        is_of_layer = (network, probed_layer) == (measured.networks[side].name, layer)
        if is_of_layer and measured.dataset in (None, dataset):
            probes = probes_by_rank
    return probes


def _common_ranks(series: Series, probes: ProbesByRank) -> list[float]:
    """Return the ranks with a value and a probe, in ascending order.

    All ranks above the width of the layer are the full rank: their probes have equal losses. Only
    the first of these ranks counts.
    """
    rank_of_loss: dict[float, float] = {}
    for rank in sorted(set(series.values) & set(probes)):
        rank_of_loss.setdefault(probes[rank].loss, rank)
    return list(rank_of_loss.values())


def _note(
    measured: Measurement,
    side: int,
    series: Series,
    probes: ProbesByRank,
    note_on_correlation: str,
) -> str:
    """Return the note on a test of sensitivity, in front of the note on its correlation."""
    notes = []
    if series.other_rank != FULL:
        notes.append(f"{series.pair[1 - side]} at rank {series.other_rank:.0f}")
    if not probes:
        network = measured.networks[side].name
        missing = f"no probes of {series.pair[side]} of {network}"
        if measured.dataset:
            missing += f" on {measured.dataset}"
        return "; ".join([*notes, missing])
    n_common = len(set(series.values) & set(probes))
    n_left_out = n_common - len(_common_ranks(series, probes))
    if n_left_out:
        notes.append(f"ranks above the width left out: {n_left_out}")
    if note_on_correlation:
        notes.append(note_on_correlation)
    return "; ".join(notes)


def specificity(tables: Measurements) -> Iterator[Record]:
    """Yield the place of the corresponding layer among all layers of a network, at full rank.

    The corresponding layer has the same name. For each layer of the first network the second layer
    is varied (`varied` is layer2), and the other way round. Ties count against the corresponding
    layer. NaN are left out.
    """
    for values in by_series(tables.values):
        full = [value for value in values if ranks_of(value) == (FULL, FULL)]
        second_layers = {value.end.layer for value in full}
        for layer in dict.fromkeys(value.front.layer for value in full):
            if layer not in second_layers:
                continue
            for varied in (1, 0):
                candidates = [value for value in full if value.pair[1 - varied] == layer]
                if len(candidates) > 1:
                    of_test = _columns("specificity", candidates[0], Pair(layer, layer), varied)
                    yield of_test | _place(layer, candidates, varied)._asdict()


def _place(layer: str, candidates: Sequence[Measurement], varied: int) -> Outcome:
    """Return the place of a layer among candidates.

    Args:
        candidates: values that share the layer that is not varied.
        varied: the index of the varied layer.
    """
    sign = measure_of(candidates[0].quantity).sign
    values = {item.pair[varied]: sign * item.value for item in candidates}
    defined = [value for value in values.values() if not math.isnan(value)]
    notes = []
    place = math.nan
    value_of_layer = values.get(layer, math.nan)
    if math.isnan(value_of_layer):
        notes.append("its similarity has no value")
    else:
        place = sum(value >= value_of_layer for value in defined)
    alignments = dict.fromkeys(item.alignment for item in candidates if item.alignment)
    if len(alignments) > 1:
        notes.append(f"{MIXED}: {', '.join(alignments)}")
    return Outcome(len(defined), place=place, note="; ".join(notes))


def summary_of_correlations(rows: Sequence[Record]) -> str:
    """Return the mean correlations as a text.

    It does not count how many are significant: the layers of a network depend on each other.
    """
    rho = _defined(row["spearman"] for row in rows)
    tau = _defined(row["kendall"] for row in rows)
    if not rho:
        return "no correlation is defined"
    return f"mean rho {decimals(fmean(rho))}, mean tau {decimals(fmean(tau))}"


def summary_of_places(rows: Sequence[Record]) -> str:
    """Return how often the corresponding layer comes first, and its mean place, as a text."""
    texts = []
    for varied in ("layer2", "layer1"):
        places = _defined(row["place"] for row in rows if row["varied"] == varied)
        if places:
            texts.append(
                f"{varied}: first in {places.count(1)} of {len(places)}, "
                f"mean place {fmean(places):.2f}"
            )
    return "; ".join(texts) or "no place is defined"


def _defined(values: Iterable[float | None]) -> list[float]:
    """Return the values that are neither None nor NaN."""
    return [value for value in values if value is not None and not math.isnan(value)]


def _columns(test: str, measured: Measurement, pair: Pair, side: int) -> Record:
    """Return the columns of a test without its outcome.

    Args:
        side: the index of the varied layer.
    """
    measure = measured.quantity
    if measured.method != SIMILARITY:
        measure = f"stitching {measure}"
    return {
        "test": test,
        "measure": measure,
        "setting": measured.setting,  # the networks, and of stitches the method
        "layer1": pair.front_layer,
        "layer2": pair.end_layer,
        "varied": SIDES[side],
    }
