"""Judges stitches: is a pair of layers functionally similar, how sure is that, and is the stitch in distribution?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy) and makes activations that a detector may find
out of distribution. Both together decide; the intervals are those of `src.intervals`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from src.intervals import NO_INTERVAL, Interval, independent, over_images, over_runs, resample_counts
from src.ood.scores import SCORES
from src.similarity.results import Row as Similarity
from src.stitching.rows import Row, method_names
from src.verdict.rows import FAR, NOT_SIMILAR, SIMILAR, UNDECIDED, Auroc, Mean, Verdict, similarity_columns
from src.verdict.stitches import Stitch

# What tells one method from another; networks and seeds do not.
METHOD = (
    "stitching_type", "init", "objective", "n_epochs", "n_pinv_init_samples", "front_stitch_rank", "front_pinv_rank",
)  # fmt: skip
# Runs that differ in one of these are never taken together.
SETTING = ("front_model_type", "end_model_type", "dataset")


def judge(
    stitches: Iterable[Stitch], similarities: Sequence[Similarity] = (), *, tolerance: float, in_distribution: float
) -> list[Verdict]:
    """Return the verdict on each pair of layers, method and pair of networks.

    Pairs of networks of the same kind that share no network are repetitions of one experiment, and are taken together.

    Args:
        similarities: rows of tables of similarity; those at full rank of the same networks count.
        tolerance: the penalty, in [0, 1], that a similar pair may have.
        in_distribution: the AUROC below which activations count as in distribution.
    """
    stitches = list(stitches)
    names = method_names([stitch.row for stitch in stitches], METHOD)
    experiments: dict[tuple, list[Stitch]] = {}
    for stitch, name in zip(stitches, names, strict=True):
        setting = tuple(getattr(stitch.row, field) for field in SETTING)
        experiments.setdefault((name, *setting), []).append(stitch)
    limits = {"tolerance": tolerance, "in_distribution": in_distribution}
    return [
        _judge((name, networks), by_layers, similarities, **limits)
        for (name, *_), runs in experiments.items()
        for networks, same in _by_networks(runs).items()
        for by_layers in _groups(same, lambda stitch: stitch.row.pair).values()
    ]


def _by_networks(stitches: Sequence[Stitch]) -> dict[str, list[Stitch]]:
    """Return the runs on each pair of networks, or all together where no two pairs share a network; under a title."""
    groups = _groups(stitches, lambda stitch: networks_of(stitch.row))
    if len(groups) > 1 and independent(list(groups)):
        return {f"{len(groups)} pairs of networks": list(stitches)}
    return {" → ".join(networks): runs for networks, runs in groups.items()}


def networks_of(row: Row) -> tuple[str, str]:
    """Return the checkpoints of the front and the end network."""
    return str(row.front_model_path), str(row.end_model_path)


def _groups(stitches: Iterable[Stitch], key: Callable[[Stitch], Any]) -> dict[Any, list[Stitch]]:
    groups: dict[Any, list[Stitch]] = {}
    for stitch in stitches:
        groups.setdefault(key(stitch), []).append(stitch)
    return groups


def _judge(
    key: tuple[str, str],
    group: Sequence[Stitch],
    similarities: Sequence[Similarity],
    *,
    tolerance: float,
    in_distribution: float,
) -> Verdict:
    """Return the verdict on runs of one method that stitch the same layers."""
    rows = [stitch.row for stitch in group]
    by_networks = {
        networks: [s.row for s in runs]
        for networks, runs in _groups(group, lambda stitch: networks_of(stitch.row)).items()
    }
    right = _right(group)
    spreads = [_spread([row.accuracy for row in runs]) for runs in by_networks.values() if len(runs) > 1]
    accuracy = _mean(by_networks, lambda row: row.accuracy, None if right is None else right[0])
    penalty = _mean(
        by_networks, lambda row: row.end_accuracy - row.accuracy, None if right is None else right[1] - right[0]
    )
    aurocs = _aurocs(group)
    limits = {"tolerance": tolerance, "in_distribution": in_distribution}
    verdict, reason = decide(penalty.interval, aurocs.values(), _is_at_chance(group, right), **limits)
    return Verdict(
        *key, *rows[0].pair, verdict, reason, len(rows), len(by_networks), accuracy, penalty,
        max(spreads, default=math.nan), _average(row.end_accuracy for row in rows),
        _average(row.agreement for row in rows), _average(row.kappa for row in rows),
        _average(row.representation_difference for row in rows), aurocs, _similarity(rows, similarities),
    )  # fmt: skip


def decide(
    penalty: Interval, aurocs: Iterable[Auroc], is_at_chance: bool, *, tolerance: float, in_distribution: float
) -> tuple[str, str]:
    """Decide for one of `VERDICTS`, and say why.

    Args:
        penalty: its interval, NaN where there is none.
        is_at_chance: the end network itself does no better than chance.
    """
    trusted = [auroc.value for auroc in aurocs if auroc.is_trusted]
    if is_at_chance:
        return UNDECIDED, "the end network is at chance"
    if math.isnan(penalty.width):
        return UNDECIDED, "no interval: neither predictions nor three independent runs"
    if penalty.low > tolerance:
        return NOT_SIMILAR, "the penalty is above the tolerance"
    if penalty.high >= tolerance:
        return UNDECIDED, "the interval of the penalty holds the tolerance"
    if not trusted:
        return UNDECIDED, "accurate, but no trusted detector"
    if max(trusted) >= in_distribution:
        return FAR, "accurate, and a trusted detector finds it out of distribution"
    return SIMILAR, "accurate, and in distribution by every trusted detector"


def _right(group: Sequence[Stitch]) -> np.ndarray | None:
    """Count how often stitch and end network are right about each image, (2, N); None without predictions.

    Every pair of networks counts alike, however many seeds it has.
    """
    arrays = [stitch.predictions for stitch in group]
    if any(array is None or not np.array_equal(array["labels"], arrays[0]["labels"]) for array in arrays):
        return None
    means = []
    for runs in _groups(group, lambda stitch: networks_of(stitch.row)).values():
        right = [[run.predictions[name] == run.predictions["labels"] for name in ("stitched", "end")] for run in runs]
        means.append(np.mean(right, axis=0))
    return np.mean(means, axis=0)


def _mean(
    by_networks: Mapping[tuple[str, str], Sequence[Row]],
    value_of: Callable[[Row], float],
    values: np.ndarray | None,
) -> Mean:
    means = [_average(map(value_of, runs)) for runs in by_networks.values()]
    runs = over_runs(means) if independent(list(by_networks)) else NO_INTERVAL
    images = NO_INTERVAL if values is None else over_images(values, resample_counts(len(values)))
    return Mean(_average(means), images, runs)


def _is_at_chance(group: Sequence[Stitch], right: np.ndarray | None) -> bool:
    """Return whether the end network may do no better than always predicting the commonest class."""
    if right is None:
        return False
    labels = group[0].predictions["labels"]
    chance = np.bincount(labels).max() / len(labels)
    return over_images(right[1], resample_counts(len(labels))).low <= chance


def _aurocs(group: Sequence[Stitch]) -> dict[str, Auroc]:
    """Return the mean AUROC of each detector that evaluated all runs; it is trusted where it is for each of them."""
    aurocs = {}
    for name in SCORES:
        rows = [stitch.evaluations.get(name) for stitch in group]
        if all(rows):
            aurocs[name] = Auroc(_average(row.auroc for row in rows), all(row.is_trusted is True for row in rows))
    return aurocs


def _similarity(rows: Sequence[Row], similarities: Sequence[Similarity]) -> dict[str, float]:
    """Return the mean values of the same layers of the same networks at full rank."""
    first, networks = rows[0], {networks_of(row) for row in rows}
    records = [
        row.record()
        for row in similarities
        if (row.layer1, row.layer2, row.rank1, row.rank2) == (first.front_layer, first.end_layer, None, None)
        and (row.model1, row.model2) in networks
    ]
    columns = [name for name in similarity_columns() if records and all(name in record for record in records)]
    return {name: _average(record[name] for record in records) for name in columns}


def _average(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)
