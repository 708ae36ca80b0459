"""The stitches of runs on disk, of this suite or of the public code.

A run is a folder with one stitch or many. Both codes write `summary.txt` and `config.txt` of a run of
one stitch, and `training_logs.csv`. This suite writes `grid.csv`, with a row a stitch, and
`predictions.npz`. A run of several stitches with networks of their own has a folder for each, with the
files of a run of one stitch: those that have a `config.txt` are finished.
"""

import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from src.choices import Options
from src.core.console import warn, warn_once
from src.core.errors import UserError
from src.core.files import read_json
from src.core.grouping import grouped
from src.results.evaluation_rows import EvaluationRow, SkillRow
from src.results.experiments import by_experiment, keys_of, newest, with_columns
from src.results.network_names import networks_in_words
from src.results.public import RUN_NAME, read_options, read_summary, typed_options
from src.results.spec import CHECKPOINTS, RunOptions, warn_of_earlier
from src.results.stitch_rows import StitchRow
from src.results.tables import columns, from_record, read_table
from src.results.training_rows import EpochRow
from src.statistics.convergence import has_converged, learning_rates
from src.values import Pair, Predictions


class RunFiles:
    """The predictions and logs of the stitches of a run; each file is read once, when it is needed.

    Args:
        folder: of the files: the run's, or that of a stitch in it.
        pairs: of its stitches, in the order of the table.
    """

    def __init__(self, folder: Path, pairs: Sequence[Pair]):
        self.folder = folder
        self.pairs = pairs

    @cached_property
    def predictions(self) -> Mapping[Pair, Predictions]:
        """The predictions of each stitch; empty if none were kept, or with a warning if the file is
        damaged."""
        path = self.folder / "predictions.npz"
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                stitched, *of_networks = (arrays[name] for name in Predictions._fields)
            rows = zip(self.pairs, np.atleast_2d(stitched), strict=True)
            return {pair: Predictions(of_pair, *of_networks) for pair, of_pair in rows}
        except Exception as error:  # a damaged archive can raise anything
            warn(f"{path} is damaged ({error}) and left out; stitch again")
            return {}

    @cached_property
    def epochs(self) -> Mapping[Pair, list[EpochRow]]:
        """The logs of the epochs of each stitch; empty without training."""
        path = self.folder / "training_logs.csv"
        if not path.is_file():
            return {}
        rows: list[EpochRow] = read_table(path, EpochRow)
        if len(self.pairs) == 1:
            rows = [replace(row, **self.pairs[0]._asdict()) for row in rows]
        return grouped(rows, lambda row: Pair(row.front_layer, row.end_layer))


@dataclass(frozen=True)
class Stitch:
    """A stitch of a finished run, with all its measurements."""

    folder: Path  # of the run
    options: Options  # the content of `config.txt`, with the layers of the stitch
    row: StitchRow
    files: RunFiles
    evaluations: Mapping[str, EvaluationRow] = field(default_factory=dict)  # by detector
    skill: SkillRow | None = None  # None: it was not measured

    @property
    def predictions(self) -> Predictions | None:
        """The predicted classes and the labels of all test images; None if the run kept none."""
        return self.files.predictions.get(self.row.pair)

    @property
    def has_converged(self) -> bool:
        """Whether the training had converged, see `statistics.convergence`."""
        losses = [row.train_loss for row in self.files.epochs.get(self.row.pair, [])]
        rates = learning_rates(
            len(losses),
            scheduler=self.options.get("scheduler", "none"),
            reduce_lr_epochs=self.options.get("reduce_lr_epochs", ()),
        )
        return has_converged(losses, rates)


def read_stitches(
    source_dir: str | Path, *, recursive: bool = False
) -> tuple[list[Stitch], list[str]]:
    """Read the stitches of all finished runs in a folder.

    A folder is a run if its name is a time, or if it has the options of a stitching run. The folder
    may be a run itself.

    Args:
        recursive: read the runs in all folders below as well.

    Returns:
        The stitches, the oldest first (by the names of the folders of runs), and one message per run
        that was skipped.
    """
    source_dir = Path(source_dir)
    if source_dir.name in ("", ".."):  # tables name the folders of runs
        source_dir = source_dir.resolve()
    if not source_dir.is_dir():
        raise UserError(
            f"{source_dir} is no folder; give the folder that holds the folders of stitching runs"
        )
    stitches: list[Stitch] = []
    skipped = []
    for folder in _run_folders(source_dir, recursive=recursive):
        for part in parts_of(folder):
            try:
                stitches += _read_part(part, run=folder)
            except UserError as error:
                skipped.append(str(error))
    return sorted(stitches, key=lambda stitch: stitch.folder.name), skipped


def _run_folders(source_dir: Path, *, recursive: bool) -> list[Path]:
    """Return the folders of runs that a folder is or holds; with `recursive`, also of the
    folders below."""
    if is_run(source_dir):
        return [source_dir]
    parents = {source_dir}
    if recursive:
        parents |= _parents_below(source_dir)
    children = [path for parent in sorted(parents) for path in sorted(parent.iterdir())]
    return list(filter(is_run, children))


def _parents_below(source_dir: Path) -> set[Path]:
    """Return the folders at and below a folder that hold runs."""
    parents = set()
    for config in source_dir.rglob("*/config.txt"):
        run = config.parent
        if RUN_NAME.fullmatch(run.parent.name):  # a run, with a folder for each stitch
            run = run.parent
        parents.add(run.parent)
    return parents


def holds_runs(source_dir: Path) -> bool:
    """Return whether a folder is a run, or holds one."""
    return is_run(source_dir) or any(map(is_run, source_dir.glob("*")))


def is_run(path: Path) -> bool:
    """Return whether a path is a folder with the name or the options of a stitching run."""
    if not path.is_dir():
        return False
    if RUN_NAME.fullmatch(path.name):
        return True
    config = path / "config.txt"
    try:
        return config.is_file() and "stitching_type" in read_options(config)
    except UserError:  # a damaged file: reading the run says so
        return True


def parts_of(run: Path) -> list[Path]:
    """Return the folders with the files of a run: the folders of its stitches, if there are
    such."""
    if (run / "config.txt").is_file():
        return [run]
    return [config.parent for config in sorted(run.glob("*/config.txt"))] or [run]


def newest_stitches(stitches: Iterable[Stitch]) -> list[Stitch]:
    """Keep the newest stitch of each pair of layers in each experiment; warn if stitches were
    dropped.

    The stitches keep their order. The names of the folders of runs are times, which tell the newest.
    """
    stitches = list(stitches)
    oldest_first = sorted(stitches, key=lambda stitch: stitch.folder.name)
    keys = keys_of([stitch.row for stitch in oldest_first])
    kept = newest(
        zip(oldest_first, keys, strict=True),
        lambda item: (item[0].row.pair, item[1]),
        lambda item: networks_in_words(item[0].row.networks),
    )
    kept_ids = {id(stitch) for stitch, _ in kept}
    return [stitch for stitch in stitches if id(stitch) in kept_ids]


def newest_by_experiment(stitches: Iterable[Stitch]) -> dict[str, list[Stitch]]:
    """Return the newest stitch of each pair of layers, by the title of the experiment
    (`by_experiment`).

    Warns if stitches were dropped. The oldest comes first.
    """
    newest_of_all = sorted(newest_stitches(stitches), key=lambda stitch: stitch.folder.name)
    stitch_of_row = {stitch.row: stitch for stitch in newest_of_all}
    return {
        title: [stitch_of_row[row] for row in rows]
        for title, rows in by_experiment(stitch_of_row).items()
    }


def warn_of_weights(stitches: Sequence[Stitch]) -> None:
    """Warn of stitches with weights that their checkpoints no longer hold, and with code that
    has changed; and repeat what their runs were warned of."""
    of_runs = one_of_each(stitches)
    for stitch in of_runs:
        record = stitch.files.folder / "run.json"
        made_with = read_json(record) if record.exists() else {}
        for text in made_with.get("warnings", ()):
            warn_once(f"when stitches were made: {text}")
    networks = chain.from_iterable(stitch.row.networks for stitch in of_runs)
    warn_of_earlier(networks, [stitch.options for stitch in of_runs])


def one_of_each(stitches: Iterable[Stitch]) -> list[Stitch]:
    """Return one stitch of each run."""
    return list({stitch.folder: stitch for stitch in stitches}.values())


def remove_parts(directory: Path) -> None:
    """Delete the `*.part` files that killed processes left in a folder and below."""
    for part in list(directory.rglob(".*.part")):
        part.unlink()


def remove_remains(directory: Path) -> None:
    """Delete `*.part` files, and unfinished runs unless a run in the folder can be resumed.

    No process may be writing to the folder.
    """
    remove_parts(directory)
    if not any(directory.glob("*/resume.pt")):
        for path in list(directory.iterdir()):
            if RUN_NAME.fullmatch(path.name) and not any(path.rglob("config.txt")):
                shutil.rmtree(path)


def _read_part(folder: Path, *, run: Path) -> list[Stitch]:
    """Read the stitches in a folder; measurements that the public code lacks are NaN or None.

    Args:
        folder: of the run, or of a stitch in it (`parts_of`).
        run: the folder of the run.

    Raises:
        UserError: the run is unfinished, or one of its files is damaged.
    """
    if not (folder / "config.txt").is_file():
        raise UserError(f"{folder} has no config.txt: the run in it did not finish")
    options = read_options(folder / "config.txt")
    typed = RunOptions(typed_options(options))
    if (folder / "grid.csv").is_file():
        rows = [
            replace(row, folder=run.name, options=typed, **_normal_paths(vars(row)))
            for row in read_table(folder / "grid.csv", StitchRow)
        ]
    else:
        rows = [replace(_row_of_summary(folder, options), options=typed)]
    files = RunFiles(folder, [row.pair for row in rows])
    return [Stitch(run, {**typed, **row.pair._asdict()}, row, files) for row in rows]


def _normal_paths(options: Options) -> dict[str, str]:
    """Return the normal paths of both checkpoints, by option."""
    paths = {}
    for name in CHECKPOINTS:
        path = options.get(name)
        if path and isinstance(path, str):
            paths[name] = os.path.normpath(path)
    return paths


def _row_of_summary(folder: Path, options: Options) -> StitchRow:
    """Return the row of a run of the public code, from `summary.txt`.

    Raises:
        UserError: the file or an option is missing or damaged.
    """
    record = {"end_accuracy": math.nan, **read_summary(folder, options)}
    return row_of(folder, options, record)


def row_of(folder: Path, options: Options, metrics: Mapping[str, object]) -> StitchRow:
    """Return the row of a stitch with a folder to itself.

    Args:
        metrics: by name.

    Raises:
        UserError: a value is missing or damaged.
    """
    recorded = with_columns(options)
    settings = {name: recorded[name] for name in columns(StitchRow) if name in recorded}
    record = {**metrics, **settings, **_normal_paths(options), "folder": folder.name}
    try:
        return from_record(StitchRow, record)
    except ValueError as error:
        raise UserError(
            f"{folder} is no folder of a stitching run ({error} missing or damaged)"
        ) from error
