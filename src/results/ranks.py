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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads a part of it at its first use

from src.core.choices import STARTS
from src.core.choices.similarity import SAMPLES, SIMILARITY, measure_of
from src.core.console import listed, warn, warn_once
from src.core.errors import UserError
from src.core.values import Pair, Rank
from src.results.frame import LAYERS, SIDES, measures_in, of_network, of_similarities
from src.results.network_names import Names, named_by_list, short
from src.results.quantities import PROBES, SIMILARITIES
from src.results.reports import similarity
from src.results.run import options_beside_tables, warn_of_earlier
from src.results.similarities import frame_of_records, with_networks
from src.results.spec import NETWORKS, RANKS
from src.results.stitches import (
    GRID,
    Stitch,
    method_names,
    names_of_data,
    read_stitches,
    stitch_of_record,
    typed,
)
from src.results.tables import columns, read_table

FULL = math.inf  # the rank of a layer that is not truncated: above all other ranks
BASELINE = "rank itself"
PROBE = "linear probe (accuracy)"  # the label of its curve
MIN_RANKS = 10  # for p-values
MIXED = "alignments differ"  # the measure may rank the alignments instead of the layers
OTHER = dict(zip(SIDES, reversed(SIDES), strict=True))
SERIES = ["setting", "quantity"]
PROBED = ["network", "layer", "dataset"]
HOW_PROBED = ["epochs", "further_options"]
TEST = ["test", "quantity", "setting", *LAYERS, "varied"]
CORRELATION = ["n", "spearman", "spearman_p", "kendall", "kendall_p"]
COLUMNS = [*TEST, *CORRELATION, "place", "note"]
# Columns of a frame that tests read, beside its values
NEEDED = ["front_stitch_rank", "is_reversed", "n_images", "stitching_type", "accuracy"]
NEEDED += ["networks", "dataset", "alignment", "alignment_option"]
NEEDED += [f"{side}_{name}" for side in SIDES for name in ("network", "layer", "rank")]
KEPT = ["method", "setting", *NEEDED[5:]]


def read_ranks(*paths: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read CSVs of similarity, probing and stitching, and folders of stitching runs, in any order.

    Of repeated results the newest counts: the result in the table that was written last.

    Returns:
        The frame of stitches and similarities, with `front_rank` and `end_rank`; and that of probes: network,
        layer, dataset, rank, accuracy and loss.
    Raises:
        UserError: a file cannot be read, is of no such kind, or is damaged. The message names it.
    """
    tables = sorted(map(Path, paths), key=lambda path: path.stat().st_mtime if path.exists() else 0)
    stitches, similarities, probes = _read_tables(tables)
    compared = [*similarities.to_dict("records"), *probes.to_dict("records")]
    datasets = iter(names_of_data([*(stitch.record for stitch in stitches), *compared]))
    stitches = [
        replace(stitch, record={**stitch.record, "dataset": next(datasets)}) for stitch in stitches
    ]
    similarities["dataset"] = [next(datasets) for _ in similarities.index]
    probes["dataset"] = pd.Series(list(datasets), dtype=object)
    pairs = [*(stitch.networks for stitch in stitches), *similarities.networks, *probes.networks]
    networks = list(chain.from_iterable(pairs))
    warn_of_earlier(networks, options_beside_tables(tables))
    names = named_by_list(networks, None)
    records = of_stitches(sorted(stitches, key=lambda stitch: stitch.record["folder"]), names)
    records += [
        record for record in of_similarities(similarities, names) if not record["is_reversed"]
    ]
    if not records:
        raise UserError(
            "these tables hold no similarity and no stitching; add a CSV of one of them"
        )
    return pd.DataFrame.from_records(records), newest_probes(probes, names)


def _read_tables(paths: Iterable[Path]) -> tuple[list[Stitch], pd.DataFrame, pd.DataFrame]:
    """Return the stitches, similarities and probes in tables, the oldest first, and in folders of runs."""
    stitches: list[Stitch] = []
    compared: list[dict[str, Any]] = []
    probed: list[dict[str, Any]] = []
    for path in paths:
        if path.is_dir():
            stitches += read_stitches(path, recursive=True)[0]
            continue
        for row in read_table(path, SIMILARITIES, PROBES, GRID):
            if "stitching_type" in row:
                stitches.append(stitch_of_record(row))
            elif "layer1" in row:
                compared.append(row)
            else:
                probed.append(row)
    probes = pd.DataFrame(probed, columns=columns(PROBES), dtype=object)
    return stitches, frame_of_records(compared), with_networks(probes, "model")


def of_stitches(stitches: Sequence[Stitch], names: Names) -> list[dict[str, Any]]:
    """Return the rows of finished stitches with their accuracies.

    The name of the method has the rank of the activations used for fitting if two stitches of the method
    differ in nothing else, and if it is not the rank of the stitch.
    """
    methods = method_names(stitches, apart_from=(*NETWORKS, *RANKS))
    matched_ranks: dict[tuple, set[Rank]] = {}
    for stitch, method in zip(stitches, methods, strict=True):
        key = (method, stitch.network_keys, stitch.pair, stitch.record["front_stitch_rank"])
        matched_ranks.setdefault(key, set()).add(_matched_rank(stitch.record))
    ambiguous = {method for (method, *_), ranks in matched_ranks.items() if len(ranks) > 1}
    records = []
    for stitch, method in zip(stitches, methods, strict=True):
        row = stitch.record
        networks = [names[key] for key in stitch.network_keys]
        rank = _matched_rank(row)
        if method in ambiguous and rank != row["front_stitch_rank"]:
            method += f", {typed('front_pinv_rank', rank)}"
        record: dict[str, Any] = {
            "method": method,
            **stitch.pair._asdict(),
            "dataset": row["dataset"],
        }
        for side, network in zip(SIDES, networks, strict=True):
            record |= of_network(side, network)
        record["networks"] = " → ".join(network.name for network in networks)
        record["front_rank"] = row["front_stitch_rank"]
        record["stitching_type"] = stitch.spec["stitching_type"]
        records.append(record | {"accuracy": row["accuracy"]})
    return records


def _matched_rank(row: Mapping[str, Any]) -> Rank:
    """Return the rank of the activations that a stitch was fitted to.

    A stitch that starts without matching has the rank of the stitch.
    """
    return row["front_stitch_rank"] if row["init"] in STARTS else row["front_pinv_rank"]


def newest_probes(probes: pd.DataFrame, names: Names) -> pd.DataFrame:
    """Return the newest probe of each layer and rank, among probes with the options of the layer's newest
    probe.

    Args:
        probes: the oldest first.
    """
    networks = [names[key].name for (key,) in probes.network_keys]
    probes = probes.assign(network=pd.Series(networks, probes.index, dtype=object))
    numbers = ["rank", "accuracy", "loss", "epochs"]
    probes = probes[[*PROBED, "rank", "accuracy", "loss", *HOW_PROBED]]
    probes = probes.astype(dict.fromkeys(numbers, float)).fillna({"rank": FULL, "epochs": 0})
    probes = _newest(probes, [*PROBED, *HOW_PROBED, "rank"], probes.network)
    last = probes.groupby(PROBED)[HOW_PROBED].transform("last")
    is_alike = (probes[HOW_PROBED] == last).all(axis=1)
    if not is_alike.all():
        warn(
            f"{(~is_alike).sum()} probes have other options or epochs than the newest of their layers, and are left "
            "out; give the tables of one kind of probes"
        )
    return probes[is_alike]


def _newest(frame: pd.DataFrame, keys: list[str], networks: pd.Series) -> pd.DataFrame:
    """Return the last row of each key; warn of repeated rows.

    Args:
        networks: names the networks of each row, for the warning.
    """
    is_repeated = frame.duplicated(keys, keep="last")
    if is_repeated.any():
        warn_once(
            f"{is_repeated.sum()} results repeat others of the same experiment "
            f"({listed(networks[is_repeated].unique(), n=3)}); the newest of each counts"
        )
    return frame[~is_repeated]


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
    has_samples = (long.method == SIMILARITY) & long.quantity.map(_takes_samples)
    long["alignment"] = long.alignment.where(has_samples)
    is_pooled = has_samples & (long.alignment_option == "pool")
    long["setting"] = long.setting.where(~is_pooled, long.setting + ", pool")
    return _newest(long, [*SERIES, *LAYERS, *ranks], long.networks)


def _takes_samples(quantity: str) -> bool:
    return quantity != "accuracy" and measure_of(quantity).of == SAMPLES


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
        frame, probes: from `read_ranks`.
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
            columns = dict(zip(TEST, ("sensitivity", key[0], setting, *key[1:]), strict=True))
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
                test = ("specificity", quantity, setting, layer, layer, varied)
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
    lines = pd.concat([shown.assign(label=_labels(shown)), probed])
    n_settings = lines.groupby("label").setting.transform("nunique")
    lines["label"] = lines.label.where(n_settings == 1, lines.label + ", " + lines.setting)
    below = lines[lines["rank"] != FULL].astype({"rank": int})
    return {
        str(label): dict(zip(line["rank"], line.similarity, strict=True))
        for label, line in below.groupby("label", sort=False)
    }


def _labels(curves: pd.DataFrame) -> list[str]:
    """Return the labels of curves: the title of a measure, and for stitches the method."""
    return [
        measure_of(quantity).similarity_title if method == SIMILARITY else f"{method} (accuracy)"
        for method, quantity in zip(curves.method, curves.quantity, strict=True)
    ]
