"""Which stitching runs are judged together."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from src.console import note
from src.networks import FRESH
from src.results.experiments import CHECKPOINTS, Pair, grouped, method_names, newest_runs
from src.stitching.folders import StitchingRun
from src.verdict.intervals import are_independent

SELF, FRESH_FRONT = "self", "fresh"  # controls


class Group(NamedTuple):
    """The runs that stitch the same layers by one method."""

    method: str
    networks: str  # both checkpoints, or how many pairs are taken together
    runs: list[StitchingRun]

    @property
    def pair(self) -> Pair:
        """The layers."""
        return self.runs[0].row.pair

    @property
    def by_networks(self) -> list[list[StitchingRun]]:
        """The runs on each pair of networks."""
        return list(grouped(self.runs, lambda run: run.row.experiment.network_keys).values())

    @property
    def control(self) -> str | None:
        """`self` for a layer stitched to itself, `fresh` for a front network that was never trained, or None."""
        experiments = [run.row.experiment for run in self.runs]
        if self.pair.front_layer == self.pair.end_layer and all(
            front == end for front, end in (each.network_keys for each in experiments)
        ):
            return SELF
        return FRESH_FRONT if all(each.front_model_path == FRESH for each in experiments) else None

    def right(self, name: str) -> list[np.ndarray]:
        """Return of each pair of networks whether `stitched` or `end` is right about each image: (runs, N), bool.

        Empty where a run has no predictions, or the test images differ.
        """
        arrays = [run.predictions for run in self.runs]
        if any(array is None or not np.array_equal(array["labels"], arrays[0]["labels"]) for array in arrays):
            return []
        labels = arrays[0]["labels"]
        return [np.stack([run.predictions[name] == labels for run in runs]) for runs in self.by_networks]


def groups_of(runs: Iterable[StitchingRun], *, pool: bool = False) -> Iterator[Group]:
    """Yield the runs that are judged together: of one method, layers, data and pair of networks.

    Of runs of the same experiment, seed included, the newest counts, with a warning.

    Args:
        pool: take pairs of networks of the same types together that share no network, as repetitions of one
            experiment; if not, a note says where that is possible.
    """
    runs = newest_runs(runs)
    experiments = [run.row.experiment for run in runs]
    names = method_names(experiments, apart_from=(*CHECKPOINTS, "seed"))
    names = dict(zip(map(id, runs), names, strict=True))

    def kind(run: StitchingRun) -> tuple:
        front, end = run.row.experiment.network_keys
        return names[id(run)], front == end, run.row.experiment.front.is_fresh  # controls are no repetitions

    for (method, *_), of_method in grouped(runs, kind).items():
        for title, same in _by_networks(of_method, method, pool=pool).items():
            for of_layers in grouped(same, lambda run: run.row.pair).values():
                yield Group(method, title, of_layers)


def _by_networks(runs: Sequence[StitchingRun], method: str, *, pool: bool) -> dict[str, list[StitchingRun]]:
    """Return the runs on each pair of networks, or all together, under a title."""
    groups = grouped(runs, lambda run: run.row.experiment.network_keys)
    if len(groups) > 1 and are_independent(list(groups)):
        if pool:
            return {f"{len(groups)} pairs of networks": list(runs)}
        note(f"{method}: {len(groups)} pairs of networks share no network; --pool takes them together")
    experiments = [same[0].row.experiment for same in groups.values()]
    titles = [f"{each.front.title(each.seed)} → {each.end.title(each.seed)}" for each in experiments]
    return dict(zip(titles, groups.values(), strict=True))
