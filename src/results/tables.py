"""Tables of results: their columns, and records that are read and written as CSV.

A table has a `Layout`. A new quantity of stitches needs a function that measures it, a column that keeps its
value, and an entry in `QUANTITIES` under the name of the column. Its `measured_by` says where the value is:

    STITCHING   `Metrics` in `src.core.values`
    SKILL       `EVALUATIONS`, and the rows of `src.judge`
    DETECTOR    `OODMetrics` in `src.statistics.detection`
    VERDICT     `Verdict` in `src.verdict`

Printed matrices, heat maps, curves and the table of all measurements read the entry.
`misc/docs/files.md` repeats it.

This module does not import torch.
"""

import contextlib
import csv
import difflib
import json
import math
import types
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from src.core.console import listed
from src.core.errors import UserError
from src.core.files import readable, write_csv

FIRST_LINE = 2  # number of the line of the first row in a CSV


class Layout(NamedTuple):
    """The columns of a table whose rows are records: dicts of values by column, None for an empty cell.

    Further columns, such as those of measures, hold numbers unless `further` names another type.
    """

    contents: str  # what a row is, for error messages
    written_by: str  # the script that writes the table
    types: Mapping[str, Any]  # by column
    optional: Collection[str]  # columns that tables of a user may lack
    further: type = float


def json_object(text: str) -> str:
    """Return a text that is a JSON object; a type of columns. Raise a ValueError for another text."""
    if not isinstance(json.loads(text), dict):
        raise ValueError(text)
    return text


# Scripts that measure a quantity: their tables have its column
STITCHING = "stitching"
SKILL = "skill"  # the evaluation, whatever the detectors
DETECTOR = "detector"  # the OOD evaluation, one value for each detector
VERDICT = "verdict"

# Reports that show a quantity
IN_EVALUATION = "evaluation"  # matrices and heat maps of the OOD evaluation
IN_VERDICT = "verdict"  # matrices and heat maps of the verdict
IN_CURVES = "curves"  # curves over depth


# Columns of the frame of results
SIDES = ("front", "end")
NETWORKS = ["front_network", "end_network"]
GROUPS = ["front_group", "end_group"]
TYPES = ["front_type", "end_type"]
TRAINING = ["front_training", "end_training"]
LAYERS = ["front_layer", "end_layer"]
DEPTHS = ["front_relative_depth", "end_relative_depth"]
ESTIMATES = ("accuracy", "accuracy_drop", "skill", "skill_at_end")
INTERVALS = [f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high")]
# The first columns of every frame; those of judged stitches, measures, detectors and what was measured follow
COLUMNS = [
    "method",
    *NETWORKS,
    *GROUPS,
    *TYPES,
    *LAYERS,
    *DEPTHS,
    *INTERVALS,
    "verdict",
    "reason",
]
# Types of columns whose values may be missing; the other columns are texts, or have the type of their values
FLOATS = [
    *(*INTERVALS, *DEPTHS),
    *("seed_spread", "front_accuracy", "end_accuracy", "p_below", "p_above"),
    *("correlation", "baseline", "correlation_at_end", "baseline_at_end"),
    *("r2_fit", "r2_test"),
]
INTEGERS = [
    *("n_runs", "n_networks", "n_images", "seed", "n_epochs"),
    *("front_depth", "end_depth", "front_rank", "end_rank"),
]
DTYPES = dict.fromkeys(FLOATS, "float64") | dict.fromkeys(INTEGERS, "Int64")
# Of judged stitches, see `misc/docs/files.md`
JUDGED = [
    *("networks", "control", "n_runs", "n_networks", "folders", "seed_spread"),
    *("front_accuracy", "end_accuracy", "p_below", "p_above"),
    *("correlation", "baseline", "correlation_at_end", "baseline_at_end"),
    *("front_depth", "end_depth", "front_weights", "end_weights", "both_ways", "same_run"),
    "stitching_type",
]
UNLISTED = "not listed"  # the group of a network that the list lacks; it is not compared
# Kinds of pairs of networks: stitches of different kinds are not averaged together
PAIRS = "pairs of networks"
SAME_RUN = "pairs of a network with itself"  # at the same or another epoch
UNTRAINED_FRONT = "pairs with an untrained front network"
UNTRAINED_END = "pairs with an untrained end network"
IN_SHORT = {  # in headings, of pairs that are not of two trained networks
    SAME_RUN: "of a network with itself",
    UNTRAINED_FRONT: "untrained front",
    UNTRAINED_END: "untrained end",
}
AUROC = "auroc_"  # begins the column of a detector


OF_IMAGES = ("shortcut", "train_images", "test_images")
# Fingerprints of images and weights are their first digits; `shortcut`: images had dots of this strength
PROBES = Layout(
    "probing",
    "exec_probe.py -o",
    {
        "model": str,
        "layer": str,
        "rank": int | None,
        "accuracy": float,  # on the test images
        "train_accuracy": float | None,  # None: not trained
        "loss": float,  # on the test images
        "seed": int | None,
        "epochs": int | None,
        "model_type": str,
        "dataset": str,
        "n_images": int | None,  # test images
        "shortcut": float | None,
        "model_weights": str | None,
        "train_images": str | None,
        "test_images": str | None,
        "further_options": json_object,
    },
    optional=("model_weights", *OF_IMAGES, "further_options"),
)
SIMILARITIES = Layout(
    "similarity",
    "exec_compute_low_rank_sim_metrics.py -o",
    {
        "model1": str,
        "model2": str,
        "layer1": str,
        "layer2": str,
        "rank1": int | None,
        "rank2": int | None,
        "alignment": str,  # how CCA and Procrustes make samples of activations
        "n_samples": int,
        "model1_type": str,
        "model2_type": str,
        "dataset": str,
        "alignment_option": str,  # auto or pool
        "n_permutations": int | None,
        "seed": int | None,  # of randomly initialised weights
        "shortcut": float | None,
        "model1_weights": str | None,
        "model2_weights": str | None,
        "test_images": str | None,
        # The share of the network's blocks that a pass to the layer computes
        "relative_depth1": float | None,
        "relative_depth2": float | None,
        "further_options": json_object,
    },
    optional=(
        *("model1_weights", "model2_weights", "relative_depth1", "relative_depth2"),
        *(*OF_IMAGES, "further_options"),
    ),
)

# Skill: a name that ends in `at_end` is of the end layer, the others are of the output; `_low` and `_high` are the
# ends of intervals of 95 % over images. Further columns are the measurements by detectors, such as `auroc_energy`.
# A measurement of activations that are not finite is NaN.
EVALUATIONS = Layout(
    "evaluation of stitches",
    "exec_eval_stitcher_ood.py",
    {
        "folder": str,  # of the stitching run
        "front_layer": str,
        "end_layer": str,
        "dataset": str | None,  # of the evaluation
        "shortcut": float | None,
        "train_images": str | None,
        "test_images": str | None,
        "id_dataset": str | None,  # the activations that detectors compare with
        "sanity_dataset": str | None,  # None: the detectors were not checked
        "accuracy": float | None,
        "correlation": float,
        "baseline": float,
        "skill": float,
        "skill_low": float,
        "skill_high": float,
        "correlation_at_end": float,
        "baseline_at_end": float,
        "skill_at_end": float,
        "skill_at_end_low": float,
        "skill_at_end_high": float,
        "n_images": int,
        "n_classes": int,  # of the end network
        "width": int,  # of the random features in the baseline: the rank of the front's covariance
        "n_copies": int,  # untrained copies side by side in the baseline, at most
        "rows_per_channel": float,  # that the widest features of the baseline were fitted to
    },
    optional=("dataset", *OF_IMAGES, "id_dataset", "sanity_dataset", "accuracy"),
)


class Quantity(NamedTuple):
    """A measured quantity of stitches, with its title, scale and source."""

    title: str  # in figures and printed tables
    measured_by: str  # STITCHING, SKILL, DETECTOR or VERDICT
    # The values of a different and of a similar stitch, where the colours of figures end; None:
    # neither high nor low is similar
    scale: tuple[float, float] | None = None
    possible: tuple[float, float] = (-math.inf, math.inf)  # the lowest and the highest value
    is_two_sided: bool = False  # similar in the middle of `scale`, different at both ends
    shown_in: tuple[str, ...] = ()

    def similarity(self, value: float) -> float:
        """Convert a value to a similarity, which is higher for more similar stitches.

        Returns:
            The value, its negative, or its negative distance from the middle of the scale.

        Raises:
            ValueError: the quantity has no scale.
        """
        if self.scale is None:
            raise ValueError(f"neither high nor low values of {self.title} are similar")
        different, similar = self.scale
        if self.is_two_sided:
            return -abs(value - (different + similar) / 2)
        return value if similar > different else -value


def shown_in(report: str) -> dict[str, Quantity]:
    """Return the quantities that a report shows, by column."""
    return {name: quantity for name, quantity in QUANTITIES.items() if report in quantity.shown_in}


def measured_by(*sources: str) -> dict[str, Quantity]:
    """Return the quantities that the given kinds of measurement yield, by column."""
    return {
        name: quantity for name, quantity in QUANTITIES.items() if quantity.measured_by in sources
    }


QUANTITIES = {
    # Stitching
    "accuracy": Quantity(
        "accuracy",
        STITCHING,
        scale=(0, 1),
        possible=(0, 1),
        shown_in=(IN_EVALUATION, IN_CURVES),
    ),
    "front_accuracy": Quantity("front accuracy", STITCHING),
    "end_accuracy": Quantity("end accuracy", STITCHING),
    "accuracy_drop": Quantity(
        "accuracy drop (percentage points)",
        STITCHING,
        scale=(1, 0),
        shown_in=(IN_VERDICT, IN_CURVES),
    ),
    "matching_error": Quantity(
        "matching error",
        STITCHING,
        scale=(1, 0),
    ),
    "representation_difference": Quantity(
        "representation difference",
        STITCHING,
        scale=(1, 0),
    ),
    "agreement": Quantity(
        "agreement",
        STITCHING,
        scale=(0, 1),
    ),
    "kappa": Quantity(
        "κ",
        STITCHING,
        scale=(0, 1),
    ),
    "n_images": Quantity("test images", STITCHING),
    "n_fitting_samples": Quantity(
        "fitting samples",
        STITCHING,
    ),
    "matching_rank": Quantity(
        "matching rank",
        STITCHING,
    ),
    "r2_fit": Quantity(
        "R² on fitting samples",
        STITCHING,
        scale=(0, 1),
    ),
    "r2_test": Quantity(
        "R²",
        STITCHING,
        scale=(0, 1),
    ),
    # Verdict
    "seed_spread": Quantity(
        "spread over seeds",
        VERDICT,
    ),
    "p_below": Quantity(
        "p below",
        VERDICT,
    ),
    "p_above": Quantity(
        "p above",
        VERDICT,
    ),
    # OOD evaluation, by detector
    "auroc": Quantity(
        "AUROC",
        DETECTOR,
        scale=(0, 1),
        is_two_sided=True,
        shown_in=(IN_EVALUATION,),
    ),
    "aupr": Quantity(
        "AUPR",
        DETECTOR,
        scale=(1, 0),
        shown_in=(IN_EVALUATION,),
    ),
    "fpr95": Quantity(
        "FPR95",
        DETECTOR,
        scale=(0, 1),
        shown_in=(IN_EVALUATION,),
    ),
    "mean_energy": Quantity("mean energy", DETECTOR),
    "mean_id_energy": Quantity("mean ID energy", DETECTOR),
    "sanity_auroc": Quantity(
        "sanity AUROC",
        DETECTOR,
    ),
    # The evaluation, whatever the detectors
    "skill": Quantity(
        "skill at the output",
        SKILL,
        scale=(0, 1),
        possible=(-math.inf, 1),
        shown_in=(IN_VERDICT, IN_CURVES),
    ),
    "correlation": Quantity(
        "within-class correlation",
        SKILL,
        scale=(0, 1),
        possible=(-1, 1),
    ),
    "baseline": Quantity(
        "baseline",
        SKILL,
        possible=(-1, 1),
    ),
    "skill_at_end": Quantity(
        "skill at the end layer",
        SKILL,
        scale=(0, 1),
        possible=(-math.inf, 1),
        shown_in=(IN_VERDICT,),
    ),
    "correlation_at_end": Quantity(
        "within-class correlation at the end layer",
        SKILL,
        scale=(0, 1),
        possible=(-1, 1),
    ),
    "baseline_at_end": Quantity(
        "baseline at the end layer",
        SKILL,
        possible=(-1, 1),
    ),
}


def columns(layout: Layout) -> list[str]:
    """Return the names of the columns that all tables of a layout share."""
    return list(layout.types)


def from_record(layout: Layout, record: Mapping[str, object]) -> dict[str, Any]:
    """Return a record with the types of a layout, from values as read from JSON or a CSV; further columns come
    last.

    A missing or empty value becomes None if the column is optional or may be None.

    Raises:
        ValueError: a value is missing or has the wrong type. The message is the column's name.
    """
    values: dict[str, Any] = dict.fromkeys(layout.types)
    for name, hint in layout.types.items():
        if name not in layout.optional or not _is_empty(record.get(name)):
            values[name] = _typed(name, hint, record.get(name))
    for name, value in record.items():
        if name not in layout.types and not _is_empty(value):
            values[name] = _typed(name, layout.further, value)
    return values


def write_table(path: str | Path, layout: Layout, records: Iterable[Mapping[str, object]]) -> None:
    """Write records as a CSV, with the further columns of all records; the cell of a missing value stays empty."""
    records = list(records)
    header = dict.fromkeys(columns(layout))
    for record in records:
        header |= dict.fromkeys(record)
    write_csv(Path(path), list(header), records)


def read_table(path: str | Path, *layouts: Layout) -> list[dict[str, Any]]:
    """Read a CSV; return its records, all of the first layout whose required columns are in the header.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a damaged cell. The message names
            the file, and the line and the column of the cell.
    """
    header, texts = _read_csv(path)
    fitting = [layout for layout in layouts if header.issuperset(_required(layout))]
    if not fitting:
        raise UserError(_describe_misfit(path, header, layouts))

    records = []
    for line, record in enumerate(texts, start=FIRST_LINE):
        try:
            records.append(from_record(fitting[0], record))
        except ValueError as error:
            raise UserError(
                f"{path}, line {line}: {error} is missing or damaged; correct it"
            ) from error
    return records


def _read_csv(path: str | Path) -> tuple[set[str], list[dict[str, str]]]:
    """Read a CSV; return the names of its columns, and its rows as text by column."""
    remedy = "check the path; a table is a CSV in UTF-8"
    # Spreadsheets write a byte order mark, which `utf-8-sig` removes.
    with readable(path, remedy), open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        names = list(reader.fieldnames or [])
        records = list(reader)
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{path} has two columns {name!r}; give each column its own name")
    header = set(names)
    for line, record in enumerate(records, start=FIRST_LINE):
        surplus = record.pop(None, [])  # type: ignore[call-overload]  # the key of the csv module
        if any(surplus):
            raise UserError(
                f"{path}, line {line}: more values than columns ({listed(surplus)}); put a value with commas in "
                'quotes, such as "pool1,pool2"'
            )
    return header, records


def _describe_misfit(path: str | Path, header: set[str], kinds: tuple[Any, ...]) -> str:
    """Return the error message for a table that matches none of the row types."""
    for mark, title in ((";", "semicolons"), ("\t", "tabs")):
        if any(mark in name for name in header):
            return f"{path} has {title} between its columns; separate columns by commas"
    tables = " or ".join(f"{kind.contents} ({kind.written_by})" for kind in kinds)
    lacks = ""
    if len(kinds) == 1:
        missing = [name for name in _required(kinds[0]) if name not in header]
        lacks = f": it lacks {listed(missing)}"
        for name in header - set(columns(kinds[0])):
            for meant in difflib.get_close_matches(name, missing, n=1):
                lacks += f" (for {name!r}, did you mean {meant}?)"
    return f"{path} is no table of {tables}{lacks}; give such a table"


def _required(layout: Layout) -> list[str]:
    """Return the names of the columns that all tables of a layout have."""
    return [name for name in layout.types if name not in layout.optional]


def _is_empty(value: object) -> bool:
    return value is None or value == ""


def _typed(column: str, hint: Any, value: object) -> object:
    """Convert a value to the type of a field; of a union, to the first type that fits."""
    kinds = get_args(hint) or (hint,)
    if _is_empty(value):
        if types.NoneType not in kinds:
            raise ValueError(column)
        return None
    for kind in kinds:
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            if kind is bool:
                return {"True": True, "False": False}[str(value)]
            return kind(value)
    raise ValueError(column)
