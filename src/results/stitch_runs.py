"""Writes the run of a grid of pairs of layers, in one folder; `folders` reads it."""

import contextlib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from torch import Tensor

from src.choices import Options
from src.choices.stitching import KEEP_VARIANCE
from src.core.console import listed, note, result, warn
from src.core.errors import UserError
from src.core.files import durable_together, write_json
from src.core.tensors import load_tensors
from src.models import Network
from src.results.experiments import Experiment, pair_of
from src.results.folders import Stitch, one_of_each, read_stitches, remove_parts
from src.results.network_training import epoch_row, report_epoch
from src.results.options import as_written
from src.results.public import RUN_NAME, SPARSITY
from src.results.run import Run, new_folder
from src.results.spec import RANKS, changed_since, described, difference
from src.results.stitch_rows import StitchRow
from src.results.tables import columns
from src.results.writing import write_logs_of_pairs, write_stitches
from src.stitching.closed_forms import Matching
from src.stitching.grid import GridScore
from src.stitching.layers import StitchingLayer
from src.stitching.matching import with_matching
from src.stitching.stitched_model import StitchedModel
from src.training import EpochLog, HeadResult, State
from src.values import Metrics, Pair, Predictions

# Measurements that are undefined for some stitches
MAY_BE_UNDEFINED = ("kappa", "front_accuracy", "r2_fit", "r2_test")


class RunOnDisk(NamedTuple):
    """An interrupted run."""

    folder: Path
    experiment: Experiment


class EarlierRuns(NamedTuple):
    """The runs in a folder, read once before a call."""

    stitches: list[Stitch]  # of the finished runs
    interrupted: list[RunOnDisk]


class FolderOfCall:
    """The folder of a call that trains whole networks: each pair is a run in a folder of its own,
    and waits for no pair.

    Attributes:
        path: None before it is made.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.path: Path | None = None

    def take_up(self, part: Path) -> None:
        """Go on in the folder of an earlier call, which holds the folder of a pair."""
        if part.parent != self.directory:
            self.path = part.parent

    def folder_of(self, pair: Pair) -> Path:
        """Make the folder of a pair, and return it."""
        if self.path is None:
            self.path = new_folder(self.directory)
        folder = self.path / f"{pair.front_layer} to {pair.end_layer}"
        folder.mkdir(exist_ok=True)
        return folder


class GridRun:
    """The run of a grid of pairs of layers: one folder, made with the first files, so that a
    failure before leaves none.

    Args:
        directory: the folder of the run's folder.
        layers: the stitching layer of each pair.
        experiment: the settings and options of all pairs.
        call: of a single pair, where it is one of several that train whole networks.

    Attributes:
        layers: the stitching layers of the pairs; after `resume`, of those that remain.
        folder: None before it is made.
        start: the time when the run began, for `run.json`. It is now unless it is set.
    """

    def __init__(
        self,
        directory: Path,
        layers: Mapping[Pair, StitchingLayer],
        experiment: Experiment,
        call: FolderOfCall | None = None,
    ):
        self.directory = Path(directory)
        self.call = call
        self.layers = dict(layers)
        self.experiment = experiment
        self.folder: Path | None = None
        self.start = datetime.now()
        self._run: Run | None = None

    @property
    def state(self) -> State | None:
        """The training state of an interrupted run; None if the training starts anew."""
        if self._run is None:
            return None
        return self._run.state.get("loop")

    @property
    def options(self) -> Options:
        """The content of `config.txt`: of a single pair with its layers, as the public code has
        it."""
        if len(self.layers) == 1:
            return self.experiment.config(*self.layers)
        return self.experiment.options

    def resume(self, earlier: EarlierRuns) -> int:
        """Claim an interrupted run of the same options; without one, drop the finished pairs.

        Returns:
            The number of finished pairs.

        Raises:
            Busy: another process works on the interrupted run.
        """
        finished = self._finished_pairs(earlier.stitches)
        interrupted = self._of_these_options(earlier.interrupted)
        if not interrupted:
            self.layers = {
                pair: layer for pair, layer in self.layers.items() if pair not in finished
            }
            # A single pair that remains has options of its own
            interrupted = self._of_these_options(earlier.interrupted)
        if interrupted:
            self._take_up(interrupted[0].folder)
        return len(finished)

    def _finished_pairs(self, stitches: Iterable[Stitch]) -> set[Pair]:
        """Return the pairs of the grid that are finished, with the options of this experiment."""
        pairs = set()
        for stitch in stitches:
            if stitch.row.pair in self.layers and self._is_of_this_spec(stitch.row):
                pairs.add(stitch.row.pair)
                if self.call:
                    self.call.take_up(stitch.files.folder)
        return pairs

    def _is_of_this_spec(self, experiment: Experiment) -> bool:
        """Return whether an experiment has this spec, as far as it is known."""
        return not difference(experiment.spec, self.experiment.spec)

    def _of_these_options(self, runs: Iterable[RunOnDisk]) -> list[RunOnDisk]:
        """Return the runs of this experiment with the layers of the options."""
        of_experiment = [run for run in runs if self._is_of_this_spec(run.experiment)]
        pair = pair_of(self.options)
        return [run for run in of_experiment if pair_of(run.experiment.options) == pair]

    def _take_up(self, folder: Path) -> None:
        """Claim the folder of an interrupted run, and take over its pairs.

        They go on together: in batches of another size the results could round differently.
        """
        run = Run(folder, self.options)
        run.claim(resume=True)
        pairs = [Pair(*names) for names in run.state["pairs"]]
        self.layers = {pair: self.layers[pair] for pair in pairs}
        self.folder = folder
        if self.call:
            self.call.take_up(folder)
        self._run = run
        remove_parts(folder)

    def _claimed(self) -> Run:
        """Return the run; at first, create its folder."""
        if self._run is None:
            if self.call:
                self.folder = self.call.folder_of(*self.layers)
            else:
                self.folder = new_folder(self.directory)
            self._run = Run(self.folder, self.options)
            self._run.claim(resume=False)
            self._run.save(pairs=[[*pair] for pair in self.layers])
        return self._run

    def log(self, history: Sequence[Mapping[Pair, EpochLog]], state: State) -> None:
        """Write the logs of all epochs so far and the training state; print the last epoch.

        With several pairs, print the means over the pairs.

        Args:
            history: for each epoch, the log of each pair.
            state: of the training after the last epoch.
        """
        run = self._claimed()
        epochs = {pair: [epoch_row(logs[pair]) for logs in history] for pair in self.layers}
        write_logs_of_pairs(run.folder, epochs)
        run.save(loop=state)

        title = self._title(next(iter(self.layers)))
        if title and len(self.layers) > 1:
            title = f"means over {len(self.layers)} pairs:" if len(history) == 1 else ""
        if title:
            result(title)
        last_epoch = history[-1].values()
        train = _mean(log.train for log in last_epoch)
        val = _mean(log.val for log in last_epoch)
        report_epoch(len(history), EpochLog(train, val))

    def write(
        self,
        score: GridScore,
        matched: Mapping[Pair, Matching],
        *,
        whole_networks: tuple[Network, Network] | None,
    ) -> dict[Pair, StitchRow]:
        """Write the results of all pairs; return their rows. `finish` is to follow.

        Args:
            score: the metrics and predictions of all pairs.
            matched: the direct matching of each pair; empty if no pair was matched.
            whole_networks: the front and the end network to save with the only stitching layer; None:
                save stitching layers only.
        """
        run = self._claimed()
        rows = {pair: self._row(pair, score, matched, run.folder) for pair in self.layers}
        with durable_together():
            write_stitches(
                run.folder,
                rows,
                states=self._states(whole_networks),
                predictions=self._predictions(score),
                command=" ".join(sys.argv),
            )
            run.start = self.start
            write_json(run.made_with, run.provenance())
        _warn_of_undefined(rows.values())
        _warn_of_fits(rows, matched, is_auto=self.experiment.n_pinv_init_samples == "auto")
        return rows

    def finish(self) -> None:
        """Mark the run as finished, when all of its files are on the disk."""
        run = self._claimed()
        write_json(run.config, as_written(run.options))
        run.discard()
        note(f"wrote {run.folder}")

    def _row(
        self, pair: Pair, score: GridScore, matched: Mapping[Pair, Matching], folder: Path
    ) -> StitchRow:
        """Return the row of a pair: its experiment, its layers, and its measurements."""
        metrics = score.pairs[pair]
        if pair in matched:
            metrics = with_matching(metrics, matched[pair])
        shares = self.layers[pair].sparsity()
        settings = dict(self.experiment.settings_of(pair))
        width = self.layers[pair].transform.weight.shape[1]
        for option in RANKS:  # a rank above the width keeps all components
            if settings[option]:
                settings[option] = min(settings[option], width)
        return StitchRow(
            **settings,
            options=self.experiment.options,
            **vars(metrics),
            folder=folder.name,
            further={f"{SPARSITY}{threshold}": share for threshold, share in shares.items()},
        )

    def _states(
        self, whole_networks: tuple[Network, Network] | None
    ) -> dict[Pair, Mapping[str, Tensor]]:
        """Return the weights to save of each pair; empty with `--no-save`."""
        if self.experiment.options["no_save"]:
            return {}
        if whole_networks is None:
            return {pair: layer.state_dict() for pair, layer in self.layers.items()}
        ((pair, layer),) = self.layers.items()
        return {pair: StitchedModel(*whole_networks, layer, pair).state_dict()}

    def _predictions(self, score: GridScore) -> dict[Pair, Predictions]:
        """Return the predictions to save of each pair."""
        of_networks = [score.predictions[name].numpy() for name in ("front", "end", "labels")]
        return {
            pair: Predictions(score.predictions[pair].numpy(), *of_networks) for pair in self.layers
        }

    def _title(self, pair: Pair) -> str:
        """Return the pair as a title; "" if it is the only pair that the options name."""
        if pair == pair_of(self.experiment.options):
            return ""
        return f"{pair}: "


def _mean(results: Iterable[HeadResult]) -> HeadResult:
    """Return the mean of each value over the results of several heads."""
    return HeadResult(*(fmean(values) for values in zip(*results, strict=True)))


def earlier_runs(directory: Path) -> EarlierRuns:
    """Read the runs in a folder, which may not exist."""
    if not directory.is_dir():
        return EarlierRuns([], [])
    stitches, _ = read_stitches(directory)
    return EarlierRuns(stitches, interrupted_runs(directory))


def resume(directory: Path, earlier: EarlierRuns, runs: Sequence[GridRun]) -> None:
    """Let the runs of a call go on in the folders of interrupted ones, without finished pairs.

    Raises:
        Busy: another process works on an interrupted run.
        UserError: networks or images have changed since a run.
    """
    now = runs[0].experiment.options
    before = [stitch.options for stitch in one_of_each(earlier.stitches)]
    before += [run.experiment.options for run in earlier.interrupted]
    for options in before:
        changed = changed_since(options, now)
        if changed:
            raise UserError(
                f"{directory} has runs from before a change ({described(changed)}); remove their folders, give another "
                "-dir, or bring back what has changed"
            )
    n_pairs = sum(len(run.layers) for run in runs)
    n_finished = sum(run.resume(earlier) for run in runs)
    if n_finished:
        note(f"{directory}: {n_finished} of {n_pairs} stitches are finished")


def interrupted_runs(directory: Path) -> list[RunOnDisk]:
    """Return the interrupted runs in a folder, the oldest first."""
    state_files = list(directory.glob("*/resume.pt"))
    for of_pair in directory.glob("*/*/resume.pt"):
        if RUN_NAME.fullmatch(of_pair.parents[1].name):
            state_files.append(of_pair)
    runs = []
    for state_file in sorted(state_files):
        # Another process may have just removed the file of a finished run; not all scripts stitch.
        with contextlib.suppress(UserError, ValueError):
            experiment = Experiment.of(load_tensors(state_file)["options"])
            runs.append(RunOnDisk(state_file.parent, experiment))
    return runs


def _warn_of_undefined(rows: Iterable[StitchRow]) -> None:
    """Warn of measurements that are not finite, but for measurements that some stitches lack."""
    for row in rows:
        for name in columns(Metrics):
            value = getattr(row, name)
            is_number = isinstance(value, float)
            if is_number and name not in MAY_BE_UNDEFINED and not math.isfinite(value):
                warn(f"{row.pair}: the {name} is not finite ({value})")


def _warn_of_fits(
    rows: Mapping[Pair, StitchRow], matched: Mapping[Pair, Matching], *, is_auto: bool
) -> None:
    """Warn of pairs with a closed form to doubt, and name the remedy.

    Args:
        is_auto: the number of images was chosen for each pair already.
    """
    more_images = "; raise -pinv-samples, or give -pinv-samples auto"
    if is_auto:
        more_images = ""
    doubtful = {
        "the cutoff of singular values truncates the fit of {}: more rows and channels of unequal size drop more "
        "directions; give --pinv-cutoff exact": [
            pair for pair, matching in matched.items() if matching.truncated
        ],
        "too few fitting samples for {}: R² is much lower on the test inputs than on the fitting samples"
        f"{more_images}": [
            pair
            for pair, row in rows.items()
            if row.has_few_fitting_samples(keeps_variance=row.init in KEEP_VARIANCE)
        ],
    }
    for text, pairs in doubtful.items():
        if pairs:
            warn(text.format(listed(pairs)))
