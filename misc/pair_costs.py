"""The commands of units of work and estimates of their time, measured on one unit of each kind."""

import shlex
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from misc.pairs import Method, Unit, probing_unit, run_calls, similarity_unit, stitching_unit
from src.console import note, result, silenced
from src.results.network_list import PROBES, SIMILARITY

if TYPE_CHECKING:
    from src.session import Session


class Cost(NamedTuple):
    """The seconds of a unit."""

    calls: list[float]  # of each script for itself
    saved: float = 0.0  # where a process has already evaluated stitches into the same end network


def estimate(units: Sequence[Unit], args: Namespace, session: "Session") -> None:
    """Print the commands of units, each with an estimate of its time, and the hours of all by so many processes."""
    first: dict[str, Unit] = {}
    for unit in units:
        first.setdefault(unit.kind, unit)
    costs = {kind: measure(unit, args, session) for kind, unit in first.items()}
    for unit in units:
        for call, seconds in zip(unit.calls, costs[unit.kind].calls, strict=True):
            for command in call.commands:
                result(f"{shlex.join(['python', *command])}  # {seconds / len(call.commands):.1f} s")
    hours = {n: hours_of(units, costs, n) for n in dict.fromkeys((1, args.n_processes))}
    each = " and ".join(f"{of_n:.3g} hours by --processes {n}" for n, of_n in hours.items())
    note(f"{len(units)} units of work, estimated from one of each kind on this device: {each}")


def hours_of(units: Sequence[Unit], costs: Mapping[str, Cost], n_processes: int) -> float:
    """Estimate the hours of so many processes, each of which evaluates stitches into every end network."""
    alone = {unit.title: sum(costs[unit.kind].calls) for unit in units}
    first_of_end = {unit.networks[1]: costs[unit.kind].saved for unit in units if not unit.is_table}
    divided = sum(alone[unit.title] - costs[unit.kind].saved for unit in units) / n_processes
    return max(divided + sum(first_of_end.values()), max(alone.values(), default=0.0)) / 3600


def measure(unit: Unit, args: Namespace, session: "Session") -> Cost:
    """Measure the cost of a unit in a folder of its own; that of training, by one epoch and by two."""
    method = next((method for method in map(Method.of, args.methods) if method.folder == unit.kind), None)

    def seconds_of(n_epochs: int) -> list[float]:
        place = str(Path(folder, str(n_epochs)))
        if unit.kind == SIMILARITY:
            again = similarity_unit(unit.networks, args, place)
        elif unit.kind == PROBES:
            again = probing_unit(*unit.networks, n_epochs, args, place)
        else:
            again = stitching_unit(unit.networks, method._replace(n_epochs=n_epochs), args, place)
        return run_calls(again, session)

    n_epochs = args.probes if unit.kind == PROBES else method.n_epochs if method else 0
    with tempfile.TemporaryDirectory() as folder, silenced():
        session.reference = None
        first, *evaluation = seconds_of(min(n_epochs, 1))
        if unit.kind == SIMILARITY:
            return Cost([first])
        second, *known = seconds_of(min(n_epochs, 2))  # stitches of no epochs are the same ones
    training = first + max(0, n_epochs - 1) * max(0.0, second - first)
    return Cost([training, *evaluation], max(0.0, sum(evaluation) - sum(known)))
