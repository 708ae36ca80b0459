"""The frame of results: a row for each pair of layers that was stitched by a method, or compared by
measures of similarity.

    frame = read("results/pairs", networks="nets.csv")
    frame.groupby(["front_group", "end_group"]).skill.mean()

`src.results.reports` has functions from frame to frame. `misc/docs/files.md` lists the columns.
This module does not import torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.core.choices.similarity import SAMPLES, SIMILARITY, measure_of
from src.core.console import listed, note_once
from src.core.errors import UserError
from src.core.files import write_text
from src.results.evaluation import read_evaluated_stitches
from src.results.network_names import (
    PAIRS,
    SAME_RUN,
    NamedNetwork,
    Names,
    architecture,
    kind_of_pair,
    named_by_list,
    named_networks,
)
from src.results.quantities import (
    COLUMNS,
    DEPTHS,
    DTYPES,
    GROUPS,
    LAYERS,
    NETWORKS,
    SIDES,
    TRAINING,
    TYPES,
)
from src.results.similarities import (
    measured_in,
    parts_of,
    read_similarities,
    swapped,
    tables_of_similarity,
    value_columns,
)
from src.results.spec import OPTIONS, names_of_data
from src.results.stitches import Stitch, newest_stitches
from src.results.verdicts import records_of
from src.verdict import Limits

__all__ = ["COLUMNS", "DEPTHS", "GROUPS", "LAYERS", "NETWORKS", "SIDES", "TRAINING", "TYPES"]
# Further columns of compared layers that are no values
NO_MEASURES = {
    *COLUMNS,
    *(f"{side}_{name}" for side in SIDES for name in ("training", "rank", "weights", "depth")),
    *("kind", "networks", "dataset", "n_images", "seed", "test_images", "shortcut", "is_reversed"),
    *("alignment", "alignment_option"),
}


def frame_of(
    verdicts: Iterable[Mapping[str, Any]], similarities: pd.DataFrame | None, names: Names
) -> pd.DataFrame:
    """Return the frame of verdicts on stitches and of tables of similarity.

    A measure with a direction has a row for each direction; a symmetric one has the row of its table.

    Args:
        verdicts: from `src.results.verdicts.records_of`.
        similarities: from `src.results.similarities.read_similarities`.
        names: of all networks.
    """
    records = [dict(record) for record in verdicts]
    if similarities is not None:
        records += of_similarities(similarities, names)
    frame = with_columns(pd.DataFrame.from_records(records))
    return with_depths(frame, names.values())


def with_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with all of `COLUMNS` first, and numeric columns as floats even if values are missing."""
    further = [name for name in frame.columns if name not in COLUMNS]
    frame = frame.reindex(columns=[*COLUMNS, *further])
    return frame.astype({name: kind for name, kind in DTYPES.items() if name in frame})


def of_similarities(table: pd.DataFrame, names: Names) -> list[dict[str, Any]]:
    """Return the records of compared layers; behind each is that of the opposite direction, by the measures that
    have one."""
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
    back = swapped(table[has_back]).drop(columns=[*others, *backward])
    records_of_back = back.to_dict("index")
    records = []
    for number, row in table.drop(columns=backward).to_dict("index").items():
        records.append(_compared(row, names))
        if number in records_of_back:
            records.append(_compared(records_of_back[number], names) | {"is_reversed": True})
    return records


def _compared(row: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Return the record of compared layers, from the first to the second."""
    networks = [names[key] for key in row["network_keys"]]
    record: dict[str, Any] = {"method": SIMILARITY, "kind": kind_of_pair(*networks)}
    for number, side, network in zip((1, 2), SIDES, networks, strict=True):
        record |= of_network(side, network)
        for name in ("layer", "rank", "relative_depth"):
            record[f"{side}_{name}"] = row[f"{name}{number}"]
        record[f"{side}_weights"] = row[f"model{number}_weights"]
    record["networks"] = " → ".join(network.name for network in networks)
    record |= {"dataset": row["dataset"], "n_images": row["n_samples"], "is_reversed": False}
    further = ("seed", "test_images", "shortcut", "alignment_option", "alignment")
    record |= {name: row[name] for name in further}
    return record | {name: row[name] for name in value_columns(row)}


def of_network(side: str, network: NamedNetwork) -> dict[str, Any]:
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


def list_in(folders: Sequence[str | Path]) -> Path | None:
    """Return the path of the list of networks in a single folder of results, such as one of misc/compare.py;
    None without one."""
    paths = [Path(folder, "networks.csv") for folder in folders]
    if len(paths) == 1 and paths[0].is_file():
        return paths[0]
    return None


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
    verdicts = records_of(stitches, similarities, names=names)
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


def judge_stitches(
    stitches: Iterable[Stitch],
    similarities: pd.DataFrame | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    pool: bool = False,
    names: Names | None = None,
) -> pd.DataFrame:
    """Return the frame of the verdicts on each pair of layers, method and pair of networks, see `records_of`."""
    stitches = list(stitches)
    if names is None:
        names = named_networks(chain.from_iterable(stitch.networks for stitch in stitches), {})
    records = records_of(stitches, similarities, limits=limits, pool=pool, names=names)
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
