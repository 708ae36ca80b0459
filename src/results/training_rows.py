"""The row of the logs of training runs."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """An epoch of training: a row of `training_logs.csv`. None: not measured."""

    contents: ClassVar[str] = "training"
    written_by: ClassVar[str] = "exec_stitch.py"

    # Of a pair of layers; only logs of several pairs have these columns
    front_layer: str = ""
    end_layer: str = ""
    train_acc: float | None
    train_loss: float
    val_acc: float | None
    val_loss: float | None
