"""Judges stitches from runs and tables: one record for each pair of layers, method and pair of networks."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from src.core.choices.similarity import ACTIVATIONS, measure_of
from src.core.console import note, warn_once
from src.core.grouping import grouped
from src.core.values import Pair, Predictions, StitchSkill
from src.results.evaluation import by_detector, skill_of
from src.results.network_names import (
    SAME_RUN,
    UNTRAINED_END,
    UNTRAINED_FRONT,
    NamedNetwork,
    Names,
    kind_of_pair,
)
from src.results.quantities import (
    AUROC,
    COLUMNS,
    DETECTOR,
    JUDGED,
    SIDES,
    SKILL,
    STITCHING,
    measured_by,
)
from src.results.similarities import parts_of, swapped, value_columns
from src.results.spec import CHECKPOINTS, NETWORKS, TYPES, WEIGHTS, are_same
from src.results.stitches import SETTINGS, Stitch, method_names, metrics_of, newest_stitches
from src.verdict import SIMILAR, Limits, Stitches, Verdict, judge, obstacle_of

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN_MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
NO_SETTINGS = {*NETWORKS, "further_options"}
OF_STITCHES = measured_by(STITCHING, SKILL, DETECTOR)
SEPARATOR = ";"  # between the names of folders
# Controls
SELF = "self"  # a layer stitched to itself
UNTRAINED_END_CONTROL = (
    "untrained_end"  # the end network was never trained, so nothing can be said of the stitch
)
CONTROLS = {
    UNTRAINED_FRONT: "untrained",
    UNTRAINED_END: UNTRAINED_END_CONTROL,
}  # by the kind of the pair of networks


class Group(NamedTuple):
    """The stitches of one pair of layers by one method, which are judged together."""

    method: str
    networks: str  # the names of both networks, or the number of pairs that are taken together
    kind: str  # of the pair of networks, a member of `KINDS`
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


def records_of(
    stitches: Iterable[Stitch],
    similarities: "DataFrame | None" = None,
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
        similarity_of_layers = _by_layers(similarities)
        shown = similarity_columns(similarities)
    records = []
    for family in families_of(stitches, names, pool=pool):
        verdicts = judge([stitches_of(group) for group in family], limits=limits)
        for group, verdict in zip(family, verdicts, strict=True):
            similarity = _similarity(group, similarity_of_layers, shown)
            means = _means(group)
            record = _record(group, verdict, means, names)
            further = {"kind": group.kind, **means, **_settings(group, names)}
            records.append(record | similarity | further | record)
    _add_both_ways(records)
    return records


def stitches_of(group: Group) -> Stitches:
    """Return the measurements by which a group of stitches is judged."""
    records = [stitch.record for stitch in group.stitches]
    return Stitches(
        predictions=_predictions(group),
        skills=_skills(group),
        front_accuracy=_average([record["front_accuracy"] for record in records]),
        end_accuracy=_average([record["end_accuracy"] for record in records]),
        is_end_trained=group.control != UNTRAINED_END_CONTROL,
        has_converged=all(
            stitch.has_converged for stitch in group.stitches if stitch.record["n_epochs"]
        ),
        obstacle=obstacle_of(list(map(metrics_of, records)), records[0]["init"]),
    )


def _networks_of(stitch: Stitch, names: Names) -> tuple[NamedNetwork, NamedNetwork]:
    """Return both networks of a stitch, named as in reports."""
    front, end = stitch.network_keys
    return names[front], names[end]


def _predictions(group: Group) -> list[list[Predictions]]:
    """Return the predictions of the stitches on each pair of networks; [] if a stitch has none."""
    predictions = [
        [stitch.predictions for stitch in stitches if stitch.predictions is not None]
        for stitches in group.by_networks
    ]
    if sum(map(len, predictions)) < len(group.stitches):
        return []
    return predictions


def _skills(group: Group) -> list[list[StitchSkill]]:
    """Return the skill of the stitches on each pair of networks; [] if it was not measured of a stitch."""
    n_unmeasured = sum(not stitch.evaluation for stitch in group.stitches)
    if n_unmeasured:
        if n_unmeasured < len(group.stitches):
            warn_once(
                f"{group.method}, {group.pair}: {n_unmeasured} of its {len(group.stitches)} stitches "
                "were not evaluated, so skill does not count; evaluate all"
            )
        return []
    return [
        [skill_of(stitch.evaluation) for stitch in stitches if stitch.evaluation]
        for stitches in group.by_networks
    ]


def _record(
    group: Group, verdict: Verdict, means: Mapping[str, float], names: Names
) -> dict[str, Any]:
    """Return the columns of a verdict; `both_ways` is set by `_add_both_ways`."""
    rows = [stitch.record for stitch in group.stitches]
    record: dict[str, Any] = dict.fromkeys([*COLUMNS, *JUDGED])
    record |= {"method": group.method, **group.pair._asdict()}
    record |= {"verdict": verdict.verdict, "reason": verdict.reason}
    front, end = _networks_of(group.stitches[0], names)
    for side, network in zip(SIDES, (front, end), strict=True):
        if len(group.by_networks) == 1:
            record |= {f"{side}_network": network.name, f"{side}_group": network.group_title}
        record[f"{side}_type"] = rows[0][f"{side}_model_type"]
        for name in ("depth", "relative_depth"):
            record[f"{side}_{name}"] = rows[0][f"{side}_{name}"]
        record[f"{side}_weights"] = _common(row[f"{side}_weights"] for row in rows)
    record |= {
        "networks": group.networks,
        "control": group.control,
        "n_runs": len(rows),
        "n_networks": len(group.by_networks),
        "folders": SEPARATOR.join(stitch.folder.name for stitch in group.stitches),
        "same_run": front.training == end.training,
        "stitching_type": _common(row["stitching_type"] for row in rows),
    }
    known = {name: value for name, value in verdict.numbers.items() if not math.isnan(value)}
    numbers = {**means, **known}
    return record | {
        name: value for name, value in numbers.items() if name in record or name.startswith(AUROC)
    }


def _settings(group: Group, names: Names) -> dict[str, Any]:
    """Return the recorded options that all runs share, None where these differ, and the training runs of the
    networks."""
    rows = [stitch.record for stitch in group.stitches]
    recorded = [
        {name: row[name] for name in SETTINGS} | json.loads(row["further_options"]) for row in rows
    ]
    options = {
        name: _common(values.get(name) for values in recorded)
        for name in dict.fromkeys(chain.from_iterable(recorded))
    }
    options["n_images"] = _common(row["n_images"] for row in rows)
    for side, network in zip(SIDES, _networks_of(group.stitches[0], names), strict=True):
        options[f"{side}_training"] = network.training
    return {name: value for name, value in options.items() if name not in NO_SETTINGS}


def _means(group: Group) -> dict[str, float]:
    """Return the means over stitches, by column, of quantities that all stitches have, and `seed_spread`."""
    measured: dict[str, list[float]] = {}
    for stitch in group.stitches:
        for column, value in quantities_of(stitch).items():
            measured.setdefault(column, []).append(value)
    means = {
        column: _average(values)
        for column, values in measured.items()
        if len(values) == len(group.stitches)
    }
    accuracies = [
        [stitch.record["accuracy"] for stitch in stitches] for stitches in group.by_networks
    ]
    spreads = [
        max(of_networks) - min(of_networks) for of_networks in accuracies if len(of_networks) > 1
    ]
    if spreads:
        means["seed_spread"] = max(spreads)
    return means


def quantities_of(stitch: Stitch) -> dict[str, float]:
    """Return the measured quantities of a stitch by column, without undefined ones."""
    values = {}
    stitching = {**stitch.record, "accuracy_drop": stitch.accuracy_drop}
    detectors = by_detector(stitch.evaluation)
    for name, quantity in OF_STITCHES.items():
        if quantity.measured_by == STITCHING:
            values[name] = stitching[name]
            continue
        names = [name]
        if quantity.measured_by == DETECTOR:
            names = [f"{name}_{detector}" for detector in detectors]
        values |= {column: stitch.evaluation.get(column) for column in names}
    return {
        column: value
        for column, value in values.items()
        if value is not None and not math.isnan(value)
    }


def _by_layers(frame: "DataFrame") -> dict[tuple, list[dict[str, Any]]]:
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
    return {name: _average(measured[name]) for name in shown if name in measured}


def similarity_columns(frame: "DataFrame") -> list[str]:
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


def _common(values: Iterable[Any]) -> Any:
    """Return the value that all share; None if they differ or are ""."""
    first, *further = values
    is_common = first != "" and all(value == first for value in further)
    return first if is_common else None


def _average(values: Sequence[float]) -> float:
    """Return the mean; NaN for no values."""
    if not values:
        return math.nan
    return sum(values) / len(values)


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
    apart_from = [*NETWORKS, "seed"]
    if pool:  # rows then name no networks, and methods have the types
        apart_from = [*CHECKPOINTS, *WEIGHTS, "seed"]
    methods = method_names(stitches, apart_from=apart_from)
    families: dict[tuple[str, ...], list[Stitch]] = {}
    for stitch, method in zip(stitches, methods, strict=True):
        kind = kind_of_pair(*_networks_of(stitch, names))
        types = [str(stitch.record[name]) for name in TYPES]
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
    titles = {}
    training_runs: list[str | None] = []
    for front, end in by_networks:
        titles[front, end] = f"{names[front].name} → {names[end].name}"
        training_runs += {names[front].training, names[end].training}
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
