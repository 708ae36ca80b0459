"""The rows of the logs of trainings."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class EpochRow:
    """An epoch of training: a row of `training_logs.csv`. None: not measured."""

    contents: ClassVar[str] = "training"
    written_by: ClassVar[str] = "exec_stitch.py"

    train_acc: float | None
    train_loss: float
    val_acc: float | None
    val_loss: float | None


@dataclass(frozen=True)
class PairEpochRow:
    """An epoch of one pair of a grid: a row of `training_logs.csv` of several pairs."""

    contents: ClassVar[str] = "training"
    written_by: ClassVar[str] = "exec_stitch.py"

    front_layer: str
    end_layer: str
    train_acc: float | None
    train_loss: float
    val_acc: float | None
    val_loss: float | None

    @property
    def epoch(self) -> EpochRow:
        """The epoch without the layers."""
        return EpochRow(self.train_acc, self.train_loss, self.val_acc, self.val_loss)
