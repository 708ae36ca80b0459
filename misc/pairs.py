"""The units of work of all_pairs.py: commands of the single scripts on a pair of networks, run in this process."""

import contextlib
import io
import os
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import exec_compute_low_rank_sim_metrics
import exec_eval_stitcher_ood
import exec_probe
import exec_stitch
from src import cli
from src.console import listed, note, warn
from src.errors import Busy, UserError, as_user_error
from src.models.user_file import is_user_network
from src.results.network_list import PROBES, SIMILARITY, TABLES, ListedNetwork, pair_name
from src.stitching.registry import FORMS

if TYPE_CHECKING:
    from src.loaded import Loaded
    from src.results.run import Run

NOT_PASSED = ("config", "save_dir")  # options of all_pairs.py that mean something else to a single script
RECIPES = {
    exec_stitch: exec_stitch.stitch,
    exec_eval_stitcher_ood: exec_eval_stitcher_ood.evaluate,
    exec_compute_low_rank_sim_metrics: exec_compute_low_rank_sim_metrics.compute,
    exec_probe: exec_probe.probe,
}
REMEDY = "give the same ones, or choose another -dir"


class Method(NamedTuple):
    """A way of stitching: a closed form, or an objective that is trained on."""

    name: str
    n_epochs: int = 0

    @classmethod
    def of(cls, text: str) -> "Method":
        """Read a method such as pinv or task:10."""
        name, _, epochs = text.partition(":")
        return cls(name, int(epochs or 0))

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.name}{self.n_epochs or ''}"

    @property
    def words(self) -> list[str]:
        """The options of exec_stitch.py that stand for it."""
        start = ["-i", self.name] if self.name in FORMS else ["--objective", self.name]
        return [*start, "-e", str(self.n_epochs)]


class Command(NamedTuple):
    """A command of a single script."""

    script: ModuleType
    words: list[str]

    @property
    def line(self) -> list[str]:
        """The command line, with the path of the script as it is typed in the working folder."""
        path = os.path.relpath(self.script.__file__)
        return [self.script.__file__ if path.startswith("..") else path, *self.words]

    @property
    def args(self) -> Namespace:
        """The options as the script reads them."""
        return self.script.parser().parse_args(self.words)

    def run(self, loaded: "Loaded") -> None:
        """Run the script in this process; its files name this command, its results are not printed."""
        from src.runtime import command_line

        args = self.args
        with command_line(self.line), contextlib.redirect_stdout(io.StringIO()):
            RECIPES[self.script](args, loaded)


class Unit(NamedTuple):
    """A pair of networks that one process stitches by one method and evaluates, or compares; or one that it probes."""

    kind: str  # the folder of the method, or of the tables
    networks: tuple[ListedNetwork, ...]
    place: Path  # the folder of its runs, or its table
    commands: list[Command]

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.kind} {self.place.stem if self.is_table else self.place.name}"

    @property
    def is_table(self) -> bool:
        """Whether it writes a table instead of stitches."""
        return self.kind in TABLES

    @property
    def run(self) -> "Run":
        """The files beside its folder or table that say that it is finished, and its lock."""
        from src.results.run import Run

        options: dict[str, Any] = {}
        for command in reversed(self.commands):
            options |= vars(command.args)
        table = self.place if self.is_table else self.place.parent / f"{self.place.name}.csv"
        return Run.beside(table, options)

    def is_finished(self) -> bool:
        """Return whether it is finished, with the same options."""
        return self.run.is_finished(remedy=REMEDY)


def stitching_unit(pair: tuple[ListedNetwork, ListedNetwork], method: Method, args: Namespace, save_dir: str) -> Unit:
    """Make the unit of an ordered pair and a method."""
    front, end = pair
    folder = Path(save_dir, method.folder, pair_name(*pair))
    networks = [front.path, end.path, front.type, end.type, args.layers, args.layers, args.stitching_type]
    how = [*method.words, "--mod-only-stitch", "--resume", "-dir", str(folder)]
    own = []
    for side, network in (("front", front), ("end", end)):
        own += [f"--{side}-type", network.type] if is_user_network(network.type) else []
    place = Path("results", folder)
    commands = [
        Command(exec_stitch, [*networks, *how, *shared_words(exec_stitch.parser(), args)]),
        Command(exec_eval_stitcher_ood, [str(place), *own, *shared_words(exec_eval_stitcher_ood.parser(), args)]),
    ]
    return Unit(method.folder, pair, place, commands)


def similarity_unit(pair: tuple[ListedNetwork, ListedNetwork], args: Namespace, save_dir: str) -> Unit:
    """Make the unit of the similarity of a pair."""
    first, second = pair
    table = Path("results", save_dir, SIMILARITY, f"{pair_name(*pair)}.csv")
    networks = [first.path, second.path, first.type, second.type, args.layers, args.layers, "-o", str(table)]
    script = exec_compute_low_rank_sim_metrics
    return Unit(SIMILARITY, pair, table, [Command(script, [*networks, *shared_words(script.parser(), args)])])


def probing_unit(network: ListedNetwork, n_epochs: int, args: Namespace, save_dir: str) -> Unit:
    """Make the unit of the probes of a network."""
    table = Path("results", save_dir, PROBES, f"{network.name}.csv")
    words = [network.path, network.type, "-l", args.layers, "-e", str(n_epochs), "-o", str(table), "--resume"]
    return Unit(PROBES, (network,), table, [Command(exec_probe, [*words, *shared_words(exec_probe.parser(), args)])])


def shared_words(parser: cli.Parser, args: Namespace) -> list[str]:
    """Return the options that a script shares with all_pairs.py, as far as they are not its defaults."""
    words = []
    for action in parser._actions:
        value = vars(args).get(action.dest)
        if action.dest in NOT_PASSED or not action.option_strings or value in (None, action.default):
            continue
        words.append(action.option_strings[0])
        if isinstance(value, list):
            words += map(str, value) if action.nargs else [",".join(value)]
        elif action.nargs != 0:
            words.append(str(value))
    return words


def run_units(units: Sequence[Unit], loaded: "Loaded") -> None:
    """Run all units that no other process is at; one that fails stops no other.

    Raises:
        UserError: some failed, after all others.
    """
    others, failed = [], []
    for number, unit in enumerate(units, start=1):
        began = time.monotonic()
        try:
            if not run_claimed(unit, loaded):
                others.append(unit.title)
                continue
        except Exception as error:
            known = as_user_error(error)
            if not known:
                raise
            failed.append(unit.title)
            warn(f"[{number}/{len(units)}] {unit.title} failed: {known}")
            continue
        note(f"[{number}/{len(units)}] {unit.title}: {time.monotonic() - began:.1f} s")
    if others:
        note(f"{len(others)} are left to other processes, which are at them: {listed(others)}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(units)} failed ({listed(failed)}); see the warnings, and give the command again"
        )


def run_claimed(unit: Unit, loaded: "Loaded") -> bool:
    """Run a unit unless another process is at it; return whether it is finished."""
    try:
        if unit.kind == PROBES:  # the script claims its table and finishes it
            run_commands(unit, loaded)
            return True
        run = unit.run
        run.claim(resume=True)
    except Busy:
        return False
    if run.is_finished(remedy=REMEDY):  # in the meantime
        run.discard()
        return True
    try:
        run_commands(unit, loaded)
    except Exception:
        run.discard()
        raise
    run.finish()
    return True


def run_commands(unit: Unit, loaded: "Loaded") -> list[float]:
    """Run the commands of a unit, and remove what a killed process left of it; return the seconds of each."""
    from src.stitching.folders import remove_remains

    seconds = []
    for command in unit.commands:
        began = time.monotonic()
        command.run(loaded)
        if command.script is exec_stitch:  # its finished runs are evaluated next
            remove_remains(unit.place)
        seconds.append(time.monotonic() - began)
    return seconds
