"""Judges stitches: is a pair of layers functionally similar, how sure is that, and is the stitch in distribution?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy) and makes activations that a detector may find
out of distribution. Both together decide; the intervals are those of `src.intervals`.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from src.console import warn
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
SAME = (*METHOD, *SETTING, "seed")  # with the networks and layers: an experiment, of which one run counts


def judge(
    stitches: Iterable[Stitch], similarities: Sequence[Similarity] = (), *, tolerance: float, in_distribution: float
) -> list[Verdict]:
    """Return the verdict on each pair of layers, method and pair of networks.

    Pairs of networks of the same kind that share no network are repetitions of one experiment, and are taken together.
    Of runs of the same experiment, seed included, the last one counts, with a warning.

    Args:
        similarities: rows of tables of similarity; those at full rank of the same networks count.
        tolerance: the penalty, in [0, 1], that a similar pair may have.
        in_distribution: the AUROC below which activations count as in distribution.
    """
    stitches = _newest(stitches)
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


def _newest(stitches: Iterable[Stitch]) -> list[Stitch]:
    """Return the last stitch of each pair of layers in each experiment; warn where there are several."""
    runs = _groups(
        stitches, lambda stitch: (stitch.row.pair, *networks_of(stitch.row), *(getattr(stitch.row, f) for f in SAME))
    )
    n_repeated = sum(len(same) - 1 for same in runs.values())
    if n_repeated:
        warn(f"{n_repeated} runs repeat others of the same experiment; the last of each counts")
    return [same[-1] for same in runs.values()]


def _by_networks(stitches: Sequence[Stitch]) -> dict[str, list[Stitch]]:
    """Return the runs on each pair of networks, or all together where no two pairs share a network; under a title."""
    groups = _groups(stitches, lambda stitch: networks_of(stitch.row))
    if len(groups) > 1 and independent(list(groups)):
        return {f"{len(groups)} pairs of networks": list(stitches)}
    named = {networks: (runs[0].row.front_model_path, runs[0].row.end_model_path) for networks, runs in groups.items()}
    return {" → ".join(map(str, named[networks])): runs for networks, runs in groups.items()}


def networks_of(row: Row) -> tuple[tuple, tuple]:
    """Return what tells the front and the end network apart: place and kind, and of fresh weights side and seed."""
    front, end = row.front_model_path, row.end_model_path
    return (
        ("front", row.front_model_type, row.seed) if front == "-" else (_place(front), row.front_model_type),
        ("end", row.end_model_type, row.seed) if end == "-" else (_place(end), row.end_model_type),
    )


def _place(path: str | None) -> str:
    return os.path.realpath(path or "")


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
    limits = {"tolerance": tolerance, "in_distribution": in_distribution}
    verdict, reason = decide(penalty.interval, _trusted(group), _is_at_chance(group), **limits)
    return Verdict(
        *key, *rows[0].pair, verdict, reason, len(rows), len(by_networks), accuracy, penalty,
        max(spreads, default=math.nan), _average(row.end_accuracy for row in rows),
        _average(row.agreement for row in rows), _average(row.kappa for row in rows),
        _average(row.representation_difference for row in rows), _aurocs(group), _similarity(rows, similarities),
    )  # fmt: skip


def decide(
    penalty: Interval, trusted: Sequence[float], is_at_chance: bool, *, tolerance: float, in_distribution: float
) -> tuple[str, str]:
    """Decide for one of `VERDICTS`, and say why.

    Args:
        penalty: its interval, NaN where there is none.
        trusted: the AUROCs of all trusted detectors on all runs.
        is_at_chance: an end network itself may do no better than chance.
    """
    if is_at_chance:
        return UNDECIDED, "the end network is at chance"
    if math.isnan(penalty.width):
        return UNDECIDED, "no interval: neither predictions nor three independent runs"
    if penalty.low > tolerance:
        return NOT_SIMILAR, "the penalty is above the tolerance"
    if penalty.high >= tolerance:
        return UNDECIDED, "the interval of the penalty contains the tolerance"
    if not trusted:
        return UNDECIDED, "accurate, but no trusted detector"
    if not all(auroc < in_distribution for auroc in trusted):
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


def _is_at_chance(group: Sequence[Stitch]) -> bool:
    """Return whether an end network may do no better than always predicting the commonest class.

    Without predictions, which tell how common it is, half of the images.
    """
    for stitch in group:
        if stitch.predictions is None:
            if stitch.row.end_accuracy <= 0.5:
                return True
            continue
        labels = stitch.predictions["labels"]
        chance = np.bincount(labels).max() / len(labels)
        if over_images(stitch.predictions["end"] == labels, resample_counts(len(labels))).low <= chance:
            return True
    return False


def _trusted(group: Sequence[Stitch]) -> list[float]:
    """Return the AUROCs of all trusted detectors on all runs; none where a run has no trusted detector."""
    aurocs = [[row.auroc for row in stitch.evaluations.values() if row.is_trusted] for stitch in group]
    return sum(aurocs, []) if all(aurocs) else []


def _aurocs(group: Sequence[Stitch]) -> dict[str, Auroc]:
    """Return the mean AUROC of each detector over the runs it evaluated; it is trusted where it is for each of them."""
    aurocs = {}
    for name in SCORES:
        rows = [stitch.evaluations[name] for stitch in group if name in stitch.evaluations]
        if rows:
            aurocs[name] = Auroc(_average(row.auroc for row in rows), all(row.is_trusted is True for row in rows))
    return aurocs


def _similarity(rows: Sequence[Row], similarities: Sequence[Similarity]) -> dict[str, float]:
    """Return the values of the same layers of the same networks and data at full rank; means over networks.

    Of values that several tables have, the last one counts.
    """
    wanted = {networks_of(row): row for row in rows}
    measured: dict[tuple, dict[str, float]] = {}
    for table_row in similarities:
        if (table_row.layer1, table_row.layer2, table_row.rank1, table_row.rank2) != (*rows[0].pair, None, None):
            continue
        for networks, row in wanted.items():
            if _is_same(table_row, row):
                record = {name: value for name, value in table_row.record().items() if value == value}  # no NaN
                measured[networks] = measured.get(networks, {}) | record
    columns = [c for c in similarity_columns() if measured and all(c in record for record in measured.values())]
    return {name: _average(record[name] for record in measured.values()) for name in columns}


def _is_same(measured: Similarity, row: Row) -> bool:
    """Return whether a similarity is that of the networks and data of a stitch; older tables do not say all of it."""
    facts = [
        (measured.model1_type, row.front_model_type),
        (measured.model2_type, row.end_model_type),
        (measured.dataset, row.dataset),
    ]
    if "-" in (measured.model1, measured.model2):  # fresh weights, of which tables do not say the seed
        return False
    places = (_place(measured.model1), _place(measured.model2))
    return places == (_place(row.front_model_path), _place(row.end_model_path)) and all(
        not one or not other or one == other for one, other in facts
    )


def _average(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)
