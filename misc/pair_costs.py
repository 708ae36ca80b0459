"""The commands of units of work and estimates of their time, measured on one unit of each kind."""

import shlex
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from misc.pairs import Method, Unit, probing_unit, run_calls, similarity_unit, stitching_unit
from src.console import note, result, silenced
from src.results.network_list import PROBES, SIMILARITY

if TYPE_CHECKING:
    from src.session import Session


def estimate(units: Sequence[Unit], args: Namespace, session: "Session") -> None:
    """Print the commands of units, each with an estimate of its time, and the hours of all by so many processes."""
    first: dict[str, Unit] = {}
    for unit in units:
        first.setdefault(unit.kind, unit)
    costs = {kind: measure(unit, args, session) for kind, unit in first.items()}
    for unit in units:
        for call, seconds in zip(unit.calls, costs[unit.kind], strict=True):
            for command in call.commands:
                result(f"{shlex.join(['python', *command])}  # {seconds / len(call.commands):.1f} s")
    total = sum(sum(costs[unit.kind]) for unit in units) / 3600
    each = " and ".join(f"{total / n:.3g} hours by --processes {n}" for n in dict.fromkeys((1, args.n_processes)))
    note(f"{len(units)} units of work, estimated from one of each kind on this device: {each}")


def measure(unit: Unit, args: Namespace, session: "Session") -> list[float]:
    """Return the seconds of each script of a unit, in a folder of its own; those of training from one epoch and two."""
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
        first, *evaluation = seconds_of(min(n_epochs, 1))
        second = seconds_of(2)[0] if n_epochs > 1 else first
    return [first + max(0, n_epochs - 1) * max(0.0, second - first), *evaluation]
