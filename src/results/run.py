"""Runs on disk: options, progress and provenance, with locks and atomic replacement of files.

`config.txt` holds the options, with the SHA-256 of the networks' weights and the fingerprints of the
images. It is written last: a run with this file is finished. `run.json` holds the spec of the run and
its key, see `spec`, and says with what the run was made. `resume.pt` holds the state of an unfinished
run. A run that writes a table has one record beside it, `table.json`, with all of this; it is finished
if the record has `options`. The state is in `table.resume.pt`.

Every script that makes a run goes by one rule. It claims the run before it writes, so that two
processes never write the same files. It removes `config.txt` before it writes results over earlier ones, and writes it
again after them. A table and what stands beside it appear in one step (`Run.replacing`).

Importing this module does not import torch.
"""

import contextlib
import json
import math
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from src.core.choices import Options
from src.core.console import listed, note, result, warn_once
from src.core.errors import UserError
from src.core.files import durable_together, locked, read_json, write_csv, write_json
from src.core.provenance import provenance
from src.core.tensors import load_tensors, save_state, save_tensors
from src.core.user_code import digest_of, is_user_code, source_of
from src.results.network_names import SHORT, NamedNetwork
from src.results.public import CONFIG, read_options
from src.results.spec import (
    DIGEST,
    MEASURING,
    NOT_RECORDED,
    described,
    difference,
    key_of,
    other_inputs,
    spec_of,
)

if TYPE_CHECKING:
    from src.datasets.base import InputSet
    from src.training.loop import Epochs, History, Settings
    from src.training.task import Classification, EpochLog

LOGS = "training_logs.csv"
BESIDE_TABLES = (".png", ".pdf")  # endings of the figure of a table
OTHER_NAME = "give another -o (of all_pairs.py, another -dir)"

PACKAGES = ("python", "torch", "torchvision", "numpy", "scipy", "cuda")

RunState = dict[str, Any]  # tensors and plain values by name, see `Run.save`


class Run:
    """A run: the files that hold its options, its progress and its provenance.

    Args:
        folder: of the files.
        options: the run's options, all of a script; `config.txt` leaves out `NOT_RECORDED`.
        table: the table that the run writes; None: the run has a folder to itself.
        script: the file of the script that writes the table. With it, `claim` and `replacing` refuse to
            replace files that the script did not write.

    Attributes:
        state: the state from which an interrupted run resumes; empty for a new run.
        start: the time when the run began, for the record. It is now unless it is set.
        further: entries of the record of a table.
    """

    def __init__(
        self, folder: str | Path, options: Options, *, table: Path | None = None, script: str = ""
    ):
        self.folder = Path(folder)
        self.table = table
        self.script = script
        self.options = dict(options)
        self.further: dict[str, object] = {}
        self.logs: list[Path] = []
        if table is None:
            self.config = self.folder / CONFIG
            self.made_with = self.folder / "run.json"
            self.state_file = self.folder / "resume.pt"
            self.logs = [self.folder / LOGS, self.folder / "ft_logs.csv"]
        else:
            self.config = self.made_with = record_of(table)
            self.state_file = table.with_suffix(".resume.pt")
        self.state: RunState = {}
        self.start = datetime.now()
        self._release: Callable[[], None] | None = None  # set while this process has the lock

    @classmethod
    def beside(cls, table: str | Path, options: Options, *, script: str = "") -> "Run":
        """Return the `Run` of a single table, whose record lies beside it."""
        return cls(Path(table).parent, options, table=Path(table), script=script)

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished: its options are on disk."""
        if self.table is None:
            return self.config.exists()
        return bool(options_of_table(self.table))

    def skip_if_finished(self, *, resume: bool, overwrite: bool = False) -> bool:
        """Return whether a resumed run is already finished; if so, print a note.

        Args:
            overwrite: the run may replace a finished run of any options.

        Raises:
            UserError: the finished run has other options.
        """
        if overwrite or not self.is_finished:
            return False
        written = self.options_on_disk()
        if not self._is_record(written):
            raise UserError(
                f"{self.config} does not belong to a run, and would be replaced; move it, or choose another folder"
            )
        remedy = "choose another folder, or give --overwrite"
        if resume:
            remedy = "give the same options, or choose another folder"
        refuse_difference(written, self.options, where=self.config, remedy=remedy)
        if resume:
            note(f"{self.config} is of a finished run of these options: nothing is left to do")
            self.discard()
        else:
            note(f"replaces the finished run of these options in {self.folder}; --resume keeps it")
        return resume

    def claim(self, *, resume: bool) -> None:
        """Create and lock the folder until the run ends, and load the saved state.

        Args:
            resume: resume an interrupted run. Otherwise remove its logs, options and state.

        Raises:
            Busy: another process has the lock.
            UserError: the folder cannot be created, or holds an interrupted run of other options.
        """
        self.lock()
        if not resume:
            self.mark_as_unfinished()
            for path in (self.state_file, *self.logs):
                path.unlink(missing_ok=True)
        self.state = self.saved_state() if resume else {}

    def _is_record(self, written: Options) -> bool:
        """Return whether options are those of a run, which name a folder, unlike a user's file about a
        network."""
        return "save_dir" in written or "save_dir" not in self.options

    def lock(self) -> None:
        """Create and lock the folder until the run ends.

        Raises:
            Busy: another process has the lock.
            UserError: the folder cannot be created; or the table, its figure or its options exist,
                and another script or the user wrote the files.
        """
        self.check_output()
        self._keep(locked(self._lock_file, wait=False))

    def check_output(self) -> None:
        """Raise a UserError if the table, its figure or its options exist and are not of this script, or are of
        other networks or images."""
        if self.table is None or not self.script:
            return
        paths = [self.table, self.config]
        if self.table.suffix == ".csv":
            paths += map(self.table.with_suffix, BESIDE_TABLES)
        own = files_of(self.made_with, self.script)
        refuse_others(paths, own)
        if own and self.table.exists():
            found = other_inputs(read_json(self.made_with).get("spec", {}), spec_of(self.options))
            if found:
                raise UserError(
                    f"{self.table} has results of other inputs ({described(found)}); {OTHER_NAME}, or remove it"
                )

    def wait(self) -> None:
        """Lock the folder, and wait while another process holds the lock."""
        self._keep(locked(self._lock_file))
        self.unlock()

    def _keep(self, lock: IO) -> None:
        """Hold a lock until `unlock`, or until an error or a signal ends the experiment."""
        self._release = weakref.finalize(self, _release, self._lock_file, lock, os.getpid())

    def unlock(self) -> None:
        """Release the lock on the folder."""
        if self._release:
            self._release()
            self._release = None

    def options_on_disk(self) -> Options:
        """Return the options in the files of a finished or interrupted run; {} without such
        files."""
        if self.is_finished:
            if self.table:
                return options_of_table(self.table)
            return read_options(self.config)
        if self.state_file.exists():
            return read_state(self.state_file)["options"]
        return {}

    def saved_state(self) -> RunState:
        """Return the saved state of an interrupted run; {} if there is no such run.

        Raises:
            UserError: the interrupted run has other options.
        """
        if not self.state_file.exists():
            return {}
        state = read_state(self.state_file)
        written = state.pop("options")
        refuse_difference(written, self.options, where=self.state_file)
        return state

    def save(self, **changes: object) -> None:
        """Update the saved state of the run with `changes`."""
        self.state |= changes
        save_tensors(self.state_file, {**self.state, "options": as_written(self.options)})

    def finish(self) -> None:
        """Mark the run as finished: write its record and then its options, and release the folder."""
        if self.table is None:
            write_json(self.made_with, self.provenance())
            write_json(self.config, as_written(self.options))
        else:
            write_json(self.config, {**self.provenance(), "options": as_written(self.options)})
        self.discard()

    @contextlib.contextmanager
    def replacing(self) -> Iterator[None]:
        """Context manager that replaces the written files atomically and finishes the run.

        They replace those of an earlier call of the script.

        Raises:
            UserError: a file exists that the script did not write. No file has changed.
        """
        with replacing(self.made_with, self.script, self.provenance):
            yield
        record = read_json(self.config)
        write_json(self.config, {**record, "options": as_written(self.options)})
        self.discard()

    def earlier(self, entry: str) -> dict[str, Any]:
        """Return an entry of the record of an earlier, finished run; {} without one."""
        if not self.is_finished:
            return {}
        return read_json(self.config).get(entry, {})

    def mark_as_unfinished(self) -> None:
        """Mark the run as unfinished: remove its options and its record, which do not belong to the results
        that follow. The names of the files that the script wrote stay."""
        if self.table and self.script and self.is_finished:
            record = read_json(self.config)
            del record["options"]
            write_json(self.config, record)
        elif not self.script:
            for path in (self.config, self.made_with):
                path.unlink(missing_ok=True)

    def provenance(self) -> dict[str, object]:
        """Return the content of the record: spec, key, warnings and provenance.

        A script without the option `-gpu` runs on the CPU.
        """
        spec = spec_of(self.options)
        made_with = provenance(gpu=self.options.get("gpu", -1), start=self.start)
        warnings = self.options.get("warnings", [])  # about networks and inputs
        return {
            "key": key_of(spec),
            "spec": spec,
            "warnings": warnings,
            **made_with,
            **self.further,
        }

    def discard(self) -> None:
        """Remove the saved state, and release the folder."""
        self.state_file.unlink(missing_ok=True)
        self.unlock()

    @property
    def _lock_file(self) -> Path:
        return self.folder / f".{self.state_file.name}.lock"


def read_state(path: Path) -> RunState:
    """Return the saved state of an interrupted run with its options; a UserError if the file is damaged."""
    with contextlib.suppress(UserError):
        state = load_tensors(path)
        if isinstance(state, dict) and "options" in state:
            return state
    raise UserError(
        f"{path} is damaged, and its run cannot resume; remove this file and give the command again"
    )


def _release(path: Path, lock: IO, process: int) -> None:
    """Release a lock and remove its file, in the process that holds it."""
    if os.getpid() == process and not lock.closed:
        # Remove the file while it is locked. Later it may be another process's.
        path.unlink(missing_ok=True)
        lock.close()


@contextlib.contextmanager
def claimed(runs: Iterable[Run]) -> Iterator[None]:
    """Context manager that locks runs without a saved state.

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
    """Create a folder with a unique name, the current time; return its path."""
    while True:
        path = Path(parent) / str(datetime.now()).replace(" ", "_").replace(":", "-")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot create {path}: {error.strerror or error}") from error
        return path


def as_written(options: Options) -> Options:
    """Return options as `read_options` would return them: without `NOT_RECORDED`, in JSON's types."""
    recorded = {name: value for name, value in options.items() if name not in NOT_RECORDED}
    return json.loads(json.dumps(recorded))


def options_of_table(table: str | Path) -> Options:
    """Return the options in the record beside a table; {} without a record, or if the run is unfinished."""
    record = record_of(table)
    if not record.is_file():
        return {}
    content = read_json(record)
    if not isinstance(content, dict):  # of the user's
        return {}
    return content.get("options", {})


@contextlib.contextmanager
def outputs(path: str | Path, script: str) -> Iterator[None]:
    """Context manager that writes the files of a command without a run; arguments and errors as for
    `replacing`.

    Args:
        path: of `-o`.
        script: the file of the script.
    """
    start = datetime.now()
    with replacing(record_of(path), script, lambda: provenance(gpu=-1, start=start)):
        yield


def record_of(path: str | Path) -> Path:
    """Return the path of the record beside the output file of `-o`."""
    if Path(path).suffix == ".html":  # a table of this name has a record of its own
        return Path(path).with_suffix(".html.json")
    return Path(path).with_suffix(".json")


def check_output(path: str | Path, script: str) -> None:
    """Raise a UserError if the output file of `-o`, or its figure, exists and was not written by this
    script."""
    paths = [Path(path), Path(path).with_suffix(".png")]
    if Path(path).suffix == ".html":
        paths = paths[:1]
    refuse_others(paths, files_of(record_of(path), script))


@contextlib.contextmanager
def replacing(
    record: Path,
    script: str,
    content: Callable[[], Mapping[str, object]],
) -> Iterator[None]:
    """Context manager that replaces the written files atomically, together with their record.

    Files of an earlier call that the block does not write are removed.

    Args:
        record: the path of the record.
        script: the file of the script.
        content: gives the content of the record, but for script and files.

    Raises:
        UserError: a file exists that the script did not write. No file has changed.
    """
    before = files_of(record, script)
    with durable_together() as batch:
        yield
        written = {*batch.values(), record}
        refuse_others(written, before)
        names = sorted(os.path.relpath(path, record.parent) for path in written)
        write_json(record, {**content(), "script": Path(script).name, "files": names})
        for temporary in list(batch)[:-1]:  # the record is renamed first: no file is without it
            batch[temporary] = batch.pop(temporary)
        for path in before - _absolute(batch.values()):
            path.unlink(missing_ok=True)


def files_of(record: Path, script: str) -> set[Path]:
    """Return the files that an earlier call of a script wrote, according to its record; empty without a
    record."""
    if not record.is_file():
        return set()
    content = read_json(record)
    if content.get("script") != Path(script).name:
        return set()
    return _absolute(record.parent / name for name in content["files"])


def refuse_others(paths: Iterable[Path], before: set[Path]) -> None:
    """Raise a UserError for existing files that an earlier call did not write.

    Args:
        paths: of files to write.
        before: from `files_of`.
    """
    foreign = sorted(str(path) for path in paths if path.exists() and path.absolute() not in before)
    if foreign:
        raise UserError(
            f"{listed(foreign)}: not written by an earlier call of this script, which replaces no other files; "
            f"{OTHER_NAME}, or move them"
        )


def _absolute(paths: Iterable[Path]) -> set[Path]:
    return {path.absolute() for path in paths}


def refuse_difference(
    before: Options,
    now: Options,
    *,
    where: Path,
    remedy: str = "give the same options, or start again without --resume",
) -> None:
    """Raise a UserError if the specs of two runs differ; for code of measures, only warn.

    Args:
        before: the options of the run in the files.
        now: the options of this process.
        where: the file that holds `before`.
        remedy: the end of the message.
    """
    found = difference(spec_of(before), spec_of(now))
    measuring = {name: found.pop(name) for name in MEASURING if name in found}
    if found:
        raise UserError(f"{where} is of another run ({described(found)}); {remedy}")
    if measuring:
        warn_once(f"{where}: {described(measuring)}; remove the results to make them again")


def options_beside_tables(tables: Iterable[str | Path]) -> list[Options]:
    """Return the options in the records beside tables; damaged records are skipped."""
    records = []
    for table in tables:
        with contextlib.suppress(UserError):
            records.append(options_of_table(table))
    return records


def warn_of_earlier(networks: Iterable[NamedNetwork], records: Iterable[Options]) -> None:
    """Warn of results whose weights or code have changed since, without running the code.

    Args:
        networks: of all results.
        records: the options of results, as far as there are some.
    """
    for network in dict.fromkeys(networks):
        if network.has_changed:
            warn_once(f"there are results of earlier weights of {network.title}")
    for options in records:
        for code, digest in recorded_code(options).items():
            with contextlib.suppress(UserError):  # the file is gone
                if digest_of(code) != digest:
                    warn_once(f"there are results of earlier code of {source_of(code)}")


def commands_of(records: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the distinct commands of the records of results, the earliest first: each with the versions of the
    software, and the device. Records of other software are left out.

    Args:
        records: the contents of `run.json`, or of records beside tables.
    """
    commands: list[dict[str, str]] = []
    for record in sorted(
        (record for record in records if "suite" in record), key=itemgetter("start")
    ):
        names = ("command", "suite", "commit", "device")
        command = {name: str(record.get(name) or "") for name in names}
        versions = [f"{name} {record[name]}" for name in PACKAGES if record.get(name)]
        command["packages"] = ", ".join(versions)
        if command not in commands:
            commands.append(command)
    return commands


def provenance_in_words(
    made_with: Mapping[str, Any], fingerprints: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return sentences on the version, the test inputs and the command that made a verdict.

    Args:
        made_with: the content of its record.
        fingerprints: of the test inputs, by data set.
    """
    version = made_with["suite"]
    if made_with["commit"]:
        version += f", commit {made_with['commit'][:SHORT]}"
    data = []
    for dataset, digests in fingerprints.items():
        shown = " and ".join(digest[:SHORT] for digest in digests)
        data.append(f"{dataset} ({shown or 'inputs without a fingerprint'})")
    return [
        f"Given by version {version}, on the test inputs of {', '.join(data)}.",
        f"Command: `{made_with['command']}`",
    ]


def recorded_code(options: Options) -> dict[str, str]:
    """Return the recorded SHA-256 digests of a user's code, by its name."""
    digests: dict[str, str] = {}
    for name, value in options.items():
        of_code = options.get(name.removesuffix(DIGEST))
        if isinstance(value, dict) and name.endswith(DIGEST):
            digests |= value
        elif isinstance(of_code, str) and is_user_code(of_code) and name.endswith(DIGEST):
            digests[of_code] = value
    return digests


def write_logs(folder: Path, epochs: Sequence[Mapping[str, object]]) -> None:
    """Write `training_logs.csv` with one row for each epoch; no file without epochs."""
    if epochs:
        write_csv(folder / LOGS, list(epochs[0]), epochs)


def train_network(
    run: Run,
    task: "Classification",
    train_set: "InputSet",
    val_set: "InputSet",
    settings: "Settings",
    *,
    save_frequency: int,
) -> dict[str, object]:
    """Train the network of a task; log, save and report every epoch.

    Args:
        run: claimed; training resumes from its state.
        save_frequency: keep the network of every so many epochs, and of the last one, as
            `model_<epoch>.pt`; 0 keeps the last one only.

    Returns:
        The last row of the log; empty if no epoch remained.
    """
    from src.training.loop import train

    rows: list[dict[str, object]] = []
    for history, state in train(task, train_set, val_set, settings, state=run.state.get("loop")):
        epoch = len(history)
        logs = _logs_of_network(history)
        rows = [epoch_row(log) for log in logs]
        write_logs(run.folder, rows)
        is_last = epoch == settings.n_epochs
        is_kept = save_frequency > 0 and epoch % save_frequency == 0
        if is_last or is_kept:
            save_state(run.folder / f"model_{epoch}.pt", task.head.state_dict())
        run.save(loop=state)
        report_epoch(epoch, logs[-1])
    if not rows:
        return {}
    return rows[-1]


def finetune_network(
    run: Run, task: "Classification", mixed: "Epochs", val_set: "InputSet", settings: "Settings"
) -> dict[str, float]:
    """Fine-tune the detector of a task; log, save and report every epoch.

    Args:
        run: claimed; fine-tuning resumes from its state.
        mixed: the training images, ID and OOD.

    Returns:
        The last row of the log; empty without epochs.
    """
    from src.training.loop import train

    log: list[dict[str, float]] = []
    for history, state in train(task, mixed, val_set, settings, state=run.state.get("finetuning")):
        log = [_finetuning_row(epoch_log) for epoch_log in _logs_of_network(history)]
        epoch = len(log)
        write_csv(run.folder / "ft_logs.csv", list(log[0]), log)
        save_state(run.folder / f"ft_model_{epoch}.pt", task.head.state_dict())
        run.save(loop=None, finetuning=state)
        row = log[-1]
        result(
            f"FT Epoch #{epoch} FT loss: {row['ft_loss']}, CE Loss: {row['ce_loss']}, "
            f"accuracy: {row['train_acc']}"
        )
        result(f"FT Epoch #{epoch} val loss: {row['val_ce_loss']}, accuracy: {row['val_acc']}")
    if not log:
        return {}
    return log[-1]


def _logs_of_network(history: "History[str]") -> "list[EpochLog]":
    """Return the log of each epoch of a run that trains a single network."""
    return [log for logs in history for log in logs.values()]


def _finetuning_row(log: "EpochLog") -> dict[str, float]:
    """Return the row of an epoch in `ft_logs.csv`: cross-entropies, and the loss (cross-entropy plus
    penalty)."""
    return {
        "ft_loss": log.train.loss,
        "ce_loss": log.train.cross_entropy,
        "train_acc": log.train.accuracy,
        "val_ce_loss": log.val.cross_entropy,
        "val_acc": log.val.accuracy,
    }


def epoch_row(log: "EpochLog") -> dict[str, object]:
    """Return the row of an epoch in `training_logs.csv`; None: not measured."""
    return {
        "train_acc": _measured(log.train.accuracy),
        "train_loss": log.train.loss,
        "val_acc": _measured(log.val.accuracy),
        "val_loss": _measured(log.val.loss),
    }


def _measured(value: float) -> float | None:
    """Convert NaN to None, which tables write as an empty cell."""
    return None if math.isnan(value) else value


def report_epoch(epoch: int, log: "EpochLog") -> None:
    """Print an epoch in the format of the public code, without accuracies that are not measured."""
    for split, measured in (("train", log.train), ("val", log.val)):
        line = f"Epoch #{epoch} {split} loss: {measured.loss}"
        if not math.isnan(measured.accuracy):
            line += f", accuracy: {measured.accuracy}"
        result(line)
