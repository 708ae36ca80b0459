"""Sensitivity and specificity tests of measures of similarity (Ding, Denain and Steinhardt 2021, arXiv
2108.01661).

Sensitivity: when a layer is cut to fewer principal components, does the measure fall as probes of
the layer lose accuracy? Specificity: is the corresponding layer of another network the most similar
one? Distances are taken negative, so higher always means more similar.

Any two curves that rise with the rank correlate. Therefore the rank itself is tested as well: a
measure is sensitive where it does better than this baseline.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads a part of it at its first use

from src.core.choices.similarity import SAMPLES, SIMILARITY, measure_of
from src.core.errors import UserError
from src.core.user_code import short
from src.core.values import Pair
from src.results.frame import FULL, PROBED, measures_in, newest, similarity
from src.results.tables import LAYERS, SIDES

BASELINE = "rank itself"
PROBE = "linear probe (accuracy)"  # the label of its curve
MIN_RANKS = 10  # for p-values
MIXED = "alignments differ"  # the measure may rank the alignments instead of the layers
OTHER = dict(zip(SIDES, reversed(SIDES), strict=True))
SERIES = ["setting", "quantity"]
TEST = ["test", "quantity", "method", "setting", *LAYERS, "varied"]
CORRELATION = ["n", "spearman", "spearman_p", "kendall", "kendall_p"]
COLUMNS = [*TEST, *CORRELATION, "place", "note"]
# Columns of a frame that tests read, beside its values
NEEDED = ["front_stitch_rank", "is_reversed", "n_images", "stitching_type", "accuracy"]
NEEDED += ["networks", "dataset", "alignment", "alignment_option"]
NEEDED += [f"{side}_{name}" for side in SIDES for name in ("network", "layer", "rank")]
KEPT = ["method", "setting", *NEEDED[5:]]


def rank_values(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a long-format frame: a row for each value of a measure and each accuracy of a stitch, without NaN.

    The columns are networks, layers and ranks of both sides (`FULL` of a whole layer), `dataset`, `alignment`,
    `quantity`, `similarity` (higher is more similar) and `setting`: the networks and of stitches the method, and
    the data, the images and the alignment where similarities of the same networks differ in them.
    """
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, *NEEDED])))
    frame = frame[~frame.is_reversed.eq(True)]
    front_rank = frame.front_rank.fillna(frame.front_stitch_rank)
    ranks = {"front_rank": front_rank, "end_rank": frame.end_rank}
    ranks = {name: rank.astype(float).fillna(FULL) for name, rank in ranks.items()}
    frame = frame.assign(**ranks, setting=_settings(frame))
    quantities = [*measures_in(frame), "accuracy"]
    long = frame.melt(KEPT, quantities, "quantity", "value").dropna(subset="value")
    long["similarity"] = list(map(similarity, long.quantity, long.value))
    of_samples = [name for name in measures_in(frame) if measure_of(name).of == SAMPLES]
    has_samples = (long.method == SIMILARITY) & long.quantity.isin(of_samples)
    long["alignment"] = long.alignment.where(has_samples)
    is_pooled = has_samples & (long.alignment_option == "pool")
    long["setting"] = long.setting.where(~is_pooled, long.setting + ", pool")
    return newest(long, [*SERIES, *LAYERS, *ranks], long.networks)


def _settings(frame: pd.DataFrame) -> pd.Series:
    """Return the setting of each row: its networks, and the method of stitches or the data of similarities."""
    is_compared = frame.method == SIMILARITY
    of_networks = frame[is_compared].groupby("networks")[["dataset", "n_images"]].nunique()
    texts = {
        "dataset": frame.dataset.map(short, na_action="ignore"),
        "n_images": frame.n_images.map("{:.0f} images".format),
    }
    of_stitches = frame.networks + ": " + frame.stitching_type + ", " + frame.method
    settings = frame.networks.where(is_compared, of_stitches)
    for name, text in texts.items():
        is_ambiguous = is_compared & (frame.networks.map(of_networks[name]) > 1)
        settings = settings.where(~is_ambiguous, settings + ", " + text)
    return settings


def over_ranks(values: pd.DataFrame) -> pd.DataFrame:
    """Return the values at several ranks of one layer, with its side, network, layer and rank; the other layer
    has its highest measured rank (`other_rank`).

    Args:
        values: from `rank_values`.
    """
    keys = [*SERIES, *LAYERS]
    sides = []
    for side, other in OTHER.items():
        highest = values.groupby(keys)[f"{other}_rank"].transform("max")
        kept = values[values[f"{other}_rank"] == highest]
        kept = kept.assign(varied=side, other_rank=highest)
        for name in ("network", "layer", "rank"):
            kept[name] = kept[f"{side}_{name}"]
        sides.append(kept[kept.groupby(keys)["rank"].transform("size") > 1])
    return pd.concat(sides, ignore_index=True)


def sensitivity(frame: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """Compute the rank correlation of each measure with the accuracy of probes, over the ranks of a layer.

    There is a row for either layer of two. The other layer is at full rank; where full rank was not
    measured it is at its highest rank, with a note. After the measures of a setting come rows of the rank
    itself, over the same ranks of the same layers. Ranks above the width of the layer are the full rank, whose
    probes have equal losses: only the first of them counts.

    Args:
        frame, probes: from `src.results.frame.read_ranks`.
    """
    curves = over_ranks(rank_values(frame))
    # A value that names no data has the probes on any data
    on_any = probes.drop_duplicates(PROBED[:2], keep="last").set_index(PROBED[:2]).dataset
    names = zip(curves.network, curves.layer, strict=True)
    curves["dataset"] = curves.dataset.fillna(pd.Series(map(on_any.get, names), dtype=object))
    curves = curves.merge(probes, "left", [*PROBED, "rank"])
    rows: list[dict[str, Any]] = []
    for setting, of_setting in curves.groupby("setting", sort=False):
        baselines = {}
        for key, test in of_setting.groupby(["quantity", *LAYERS, "varied"], sort=False):
            of_test = ("sensitivity", key[0], test.method.iloc[0], setting, *key[1:])
            columns = dict(zip(TEST, of_test, strict=True))
            probed = test.dropna(subset="loss").sort_values("rank")
            common = probed.drop_duplicates("loss")
            measured = correlation(common.similarity, common.accuracy)
            notes = _notes(test, len(probed) - len(common), measured["note"])
            rows.append(columns | measured | {"note": "; ".join(filter(None, notes))})
            if len(common):
                ranks = common["rank"]
                same_ranks = (*key[1:], *ranks)
                measured = correlation(ranks, common.accuracy)
                baselines[same_ranks] = columns | {"quantity": BASELINE} | measured
        rows += baselines.values()
    return _tests(rows)


def _tests(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"place": "Int64"})


def _notes(test: pd.DataFrame, n_left_out: int, note: str) -> Iterator[str]:
    """Yield the notes on a sensitivity test that precede the note on its correlation."""
    first = test.iloc[0]
    if first.other_rank != FULL:
        other = first[f"{OTHER[first.varied]}_layer"]
        yield f"{other} at rank {first.other_rank:.0f}"
    if test.loss.isna().all():
        yield f"no probes of {first.layer} of {first.network} on {first.dataset}"
        return
    if n_left_out:
        yield f"ranks above the width left out: {n_left_out}"
    yield note


def correlation(values: Iterable[float], accuracies: Iterable[float]) -> dict[str, Any]:
    """Compute Spearman's rho and Kendall's tau-b of two sequences; also return the number of pairs and a note.

    Spearman's p-value is taken from Student's distribution. Kendall's is exact as long as there are
    no ties. Below ten ranks there are no p-values: Spearman's is too small there (0 for a third of
    all orders of three ranks), and Kendall's is left out with it.
    """
    pairs = np.array([*zip(values, accuracies, strict=True)], dtype=float).reshape(-1, 2)
    numbers = dict.fromkeys(CORRELATION[1:], math.nan)
    note = ""
    if len(pairs) < 3:
        note = "fewer than 3 common ranks"
    elif np.ptp(pairs[:, 0]) == 0:
        note = "the measure is constant"
    elif np.ptp(pairs[:, 1]) == 0:
        note = "the accuracy is constant"
    else:
        rho = scipy.stats.spearmanr(*pairs.T)
        tau = scipy.stats.kendalltau(*pairs.T)
        numbers |= {"spearman": float(rho.statistic), "kendall": float(tau.statistic)}
        if len(pairs) < MIN_RANKS:
            note = f"fewer than {MIN_RANKS} ranks: no p-values"
        else:
            numbers |= {"spearman_p": float(rho.pvalue), "kendall_p": float(tau.pvalue)}
    return {"n": len(pairs), **numbers, "note": note}


def specificity(frame: pd.DataFrame) -> pd.DataFrame:
    """Compute how each measure ranks the corresponding layer among all layers of a network, at full rank.

    The corresponding layer has the same name. For each layer of the front network the end layer
    is varied, and the other way round. Ties count against the corresponding layer.
    """
    values = rank_values(frame)
    full = values[(values.front_rank == FULL) & (values.end_rank == FULL)]
    rows = []
    for (setting, quantity), series in full.groupby(SERIES, sort=False):
        layers = series.front_layer[series.front_layer.isin(series.end_layer)].unique()
        for layer, (fixed, varied) in itertools.product(layers, OTHER.items()):
            candidates = series[series[f"{fixed}_layer"] == layer]
            if len(candidates) > 1:
                method = candidates.method.iloc[0]
                test = ("specificity", quantity, method, setting, layer, layer, varied)
                rows.append(dict(zip(TEST, test, strict=True)) | _place(layer, candidates, varied))
    return _tests(rows)


def _place(layer: str, candidates: pd.DataFrame, varied: str) -> dict[str, Any]:
    """Return the place of a layer among candidates ordered by similarity; 1 is the most similar."""
    own = candidates.similarity[candidates[f"{varied}_layer"] == layer]
    notes = []
    place = None
    if own.empty:
        notes.append("its similarity has no value")
    else:
        place = int((candidates.similarity >= own.iloc[0]).sum())
    alignments = sorted(candidates.alignment.dropna().unique())
    if len(alignments) > 1:
        notes.append(f"{MIXED}: {', '.join(alignments)}")
    return {"n": len(candidates), "place": place, "note": "; ".join(notes)}


def chosen_pairs(
    curves: pd.DataFrame, layers: Sequence[str] | None, other_layer: str | None
) -> list[Pair]:
    """Select the pairs of layers to plot, among those measured at several ranks of the front layer.

    Args:
        curves: from `over_ranks`.
        layers: the front layers; None: of all measured pairs.
        other_layer: the end layer; None: the front layer again.
    Raises:
        UserError: a pair was not measured.
    """
    of_front = curves[curves.varied == "front"]
    measured = [Pair(*pair) for pair in of_front[LAYERS].drop_duplicates().itertuples(index=False)]
    if not layers:
        return [pair for pair in measured if pair.end_layer == (other_layer or pair.front_layer)]
    pairs = [Pair(layer, other_layer or layer) for layer in layers]
    missing = [" and ".join(pair) for pair in pairs if pair not in measured]
    if missing:
        available = ", ".join(" and ".join(pair) for pair in measured)
        raise UserError(
            f"these tables have no two ranks of the first layer of {', '.join(missing)}; choose by -l and -other among "
            f"the pairs that have them: {available or 'none'}"
        )
    return pairs


def curves_of_pair(
    curves: pd.DataFrame, probes: pd.DataFrame, pair: Pair
) -> dict[str, dict[int, float]]:
    """Return the curves over the rank of the front layer for a pair of layers, by label, with those of probes
    on the same data.

    Full rank is left out: it has no place on the axis of ranks.
    """
    is_of_pair = (curves[LAYERS] == list(pair)).all(axis=1) & (curves.varied == "front")
    shown = curves[is_of_pair]
    is_on_data = probes.dataset.isin(shown.dataset) | shown.dataset.isna().any()
    probed = probes[
        (probes.layer == pair.front_layer) & probes.network.isin(shown.network) & is_on_data
    ]
    probed = probed.assign(
        label=PROBE,
        setting=probed.network + ", " + probed.dataset,
        similarity=probed.accuracy,
    )
    lines = pd.concat([shown.assign(label=labels_of(shown)), probed])
    n_settings = lines.groupby("label").setting.transform("nunique")
    lines["label"] = lines.label.where(n_settings == 1, lines.label + ", " + lines.setting)
    below = lines[lines["rank"] != FULL].astype({"rank": int})
    return {
        str(label): dict(zip(line["rank"], line.similarity, strict=True))
        for label, line in below.groupby("label", sort=False)
    }


def labels_of(rows: pd.DataFrame) -> list[str]:
    """Return the labels of curves or tests: the title of a measure, and for stitches the method."""
    labels = []
    for method, quantity in zip(rows.method, rows.quantity, strict=True):
        if quantity == BASELINE:
            labels.append(BASELINE)
        elif quantity == "accuracy":
            labels.append(f"{method} (accuracy)")
        else:
            labels.append(measure_of(quantity).similarity_title)
    return labels
