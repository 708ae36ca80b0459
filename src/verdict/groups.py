"""Which stitching runs are judged together, and what is measured of each."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from src.console import note
from src.grouping import grouped
from src.network_names import FRESH, NetworkName, titles_of
from src.results.options import read_options
from src.results.quantities import QUANTITIES, VALIDITY
from src.results.tables import IntervalEstimate
from src.stitching.experiments import CHECKPOINTS, WEIGHTS, Pair, method_names, newest_runs
from src.stitching.folders import StitchingRun
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


def kappa_of(run: StitchingRun) -> IntervalEstimate:
    """Return the κ within strata of a run that has predictions."""
    classes = run.predictions
    return kappa_within(
        classes["stitched"], classes["end"], strata_of(classes["labels"], classes["front"])
    )


def is_untrained(network: NetworkName) -> bool:
    """Return whether a network has fresh weights; a head on it (`exec_probe.py --with-head`) may be
    trained."""
    config = Path(f"{os.path.splitext(network.path)[0]}.config.txt")  # of the head
    return network.is_fresh or (
        config.is_file() and read_options(config).get("model_path") == FRESH
    )


def value_of(run: StitchingRun, name: str) -> float | None:
    """Return a quantity of a single run by its column; None where it was not measured.

    Quantities of a detector are in the evaluation by that detector.
    """
    if name == "kappa_within":
        return None if run.predictions is None else kappa_of(run).value
    if QUANTITIES[name].measured_by == VALIDITY:
        values = (getattr(evaluation, name) for evaluation in run.evaluations.values())
        return next((value for value in values if value is not None), None)
    return getattr(run.row, name)


def families_of(runs: Iterable[StitchingRun], *, pool: bool = False) -> list[list[Group]]:
    """Return the groups of runs that are judged, each of one pair of layers; a family of groups is
    tested together.

    A family has one method, on whatever networks; networks stitched to themselves, and untrained
    fronts, are families of their own. Of runs of the same experiment, seed included, the newest
    counts, with a warning.

    Args:
        pool: take pairs of networks of the same types together that share no network, as repetitions of one
            experiment; if not, a note says where that is possible.
    """
    families: list[list[Group]] = []
    for method, repetitions in _repetitions(newest_runs(runs)):
        family: list[Group] = []
        families.append(family)
        for title, of_networks in _titled(repetitions, method, pool=pool).items():
            for of_layers in grouped(of_networks, lambda run: run.row.pair).values():
                by_networks = grouped(of_layers, lambda run: run.row.network_keys)
                family.append(Group(method, title, list(by_networks.values())))
    return families


def _repetitions(runs: Sequence[StitchingRun]) -> Iterator[tuple[str, list[StitchingRun]]]:
    """Yield each method with runs that may repeat one experiment on other networks: controls repeat
    no stitches."""
    methods = method_names([run.row for run in runs], apart_from=(*CHECKPOINTS, *WEIGHTS, "seed"))
    repetitions: dict[tuple[str, bool, bool], list[StitchingRun]] = {}
    for run, method in zip(runs, methods, strict=True):
        front, end = run.row.network_keys
        kind = (method, front == end, is_untrained(run.row.networks[0]))
        repetitions.setdefault(kind, []).append(run)
    for (method, *_), of_kind in repetitions.items():
        yield method, of_kind


def _titled(
    runs: Sequence[StitchingRun], method: str, *, pool: bool
) -> dict[str, list[StitchingRun]]:
    """Return the runs on each pair of networks, or all together, under a title."""
    by_networks = grouped(runs, lambda run: run.row.network_keys)
    networks = [
        network for pair in by_networks for network in set(pair)
    ]  # one that is stitched to itself counts once
    if len(by_networks) > 1 and len(networks) == len(set(networks)):
        if pool:
            return {f"{len(by_networks)} pairs of networks": list(runs)}
        note(
            f"{method}: {len(by_networks)} pairs of networks share no network; --pool takes them together"
        )
    names = titles_of(network for run in runs for network in run.row.networks)
    return {
        " → ".join(names[key] for key in pair): of_pair for pair, of_pair in by_networks.items()
    }
