"""The frame of results: a row for each pair of layers that was stitched by a method, or compared by
measures of similarity.

    frame = read("results/pairs", networks="nets.csv")
    frame.groupby(["front_group", "end_group"]).skill.mean()

`src.results.reports` has functions from frame to frame. `misc/docs/files.md` lists the columns.
This module does not import torch.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from src.core.choices import STARTS
from src.core.choices.similarity import ACTIVATIONS, SAMPLES, SIMILARITY, measure_of
from src.core.console import listed, note, note_once, warn, warn_once
from src.core.errors import UserError
from src.core.files import write_text
from src.core.grouping import grouped
from src.core.values import Pair, Rank, StitchSkill
from src.results.network_names import (
    NamedNetwork,
    Names,
    architecture,
    are_same,
    kind_of_pair,
    named_by_list,
    named_networks,
)
from src.results.run import options_beside_tables, warn_of_earlier
from src.results.similarities import (
    measured_in,
    parts_of,
    swapped,
    value_columns,
)
from src.results.spec import CHECKPOINTS, OPTIONS, RANKS, WEIGHTS
from src.results.spec import NETWORKS as NETWORK_OPTIONS
from src.results.spec import TYPES as MODEL_TYPES
from src.results.stitches import (
    GRID,
    SETTINGS,
    Stitch,
    by_detector,
    method_names,
    metrics_of,
    names_of_data,
    newest_stitches,
    read_evaluated_stitches,
    read_stitches,
    skill_of,
    stitch_of_record,
    typed,
)
from src.results.tables import (
    AUROC,
    COLUMNS,
    DETECTOR,
    DTYPES,
    JUDGED,
    PAIRS,
    PROBES,
    QUANTITIES,
    SAME_RUN,
    SIDES,
    SIMILARITIES,
    SKILL,
    STITCHING,
    TYPES,
    UNTRAINED_END,
    UNTRAINED_FRONT,
    columns,
    measured_by,
    read_table,
)
from src.verdict import SIMILAR, Limits, Stitches, Verdict, judge, obstacle_of

SHOWN_MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
NO_SETTINGS = {*NETWORK_OPTIONS, "further_options"}
STITCH_QUANTITIES = measured_by(STITCHING, SKILL, DETECTOR)
SEPARATOR = ";"  # between the names of folders
# Controls: a layer stitched to itself; and by the kind of the pair of networks, where nothing can be said of a
# stitch into a network that was never trained
SELF = "self"
UNTRAINED_END_CONTROL = "untrained_end"
CONTROLS = {UNTRAINED_FRONT: "untrained", UNTRAINED_END: UNTRAINED_END_CONTROL}
FULL = math.inf  # the rank of a layer that is not truncated: above all other ranks
PROBED = ["network", "layer", "dataset"]
HOW_PROBED = ["epochs", "further_options"]
# Columns of tables of similarity, and what they are in the frame
RENAMED_COLUMNS = {
    "layer1": "front_layer",
    "layer2": "end_layer",
    "rank1": "front_rank",
    "rank2": "end_rank",
    "relative_depth1": "front_relative_depth",
    "relative_depth2": "end_relative_depth",
    "model1_weights": "front_weights",
    "model2_weights": "end_weights",
    "n_samples": "n_images",
}
COPIED_COLUMNS = ["dataset", "is_reversed", "seed", "test_images", "shortcut"]
COPIED_COLUMNS += ["alignment_option", "alignment"]
# Further columns of compared layers that are no values
NO_MEASURES = {
    *COLUMNS,
    *(f"{side}_{name}" for side in SIDES for name in ("training", "rank", "weights", "depth")),
    *("kind", "networks", "dataset", "n_images", "seed", "test_images", "shortcut", "is_reversed"),
    *("alignment", "alignment_option"),
}


# ---- Reading


def read(*folders: str | Path, networks: str | Path | None = None) -> pd.DataFrame:
    """Read all results in and below folders, as a row for each pair of layers and method.

    Args:
        folders: of stitching runs and of tables of similarity (`similarity/*.csv`); or such tables.
        networks: the list of networks with their names and groups; None: `networks.csv` in the folder, or
            else checkpoints name networks.
    Returns:
        The columns of `COLUMNS`, a column for each measure of similarity and for each detector
        (`auroc_energy`), and what was measured under which options.
    Raises:
        UserError: a folder does not exist, or has no results.
    """
    paths = [Path(path) for path in folders]
    tables = [path for path in paths if path.suffix == ".csv"]
    others = [path for path in paths if path not in tables]
    stitches, similarities, names = _collect(others, tables, networks or list_in(folders))
    if not stitches and similarities.empty:
        raise UserError(
            f"{listed(folders)}: no finished stitching run, and no table in a folder similarity; give folders that "
            "hold some"
        )
    verdicts = judged_records(stitches, similarities, names=names)
    return frame_of(verdicts, similarities, names)


def _collect(
    folders: Sequence[Path], tables: Sequence[Path], networks: str | Path | None
) -> tuple[list[Stitch], pd.DataFrame, Names]:
    """Return the newest stitches with their evaluations, the frame of tables of similarity, and the names of all
    networks.

    Results on different images have different names of data sets, with a warning.

    Args:
        tables: of similarity, beside those below the folders.
        networks: the list of networks; None: networks are named by their paths.
    """
    stitches = newest_stitches(read_evaluated_stitches(folders, recursive=True))
    paths = [*tables, *chain.from_iterable(map(tables_of_similarity, folders))]
    similarities = read_similarities(list(dict.fromkeys(paths)))
    pairs = [*(stitch.networks for stitch in stitches), *similarities.networks]
    names = named_by_list(chain.from_iterable(pairs), networks)
    records = [*(stitch.record for stitch in stitches), *similarities.to_dict("records")]
    datasets = names_of_data(records)
    similarities["dataset"] = datasets[len(stitches) :]
    stitches = [
        replace(stitch, record={**stitch.record, "dataset": name})
        for stitch, name in zip(stitches, datasets, strict=False)
    ]
    if networks:
        order = list(names)
        stitches.sort(key=lambda stitch: list(map(order.index, stitch.network_keys)))
        places = [tuple(map(order.index, keys)) for keys in similarities.network_keys]
        in_order = similarities.assign(place=places).sort_values("place", kind="stable")
        similarities = in_order.drop(columns="place").reset_index(drop=True)
    return stitches, similarities, names


def list_in(folders: Sequence[str | Path]) -> Path | None:
    """Return the path of the list of networks in a single folder of results, such as one of misc/compare.py,
    or beside its folder `similarity`; None without one."""
    if len(folders) != 1:
        return None
    folder = Path(folders[0])
    if folder.resolve().name == SIMILARITY:
        folder = folder / ".."
    path = folder / "networks.csv"
    return path if path.is_file() else None


def tables_of_similarity(source_dir: Path) -> list[Path]:
    """Return the paths of all tables of similarity in a folder and below it, or in a folder `similarity`."""
    tables = [*source_dir.rglob(f"{SIMILARITY}/*.csv")]
    if source_dir.resolve().name == SIMILARITY:
        tables += source_dir.glob("*.csv")
    return sorted(tables)


def read_similarities(tables: Sequence[str | Path]) -> pd.DataFrame:
    """Return the frame of tables of similarity, see `frame_of_records`; warn of networks whose weights have
    changed since."""
    records = [record for table in tables for record in read_table(table, SIMILARITIES)]
    frame = frame_of_records(records)
    warn_of_earlier(chain.from_iterable(frame.networks), options_beside_tables(tables))
    return frame


def frame_of_records(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return records of tables as a frame in which missing entries are None, with both networks and their keys."""
    frame = pd.DataFrame(records, columns=None if records else columns(SIMILARITIES), dtype=object)
    return with_networks(frame, "model1", "model2")


def with_networks(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return a frame with the columns `networks`, a tuple of names for each row, and `network_keys`.

    Args:
        columns: of paths; those of types and weights begin with their names.
    """
    networks = []
    for row in frame.to_dict("records"):
        names = [
            NamedNetwork.of(
                row[name], row[f"{name}_type"], seed=row["seed"], weights=row[f"{name}_weights"]
            )
            for name in columns
        ]
        networks.append(tuple(names))
    keys = {pair: tuple(network.key for network in pair) for pair in networks}
    return frame.assign(networks=networks, network_keys=[keys[pair] for pair in networks])


# ---- The frame


def frame_of(
    verdicts: Iterable[Mapping[str, Any]], similarities: pd.DataFrame | None, names: Names
) -> pd.DataFrame:
    """Return the frame of verdicts on stitches and of tables of similarity.

    A measure with a direction has a row for each direction; a symmetric one has the row of its table.

    Args:
        verdicts: from `judged_records`.
        similarities: from `read_similarities`.
        names: of all networks.
    """
    records = [dict(record) for record in verdicts]
    if similarities is not None:
        records += similarity_records(similarities, names)
    frame = with_columns(pd.DataFrame.from_records(records))
    return with_depths(frame, names.values())


def with_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with all of `COLUMNS` first, and numeric columns as floats even if values are missing."""
    further = [name for name in frame.columns if name not in COLUMNS]
    frame = frame.reindex(columns=[*COLUMNS, *further])
    return frame.astype({name: kind for name, kind in DTYPES.items() if name in frame})


def similarity_records(table: pd.DataFrame, names: Names) -> list[dict[str, Any]]:
    """Return the records of compared layers, from the first to the second; behind each is that of the opposite
    direction, by the measures that have one."""
    values = value_columns(table)
    backward = [name for name in values if parts_of(name)[1]]
    have_directions = {parts_of(name)[0] for name in backward}
    others = [name for name in values if parts_of(name)[0] not in have_directions]
    of_samples = [name for name in measured_in(values) if measure_of(name).of == SAMPLES]
    has_samples = table[of_samples].notna().any(axis=1)
    table = table.assign(alignment=table.alignment.where(has_samples))
    is_itself = [
        (row.network_keys[0], row.layer1, row.rank1) == (row.network_keys[1], row.layer2, row.rank2)
        for row in table.itertuples()
    ]
    has_back = table[backward].notna().any(axis=1) & ~np.array(is_itself, bool)
    back = swapped(table[has_back]).drop(columns=others).assign(is_reversed=True)
    both = pd.concat([table.assign(is_reversed=False), back]).sort_index(kind="stable")
    forward = [name for name in values if name not in backward]
    kept = [*RENAMED_COLUMNS, *COPIED_COLUMNS, "network_keys", *forward]
    records = both[kept].rename(columns=RENAMED_COLUMNS).to_dict("records")
    for record in records:
        front, end = (names[key] for key in record.pop("network_keys"))
        record |= {"method": SIMILARITY, "kind": kind_of_pair(front, end)}
        record["networks"] = f"{front.name} → {end.name}"
        record |= network_columns("front", front) | network_columns("end", end)
    return records


def network_columns(side: str, network: NamedNetwork) -> dict[str, Any]:
    """Return the columns that describe a network, for the front or the end."""
    values = (network.name, network.group_title, network.training, network.type)
    names = ("network", "group", "training", "type")
    return {f"{side}_{name}": value for name, value in zip(names, values, strict=True)}


def frame_of_judged(rows: Iterable[Mapping[str, Any]], record: Any) -> pd.DataFrame:
    """Return the frame of the rows of `judge`, in which each network is a group of its own.

    Args:
        record: the `Record` of the rows.
    """
    front, end = record.names
    common = {"kind": PAIRS if front != end else SAME_RUN, "n_images": record.n_images}
    for side, name in zip(SIDES, record.names, strict=True):
        common |= {f"{side}_{column}": name for column in ("network", "group", "training")}
    records = []
    for row in rows:
        options = record.options[row["method"]]
        settings = {name: options.get(name) for name in OPTIONS}
        types = {
            name: options[f"{side}_model_type"] for side, name in zip(SIDES, TYPES, strict=True)
        }
        records.append({**row, **common, **types, **settings})
    return with_columns(pd.DataFrame.from_records(records))


def architectures(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the architectures of both networks: their types, or the name of a file of features."""
    columns = {}
    for side in SIDES:
        networks = zip(frame[f"{side}_network"], frame[f"{side}_type"], strict=True)
        columns[side] = [architecture(str(name), str(kind)) for name, kind in networks]
    return pd.DataFrame(columns, index=frame.index)


def layers_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each layer of each network, with the columns network, architecture, layer, depth and
    relative_depth."""
    ordered = frame.sort_values("method", key=lambda names: names != SIMILARITY, kind="stable")
    kinds = architectures(ordered).set_axis(["front_architecture", "end_architecture"], axis=1)
    columns = ["architecture", "network", "layer", "depth", "relative_depth"]
    return of_either_side(ordered.join(kinds), columns).drop_duplicates(ignore_index=True)


def of_either_side(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the values of columns such as `front_layer` and `end_layer`, in that order, in columns such as
    `layer`."""
    sides = [
        frame.reindex(columns=[f"{side}_{name}" for name in columns]).set_axis(columns, axis=1)
        for side in SIDES
    ]
    return pd.concat(sides)


def with_depths(frame: pd.DataFrame, networks: Iterable[NamedNetwork]) -> pd.DataFrame:
    """Return a frame with the relative depth of every layer.

    It is that of the list of networks, or else the recorded one. If a layer has no record, all
    measured layers of the networks of its type lie at equal distances; a note says so where there are
    several types.

    Raises:
        UserError: the list lacks a measured layer of a network, or gives networks of one type
            different depths.
    """
    given = {network.name: network.relative_depths for network in networks}
    depth_of: dict[tuple[str, str], float] = {}
    assumed = []
    by_type = layers_of(frame).groupby("architecture", sort=False)
    for kind, layers in by_type:
        depths = _listed(layers, given) or _recorded(layers)
        if not depths:
            depths = _assumed(layers)
            assumed.append(str(layers.network.iloc[0]))
        depth_of |= {(str(kind), layer): depth for layer, depth in depths.items()}
    if assumed and by_type.ngroups > 1:
        note_once(
            f"no relative depths are recorded for networks such as {listed(assumed)}: their measured "
            "layers are assumed to be evenly spaced"
        )
    kinds = architectures(frame)
    columns = {}
    for side in SIDES:
        layers_of_side = zip(kinds[side], frame[f"{side}_layer"], strict=True)
        columns[f"{side}_relative_depth"] = [depth_of[layer] for layer in layers_of_side]
    return frame.assign(**columns)


def _listed(layers: pd.DataFrame, given: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the relative depths, by layer, that the list gives for networks of one type; {} if none."""
    depths: dict[str, float] = {}
    names = layers.network.unique()
    for network in names:
        for layer, depth in given.get(network, {}).items():
            if depths.setdefault(layer, depth) != depth:
                raise UserError(
                    f"the list has another depth of layer {layer} for {network} than for a network of the same type; "
                    "give both the same depths"
                )
    missing = [layer for layer in layers.layer.unique() if layer not in depths]
    if depths and missing:
        raise UserError(
            f"the depths that the list gives {names[0]} lack {listed(missing)}; give LAYER=DEPTH for each layer that "
            "was measured"
        )
    return depths


def _recorded(layers: pd.DataFrame) -> dict[str, float]:
    """Return the relative depths, by layer, that results recorded; {} if a layer has none."""
    recorded = layers.dropna(subset="relative_depth")
    depths = dict(zip(recorded.layer, map(float, recorded.relative_depth), strict=True))
    return depths if set(layers.layer) <= depths.keys() else {}


def _assumed(layers: pd.DataFrame) -> dict[str, float]:
    """Return evenly spaced relative depths of layers, in the order of the network or else of the first
    table."""
    place = layers.groupby("layer", sort=False).depth.first()
    if place.notna().all():
        place = place.sort_values(kind="stable")
    return {str(layer): number / len(place) for number, layer in enumerate(place.index, start=1)}


def measures_in(frame: pd.DataFrame) -> list[str]:
    """Return the measures of similarity in a frame, in the order of their columns."""
    similarities = frame[frame.method == SIMILARITY]
    names = [name for name in frame.columns if name not in NO_MEASURES]
    return [
        name for name in names if parts_of(name)[0] == name and similarities[name].notna().any()
    ]


def similarity(quantity: str, value: float) -> float:
    """Convert a value to a scale on which higher is more similar; a share of verdicts keeps its value."""
    if quantity in QUANTITIES:
        return QUANTITIES[quantity].similarity(value)
    return measure_of(quantity).similarity(value)


# ---- Writing


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as a CSV; missing values are empty cells, and floats have full precision."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def write_means(path: Path, reports: Mapping[str, pd.DataFrame]) -> None:
    """Write means over pairs of networks as a CSV.

    Args:
        reports: by name, which stands in the column `report`.
    """
    tables = [table.assign(report=name)[["report", *table]] for name, table in reports.items()]
    write_frame(path, pd.concat(tables))


# ---- Verdicts


def judge_stitches(
    stitches: Iterable[Stitch],
    similarities: pd.DataFrame | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    pool: bool = False,
    names: Names | None = None,
) -> pd.DataFrame:
    """Return the frame of the verdicts on each pair of layers, method and pair of networks, see `judged_records`."""
    stitches = list(stitches)
    if names is None:
        names = named_networks(chain.from_iterable(stitch.networks for stitch in stitches), {})
    records = judged_records(stitches, similarities, limits=limits, pool=pool, names=names)
    return frame_of(records, None, names)


def n_changed(
    judged: pd.DataFrame,
    stitches: Iterable[Stitch],
    factor: float,
    *,
    limits: Limits,
    pool: bool = False,
    names: Names | None = None,
) -> int:
    """Return the number of verdicts that change if both limits of skill are multiplied by a factor.

    Args:
        judged: the verdicts by the limits, from `judge_stitches` with the same arguments.
    """
    changed = limits._replace(
        skill=min(1, factor * limits.skill), skill_at_end=min(1, factor * limits.skill_at_end)
    )
    others = judge_stitches(stitches, limits=changed, pool=pool, names=names)
    return int((judged.verdict != others.verdict).sum())


class Group(NamedTuple):
    """The stitches of one pair of layers by one method, which are judged together."""

    method: str
    networks: str  # the names of both networks, or the number of pairs that are taken together
    kind: str  # of the pair of networks, such as `PAIRS`
    by_networks: list[list[Stitch]]  # the stitches on each pair of networks

    @property
    def stitches(self) -> list[Stitch]:
        """All stitches."""
        return list(chain.from_iterable(self.by_networks))

    @property
    def pair(self) -> Pair:
        """The layers."""
        return self.by_networks[0][0].pair

    @property
    def control(self) -> str | None:
        """SELF, or of `CONTROLS`; None: of two trained networks, or of different layers of one network."""
        front, end = self.by_networks[0][0].network_keys
        is_one_layer = front == end and self.pair.front_layer == self.pair.end_layer
        if self.kind == SAME_RUN and is_one_layer:
            return SELF
        return CONTROLS.get(self.kind)


def judged_records(
    stitches: Iterable[Stitch],
    similarities: pd.DataFrame | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    pool: bool = False,
    names: Names,
) -> list[dict[str, Any]]:
    """Judge all stitches; return a record for each pair of layers, method and pair of networks.

    The records come family by family (see `families_of`): a family is judged together. Numbers that
    were not measured, or are not defined, are None. Measurements are means over runs; `_low` and `_high`
    are the ends of intervals of 95 % of the pair by itself, while `p_below` and `p_above` are adjusted for all
    pairs that were judged together.

    Args:
        stitches: with their evaluations.
        similarities: the frame of tables of similarity. Rows of the stitched networks and layers, at
            full rank and in either order, add their values to the verdict.
        pool: take pairs of networks together that share no network.
        names: name, group and training of each network, by its key.
    """
    similarity_of_layers: Mapping[tuple, Sequence[Mapping[str, Any]]] = {}
    shown: list[str] = []
    if similarities is not None:
        similarity_of_layers = _similarities_by_layers(similarities)
        shown = similarity_columns(similarities)
    records = []
    for family in families_of(stitches, names, pool=pool):
        verdicts = judge([measurements_of(group) for group in family], limits=limits)
        for group, verdict in zip(family, verdicts, strict=True):
            similarity = _similarity(group, similarity_of_layers, shown)
            records.append(_judged(group, verdict, similarity, names))
    _add_both_ways(records)
    return records


def measurements_of(group: Group) -> Stitches:
    """Return the measurements by which a group of stitches is judged: no predictions unless all stitches have
    them, and likewise of skill."""
    records = [stitch.record for stitch in group.stitches]
    predictions = [
        [stitch.predictions for stitch in of_pair if stitch.predictions is not None]
        for of_pair in group.by_networks
    ]
    if sum(map(len, predictions)) < len(group.stitches):
        predictions = []
    return Stitches(
        predictions=predictions,
        skills=_skills(group),
        front_accuracy=fmean(record["front_accuracy"] for record in records),
        end_accuracy=fmean(record["end_accuracy"] for record in records),
        is_end_trained=group.control != UNTRAINED_END_CONTROL,
        has_converged=all(
            stitch.has_converged for stitch in group.stitches if stitch.record["n_epochs"]
        ),
        obstacle=obstacle_of(list(map(metrics_of, records)), records[0]["init"]),
    )


def _skills(group: Group) -> list[list[StitchSkill]]:
    """Return the skill of the stitches on each pair of networks; [] if it was not measured of a stitch."""
    n_unmeasured = sum(not stitch.evaluation for stitch in group.stitches)
    if 0 < n_unmeasured < len(group.stitches):
        warn_once(
            f"{group.method}, {group.pair}: {n_unmeasured} of its {len(group.stitches)} stitches "
            "were not evaluated, so skill does not count; evaluate all"
        )
    if n_unmeasured:
        return []
    return [[skill_of(stitch.evaluation) for stitch in of_pair] for of_pair in group.by_networks]


def _judged(
    group: Group, verdict: Verdict, similarity: Mapping[str, float], names: Names
) -> dict[str, Any]:
    """Return the record of a verdict: its columns, what was measured, and the options that all runs share;
    `both_ways` is set by `_add_both_ways`."""
    rows = [stitch.record for stitch in group.stitches]
    means = _means(group)
    known = {name: value for name, value in verdict.numbers.items() if not math.isnan(value)}
    record = dict.fromkeys([*COLUMNS, *JUDGED, *(name for name in means if name.startswith(AUROC))])
    record |= {**similarity, "kind": group.kind, **means, **known, **_settings(rows)}
    record |= {"method": group.method, **group.pair._asdict()}
    record |= {"verdict": verdict.verdict, "reason": verdict.reason}
    networks = [names[key] for key in group.stitches[0].network_keys]
    for side, network in zip(SIDES, networks, strict=True):
        if len(group.by_networks) == 1:
            record |= {f"{side}_network": network.name, f"{side}_group": network.group_title}
        record |= {
            f"{side}_training": network.training,
            f"{side}_type": rows[0][f"{side}_model_type"],
        }
        record |= {name: rows[0][name] for name in (f"{side}_depth", f"{side}_relative_depth")}
        record[f"{side}_weights"] = _common([row[f"{side}_weights"] for row in rows])
    return record | {
        "networks": group.networks,
        "control": group.control,
        "n_runs": len(rows),
        "n_networks": len(group.by_networks),
        "folders": SEPARATOR.join(stitch.folder.name for stitch in group.stitches),
        "same_run": networks[0].training == networks[1].training,
    }


def _settings(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the recorded options of stitches, and the number of images; None where they differ."""
    recorded = [
        {name: row[name] for name in (*SETTINGS, "n_images")} | json.loads(row["further_options"])
        for row in rows
    ]
    names = dict.fromkeys(chain.from_iterable(recorded))
    return {
        name: _common([values.get(name) for values in recorded])
        for name in names
        if name not in NO_SETTINGS
    }


def _common(values: Sequence[Any]) -> Any:
    """Return the value that all share; None if they differ or are ""."""
    is_common = values[0] != "" and all(value == values[0] for value in values)
    return values[0] if is_common else None


def _means(group: Group) -> dict[str, float]:
    """Return the means over stitches, by column, of quantities that all stitches have, and `seed_spread`."""
    measured = [quantities_of(stitch) for stitch in group.stitches]
    means = {
        column: fmean(values[column] for values in measured)
        for column in measured[0]
        if all(column in values for values in measured)
    }
    accuracies = [
        [stitch.record["accuracy"] for stitch in of_pair]
        for of_pair in group.by_networks
        if len(of_pair) > 1
    ]
    if accuracies:
        means["seed_spread"] = max(max(of_pair) - min(of_pair) for of_pair in accuracies)
    return means


def quantities_of(stitch: Stitch) -> dict[str, float]:
    """Return the measured quantities of a stitch by column, without undefined ones."""
    values: dict[str, float | None] = {}
    stitching = {**stitch.record, "accuracy_drop": stitch.accuracy_drop}
    detectors = by_detector(stitch.evaluation)
    for name, quantity in STITCH_QUANTITIES.items():
        source = stitching if quantity.measured_by == STITCHING else stitch.evaluation
        names = [name]
        if quantity.measured_by == DETECTOR:
            names = [f"{name}_{detector}" for detector in detectors]
        values |= {column: source.get(column) for column in names}
    return {
        column: value
        for column, value in values.items()
        if value is not None and not math.isnan(value)
    }


def _similarities_by_layers(frame: pd.DataFrame) -> dict[tuple, list[dict[str, Any]]]:
    """Index the similarities at full rank by networks, data and layers, in both directions.

    A row that was measured the other way comes first.
    """
    full = frame[frame[["rank1", "rank2"]].isna().all(axis=1)]
    records = [*swapped(full).to_dict("records"), *full.to_dict("records")]
    return grouped(
        records, lambda row: (row["network_keys"], row["dataset"], (row["layer1"], row["layer2"]))
    )


def _similarity(
    group: Group, by_layers: Mapping[tuple, Sequence[Mapping[str, Any]]], shown: Sequence[str]
) -> dict[str, float]:
    """Return the values of measures of similarity for the layers, networks and images of a group.

    They are means over its pairs of networks, as far as pairs have values. The last table counts.

    Args:
        shown: the columns to return, as far as they have values.
    """
    measured: dict[str, list[float]] = {}
    for stitches in group.by_networks:
        first = stitches[0]
        values: dict[str, float] = {}
        for row in by_layers.get((first.network_keys, first.record["dataset"], group.pair), []):
            if are_same(row["test_images"], first.record["test_images"]):
                values |= {name: row[name] for name in shown if not math.isnan(row[name])}
        for name, value in values.items():
            measured.setdefault(name, []).append(value)
    return {name: fmean(measured[name]) for name in shown if name in measured}


def similarity_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of similarity that a verdict shows.

    They are the values of `SHOWN_MEASURES`, the numbers of their nulls of all images, and the columns
    of a user's measures that have values.

    Args:
        frame: of tables of similarity.
    """
    shown = []
    for name in value_columns(frame):
        measure, back, _, images = parts_of(name)
        is_of_user = measure_of(measure).of == ACTIVATIONS
        if is_of_user or (measure in SHOWN_MEASURES and not back and not images):
            shown.append(name)
    return shown


def _add_both_ways(records: Sequence[dict[str, Any]]) -> None:
    """Set `both_ways`: whether pairs that were stitched in both directions are similar in both."""
    verdict_of = {
        (record["method"], *_sides(record)): record["verdict"]
        for record in records
        if record["front_network"]
    }
    for record in records:
        front, end = _sides(record)
        back = verdict_of.get((record["method"], end, front))
        if back is not None and front != end:
            record["both_ways"] = record["verdict"] == back == SIMILAR


def _sides(record: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the network, its weights and its layer, for the front and for the end."""
    for side in SIDES:
        yield tuple(record[f"{side}_{name}"] for name in ("network", "weights", "layer"))


def families_of(
    stitches: Iterable[Stitch], names: Names, *, pool: bool = False
) -> list[list[Group]]:
    """Return the groups of stitches to judge, in families for the correction of multiple tests.

    A group has one pair of layers, of one pair of networks (with `pool`, of several). A family has
    all groups of one method with one type of networks on either side, whatever the networks: the
    adjusted p-values depend on the folders that are judged together.
    Stitches of a network to itself, at whatever epochs, are a family of their own. So are stitches
    from untrained networks, and stitches into untrained networks. Of repeated stitches the
    newest counts, with a warning.

    Args:
        names: the networks of the stitches.
        pool: take pairs of networks of the same types together that share no network, as
            repetitions of one experiment. Otherwise a note says where that is possible.
    """
    stitches = newest_stitches(stitches)
    apart_from = [*NETWORK_OPTIONS, "seed"]
    if pool:  # rows then name no networks, and methods have the types
        apart_from = [*CHECKPOINTS, *WEIGHTS, "seed"]
    methods = method_names(stitches, apart_from=apart_from)
    families: dict[tuple[str, ...], list[Stitch]] = {}
    for stitch, method in zip(stitches, methods, strict=True):
        kind = kind_of_pair(*(names[key] for key in stitch.network_keys))
        types = [str(stitch.record[name]) for name in MODEL_TYPES]
        families.setdefault((method, kind, *types), []).append(stitch)
    return [
        _groups(of_family, method, kind, names, pool=pool)
        for (method, kind, *_), of_family in families.items()
    ]


def _groups(
    stitches: Sequence[Stitch], method: str, kind: str, names: Names, *, pool: bool
) -> list[Group]:
    """Return the groups of a family: one for each pair of layers and of networks, or of networks that are taken
    together."""
    by_networks = grouped(stitches, lambda stitch: stitch.network_keys)
    titles = {keys: " → ".join(names[key].name for key in keys) for keys in by_networks}
    runs_of_pairs = [{names[key].training for key in keys} for keys in by_networks]
    training_runs = list(chain.from_iterable(runs_of_pairs))
    n_pairs = len(by_networks)
    if n_pairs > 1 and len(training_runs) == len(set(training_runs)):  # that share no network
        if pool:
            titles = dict.fromkeys(titles, f"{n_pairs} pairs of networks")
        else:
            note(
                f"{method}: {n_pairs} pairs of networks share no network; --pool takes them together"
            )
    groups = []
    for title, titled in grouped(stitches, lambda stitch: titles[stitch.network_keys]).items():
        for of_layers in grouped(titled, lambda stitch: stitch.pair).values():
            of_networks = grouped(of_layers, lambda stitch: stitch.network_keys).values()
            groups.append(Group(method, title, kind, list(of_networks)))
    return groups


# ---- Ranks


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
    records = stitch_records(sorted(stitches, key=lambda stitch: stitch.record["folder"]), names)
    records += [
        record for record in similarity_records(similarities, names) if not record["is_reversed"]
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


def stitch_records(stitches: Sequence[Stitch], names: Names) -> list[dict[str, Any]]:
    """Return the rows of finished stitches with their accuracies.

    The name of the method has the rank of the activations used for fitting if two stitches of the method
    differ in nothing else, and if it is not the rank of the stitch.
    """
    methods = method_names(stitches, apart_from=(*NETWORK_OPTIONS, *RANKS))
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
            record |= network_columns(side, network)
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
    probes = newest(probes, [*PROBED, *HOW_PROBED, "rank"], probes.network)
    last = probes.groupby(PROBED)[HOW_PROBED].transform("last")
    is_alike = (probes[HOW_PROBED] == last).all(axis=1)
    if not is_alike.all():
        warn(
            f"{(~is_alike).sum()} probes have other options or epochs than the newest of their layers, and are left "
            "out; give the tables of one kind of probes"
        )
    return probes[is_alike]


def newest(frame: pd.DataFrame, keys: list[str], networks: pd.Series) -> pd.DataFrame:
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
