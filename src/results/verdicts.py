"""The verdicts on stitches, from runs and tables: a row for each pair of layers, method and
pair of networks."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from src.choices.similarity import ACTIVATIONS, measure_of
from src.core.console import warn_once
from src.core.grouping import grouped
from src.results.groups import UNTRAINED_END_CONTROL, Group, Names, families_of
from src.results.measurements import NetworkPair, named_pair, quantities_of
from src.results.named_networks import named_networks
from src.results.similarity_rows import SimilarityRow, column_of
from src.results.spec import NETWORKS, are_same
from src.results.stitches import Stitch, StitchRow
from src.results.tables import columns
from src.results.verdict_rows import AUROC, VerdictRow
from src.values import ALL_IMAGES, Predictions, StitchSkill
from src.verdict import SIMILAR, Limits, Stitches, Verdict, judge, obstacle_of

SHOWN_MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
COLUMNS_OF_ROW = {*columns(VerdictRow), *NETWORKS, "further_options"}
SEPARATOR = ";"  # between the names of folders

VerdictSide = tuple[str | None, str | None, str]  # the name of a network, its weights and a layer


def judge_stitches(
    stitches: Iterable[Stitch],
    similarities: Iterable[SimilarityRow] = (),
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    pool: bool = False,
    names: Names | None = None,
) -> list[VerdictRow]:
    """Return the verdict on each pair of layers, method and pair of networks.

    The rows come family by family (see `families_of`): a family is judged together. Numbers that
    were not measured, or are not defined, are None.

    Args:
        stitches: with their evaluations.
        similarities: rows of tables of similarity. Rows of the stitched networks and layers, at
            full rank and in either order, add their values to the verdict.
        pool: take pairs of networks together that share no network.
        names: name, group and training of each network, by its key; default: networks are named by
            their paths.
    """
    stitches = list(stitches)
    if names is None:
        names = named_networks(chain.from_iterable(stitch.row.networks for stitch in stitches), {})
    similarities = list(similarities)
    similarity_of_layers = _by_layers(similarities)
    shown: list[str] = []
    if similarities:
        shown = similarity_columns(row.values for row in similarities)
    families = families_of(stitches, names, pool=pool)
    rows = []
    for family in families:
        verdicts = judge([stitches_of(group) for group in family], limits=limits)
        for group, verdict in zip(family, verdicts, strict=True):
            row = _row(
                group,
                verdict,
                names=names,
                similarity=_similarity(group, similarity_of_layers, shown),
            )
            rows.append(row)
    return _with_both_ways(rows)


def n_changed(
    rows: Sequence[VerdictRow],
    stitches: Iterable[Stitch],
    factor: float,
    *,
    limits: Limits,
    pool: bool = False,
    names: Names | None = None,
) -> int:
    """Count the verdicts that change if both limits of skill are multiplied by a factor.

    Args:
        rows: the verdicts by the limits, from `judge_stitches` with the same arguments.
    """
    changed = limits._replace(
        skill=min(1, factor * limits.skill), skill_at_end=min(1, factor * limits.skill_at_end)
    )
    others = judge_stitches(stitches, limits=changed, pool=pool, names=names)
    return sum(row.verdict != other.verdict for row, other in zip(rows, others, strict=True))


def stitches_of(group: Group) -> Stitches:
    """Return the values by which a group of stitches is judged."""
    rows = [stitch.row for stitch in group.stitches]
    return Stitches(
        predictions=_predictions(group),
        skills=_skills(group),
        front_accuracy=_average([row.front_accuracy for row in rows]),
        end_accuracy=_average([row.end_accuracy for row in rows]),
        is_end_trained=group.control != UNTRAINED_END_CONTROL,
        has_converged=all(stitch.has_converged for stitch in group.stitches if stitch.row.n_epochs),
        obstacle=obstacle_of(rows, rows[0].init),
    )


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
    n_unmeasured = sum(stitch.skill is None for stitch in group.stitches)
    if n_unmeasured:
        if n_unmeasured < len(group.stitches):
            warn_once(
                f"{group.method}, {group.pair}: {n_unmeasured} of its {len(group.stitches)} stitches "
                "were not evaluated, so skill does not count; evaluate all"
            )
        return []
    return [
        [stitch.skill.value for stitch in stitches if stitch.skill is not None]
        for stitches in group.by_networks
    ]


def _row(
    group: Group,
    verdict: Verdict,
    *,
    names: Names,
    similarity: dict[str, float],
) -> VerdictRow:
    """Return the row of a verdict; `both_ways` is not known yet."""
    rows = [stitch.row for stitch in group.stitches]
    front, end = named_pair(rows[0], names)
    titles: dict[str, Any] = {}  # of the networks, unless there are several pairs
    if len(group.by_networks) == 1:
        titles = {"front_network": front.name, "front_group": front.group_title}
        titles |= {"end_network": end.name, "end_group": end.group_title}
    means = _means(group, (front, end))
    aurocs = {name: means.pop(name) for name in list(means) if name.startswith(AUROC)}
    further = {name: means.pop(name) for name in list(means) if name not in COLUMNS_OF_ROW}
    numbers = titles | means | _estimates(verdict)
    return VerdictRow(
        method=group.method,
        networks=group.networks,
        front_layer=group.pair.front_layer,
        end_layer=group.pair.end_layer,
        verdict=verdict.verdict,
        reason=verdict.reason,
        control=group.control,
        n_runs=len(rows),
        n_networks=len(group.by_networks),
        folders=SEPARATOR.join(stitch.folder.name for stitch in group.stitches),
        front_depth=rows[0].front_depth,
        end_depth=rows[0].end_depth,
        front_weights=_common(row.front_weights for row in rows),
        end_weights=_common(row.end_weights for row in rows),
        both_ways=None,
        same_run=group.is_same_run,
        kind=group.kind,
        front_model_type=rows[0].front_model_type,
        end_model_type=rows[0].end_model_type,
        front_relative_depth=rows[0].front_relative_depth,
        end_relative_depth=rows[0].end_relative_depth,
        stitching_type=_common(row.stitching_type for row in rows),
        further=aurocs | similarity,
        settings=further | _settings(rows, (front, end)),
        **numbers,
    )


def _settings(rows: Sequence[StitchRow], networks: NetworkPair) -> dict[str, Any]:
    """Return the options of all runs as they were recorded, and the training runs of the networks; None
    where runs differ."""
    recorded = [row.settings | json.loads(row.further_options) for row in rows]
    names = dict.fromkeys(chain.from_iterable(recorded))
    options = {name: _common(values.get(name) for values in recorded) for name in names}
    options["n_images"] = _common(row.n_images for row in rows)
    options |= {"front_training": networks[0].training, "end_training": networks[1].training}
    return {name: value for name, value in options.items() if name not in COLUMNS_OF_ROW}


def _means(group: Group, networks: NetworkPair) -> dict[str, float]:
    """Return the means over stitches, by column, where all stitches have values, and `seed_spread`."""
    measured = chain.from_iterable(
        quantities_of(stitch, group.method, networks) for stitch in group.stitches
    )
    means = {}
    for (quantity, part), rows in grouped(measured, lambda row: (row.quantity, row.part)).items():
        column = f"{quantity}_{part}" if part else quantity
        if len(rows) == len(group.stitches):
            means[column] = _average([row.value for row in rows])
    accuracies = [[stitch.row.accuracy for stitch in stitches] for stitches in group.by_networks]
    spreads = [
        max(of_networks) - min(of_networks) for of_networks in accuracies if len(of_networks) > 1
    ]
    if spreads:
        means["seed_spread"] = max(spreads)
    return means


def _estimates(verdict: Verdict) -> dict[str, float]:
    """Return the defined p-values, and estimates with the ends of their intervals, by column."""
    values = {"p_below": verdict.p_below, "p_above": verdict.p_above}
    intervals = {
        "accuracy": verdict.accuracy,
        "accuracy_drop": verdict.accuracy_drop,
        "skill": verdict.skill,
        "skill_at_end": verdict.skill_at_end,
    }
    for name, estimate in intervals.items():
        values[name] = estimate.value
        values[f"{name}_low"] = estimate.low
        values[f"{name}_high"] = estimate.high
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _by_layers(rows: Sequence[SimilarityRow]) -> dict[tuple, list[SimilarityRow]]:
    """Return the rows at full rank by networks, data and layers, both ways.

    A row that was measured the other way comes first.
    """
    both_ways = [*(row.swapped for row in rows), *rows]
    full = [row for row in both_ways if row.rank1 is None and row.rank2 is None]
    return grouped(full, lambda row: (row.network_keys, row.dataset, row.pair))


def _similarity(
    group: Group, by_layers: Mapping[tuple, Sequence[SimilarityRow]], shown: Sequence[str]
) -> dict[str, float]:
    """Return the values of measures for the layers, networks and images of a group.

    They are means over its pairs of networks, as far as pairs have values. The last table counts.

    Args:
        shown: the columns to return, as far as they have values.
    """
    measured: list[dict[str, float]] = []
    for stitches in group.by_networks:
        first = stitches[0].row
        values: dict[str, float] = {}
        for row in by_layers.get((first.network_keys, first.dataset, group.pair), []):
            if are_same(row.test_images, first.test_images):
                values |= {name: item for name, item in row.values.items() if not math.isnan(item)}
        measured.append(values)
    means = {}
    for name in shown:
        of_networks = [values[name] for values in measured if name in values]
        if of_networks:
            means[name] = _average(of_networks)
    return means


def similarity_columns(values: Iterable[Mapping[str, float]]) -> list[str]:
    """Return the columns of similarity that a verdict shows.

    They are the values of `SHOWN_MEASURES`, the numbers of their nulls of all images, and the columns
    of a user's measures that have values.

    Args:
        values: of rows of tables of similarity, by column.
    """
    shown = []
    for column in map(column_of, dict.fromkeys(chain.from_iterable(values))):
        is_of_user = measure_of(column.measure).of == ACTIVATIONS
        is_value = not column.is_reversed and column.images in ("", ALL_IMAGES)
        if is_of_user or (column.measure in SHOWN_MEASURES and is_value):
            shown.append(column.name)
    return shown


def _with_both_ways(rows: Sequence[VerdictRow]) -> list[VerdictRow]:
    """Return the rows with `both_ways`, where the pair was stitched in both directions."""

    stitches = [row for row in rows if row.front_network]
    row_of_direction = {(row.method, *_sides(row)): row for row in stitches}
    judged = []
    for row in rows:
        front, end = _sides(row)
        back = row_of_direction.get((row.method, end, front))
        if back is not None and front != end:
            is_similar = row.verdict == back.verdict == SIMILAR
            row = replace(row, both_ways=is_similar)
        judged.append(row)
    return judged


def _sides(row: VerdictRow) -> tuple[VerdictSide, VerdictSide]:
    """Return the front and the end of a stitch."""
    front = (row.front_network, row.front_weights, row.front_layer)
    end = (row.end_network, row.end_weights, row.end_layer)
    return front, end


def _common(values: Iterable[Any]) -> Any:
    """Return the value that all share; None if they differ or are ""."""
    first, *further = values
    is_common = first != "" and all(value == first for value in further)
    return first if is_common else None


def _average(values: Sequence[float]) -> float:
    """Return the mean; NaN of no values."""
    if not values:
        return math.nan
    return sum(values) / len(values)
