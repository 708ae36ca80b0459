"""How well a measure of similarity does in the two tests of Ding, Denain and Steinhardt 2021 (arXiv 2108.01661).

Sensitivity: does it fall as probes of a layer, cut to fewer principal components, lose accuracy? Specificity: does it
find the corresponding layer of another network to be the most similar one? Of a distance the negative is taken, so
higher always means more similar.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from scipy.stats import kendalltau, rankdata, spearmanr

from src.measurements import FULL, Probe, Series, Tables, over_ranks

SIGNIFICANT = 0.05
MIXED = "alignments differ"  # a note on specificity: the measure may rank them instead of the layers
COLUMNS = (
    "test", "measure", "setting", "layer1", "layer2", "varied", "n", "spearman", "spearman_p", "kendall", "kendall_p",
    "place", "note",
)  # fmt: skip


class Correlation(NamedTuple):
    """Rank correlations with two-sided p-values; NaN, with a note, where there are none."""

    n: int
    spearman: float = math.nan
    spearman_p: float = math.nan
    kendall: float = math.nan
    kendall_p: float = math.nan
    note: str = ""


def correlation(values: Sequence[float], accuracies: Sequence[float]) -> Correlation:
    """Spearman's rho and Kendall's tau-b of two sequences, whose NaN are left out in pairs.

    Spearman's p-value is that of Student's distribution, which is too small for few ranks; Kendall's is exact as long
    as there are no ties.
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


def sensitivity(tables: Tables) -> Iterator[dict[str, Any]]:
    """Yield the correlation of each measure with the accuracy of probes, over the ranks of one layer of each pair.

    The other layer is at full rank or, where that was not measured, at its highest rank (with a note).
    """
    for series, values in tables.values.items():
        for side in (0, 1):
            for layers, reference, measured in over_ranks(values, side):
                notes = [] if reference == FULL else [f"{layers[1 - side]} at rank {reference:.0f}"]
                probes, reason = _probes(tables, series.models[side], layers[side])
                common, repeated = _common_ranks(measured, probes)
                if repeated:
                    notes.append(f"ranks above the width left out: {repeated}")
                result = correlation([measured[rank] for rank in common], [probes[rank].accuracy for rank in common])
                row = _row("sensitivity", series, layers, side) | result._asdict()
                yield row | {"note": "; ".join(note for note in [*notes, reason or result.note] if note)}


def specificity(tables: Tables) -> Iterator[dict[str, Any]]:
    """Yield the place of the layer of the same name among all layers of the other network, at full rank.

    Once among the second layers for each first one (`varied` is layer2), once the other way round.
    """
    for series, values in tables.values.items():
        matrix = {(key.layer1, key.layer2): value for key, value in values.items() if key[2:] == (FULL, FULL)}
        alignments = {key[:2]: name for key, name in tables.alignments.get(series, {}).items()}
        seconds = {second for _, second in matrix}
        for own in dict.fromkeys(first for first, _ in matrix if first in seconds):
            for side, other in ((1, 0), (0, 1)):
                line = {pair[side]: value for pair, value in matrix.items() if pair[other] == own}
                if len(line) > 1:
                    n, rank_of_own = place(line, own)
                    mixed = dict.fromkeys(
                        alignments[pair] for pair in matrix if pair[other] == own and pair in alignments
                    )
                    notes = ["its similarity has no value"] if math.isnan(rank_of_own) else []
                    notes += [f"{MIXED}: {', '.join(mixed)}"] if len(mixed) > 1 else []
                    row = _row("specificity", series, (own, own), side)
                    yield row | {"n": n, "place": rank_of_own, "note": "; ".join(notes)}


def summary_of_correlations(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean correlations, and how many of them are significant."""
    defined = [row for row in rows if not math.isnan(row["spearman"])]
    if not defined:
        return "no correlation is defined"
    parts = []
    for label, name in (("rho", "spearman"), ("tau", "kendall")):
        n = sum(row[f"{name}_p"] < SIGNIFICANT for row in defined)
        parts.append(f"{label} {fmean(row[name] for row in defined):.4f} (p < {SIGNIFICANT} in {n} of {len(defined)})")
    return f"mean {', mean '.join(parts)}"


def summary_of_places(rows: Sequence[Mapping[str, Any]]) -> str:
    """Describe how often the corresponding layer comes first, and its mean place, among either network's layers."""
    parts = []
    for varied in ("layer2", "layer1"):
        places = [row["place"] for row in rows if row["varied"] == varied and not math.isnan(row["place"])]
        if places:
            parts.append(f"{varied}: first in {places.count(1)} of {len(places)}, mean place {fmean(places):.2f}")
    return "; ".join(parts) or "no place is defined"


def _row(test: str, series: Series, layers: tuple[str, str], side: int) -> dict[str, Any]:
    varied = ("layer1", "layer2")[side]
    names = {"layer1": layers[0], "layer2": layers[1], "varied": varied}
    return {"test": test, "measure": series.measure, "setting": series.setting, **names}


def _probes(tables: Tables, model: str | None, layer: str) -> tuple[dict[float, Probe], str]:
    """Return the probes of a layer by rank, or none and the reason."""
    models = [probed for probed, name in tables.probes if name == layer and model in (None, probed)]
    if not models:
        return {}, f"no probes of {layer}" + (f" of {model}" if model else "")
    if len(models) > 1:
        return {}, f"probes of {layer} of several networks; give those of the front network alone"
    return tables.probes[models[0], layer], ""


def _common_ranks(measured: Mapping[float, float], probes: Mapping[float, Probe]) -> tuple[list[float], int]:
    """List the ranks of both, ascending, and count those left out: all above the width of the layer but the first."""
    common = sorted(set(measured) & set(probes))
    different = [
        rank
        for lower, rank in zip([None, *common], common, strict=False)
        if lower is None or probes[lower].loss != probes[rank].loss
    ]
    return different, len(common) - len(different)
