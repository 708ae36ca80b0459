"""Which stitching runs are judged together, and what is known of them."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.console import note
from src.files import read_json
from src.network_names import FRESH, NetworkName
from src.results.experiments import Pair, grouped, method_names, newest_runs
from src.results.options import read_options
from src.stitching.folders import StitchingRun
from src.verdict.intervals import Runs

SELF, FRESH_FRONT, LABELS = "self", "fresh", "labels"  # controls


class Group(NamedTuple):
    """The runs that stitch the same layers by one method."""

    method: str
    networks: str  # both checkpoints, or how many pairs are taken together
    by_networks: list[list[StitchingRun]]  # the runs on each pair of networks
    label_only: list[list[StitchingRun]]  # the label-only control of each run; empty where one has none

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
        """The kind of control that it is: `labels`, `self`, `fresh`; or None. All runs are of one kind."""
        row = self.runs[0].row
        front, end = row.network_keys
        if row.control:
            return LABELS
        if front == end and row.front_layer == row.end_layer:
            return SELF
        return FRESH_FRONT if is_untrained(row.networks[0]) else None

    @property
    def labels(self) -> np.ndarray | None:
        """The labels (N,) of the test images; None where a run has no predictions, or the images differ."""
        arrays = [run.predictions for run in (*self.runs, *chain.from_iterable(self.label_only))]
        if any(array is None or not np.array_equal(array["labels"], arrays[0]["labels"]) for array in arrays):
            return None
        return arrays[0]["labels"]

    def predictions(self, name: str) -> Runs:
        """Return the classes that `stitched`, `front` or `end` predict, or the label-only `control`."""
        runs, name = (self.label_only, "stitched") if name == "control" else (self.by_networks, name)
        return [np.stack([run.predictions[name] for run in of_networks]) for of_networks in runs]

    def right(self, name: str) -> Runs:
        """Return whether they are right about each image."""
        return [classes == self.labels for classes in self.predictions(name)]

    def differ(self, one: str, other: str) -> Runs:
        """Return whether two of them predict different classes for each image."""
        return [first != second for first, second in zip(self.predictions(one), self.predictions(other), strict=True)]


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
    names = method_names([run.row for run in runs], apart_from=("front_model_path", "end_model_path", "seed"))
    names = dict(zip(map(id, runs), names, strict=True))
    label_only = {_stitch_of(run): run for run in runs if run.row.control and run.predictions is not None}

    def kind(run: StitchingRun) -> tuple:
        front, end = run.row.network_keys
        return names[id(run)], front == end, is_untrained(run.row.networks[0])  # controls are no repetitions

    for (method, *_), of_method in grouped(runs, kind).items():
        for title, same in _titled(of_method, method, pool=pool).items():
            for of_layers in grouped(same, lambda run: run.row.pair).values():
                by_networks = list(_by_networks(of_layers).values())
                controls = [[label_only.get(_stitch_of(run)) for run in of_networks] for of_networks in by_networks]
                yield Group(method, title, by_networks, controls if all(map(all, controls)) else [])


def _by_networks(runs: Iterable[StitchingRun]) -> dict[tuple, list[StitchingRun]]:
    return grouped(runs, lambda run: run.row.network_keys)


def _stitch_of(run: StitchingRun) -> tuple:
    """Return what a stitch and its label-only control share."""
    return run.row.pair, dataclasses.replace(run.row, control="").key


def commands_of_controls(runs: Sequence[StitchingRun]) -> list[str]:
    """Return the commands that make the label-only controls of those runs that have none."""
    have = {_stitch_of(run) for run in runs if run.row.control}
    files = [run.folder / "run.json" for run in runs if _stitch_of(run) not in have]
    commands = (read_json(file)["command"] if file.is_file() else "exec_stitch.py …" for file in files)
    return [f"python {command} --control labels" for command in dict.fromkeys(commands)]


def _titled(runs: Sequence[StitchingRun], method: str, *, pool: bool) -> dict[str, list[StitchingRun]]:
    """Return the runs on each pair of networks, or all together, under a title."""
    groups = _by_networks(runs)
    networks = [network for pair in groups for network in set(pair)]  # one that is stitched to itself counts once
    if len(groups) > 1 and len(networks) == len(set(networks)):
        if pool:
            return {f"{len(groups)} pairs of networks": list(runs)}
        note(f"{method}: {len(groups)} pairs of networks share no network; --pool takes them together")
    rows = [same[0].row for same in groups.values()]
    titles = [" → ".join(network.title(row.seed) for network in row.networks) for row in rows]
    return dict(zip(titles, groups.values(), strict=True))
