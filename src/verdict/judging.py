"""Judges stitches: is a pair of layers functionally similar, how sure is that, and is the stitch in distribution?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy) and makes activations that a detector may find
out of distribution. Both together decide; the intervals are those of `src.verdict.intervals`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from src.ood.registry import SCORES
from src.results.experiments import Networks, grouped, method_names, newest_runs
from src.results.folders import StitchingRun
from src.results.records import to_record
from src.results.rows import Auroc, Interval, IntervalRow, Mean, Null, SimilarityRow, StitchRow, Summary, VerdictRow
from src.verdict.intervals import are_independent, over_images, over_runs, resample_counts, wider

SIMILAR, FAR, NOT_SIMILAR, UNDECIDED = "similar", "accurate but out of distribution", "not similar", "undecided"
VERDICTS = (SIMILAR, FAR, NOT_SIMILAR, UNDECIDED)
MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows
SIMILARITY_COLUMNS = [f"{name}{end}" for name in MEASURES for end in ("", *(f"_{part}" for part in Null._fields))]


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float  # the penalty, in [0, 1], that a similar pair may have
    in_distribution: float  # the AUROC below which activations count as in distribution


class Group(NamedTuple):
    """The runs that stitch the same layers by one method."""

    method: str
    networks: str  # both checkpoints, or how many pairs are taken together
    runs: list[StitchingRun]

    @property
    def by_networks(self) -> list[list[StitchingRun]]:
        """The runs on each pair of networks."""
        return list(grouped(self.runs, lambda run: run.row.experiment.network_keys).values())


def judge(
    runs: Iterable[StitchingRun], similarities: Sequence[SimilarityRow] = (), *, limits: Limits
) -> list[VerdictRow]:
    """Return the verdict on each pair of layers, method and pair of networks.

    Args:
        similarities: rows of tables of similarity; those at full rank of the same networks count.
    """
    rows = []
    for group in groups_of(runs):
        summary = summarise(group)
        verdict, reason = decide(
            wider(summary.penalty.images, summary.penalty.runs), _trusted(group), _is_at_chance(group), limits
        )
        rows.append(VerdictRow(
            group.method, group.networks, group.runs[0].row.pair, verdict, reason, summary, _aurocs(group),
            _similarity(group, similarities),
        ))  # fmt: skip
    return rows


def intervals(runs: Iterable[StitchingRun]) -> list[IntervalRow]:
    """Return the accuracies and penalties of runs with their intervals, grouped as for `judge`."""
    return [IntervalRow(*group[:2], group.runs[0].row.pair, summarise(group)) for group in groups_of(runs)]


def groups_of(runs: Iterable[StitchingRun]) -> Iterator[Group]:
    """Yield the runs that are judged together: of one method and layers, on networks of the same types and data.

    Pairs of networks that share no network are repetitions of one experiment, and are taken together. Of runs of the
    same experiment, seed included, the newest counts, with a warning.
    """
    runs = newest_runs(runs)
    experiments = [run.row.experiment for run in runs]
    names = method_names(experiments, apart_from=("dataset", *Networks._fields, "seed"))
    names = dict(zip(map(id, runs), names, strict=True))

    def kind(run: StitchingRun) -> tuple:
        experiment = run.row.experiment
        return names[id(run)], experiment.front.type, experiment.end.type, experiment.dataset

    for (method, *_), of_method in grouped(runs, kind).items():
        for title, same in _by_networks(of_method).items():
            for of_layers in grouped(same, lambda run: run.row.pair).values():
                yield Group(method, title, of_layers)


def _by_networks(runs: Sequence[StitchingRun]) -> dict[str, list[StitchingRun]]:
    """Return the runs on each pair of networks, or all together where no two pairs share a network; under a title."""
    groups = grouped(runs, lambda run: run.row.experiment.network_keys)
    if len(groups) > 1 and are_independent(list(groups)):
        return {f"{len(groups)} pairs of networks": list(runs)}
    experiments = [same[0].row.experiment for same in groups.values()]
    titles = [f"{each.front.title(each.seed)} → {each.end.title(each.seed)}" for each in experiments]
    return dict(zip(titles, groups.values(), strict=True))


def summarise(group: Group) -> Summary:
    """Return the means over the runs of a group; every pair of networks counts alike, however many seeds it has."""
    rows, right = [run.row for run in group.runs], _right(group)
    spreads = [_spread([run.row.metrics.accuracy for run in runs]) for runs in group.by_networks if len(runs) > 1]
    accuracy = _mean(group, lambda row: row.metrics.accuracy, None if right is None else right[0])
    penalty = _mean(
        group,
        lambda row: row.metrics.end_accuracy - row.metrics.accuracy,
        None if right is None else right[1] - right[0],
    )
    names = ("end_accuracy", "agreement", "kappa", "representation_difference")
    means = [_average(getattr(row.metrics, name) for row in rows) for name in names]
    return Summary(
        len(rows), len(group.by_networks), accuracy, penalty, max(spreads, default=None),
        *(None if math.isnan(mean) else mean for mean in means),
    )  # fmt: skip


def decide(penalty: Interval | None, trusted: Sequence[float], is_at_chance: bool, limits: Limits) -> tuple[str, str]:
    """Decide for one of `VERDICTS`, and say why.

    Args:
        penalty: its interval, None where there is none.
        trusted: the AUROCs of all trusted detectors on all runs.
        is_at_chance: an end network itself may do no better than chance.
    """
    if is_at_chance:
        return UNDECIDED, "the end network is at chance"
    if penalty is None:
        return UNDECIDED, "no interval: neither predictions nor three independent runs"
    if penalty.low > limits.tolerance:
        return NOT_SIMILAR, "the penalty is above the tolerance"
    if penalty.high >= limits.tolerance:
        return UNDECIDED, "the interval of the penalty contains the tolerance"
    if not trusted:
        return UNDECIDED, "accurate, but no trusted detector"
    if not all(auroc < limits.in_distribution for auroc in trusted):
        return FAR, "accurate, and a trusted detector finds it out of distribution"
    return SIMILAR, "accurate, and in distribution by every trusted detector"


def _right(group: Group) -> np.ndarray | None:
    """Count how often stitch and end network are right about each image, (2, N); None without predictions."""
    arrays = [run.predictions for run in group.runs]
    if any(array is None or not np.array_equal(array["labels"], arrays[0]["labels"]) for array in arrays):
        return None
    means = []
    for runs in group.by_networks:
        right = [[run.predictions[name] == run.predictions["labels"] for name in ("stitched", "end")] for run in runs]
        means.append(np.mean(right, axis=0))
    return np.mean(means, axis=0)


def _mean(group: Group, value_of: Callable[[StitchRow], float], values: np.ndarray | None) -> Mean:
    """Return the mean of a value over pairs of networks, with its intervals.

    Args:
        values: of each image (N,), if there are predictions.
    """
    means = [_average(value_of(run.row) for run in runs) for runs in group.by_networks]
    mean = _average(means)
    if math.isnan(mean):
        return Mean(None, None, None)
    pairs = [runs[0].row.experiment.network_keys for runs in group.by_networks]
    images = None if values is None else over_images(values, resample_counts(len(values)))
    return Mean(mean, images, over_runs(means) if are_independent(pairs) else None)


def _is_at_chance(group: Group) -> bool:
    """Return whether an end network may do no better than always predicting the commonest class.

    Without predictions, which tell how common it is, half of the images.
    """
    for run in group.runs:
        if run.predictions is None:
            if run.row.metrics.end_accuracy <= 0.5:
                return True
            continue
        labels = run.predictions["labels"]
        chance = np.bincount(labels).max() / len(labels)
        if over_images(run.predictions["end"] == labels, resample_counts(len(labels))).low <= chance:
            return True
    return False


def _trusted(group: Group) -> list[float]:
    """Return the AUROCs of all trusted detectors on all runs; none where a run has no trusted detector."""
    aurocs = [[row.auroc for row in run.evaluations.values() if row.is_trusted] for run in group.runs]
    return sum(aurocs, []) if all(aurocs) else []


def _aurocs(group: Group) -> dict[str, Auroc]:
    """Return the mean AUROC of each detector over the runs it evaluated; it is trusted where it is for each of them."""
    aurocs = {}
    for name in SCORES:
        rows = [run.evaluations[name] for run in group.runs if name in run.evaluations]
        if rows:
            aurocs[name] = Auroc(_average(row.auroc for row in rows), all(row.is_trusted is True for row in rows))
    return aurocs


def _similarity(group: Group, similarities: Sequence[SimilarityRow]) -> dict[str, float]:
    """Return the values of the same layers of the same networks and data at full rank; means over networks.

    Of values that several tables have, the last one counts.
    """
    pair, measured = group.runs[0].row.pair, []
    for runs in group.by_networks:
        values: dict[str, float] = {}
        for row in similarities:
            if (row.layer1, row.layer2, row.rank1, row.rank2) == (*pair, None, None) and _is_same(row, runs[0].row):
                record = to_record(row)
                values |= {name: record[name] for name in SIMILARITY_COLUMNS if not _is_missing(record.get(name))}
        if values:
            measured.append(values)
    shared = [name for name in SIMILARITY_COLUMNS if measured and all(name in values for values in measured)]
    return {name: _average(values[name] for values in measured) for name in shared}


def _is_same(measured: SimilarityRow, row: StitchRow) -> bool:
    """Return whether a similarity is of the networks and data of a stitch."""
    networks = tuple((each.identity, each.type) for each in measured.networks)
    return networks == row.experiment.network_keys and measured.dataset == row.experiment.dataset


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _average(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)
