"""The folder of a run: logs while it goes on, and `config.txt`, which is written last and marks it as finished."""

import math
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from src.checkpoints import load_tensors, save_state
from src.config_file import recorded
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.files import hold, write_csv, write_json
from src.report import note
from src.resuming import StateFile, as_written, read_options, refuse_other_options
from src.runtime import provenance
from src.training import EpochLog, NonFiniteLoss, Settings, Task, report_epoch, train


class Marks(NamedTuple):
    """The files that say how far a run is and what it was made with."""

    config: Path  # its options, written last: a run that has it is finished
    made_with: Path  # versions, device, command, times
    state: Path  # where it stands, until it is finished

    @classmethod
    def in_folder(cls, path: Path) -> "Marks":
        """Those of a run that has a folder of its own."""
        return cls(Path(path, "config.txt"), Path(path, "run.json"), Path(path, "resume.pt"))

    @classmethod
    def beside(cls, path: Path) -> "Marks":
        """Those of a run that writes one table: `table.csv` has `table.config.txt` and so on beside it."""
        return cls(*(Path(path).with_suffix(suffix) for suffix in (".config.txt", ".run.json", ".resume.pt")))

    def begin(self, options: Mapping[str, Any], *, resume: bool) -> StateFile:
        """The state to go on from; unless a run is resumed, the marks of an earlier one are removed."""
        state = StateFile(self.state, options, resume=resume)
        for path in () if resume else self:
            path.unlink(missing_ok=True)
        return state

    def are_final(self, options: Mapping[str, Any]) -> bool:
        """Whether they are of a finished run of these options; says so.

        Raises:
            UserError: they are of one of other options; names the differences.
        """
        if not self.config.exists():
            return False
        refuse_other_options(read_options(self.config), as_written(options), where=self.config)
        note(f"{self.config} is of a finished run of these options: nothing is left to do")
        self.state.unlink(missing_ok=True)
        return True

    def finish(self, options: Mapping[str, Any]) -> None:
        """Mark the run as finished."""
        write_json(self.made_with, provenance(gpu=options["gpu"]))
        write_json(self.config, recorded(options))
        self.state.unlink(missing_ok=True)


class RunFolder:
    """A folder that one run writes to.

    Args:
        path: created if needed.
        options: of the run, as `config.txt` is to hold them.
        resume: go on with what an earlier run of the same options left there; otherwise the marks of an earlier run
            (`config.txt`, `run.json`, logs, state) are removed.
        exclusive: keep other processes out until the run is finished.
    Raises:
        UserError: the folder cannot be created, another run is writing to it, or what is there is of a run with other
            options.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], *, resume: bool = False, exclusive: bool = True):
        self.path, self.options, self.marks = Path(path), dict(options), Marks.in_folder(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._release = weakref.finalize(self, hold(self.path)) if exclusive else None
            self.state = self.marks.begin(options, resume=resume)
            for name in () if resume else ("training_logs.csv", "ft_logs.csv"):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot use {self.path} as folder of this run: {error.strerror or error}") from error

    @classmethod
    def claim(cls, parent: Path, options: Mapping[str, Any], *, exclusive: bool) -> "RunFolder":
        """A new folder in `parent`, named by the time; no two runs share one, however close they start."""
        while True:
            path = Path(parent) / str(datetime.now()).replace(" ", "_").replace(":", "-")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"cannot create {path}: {error.strerror or error}") from error
            return cls(path, options, exclusive=exclusive)

    @property
    def finished(self) -> bool:
        """Whether the run is done."""
        return self.marks.config.exists()

    def write_logs(self, logs: Sequence[EpochLog]) -> None:
        """Write `training_logs.csv`, one row an epoch; an accuracy that was not measured stays empty."""
        columns = ("train_acc", "train_loss", "val_acc", "val_loss")
        measured = [(log.train.accuracy, log.train.loss, log.val.accuracy, log.val.loss) for log in logs]
        rows = [["" if math.isnan(value) else value for value in row] for row in measured]
        write_csv(self.path / "training_logs.csv", columns, [dict(zip(columns, row, strict=True)) for row in rows])

    def train(
        self, task: Task, train_set: BaseImageSet, val_set: BaseImageSet, settings: Settings, *, save_frequency: int
    ) -> None:
        """Train the one head of a task; report and log every epoch, and save `model_<epoch>.pt`.

        Args:
            save_frequency: save every so many epochs, and the last one; 0 saves the last one only.
        """
        try:
            for history in train(task, train_set, val_set, settings, state=self.state):
                epoch, logs = len(history), [log for (log,) in history]
                report_epoch(epoch, logs[-1])
                self.write_logs(logs)
                if epoch == settings.n_epochs or (save_frequency and epoch % save_frequency == 0):
                    save_state(self.path / f"model_{epoch}.pt", task.heads[0].state_dict())
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f"{error}; {self._keep_last_good()}") from error

    def _keep_last_good(self) -> str:
        """Save the weights of the last epoch that went well; says where they are."""
        good = load_tensors(self.state.path).get("training") if self.state.path.exists() else None
        if good is None:
            return "no epoch went well"
        if good["step"]:  # an interruption left it, within that epoch
            return f"of the epochs before it, the checkpoints in {self.path} are kept"
        path = self.path / f"model_{len(good['history'])}.pt"
        save_state(path, good["modules"][0])
        return f"the weights before that epoch are kept in {path}"

    def finish(self) -> None:
        """Write `run.json` and `config.txt`, and remove the state: the run is done."""
        self.marks.finish(self.options)
        if self._release:
            self._release()
