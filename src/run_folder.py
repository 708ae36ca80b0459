"""The folder of a run: logs while it goes on, and `config.txt`, which is written last and marks it as finished."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from src.checkpoints import save_state
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.files import write_csv, write_json
from src.runtime import provenance
from src.training import EpochLog, Settings, Task, report_epoch, train


class RunFolder:
    """A folder that one run writes to.

    Args:
        path: created if needed; the marks of an earlier run in it (`config.txt`, `run.json`, logs) are removed.
    Raises:
        UserError: the folder cannot be created.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in ("config.txt", "run.json", "training_logs.csv"):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot use {self.path} as folder of this run: {error.strerror or error}") from error

    @classmethod
    def claim(cls, parent: Path) -> "RunFolder":
        """A new folder in `parent`, named by the time; no two runs share one, however close they start."""
        while True:
            path = Path(parent) / str(datetime.now()).replace(" ", "_").replace(":", "-")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"cannot create {path}: {error.strerror or error}") from error
            return cls(path)

    def write_logs(self, logs: Sequence[EpochLog]) -> None:
        """Write `training_logs.csv`, one row an epoch."""
        columns = ("train_acc", "train_loss", "val_acc", "val_loss")
        rows = [(log.train.accuracy, log.train.loss, log.val.accuracy, log.val.loss) for log in logs]
        write_csv(self.path / "training_logs.csv", columns, [dict(zip(columns, row, strict=True)) for row in rows])

    def train(
        self, task: Task, train_set: BaseImageSet, val_set: BaseImageSet, settings: Settings, *, save_frequency: int
    ) -> None:
        """Train the one head of a task; report and log every epoch, and save `model_<epoch>.pt`.

        Args:
            save_frequency: save every so many epochs, and the last one; 0 saves the last one only.
        """
        logs = []
        for epoch, (log,) in train(task, train_set, val_set, settings):
            logs.append(log)
            report_epoch(epoch, log)
            self.write_logs(logs)
            if epoch == settings.n_epochs or (save_frequency and epoch % save_frequency == 0):
                save_state(self.path / f"model_{epoch}.pt", task.heads[0].state_dict())

    def finish(self, options: Mapping[str, Any]) -> None:
        """Write `run.json` (what the run was made with) and then `config.txt` (its options)."""
        write_json(self.path / "run.json", provenance(gpu=options["gpu"]))
        write_json(self.path / "config.txt", dict(options))
