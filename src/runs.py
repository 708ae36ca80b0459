"""Runs: the files that say what a run is, how far it is, and that it is finished.

`config.txt` holds the options. It is written last, so a run that has it is finished. `run.json` says with what the run
was made. `resume.pt` is the state to go on from until then. A run that writes one table has these files beside it
(`table.config.txt`, `table.run.json`, `table.resume.pt`).
"""

import json
import math
import os
import reprlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from src.checkpoints import load_tensors, save_state, save_tensors
from src.config_file import recorded
from src.console import note, result
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.files import hold, read_json, write_csv, write_json
from src.runtime import provenance
from src.training import EpochLog, NonFiniteLoss, Settings, Task, train

# Options that do not change what a run computes.
FREE = (
    "gpu",
    "n_workers",
    "prefetch_factor",
    "verbose",
    "print_freq",
    "rank",
    "dist_url",
    "dist_backend",
    "title",
    "pdf",
)
# What an empty text or 0 means in a config.txt of the public code.
EMPTY = {"scheduler": "none", "front_stitch_rank": None, "front_pinv_rank": None}


class Run:
    """The files of one run.

    Args:
        options: of the run, as `config.txt` is to hold them.
    """

    def __init__(self, options: Mapping[str, Any], *, config: Path, made_with: Path, state: Path, logs: Sequence[Path]):
        self.options, self.config, self.made_with, self.state_file = dict(options), config, made_with, state
        self.folder, self.logs = config.parent, logs
        self.state: dict[str, Any] = {}  # to go on from
        self._lock: IO | None = None

    @classmethod
    def in_folder(cls, folder: str | Path, options: Mapping[str, Any]) -> "Run":
        """Make the run of a folder of its own."""
        path = Path(folder)
        logs = [path / "training_logs.csv", path / "ft_logs.csv"]
        return cls(
            options, config=path / "config.txt", made_with=path / "run.json", state=path / "resume.pt", logs=logs
        )

    @classmethod
    def beside(cls, table: str | Path, options: Mapping[str, Any]) -> "Run":
        """Make the run that writes one table."""
        config, made_with, state = (Path(table).with_suffix(end) for end in (".config.txt", ".run.json", ".resume.pt"))
        return cls(options, config=config, made_with=made_with, state=state, logs=[])

    def left_to_do(self, *, resume: bool, overwrite: bool = False) -> bool:
        """Return whether the run is still to be made; a note says where a resumed run is finished.

        Args:
            overwrite: finished runs of other options may be overwritten.
        Raises:
            UserError: there is a finished run of other options; names the differences.
        """
        if overwrite or not self.config.exists():
            return True
        remedy = "give the same ones, or leave out --resume" if resume else "choose another folder, or give --overwrite"
        refuse_other_options(read_options(self.config), as_written(self.options), where=self.config, remedy=remedy)
        if resume:
            note(f"{self.config} is of a finished run of these options: nothing is left to do")
            self.discard()
        return not resume

    def claim(self, *, resume: bool) -> None:
        """Create the folder, keep other processes out until the run ends, and get the state to go on from.

        Args:
            resume: go on with an interrupted run. Otherwise its logs, options and state are removed.
        Raises:
            UserError: the folder cannot be created, another process is writing to it, or it holds an interrupted run of
                other options.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = hold(self._lock_file)
            for path in () if resume else (self.config, self.made_with, self.state_file, *self.logs):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot use {self.folder} as folder of this run: {error.strerror or error}") from error
        self.state = self.saved() if resume else {}

    def saved(self) -> dict[str, Any]:
        """Return the state of an interrupted run; empty where there is none.

        Raises:
            UserError: it is of a run with other options; names the differences.
        """
        if not self.state_file.exists():
            return {}
        state = load_tensors(self.state_file)
        refuse_other_options(state.pop("options"), as_written(self.options), where=self.state_file)
        return state

    def save(self, **changes: Any) -> None:
        """Save the state, after these changes to it."""
        self.state |= changes
        save_tensors(self.state_file, {**self.state, "options": as_written(self.options)})

    def finish(self) -> None:
        """Mark the run as finished, and let go of its folder."""
        write_json(self.made_with, provenance(gpu=self.options["gpu"]))
        write_json(self.config, recorded(self.options))
        self.discard()

    def discard(self) -> None:
        """Remove the state, and let go of the folder."""
        self.state_file.unlink(missing_ok=True)
        if self._lock:
            self._lock_file.unlink(missing_ok=True)
            self._lock.close()

    @property
    def _lock_file(self) -> Path:
        return self.folder / f".{self.state_file.name}.lock"


def new_folder(parent: Path) -> Path:
    """Create a folder named by the time; no two processes get the same one.

    Raises:
        UserError: it cannot be created.
    """
    while True:
        path = Path(parent) / str(datetime.now()).replace(" ", "_").replace(":", "-")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot create {path}: {error.strerror or error}") from error
        return path


def read_options(path: Path) -> dict[str, Any]:
    """Return the options in a `config.txt`, this suite's or the public code's.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    options = read_json(path)
    if not isinstance(options, dict):
        raise UserError(f"{path} holds no options; remove its folder")
    return options | {name: value for name, value in EMPTY.items() if name in options and not options[name]}


def as_written(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as `read_options` reads them back."""
    return json.loads(json.dumps(recorded(options)))


def differences(begun: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Describe how the options of two runs differ; empty if those that both have, and that matter, agree."""
    names = [name for name in begun if name in given and name not in FREE]
    differing = [name for name in names if normalised(begun[name]) != normalised(given[name])]
    return ", ".join(f"{name} was {reprlib.repr(begun[name])}, now {given[name]!r}" for name in differing)


def normalised(value: Any) -> Any:
    """Return the value of an option; of paths that name the same place, the same one."""
    return os.path.normpath(value) if isinstance(value, str) else value


def refuse_other_options(
    begun: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    where: Path,
    remedy: str = "give the same ones, or start anew without --resume",
) -> None:
    """Raise a UserError that names the differences if the options of a run are not those given."""
    differing = differences(begun, given)
    if differing:
        raise UserError(f"{where} is of a run with other options ({differing}); {remedy}")


def write_logs(folder: Path, logs: Sequence[EpochLog]) -> None:
    """Write `training_logs.csv`, one row an epoch; an accuracy that was not measured stays empty."""
    columns = ("train_acc", "train_loss", "val_acc", "val_loss")
    measured = [(log.train.accuracy, log.train.loss, log.val.accuracy, log.val.loss) for log in logs]
    rows = [["" if math.isnan(value) else value for value in row] for row in measured]
    write_csv(folder / "training_logs.csv", columns, [dict(zip(columns, row, strict=True)) for row in rows])


def report_epoch(epoch: int, log: EpochLog) -> None:
    """Print an epoch the way the public code does."""
    result(f"Epoch #{epoch} train loss: {log.train.loss}, accuracy: {log.train.accuracy}")
    result(f"Epoch #{epoch} val loss: {log.val.loss}, accuracy: {log.val.accuracy}")


def train_network(
    run: Run, task: Task, train_set: BaseImageSet, val_set: BaseImageSet, settings: Settings, *, save_frequency: int
) -> None:
    """Train the one head of a task; log, save and report every epoch, and keep some as `model_<epoch>.pt`.

    Args:
        run: claimed; training goes on from its state.
        save_frequency: keep every so many epochs, and the last one; 0 keeps the last one only.
    """
    began, resumed = time.monotonic(), len(run.state["loop"]["history"]) if run.state.get("loop") else 0
    try:
        for history, state in train(task, train_set, val_set, settings, state=run.state.get("loop")):
            epoch, logs = len(history), [log for (log,) in history]
            write_logs(run.folder, logs)
            if epoch == settings.n_epochs or (save_frequency and epoch % save_frequency == 0):
                save_state(run.folder / f"model_{epoch}.pt", task.heads[0].state_dict())
            run.save(loop=state)
            report_epoch(epoch, logs[-1])
            if resumed < epoch < settings.n_epochs:
                seconds = (time.monotonic() - began) / (epoch - resumed)
                left = timedelta(seconds=round(seconds * (settings.n_epochs - epoch)))
                note(f"epoch {epoch}/{settings.n_epochs}: {seconds:.1f} s an epoch, about {left} left")
    except NonFiniteLoss as error:
        raise NonFiniteLoss(f"{error}; {_keep_last_good(run)}") from error


def _keep_last_good(run: Run) -> str:
    """Save the weights of the last finished epoch as a checkpoint; says where they are."""
    good = run.saved().get("loop")
    if good is None:
        return "no epoch went well"
    path = run.folder / f"model_{len(good['history'])}.pt"
    save_state(path, good["modules"][0])
    return f"the weights before that epoch are kept in {path}"
