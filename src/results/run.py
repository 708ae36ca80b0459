"""A run: the files that hold its options, its progress and its provenance.

`config.txt` holds the options, with the SHA-256 of the networks' weights and the fingerprints of the
images. It is written last: a run with this file is finished. `run.json` holds the spec of the run and
its key, see `spec`, and says with what the run was made. `resume.pt` holds the state of an unfinished
run. A run with one table writes these files beside that table, as `table.config.txt`,
`table.run.json` and `table.resume.pt`.

Every script that makes a run goes by one rule. It claims the run before it writes, so that two
processes never write the same files. It removes `config.txt` before it writes results over earlier ones, and writes it
again after them. A table and what stands beside it appear in one step (`Run.replacing`).
"""

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from src.choices import Options
from src.core.console import note
from src.core.errors import UserError
from src.core.files import locked, read_json, write_json
from src.core.provenance import provenance
from src.core.tensors import load_tensors, save_tensors
from src.results.options import as_written
from src.results.outputs import BESIDE_TABLES, files_of, refuse_others, replacing
from src.results.public import read_options
from src.results.spec import described, key_of, other_inputs, refuse_difference, spec_of

RunState = dict[str, Any]  # tensors and plain values by name, see `Run.save`


class Run:
    """The files of one run.

    Args:
        options: the run's options, all of a script; `config.txt` leaves out `NOT_RECORDED`.
        prefix: begins the names of the files; "" if the run has a folder to itself.
        output: the table, or other file, that the run writes.
        script: the file of the script that writes it.

    Attributes:
        state: what an interrupted run goes on from; empty for a new run.
        start: the time when the run began, for `run.json`. It is now unless it is set.
    """

    def __init__(
        self,
        folder: str | Path,
        options: Options,
        *,
        prefix: str = "",
        output: Path | None = None,
        script: str = "",
    ):
        self.folder = Path(folder)
        self.output = output
        self.script = script
        self.options = dict(options)
        self.config = self.folder / f"{prefix}config.txt"
        self.made_with = self.folder / f"{prefix}run.json"
        self.state_file = self.folder / f"{prefix}resume.pt"
        self.logs: list[Path] = []
        if not prefix:
            self.logs = [self.folder / "training_logs.csv", self.folder / "ft_logs.csv"]
        self.state: RunState = {}
        self.start = datetime.now()
        self._release: Callable[[], None] | None = None  # set while this process has the lock

    @classmethod
    def beside(cls, table: str | Path, options: Options, *, script: str = "") -> "Run":
        """Return the run that writes one table.

        Args:
            script: the file of the script. With it, `claim` and `replacing` refuse to replace files
                that the script did not write.
        """
        path = Path(table)
        output = path if script else None
        return cls(path.parent, options, prefix=f"{path.stem}.", output=output, script=script)

    def skip_if_finished(self, *, resume: bool, overwrite: bool = False) -> bool:
        """Return whether the run is resumed and already finished; if so, print a note.

        Args:
            overwrite: the run may replace a finished run of any options.

        Raises:
            UserError: the finished run has other options.
        """
        if overwrite or not self.config.exists():
            return False
        written = read_options(self.config)
        if not self._is_record(written):
            raise UserError(
                f"{self.config} is not of a run, and would be replaced; move it, or choose another folder"
            )
        remedy = "choose another folder, or give --overwrite"
        if resume:
            remedy = "give the same ones, or choose another folder"
        refuse_difference(written, self.options, where=self.config, remedy=remedy)
        if resume:
            note(f"{self.config} is of a finished run of these options: nothing is left to do")
            self.discard()
        else:
            note(f"replaces the finished run of these options in {self.folder}; --resume keeps it")
        return resume

    def claim(self, *, resume: bool) -> None:
        """Create the folder, lock it until the run ends, and load `state`.

        Args:
            resume: go on with an interrupted run. Otherwise remove its logs, options and state.

        Raises:
            Busy: another process has the lock.
            UserError: the folder cannot be created, or holds an interrupted run of other options.
        """
        self.lock()
        if not resume:
            for path in (self.config, self.state_file, *self.logs):
                path.unlink(missing_ok=True)
            if self.output is None:  # otherwise it is the record of a table that stays
                self.made_with.unlink(missing_ok=True)
        self.state = self.saved_state() if resume else {}

    def _is_record(self, written: Options) -> bool:
        """Return whether options are of a run: a user's file about a network names no folder."""
        return "save_dir" in written or "save_dir" not in self.options

    def lock(self) -> None:
        """Create the folder and lock it until the run ends.

        Raises:
            Busy: another process has the lock.
            UserError: the folder cannot be created; or the table, its figure or its options exist,
                and another script or the user wrote the files.
        """
        self.check_output()
        self._keep(locked(self._lock_file, wait=False))

    def check_output(self) -> None:
        """Raise a UserError if the table, its figure or its options exist and are not of the script, or
        have results of other networks or images."""
        if self.output is None:
            return
        paths = [self.output, self.config, self.made_with]
        if self.output.suffix == ".csv":
            paths += map(self.output.with_suffix, BESIDE_TABLES)
        own = files_of(self.made_with, self.script)
        refuse_others(paths, own)
        if own and self.output.exists():
            found = other_inputs(read_json(self.made_with).get("spec", {}), spec_of(self.options))
            if found:
                raise UserError(
                    f"{self.output} has results of other inputs ({described(found)}); give another -o, or remove it"
                )

    def wait(self) -> None:
        """Wait for the lock."""
        self._keep(locked(self._lock_file))
        self.unlock()

    def _keep(self, lock: IO) -> None:
        """Keep a lock until `unlock`, or until an error or a signal ends the experiment."""
        self._release = weakref.finalize(self, _release, self._lock_file, lock, os.getpid())

    def unlock(self) -> None:
        """Release the lock of the folder."""
        if self._release:
            self._release()
            self._release = None

    def options_on_disk(self) -> Options:
        """Return the options in the files of a finished or interrupted run; {} without such
        files."""
        if self.config.exists():
            return read_options(self.config)
        if self.state_file.exists():
            return load_tensors(self.state_file)["options"]
        return {}

    def saved_state(self) -> RunState:
        """Return the state of an interrupted run; {} if there is no such run.

        Raises:
            UserError: the interrupted run has other options.
        """
        if not self.state_file.exists():
            return {}
        state = load_tensors(self.state_file)
        written = state.pop("options")
        refuse_difference(written, self.options, where=self.state_file)
        return state

    def save(self, **changes: object) -> None:
        """Update the state with `changes`, and save it."""
        self.state |= changes
        save_tensors(self.state_file, {**self.state, "options": as_written(self.options)})

    def finish(self) -> None:
        """Write `run.json` and then `config.txt`, which marks the run as finished; release the
        folder."""
        made_with = self.provenance()
        options = as_written(self.options)
        write_json(self.made_with, made_with)
        write_json(self.config, options)
        self.discard()

    @contextlib.contextmanager
    def replacing(self) -> Iterator[None]:
        """Let the files that the block writes appear in one step, and finish the run.

        They replace those of an earlier call of the script.

        Raises:
            UserError: a file exists that the script did not write. No file has changed.
        """
        with replacing(self.made_with, self.script, self.provenance, self.config):
            yield
        write_json(self.config, as_written(self.options))
        self.discard()

    def mark_as_unfinished(self) -> None:
        """Remove `config.txt` and `run.json`: the results that follow are not theirs."""
        for path in (self.config, self.made_with):
            path.unlink(missing_ok=True)

    def provenance(self) -> dict[str, object]:
        """Return the content of `run.json`: spec, key, warnings, and with what the run was made.

        A script without the option `-gpu` runs on the CPU.
        """
        spec = spec_of(self.options)
        made_with = provenance(gpu=self.options.get("gpu", -1), start=self.start)
        warnings = self.options.get("warnings", [])  # about networks and inputs
        return {"key": key_of(spec), "spec": spec, "warnings": warnings, **made_with}

    def discard(self) -> None:
        """Remove the saved state, and release the folder."""
        self.state_file.unlink(missing_ok=True)
        self.unlock()

    @property
    def _lock_file(self) -> Path:
        return self.folder / f".{self.state_file.name}.lock"


def _release(path: Path, lock: IO, process: int) -> None:
    """Remove a lock file and release the lock, in the process that has it."""
    if os.getpid() == process and not lock.closed:
        # Remove the file while it is locked. Later it may be another process's.
        path.unlink(missing_ok=True)
        lock.close()


@contextlib.contextmanager
def claimed(runs: Iterable[Run]) -> Iterator[None]:
    """Claim runs that keep no state, while the block runs.

    The files of earlier runs stay until `mark_as_unfinished`.

    Raises:
        Busy: another process has the lock of a run.
    """
    with contextlib.ExitStack() as at_the_end:
        for run in runs:
            run.lock()
            at_the_end.callback(run.unlock)
        yield


def new_folder(parent: Path) -> Path:
    """Create a folder named by the time, for this process only; return its path."""
    while True:
        path = Path(parent) / str(datetime.now()).replace(" ", "_").replace(":", "-")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot create {path}: {error.strerror or error}") from error
        return path
