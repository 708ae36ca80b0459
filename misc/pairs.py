"""Units of work of all_pairs.py, which run single scripts on a network or a pair of networks."""

import functools
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if __name__ == "__main__":  # before the imports, which it would not find
    sys.exit("misc/pairs.py is not a script; run misc/all_pairs.py")

import exec_compute_low_rank_sim_metrics
import exec_eval_stitcher_ood
import exec_probe
import exec_stitch
from src import results
from src.core.choices import Options
from src.core.choices.stitching import Method
from src.core.console import listed, note, silenced, warn, warn_once
from src.core.errors import Busy, UserError, as_user_error
from src.core.user_code import is_user_code, title_of
from src.results.network_names import (
    PROBES,
    RECORD,
    SIMILARITY,
    TABLES,
    NamedNetwork,
    networks_named_by,
    pair_name,
    stitches_name,
)
from src.results.run import Run, options_of_table
from src.results.spec import (
    CONTENTS,
    MEASURING,
    OPTIONS,
    Difference,
    Spec,
    described,
    difference,
    is_idle,
    spec_of,
)

if TYPE_CHECKING:
    from src.cli import Parser
    from src.results.checkpoints import Session
    from src.results.stitches import Stitch

# options of all_pairs.py that mean something else to a single script
NOT_PASSED = {"config", "save_dir"}
# Outcomes of a unit
FINISHED = "finished"
BUSY = "busy"
FAILED = "failed"
OF_MEASURES = (*MEASURING, "metrics")  # a table may have further measures
REMEDY = "give the same options, or choose another -dir (of misc/compare.py: -o)"


@functools.cache  # units by the hundred share it
def parser_of(script: ModuleType) -> "Parser":
    """Return the parser of a script."""
    return script.parser()


def options_of(script: ModuleType, args: Namespace, **chosen: Any) -> Namespace:
    """Return the options of a script.

    Args:
        args: options of all_pairs.py; the script takes all that it shares with all_pairs.py.
        chosen: options of the script that win over `args`. All further options have their defaults.
    """
    shared = {name: value for name, value in vars(args).items() if name not in NOT_PASSED}
    return parser_of(script).values(shared, **chosen)


def options_of_method(method: Method) -> dict[str, Any]:
    """Return the options of exec_stitch.py for a method, with defaults for options that have no effect."""
    chosen = {"init": OPTIONS["init"].absent, "n_epochs": method.n_epochs}
    chosen["objective" if method.n_epochs else "init"] = method.name
    idle = [name for name in ("n_pinv_init_samples", "pinv_cutoff") if is_idle(name, chosen)]
    return chosen | {name: OPTIONS[name].absent for name in idle}


def layers_of(network: NamedNetwork, args: Namespace) -> str:
    """Return the layers of a network: from its line in the list, or else from the options."""
    return network.layers or args.layers


class Unit(NamedTuple):
    """A piece of work of one process: stitch a pair of networks by one method and evaluate the
    stitches, compare a pair of networks, or probe a network."""

    kind: str  # the folder of the method, or of the tables
    networks: tuple[NamedNetwork, ...]
    place: Path  # the folder of the runs, or the table
    options: Namespace  # of the script that writes the table; of an evaluation also of the stitches
    function: Callable[[Namespace, "Session"], None]  # of the script
    stitching: Namespace | None = None  # the options of the stitches; None of a table

    @property
    def title(self) -> str:
        """The name of the unit in messages."""
        name = self.place.stem if self.is_table else self.place.parent.name
        return f"{self.kind} {name}"

    @property
    def is_table(self) -> bool:
        """Whether the unit writes a table instead of stitches."""
        return self.kind in TABLES

    @property
    def end(self) -> NamedNetwork | Path:
        """The path of the end network, or of the table."""
        return self.place if self.is_table else self.networks[1]

    @property
    def splits(self) -> tuple[bool, ...]:
        """The splits that the unit reads: False for test images, True for training images."""
        if self.kind != SIMILARITY:
            return False, True
        if all(network.is_features for network in self.networks):
            return ()
        return (False,)

    @property
    def run(self) -> Run:
        """The lock and the record of the finished unit."""
        table = self.place if self.is_table else results.stitches.EvaluationFiles(self.place).table
        return Run.beside(table, vars(self.options))

    def difference(self, written: Options) -> Difference:
        """Return the options of this command that differ from the options in the files of the unit, without
        measures.

        Args:
            written: the options in its files; empty: there are none.
        """
        if not written:
            return {}
        differing = difference(spec_of(written), spec_of(self.run.options))
        return {name: values for name, values in differing.items() if name not in OF_MEASURES}

    def is_finished(self, written: Options) -> bool:
        """Return whether the unit is finished; a table may have more measures than the options name.

        Args:
            written: the options in its files.

        Raises:
            UserError: it was finished or begun with other networks, inputs or options.
        """
        run = self.run
        is_whole = run.is_finished
        differing = self.difference(written)
        if differing:
            where = run.config if is_whole else run.state_file
            raise UserError(f"{where} is of another run ({described(differing)}); {REMEDY}")
        if not is_whole or not written:
            return False
        before = spec_of(written)
        now = spec_of(run.options)
        warn_of_measuring_code(before, now)
        return set(now.get("metrics", [])) <= set(before.get("metrics", []))

    def has_other_options(self) -> bool:
        """Return whether the options in the files of the unit differ, apart from networks and measures."""
        differing = self.difference(self.run.options_on_disk())
        return any(not name.endswith(CONTENTS) for name in differing)


def warn_of_measuring_code(before: Spec, now: Spec) -> None:
    """Warn of measures and detectors whose code has changed since their results were written."""
    for name in MEASURING:
        digests = now.get(name) or {}
        for function, digest in (before.get(name) or {}).items():
            if digests.get(function, digest) != digest:
                warn_once(
                    f"the code of {function} has changed since results were made with it; remove them to make them "
                    "again"
                )


def with_record(
    unit: Unit, weights: Mapping[tuple[str, str], str], images: Mapping[str, str]
) -> Unit:
    """Return a unit whose options record weights and images, as those of the single scripts do.

    Args:
        weights: the SHA-256 of the weights, by path and type.
        images: the fingerprints of the images, by option.
    """
    for values in filter(None, (unit.options, unit.stitching)):
        options = vars(values)
        for name, network in networks_named_by(options).items():
            options[f"{name}{RECORD}"] = weights[network.path, network.type]
        options |= images
    return unit


def stitching_unit(
    pair: tuple[NamedNetwork, NamedNetwork], method: Method, args: Namespace, save_dir: str
) -> Unit:
    """Return the unit that stitches an ordered pair by a method."""
    front, end = pair
    folder = Path(save_dir, stitches_name(*pair), method.title)
    stitching = options_of(
        exec_stitch,
        args,
        front_model_path=front.path,
        end_model_path=end.path,
        front_model_type=front.type,
        end_model_type=end.type,
        front_layer=layers_of(front, args),
        end_layer=layers_of(end, args),
        stitching_type=args.stitching_type,
        mod_only_stitch=True,
        resume=True,
        save_dir=str(folder),
        **options_of_method(method),
    )
    evaluation = options_of(
        exec_eval_stitcher_ood,
        args,
        source_dir=str(Path("results", folder)),
        batch_size=stitching.batch_size,  # test images pass once for both
        own_types=list(filter(is_user_code, dict.fromkeys([front.type, end.type]))),
    )
    # Its record shows whether a unit with other options of stitching is another one
    options = Namespace(**{**vars(evaluation), **vars(stitching)})
    evaluate = exec_eval_stitcher_ood.main
    return Unit(method.title, pair, Path("results", folder), options, evaluate, stitching)


def similarity_unit(
    pair: tuple[NamedNetwork, NamedNetwork], args: Namespace, save_dir: str
) -> Unit:
    """Return the unit that compares a pair by the measures of the options and those in its existing table."""
    first, second = pair
    table = Path("results", save_dir, SIMILARITY, f"{pair_name(*pair)}.csv")
    script = exec_compute_low_rank_sim_metrics
    options = options_of(
        script,
        args,
        model1_path=first.path,
        model2_path=second.path,
        model1_type=first.type,
        model2_type=second.type,
        model1_layer=layers_of(first, args),
        model2_layer=layers_of(second, args),
        metrics=metrics_of(table, args.metrics),
        output=str(table),
    )
    compute = functools.partial(script.main, at_claim=add_measures_of_table)
    return Unit(SIMILARITY, pair, table, options, compute)


def add_measures_of_table(options: Namespace) -> None:
    """Update the measures of a unit by those in its table, which other processes may have written."""
    options.metrics = metrics_of(Path(options.output), options.metrics)


def metrics_of(table: Path, metrics: Sequence[str]) -> list[str]:
    """Return the union of the measures in a table and the named ones, in this order.

    Code of the user's that the table was made with, but the command line does not name, is not run.

    Args:
        metrics: the names on the command line.
    Raises:
        UserError: the table would have to be made again without such code.
    """
    options = options_of_table(table)
    if not options:
        return list(metrics)
    named = {title_of(name): name for name in metrics}  # a copied project has another path
    measured = [named.get(title_of(name), name) for name in options.get("metrics", [])]
    unnamed = [name for name in measured if is_user_code(name) and name not in metrics]
    if unnamed and not set(metrics) <= set(measured):
        titles = ", ".join(map(title_of, unnamed))
        raise UserError(
            f"{table} has {titles}, whose code runs only if the command line names it; give "
            f"--metrics {' '.join(unnamed)} as well"
        )
    return list(dict.fromkeys(name for name in [*measured, *metrics] if name not in unnamed))


def probing_unit(network: NamedNetwork, n_epochs: int, args: Namespace, save_dir: str) -> Unit:
    """Return the unit that probes a network."""
    table = Path("results", save_dir, PROBES, f"{network.name}.csv")
    options = options_of(
        exec_probe,
        args,
        model_path=network.path,
        model_type=network.type,
        layer_names=[layers_of(network, args)],
        n_epochs=n_epochs,
        output=str(table),
        resume=True,
    )
    return Unit(PROBES, (network,), table, options, exec_probe.main)


def run_units(units: Sequence[Unit], session: "Session") -> None:
    """Run all units that no other process has locked; a failed unit does not stop the next ones.

    Raises:
        UserError: units failed; raised after the last unit.
    """
    stitching: dict[str, Unit] = {}
    tables: dict[str, Unit] = {}
    for number, unit in enumerate(units, start=1):
        of_kind = tables if unit.is_table else stitching
        of_kind[f"[{number}/{len(units)}] {unit.title}"] = unit
    outcomes = run_in_turn(stitching, session)
    if session.cache:
        session.cache.clear()  # no further unit stitches
    outcomes |= run_in_turn(tables, session)
    n_compared = sum(unit.kind == SIMILARITY for unit in units)
    for line, n in session.warnings.items():
        warn(f"{line} (in {n} of {n_compared} pairs of networks)")

    busy = [unit.title for unit in units if outcomes[unit.place] == BUSY]
    failed = [unit.title for unit in units if outcomes[unit.place] == FAILED]
    if busy:
        note(
            f"units of work left to other processes, which work on them: {len(busy)} ({listed(busy)})"
        )
    if failed:
        raise UserError(
            f"{len(failed)} of {len(units)} failed ({listed(failed)}); the warnings above give causes and remedies"
        )


def run_in_turn(units: dict[str, Unit], session: "Session") -> dict[Path, str]:
    """Run units, those of end networks without another process first; return the outcome of each by its path.

    Each process makes a reference of the end networks that it stitches into. So it leaves an end
    network to the process that is at it; only when nothing else is left, it helps with the last
    pairs.
    """
    outcomes: dict[Path, str] = {}
    busy_ends = set()  # end networks that other processes are at
    for title, unit in units.items():
        if unit.end not in busy_ends:
            outcomes[unit.place] = run_unit(title, unit, session)
        if outcomes.get(unit.place) == BUSY:
            busy_ends.add(unit.end)
    for title, unit in reversed(units.items()):
        if outcomes.get(unit.place, BUSY) == BUSY:
            if unit.kind == SIMILARITY:  # whose other process may measure something else
                note(f"{title}: waits for another process, which works on it")
                unit.run.wait()
            outcomes[unit.place] = run_unit(title, unit, session)
    return outcomes


def run_unit(title: str, unit: Unit, session: "Session") -> str:
    """Run a unit unless another process has locked it, and print a note; return the outcome."""
    start = time.monotonic()
    if session.cache:
        session.cache.begin_unit()
    try:
        is_finished = run_claimed(unit, session)
    except Exception as error:
        user_error = as_user_error(error)
        if not user_error:
            raise
        warn(f"{title} failed: {user_error}")
        return FAILED
    if not is_finished:
        return BUSY
    note(f"{title}: {time.monotonic() - start:.1f} s")
    return FINISHED


def run_claimed(unit: Unit, session: "Session") -> bool:
    """Run a unit unless another process has locked it; return whether it is finished."""
    try:
        if unit.is_table:  # the script claims its table and finishes it
            if not unit.is_finished(unit.run.options_on_disk()):  # in the meantime
                run_calls(unit, session)
            return True
        run = unit.run
        run.claim(resume=True)
    except Busy:
        return False
    if unit.is_finished(run.options_on_disk()):  # in the meantime
        run.discard()
        return True
    run.save()  # the options, with which the unit has to resume after an interruption
    try:
        run_calls(unit, session)
    except Exception:  # an interruption is none, and keeps the options
        run.discard()
        raise
    run.discard()
    return True


def run_calls(unit: Unit, session: "Session") -> None:
    """Run the script functions of a unit."""
    with silenced(notes=False):
        if unit.stitching:
            stitch_and_evaluate(unit, unit.stitching, session)
        else:
            unit.function(unit.options, session)


def stitch_and_evaluate(unit: Unit, stitching: Namespace, session: "Session") -> None:
    """Stitch a pair of networks and evaluate the stitches in a single pass over the test images.

    If some stitches were finished before, all are evaluated from their files.
    """
    from src.ood.evaluation import measure_grids

    setup = exec_stitch.set_up(stitching, session)
    (runs,) = setup.groups  # one, as both networks are frozen
    stitches: list[Stitch] = []
    measured = None
    if runs.layers:
        end = replace(unit.networks[1], weights=stitching.end_model_path_sha256)
        # The reference comes first: a detector that fails costs no stitch
        reference = exec_eval_stitcher_ood.reference_of(
            setup.end, end, unit.options, runs.layers, setup.test_set, session
        )
        grid, matched = exec_stitch.make_stitches(stitching, runs, setup)
        score, scores = measure_grids({unit.title: grid}, reference)[unit.title]
        stitches = exec_stitch.finish(runs, grid, score, matched)
        measured = (reference, {stitch.place: scores[stitch.pair] for stitch in stitches})
    exec_stitch.conclude(stitching, setup, stitches)
    results.stitches.remove_remains(unit.place)  # of a killed process
    exec_eval_stitcher_ood.main(unit.options, session, measured, is_claimed=True)
