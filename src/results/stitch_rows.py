"""The rows of stitches in `grid.csv`, and of their training in `training_logs.csv`."""

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from src.choices import STARTS, Options
from src.choices.datasets import dataset_label
from src.choices.stitching import Method
from src.results.network_names import SHORT, OfTwoNetworks
from src.results.spec import (
    CHECKPOINTS,
    COLUMNS_OF_WEIGHTS,
    FurtherOptions,
    Spec,
    further_options,
    short_images,
)
from src.values import Metrics, Pair


@dataclass(frozen=True)
class StitchSettings(OfTwoNetworks):
    """The settings of a stitch: options of `exec_stitch.py`, entries of `config.txt` and columns of
    tables. None: not recorded."""

    network_columns: ClassVar = (
        ("front_model_path", "front_model_type", "front_weights"),
        ("end_model_path", "end_model_type", "end_weights"),
    )

    front_model_path: str | None
    end_model_path: str | None
    front_model_type: str | None
    end_model_type: str | None
    dataset: str | None
    stitching_type: str
    init: str
    n_pinv_init_samples: int | str | None = None  # "auto": as many as each pair needs
    front_pinv_rank: int | None = None
    front_stitch_rank: int | None = None
    # The public code has only this objective, and does not record it.
    objective: str = "task"
    n_epochs: int | None = None
    pinv_cutoff: str = "paper"  # the only cutoff of the public code
    seed: int | None = None
    # With dots on all images: the probability that the dots tell the class
    shortcut: float | None = None
    # The first digits of the SHA-256 of the weights
    front_weights: str | None = None
    end_weights: str | None = None
    # The first digits of the fingerprints of the images
    train_images: str | None = None
    test_images: str | None = None
    stitching_option: str | None = None  # "auto": the type was chosen for the pair of layers
    # The further options that tell experiments apart, as JSON; those with their usual value are left out
    further_options: FurtherOptions = FurtherOptions()  # noqa: RUF009 - immutable
    # Of the stitch; no settings
    _: dataclasses.KW_ONLY
    front_layer: str
    end_layer: str
    folder: str  # the name of the run's folder

    @property
    def settings(self) -> Options:
        """The settings by name."""
        return {name: getattr(self, name) for name in SETTINGS}


SETTINGS = [entry.name for entry in dataclasses.fields(StitchSettings) if not entry.kw_only]


@dataclass(frozen=True, kw_only=True)
class StitchRow(Metrics, StitchSettings):
    """A stitch of a finished run: a row of `grid.csv`."""

    contents: ClassVar[str] = "stitching"
    written_by: ClassVar[str] = "exec_stitch.py"

    end_accuracy: float = field()  # required: every `grid.csv` has it
    # The share of the layer's weights up to each threshold, as `sparsity_<threshold>`
    further: dict[str, float] = field(default_factory=dict, hash=False)
    spec: Spec = field(default_factory=dict, compare=False, repr=False)  # of the run; no column

    @cached_property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)

    @property
    def place(self) -> tuple[str, Pair]:
        """The folder and the layers, by which tables name a stitch."""
        return self.folder, self.pair

    @property
    def method(self) -> str:
        """The name of the method, such as "task loss matching"."""
        if self.n_epochs != 0:
            return Method(self.objective).words
        if self.init in STARTS:
            return f"init {self.init}"
        return Method(self.init).words

    @property
    def accuracy_drop(self) -> float:
        """The accuracy of the end network less the accuracy of the stitch."""
        return self.end_accuracy - self.accuracy

    @property
    def is_truncated(self) -> bool:
        """Whether the cutoff truncated the fit, and no training has changed it since."""
        return bool(self.truncated) and self.n_epochs == 0

    def has_few_fitting_samples(self, *, keeps_variance: bool) -> bool:
        """Return whether the map was fitted to too few samples: R² is much lower on the test images.

        It is False if something else may have lowered R²: training after the matching, or a
        stitching rank below the rank that was matched.
        """
        matched_rank = math.inf if self.front_pinv_rank is None else self.front_pinv_rank
        stitched_rank = math.inf if self.front_stitch_rank is None else self.front_stitch_rank
        if self.n_epochs != 0 or matched_rank > stitched_rank:
            return False
        return super().has_few_fitting_samples(keeps_variance=keeps_variance)


def columns_of(options: Options) -> Options:
    """Return the settings of a run's stitches by column, as far as its options have them."""
    values = {**options, **short_images(options)}
    for column, path_option in zip(COLUMNS_OF_WEIGHTS, CHECKPOINTS, strict=True):
        values[column] = (options.get(f"{path_option}_sha256") or "")[:SHORT] or None
    if options.get("dataset"):
        values["dataset"] = dataset_label(options["dataset"])
    values["further_options"] = further_options(options, columns=SETTINGS)
    return {name: values[name] for name in SETTINGS if name in values}


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
