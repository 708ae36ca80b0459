"""Which stitching runs are judged together, and what is known of them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.console import note
from src.network_names import FRESH, NetworkName, titles_of
from src.results.experiments import CHECKPOINTS, WEIGHTS, Pair, grouped, method_names, newest_runs
from src.results.options import read_options
from src.results.tables import IntervalEstimate
from src.stitching.folders import StitchingRun
from src.verdict.intervals import Runs, of_intervals
from src.verdict.kappa import kappa_within, strata_of

SELF, FRESH_FRONT = "self", "fresh"  # controls


class Group(NamedTuple):
    """The runs that stitch the same layers by one method."""

    method: str
    networks: str  # both checkpoints, or how many pairs are taken together
    by_networks: list[list[StitchingRun]]  # the runs on each pair of networks

    @property
    def runs(self) -> list[StitchingRun]:
        """All runs."""
        return list(chain.from_iterable(self.by_networks))

    @property
    def pair(self) -> Pair:
        """The layers."""
        return self.runs[0].row.pair

    @property
    def control(self) -> str | None:
        """The kind of control that the runs are, all of one kind: `self`, `fresh`; or None."""
        row = self.runs[0].row
        front, end = row.network_keys
        if front == end and row.front_layer == row.end_layer:
            return SELF
        return FRESH_FRONT if is_untrained(row.networks[0]) else None

    @property
    def labels(self) -> np.ndarray | None:
        """The labels (N,) of the test images; None where a run has no predictions, or the images differ."""
        arrays = [run.predictions for run in self.runs]
        if any(array is None or not np.array_equal(array["labels"], arrays[0]["labels"]) for array in arrays):
            return None
        return arrays[0]["labels"]

    def right(self, name: str) -> Runs:
        """Return whether `stitched`, `front` or `end` is right about each image, by pair of networks: (runs, N)."""
        labels = self.labels
        return [np.stack([run.predictions[name] == labels for run in runs]) for runs in self.by_networks]

    @property
    def kappa_within(self) -> IntervalEstimate:
        """κ within strata, the mean over the runs; NaN where no run defines it."""
        kappas = [[kappa_of(run) for run in runs] for runs in self.by_networks]
        return of_intervals(kappas, bounds=(-1.0, 1.0))

    @property
    def identified(self) -> IntervalEstimate | None:
        """The share of test images that are identified, the mean over the runs; None where one is not known."""
        if any(run.identified is None for run in self.runs):
            return None
        return of_intervals([[run.identified for run in runs] for runs in self.by_networks], bounds=(0.0, 1.0))


def kappa_of(run: StitchingRun) -> IntervalEstimate:
    """Return the κ within strata of a run that has predictions."""
    classes = run.predictions
    return kappa_within(classes["stitched"], classes["end"], strata_of(classes["labels"], classes["front"]))


def is_untrained(network: NetworkName) -> bool:
    """Return whether a network has fresh weights; a head on it (`exec_probe.py --with-head`) may be trained."""
    config = Path(f"{os.path.splitext(network.path)[0]}.config.txt")  # of the head
    return network.is_fresh or (config.is_file() and read_options(config).get("model_path") == FRESH)


def groups_of(runs: Iterable[StitchingRun], *, pool: bool = False) -> Iterator[Group]:
    """Yield the runs that are judged together: of one method, layers, data and pair of networks.

    Of runs of the same experiment, seed included, the newest counts, with a warning.

    Args:
        pool: take pairs of networks of the same types together that share no network, as repetitions of one
            experiment; if not, a note says where that is possible.
    """
    runs = newest_runs(runs)
    names = method_names([run.row for run in runs], apart_from=(*CHECKPOINTS, *WEIGHTS, "seed"))
    names = dict(zip(map(id, runs), names, strict=True))

    def kind(run: StitchingRun) -> tuple:
        front, end = run.row.network_keys
        return names[id(run)], front == end, is_untrained(run.row.networks[0])  # controls are no repetitions

    for (method, *_), of_method in grouped(runs, kind).items():
        for title, of_title in _titled(of_method, method, pool=pool).items():
            for of_layers in grouped(of_title, lambda run: run.row.pair).values():
                yield Group(method, title, list(_by_networks(of_layers).values()))


def _by_networks(runs: Iterable[StitchingRun]) -> dict[tuple, list[StitchingRun]]:
    return grouped(runs, lambda run: run.row.network_keys)


def _titled(runs: Sequence[StitchingRun], method: str, *, pool: bool) -> dict[str, list[StitchingRun]]:
    """Return the runs on each pair of networks, or all together, under a title."""
    groups = _by_networks(runs)
    networks = [network for pair in groups for network in set(pair)]  # one that is stitched to itself counts once
    if len(groups) > 1 and len(networks) == len(set(networks)):
        if pool:
            return {f"{len(groups)} pairs of networks": list(runs)}
        note(f"{method}: {len(groups)} pairs of networks share no network; --pool takes them together")
    names = titles_of(network for run in runs for network in run.row.networks)
    titles = [" → ".join(names[key] for key in pair) for pair in groups]
    return dict(zip(titles, groups.values(), strict=True))
