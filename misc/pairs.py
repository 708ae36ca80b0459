"""The units of work of all_pairs.py: calls of the single scripts on a pair of networks, in this
process."""

import math
import os
import shlex
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import exec_compute_low_rank_sim_metrics
import exec_eval_stitcher_ood
import exec_probe
import exec_stitch
from src.choices.stitching import FORMS
from src.console import listed, note, result, silenced, warn
from src.errors import Busy, UserError, as_user_error
from src.results.network_list import PROBES, SIMILARITY, TABLES, ListedNetwork, pair_name
from src.results.options import read_options
from src.user_code import is_user_code, title_of

if TYPE_CHECKING:
    from src.results.run import Run
    from src.session import Session

NOT_PASSED = (
    "config",
    "save_dir",
)  # options of all_pairs.py that mean something else to a single script
REMEDY = "give the same ones, or choose another -dir"


class Method(NamedTuple):
    """A way of stitching: a closed form, or an objective that is trained on."""

    name: str
    n_epochs: int = 0

    @classmethod
    def of(cls, text: str) -> "Method":
        """Read a method such as pinv or task:10."""
        name, _, epochs = text.rpartition(":")
        return cls(name, int(epochs)) if name else cls(text)

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{title_of(self.name)}{self.n_epochs or ''}"

    @property
    def options(self) -> dict[str, Any]:
        """The options of exec_stitch.py that stand for it."""
        return {"init" if self.name in FORMS else "objective": self.name, "n_epochs": self.n_epochs}


class Call(NamedTuple):
    """A call of the function of a single script."""

    script: ModuleType
    function: Callable[[Namespace, "Session"], None]
    options: Namespace

    @property
    def command(self) -> list[str]:
        """The command line that does the same, with the path of the script as it is typed in the
        working folder."""
        path = os.path.relpath(self.script.__file__)
        path = self.script.__file__ if path.startswith("..") else path
        return [path, *self.script.parser().words(self.options)]


def options_of(script: ModuleType, args: Namespace, **own: Any) -> Namespace:
    """Return the options of a script: its own, those that it shares with all_pairs.py, and its
    defaults."""
    parser = script.parser()
    known = {action.dest for action in parser._actions if action.option_strings} - set(NOT_PASSED)
    shared = {
        name: value for name, value in vars(args).items() if name in known and value is not None
    }
    return parser.parse_args(parser.words(Namespace(**shared | own)))


class Unit(NamedTuple):
    """A pair of networks that one process stitches by one method and evaluates, or compares; or one
    that it probes."""

    kind: str  # the folder of the method, or of the tables
    networks: tuple[ListedNetwork, ...]
    place: Path  # the folder of its runs, or its table
    calls: list[Call]

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
        for call in reversed(self.calls):
            options |= vars(call.options)
        table = self.place if self.is_table else self.place.parent / f"{self.place.name}.csv"
        return Run.beside(table, options)

    @property
    def changed_networks(self) -> list[str]:
        """The titles of networks that hold other weights now than when this unit was begun."""
        from src.results.weights import changed
        from src.stitching.runs import finished_runs, interrupted_runs

        run = self.run
        begun = [run.options_on_disk()]
        if not self.is_table and not run.config.exists():
            begun += [
                options
                for _, options in (*finished_runs(self.place), *interrupted_runs(self.place))
            ]
        return [title for options in begun for title in changed(options, run.options)]

    def set_aside(self, name: str) -> None:
        """Move what networks have changed since into a folder of this name beside it; raises Busy
        as `Run.lock`."""
        from src.results.weights import names_of, recorded

        run, folder = self.run, self.place.parent / name
        paths = [run.config, run.made_with, run.state_file, self.place]
        if self.is_table:
            paths += [self.place.with_suffix(ending) for ending in (".png", ".pdf")]
        run.lock()
        try:
            if self.changed_networks:
                newer = [
                    network.title
                    for network in recorded(run.options).values()
                    if network.has_changed
                ]
                if newer:
                    raise UserError(
                        f"{names_of(newer)}: written since this process began; give the command again"
                    )
                folder.mkdir(exist_ok=True)
                for path in filter(Path.exists, paths):
                    path.rename(folder / path.name)
        finally:
            run.unlock()

    def is_finished(self) -> bool:
        """Return whether it is finished, with the same options; measures may become more."""
        run = self.run
        begun = read_options(run.config) if run.config.exists() else {}
        asked = run.options.get("metrics", [])
        if "metrics" in run.options:
            run.options["metrics"] = begun.get("metrics", [])
        return run.is_finished(remedy=REMEDY) and set(asked) <= set(run.options.get("metrics", []))


def with_weights(unit: Unit, weights: Mapping[tuple[str, str], str]) -> Unit:
    """Return a unit whose options record the weights of its networks, as those of the single
    scripts do.

    Args:
        weights: their SHA-256, by path and type.
    """
    for options in (call.options for call in unit.calls):
        for name in [name for name in vars(options) if name.endswith("_path")]:
            network = getattr(options, name), getattr(options, name.replace("_path", "_type"))
            setattr(options, f"{name}_sha256", weights[network])
    return unit


def stitching_unit(
    pair: tuple[ListedNetwork, ListedNetwork], method: Method, args: Namespace, save_dir: str
) -> Unit:
    """Make the unit of an ordered pair and a method."""
    front, end = pair
    folder = Path(save_dir, method.folder, pair_name(*pair))
    stitching = options_of(
        exec_stitch, args,
        front_model_path=front.path, end_model_path=end.path,
        front_model_type=front.type, end_model_type=end.type,
        front_layer=args.layers, end_layer=args.layers, stitching_type=args.stitching_type,
        mod_only_stitch=True, resume=True, save_dir=str(folder), **method.options,
    )  # fmt: skip
    own_types = {f"{side}_type": each.type for side, each in zip(("front", "end"), pair, strict=True)
                 if is_user_code(each.type)}  # fmt: skip
    evaluation = options_of(
        exec_eval_stitcher_ood, args, source_dir=str(Path("results", folder)), **own_types
    )
    calls = [
        Call(exec_stitch, exec_stitch.stitch, stitching),
        Call(exec_eval_stitcher_ood, exec_eval_stitcher_ood.evaluate, evaluation),
    ]
    return Unit(method.folder, pair, Path("results", folder), calls)


def similarity_unit(
    pair: tuple[ListedNetwork, ListedNetwork], args: Namespace, save_dir: str
) -> Unit:
    """Make the unit of the similarity of a pair, with the measures that its table has already."""
    (first, second), script = pair, exec_compute_low_rank_sim_metrics
    table = Path("results", save_dir, SIMILARITY, f"{pair_name(*pair)}.csv")
    config = table.with_suffix(".config.txt")
    measured = read_options(config).get("metrics", []) if config.exists() else []
    options = options_of(
        script, args,
        model1_path=first.path, model2_path=second.path, model1_type=first.type, model2_type=second.type,
        model1_layer=args.layers, model2_layer=args.layers,
        metrics=list(dict.fromkeys([*measured, *args.metrics])), output=str(table),
    )  # fmt: skip
    return Unit(SIMILARITY, pair, table, [Call(script, script.compute, options)])


def probing_unit(network: ListedNetwork, n_epochs: int, args: Namespace, save_dir: str) -> Unit:
    """Make the unit of the probes of a network."""
    table = Path("results", save_dir, PROBES, f"{network.name}.csv")
    options = options_of(
        exec_probe, args,
        model_path=network.path, model_type=network.type, layer_names=[args.layers],
        n_epochs=n_epochs, output=str(table), resume=True,
    )  # fmt: skip
    return Unit(PROBES, (network,), table, [Call(exec_probe, exec_probe.probe, options)])


def run_units(units: Sequence[Unit], session: "Session", *, aside: str = "") -> None:
    """Run all units that no other process is at; one that fails stops no other.

    Args:
        aside: the name of the folders into which units go whose networks have changed since; "": they fail.
    Raises:
        UserError: some failed, after all others.
    """
    others, failed = [], []
    for number, unit in enumerate(units, start=1):
        began = time.monotonic()
        try:
            if not run_claimed(unit, session, aside=aside):
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
            f"{len(failed)} of {len(units)} failed ({listed(failed)}); see the warnings, which say how to mend it"
        )


def run_claimed(unit: Unit, session: "Session", *, aside: str) -> bool:
    """Run a unit unless another process is at it; return whether it is finished."""
    try:
        if aside:
            unit.set_aside(aside)
        if unit.kind == PROBES:  # the script claims its table and finishes it
            run_calls(unit, session)
            return True
        run = unit.run
        run.claim(resume=True)
    except Busy:
        return False
    if unit.is_finished():  # in the meantime
        run.discard()
        return True
    try:
        run_calls(unit, session)
    except Exception:
        run.discard()
        raise
    run.finish()
    return True


def run_calls(unit: Unit, session: "Session") -> list[float]:
    """Run the scripts of a unit, and remove what a killed process left of it; return the seconds of
    each."""
    from src.stitching.folders import remove_remains

    seconds = []
    for call in unit.calls:
        began = time.monotonic()
        with silenced(notes=False):
            call.function(call.options, session)
        if call.script is exec_stitch:  # its finished runs are evaluated next
            remove_remains(unit.place)
        seconds.append(time.monotonic() - began)
    return seconds


def estimate(units: Sequence[Unit], args: Namespace, session: "Session") -> None:
    """Print the commands of units, each with an estimate of its time, and the time of all by so
    many processes."""
    first = {unit.kind: unit for unit in reversed(units)}
    costs = {kind: measure(unit, args, session) for kind, unit in first.items()}
    for unit in units:
        for call, seconds in zip(unit.calls, costs[unit.kind], strict=True):
            result(f"{shlex.join(['python', *call.command])}  # {seconds:.1f} s")
    total = sum(sum(costs[unit.kind]) for unit in units)
    each = " and ".join(
        f"{duration(total / n)} by --processes {n}" for n in dict.fromkeys((1, args.n_processes))
    )
    note(f"{len(units)} units of work, estimated from one of each kind on this device: {each}")


def duration(seconds: float) -> str:
    """Return a time as a text in its two largest units, such as 2 min 10 s."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def measure(unit: Unit, args: Namespace, session: "Session") -> list[float]:
    """Return the seconds of each script of a unit, in a folder of its own; those of training from
    one epoch and two."""
    method = next(
        (method for method in map(Method.of, args.methods) if method.folder == unit.kind), None
    )

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
