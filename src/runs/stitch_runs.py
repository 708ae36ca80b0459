"""Writes the run folders of a grid: one per pair, as if each pair had run by itself.

`folders` reads the run folders.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from src.choices import Options
from src.choices.stitching import KEEP_VARIANCE
from src.ground.console import listed, note, result, warn
from src.ground.errors import UserError
from src.ground.files import durable_together, write_json
from src.ground.grouping import grouped
from src.ground.tensors import load_tensors
from src.models import Network
from src.runs.changes import changes
from src.runs.checkpoints import save_state
from src.runs.folders import read_runs, remove_parts, write_metrics, write_predictions
from src.runs.options import as_written, differences, read_options, refuse_other_options
from src.runs.recorded import report_epoch, write_logs
from src.runs.run import Run, new_folder
from src.runs.weights import counted, warn_of_newer
from src.stitching.closed_forms import Matching
from src.stitching.grid import GridScore
from src.stitching.layers import StitchingLayer
from src.stitching.matching import with_matching
from src.stitching.stitched_model import StitchedModel
from src.tables.experiments import Experiment, FurtherOptions, other_options, pair_of
from src.tables.network_names import networks_named_by
from src.tables.stitch_rows import StitchRow
from src.training import EpochLog, HeadResult, State
from src.values import Pair, Predictions


class RunOnDisk(NamedTuple):
    """A finished or interrupted run."""

    folder: Path
    options: Options


class GridRuns:
    """The run folders of the pairs of a grid.

    Pairs that train together share one training state. It lies in the folder of the last pair,
    which is the last to be finished. Folders are created with the first files, so that a failure
    before leaves none.

    Args:
        directory: the folder of the run folders.
        layers: the stitching layer of each pair.
        experiment: the settings and options of all pairs.

    Attributes:
        layers: the stitching layers of the pairs; after `resume`, of those that remain.
        folders: the run folder of each pair; empty before the folders are created.
        start: the time when the runs began, for `run.json`. It is now unless it is set.
    """

    def __init__(
        self,
        directory: Path,
        layers: Mapping[Pair, StitchingLayer],
        experiment: Experiment,
    ):
        self.directory = Path(directory)
        self.layers = dict(layers)
        self.experiment = experiment
        self.folders: dict[Pair, Path] = {}
        self.start = datetime.now()

        # The run that keeps the training state of all pairs
        self._state_run: Run | None = None
        self._state_options: Options = experiment.options
        if len(layers) == 1:
            self._state_options = experiment.config(*layers)

    @property
    def state(self) -> State | None:
        """The training state of an interrupted run; None if the training starts anew."""
        if self._state_run is None:
            return None
        return self._state_run.state.get("loop")

    def resume(self) -> None:
        """Claim an interrupted run of the same options; without one, drop the finished pairs.

        The pairs of an interrupted run go on together, the finished pairs too: in batches of
        another size the results could round differently.

        Raises:
            Busy: another process works on the interrupted run.
            UserError: a run of a pair has other options, or networks or images have changed since.
        """
        finished_before = finished_runs(self.directory)
        interrupted_before = interrupted_runs(self.directory)
        self._refuse_changed([*finished_before, *interrupted_before])

        finished_pairs = self._finished_pairs(finished_before)
        options = as_written(self._state_options)
        interrupted = _nearest(_by_identity(interrupted_before), options)
        if finished_pairs:
            n_finished = len(finished_pairs)
            note(f"{self.directory}: {n_finished} of {len(self.layers)} runs are finished")

        remaining = set(self.layers) - finished_pairs
        if interrupted:
            self._take_up(interrupted[0])
            remaining = set(self.folders)
        self.layers = {pair: layer for pair, layer in self.layers.items() if pair in remaining}

    def _take_up(self, interrupted: RunOnDisk) -> None:
        """Claim an interrupted run, and take over the folders of its pairs."""
        run = Run.in_folder(interrupted.folder, self._state_options)
        run.claim(resume=True)
        self._state_run = run
        for front_layer, end_layer, name in run.state["folders"]:
            self.folders[Pair(front_layer, end_layer)] = self.directory / name
        for folder in self.folders.values():
            remove_parts(folder)

    def _refuse_changed(self, runs: Sequence[RunOnDisk]) -> None:
        """Raise a UserError if the weights of a network, or the images, have changed since a run.

        Warn if a run did not record its weights and a checkpoint is newer than the run.
        """
        changed = changes((run.options for run in runs), as_written(self.experiment.options))
        if changed.n:
            raise UserError(
                f"{self.directory}: {counted(changed.n, 'run')} of earlier {changed.text}; "
                f"{changed.remedy}"
            )
        finished = [run for run in runs if (run.folder / "config.txt").exists()]
        warn_of_newer(
            (run.folder / "config.txt", networks_named_by(run.options).values()) for run in finished
        )

    def _finished_pairs(self, finished: Sequence[RunOnDisk]) -> set[Pair]:
        """Return the pairs of the grid with a finished run.

        Raises:
            UserError: the finished run of a pair has other options.
        """
        pairs = set()
        by_identity = _by_identity(finished)
        for pair in self.layers:
            options = as_written(self.experiment.config(pair))
            for run in _nearest(by_identity, options):
                refuse_other_options(run.options, options, where=run.folder)
                pairs.add(pair)
        return pairs

    def _claimed(self) -> Run:
        """Return the run that keeps the training state; at first, create all run folders."""
        if self._state_run is None:
            self.folders = {pair: new_folder(self.directory) for pair in self.layers}
            folders = [[*pair, folder.name] for pair, folder in self.folders.items()]
            last_pair = list(self.layers)[-1]
            run = Run.in_folder(self.folders[last_pair], self._state_options)
            run.claim(resume=False)
            run.save(folders=folders)
            self._state_run = run
        return self._state_run

    def log(self, history: Sequence[Mapping[Pair, EpochLog]], state: State) -> None:
        """Write the logs of all epochs so far and the training state; print the last epoch.

        With several pairs, print the means over the pairs.

        Args:
            history: for each epoch, the log of each pair.
            state: of the training after the last epoch.
        """
        run = self._claimed()
        with durable_together():
            for pair in self.layers:
                write_logs(self.folders[pair], [logs[pair] for logs in history])
        run.save(loop=state)

        title = self._title(next(iter(self.layers)))
        if title and len(self.layers) > 1:
            title = f"means over {len(self.layers)} pairs:"
        if title:
            result(title)
        last_epoch = history[-1].values()
        train = _mean(log.train for log in last_epoch)
        val = _mean(log.val for log in last_epoch)
        report_epoch(len(history), EpochLog(train, val))

    def finish(
        self,
        score: GridScore,
        matched: Mapping[Pair, Matching],
        *,
        whole_networks: tuple[Network, Network] | None,
    ) -> dict[Pair, StitchRow]:
        """Write the results of all pairs, and mark their runs as finished; return their rows.

        Args:
            score: the metrics and predictions of all pairs.
            matched: the direct matching of each pair; empty if no pair was matched.
            whole_networks: the front and the end network to save with the stitching layer; None:
                save the stitching layer only.
        """
        state_run = self._claimed()
        runs = {}
        rows: dict[Pair, StitchRow] = {}
        for pair in self.layers:
            row = self._row(pair, score, matched)
            run = Run.in_folder(self.folders[pair], self.experiment.config(pair))
            # Pairs that were finished before an interruption keep their files.
            if not run.config.exists():
                runs[pair] = run
                rows[pair] = row

        with durable_together():
            for pair, run in runs.items():
                self._write(pair, rows[pair], score, matched, whole_networks)
                run.start = self.start
                write_json(run.made_with, run.provenance())
        # `config.txt` marks a run as finished: it is written after all results are on the disk.
        with durable_together():
            for run in runs.values():
                write_json(run.config, as_written(run.options))
        state_run.discard()

        if len(self.layers) == 1:
            for pair in rows:
                note(f"wrote {self.folders[pair]}")
        _warn_of_truncated(rows, matched)
        _warn_of_penalties(rows, matched)
        _warn_of_few(rows, is_auto=self.experiment.n_pinv_init_samples == "auto")
        return rows

    def _row(self, pair: Pair, score: GridScore, matched: Mapping[Pair, Matching]) -> StitchRow:
        """Return the row of a pair: its experiment, its layers, and its metrics."""
        metrics = score.pairs[pair]
        if pair in matched:
            metrics = with_matching(metrics, matched[pair])
        settings = self.experiment.settings_of(pair)
        return StitchRow(**settings, **vars(metrics), folder=self.folders[pair].name)

    def _write(
        self,
        pair: Pair,
        row: StitchRow,
        score: GridScore,
        matched: Mapping[Pair, Matching],
        whole_networks: tuple[Network, Network] | None,
    ) -> None:
        """Write the weights, the predictions and the metrics of a pair; arguments as in `finish`."""
        folder = self.folders[pair]
        layer = self.layers[pair]
        options = self.experiment.options

        if not options["no_save"]:
            saved: StitchingLayer | StitchedModel = layer
            if whole_networks is not None:
                saved = StitchedModel(*whole_networks, layer, pair)
            save_state(folder / "final_model.pt", saved.state_dict())

        if not options["no_predictions"]:
            classes = [score.predictions[key] for key in (pair, "front", "end", "labels")]
            predictions = Predictions(*(of_images.numpy() for of_images in classes))
            write_predictions(folder / "predictions.npz", predictions)

        further = {}
        if options["init"] == "ridge":
            further["ridge_penalty"] = matched[pair].ridge_penalty
        write_metrics(folder, row, sparsity=layer.sparsity(), **further)

    def _title(self, pair: Pair) -> str:
        """Return the pair as a title; "" if it is the only pair that the options name."""
        if pair == pair_of(self.experiment.options):
            return ""
        return f"{pair}: "


def _mean(results: Iterable[HeadResult]) -> HeadResult:
    """Return the mean of each value over the results of several heads."""
    return HeadResult(*(fmean(values) for values in zip(*results, strict=True)))


def finished_runs(directory: Path) -> list[RunOnDisk]:
    """Return the finished runs in a folder, the oldest first."""
    configs = sorted(directory.glob("*/config.txt"))
    return [RunOnDisk(config.parent, read_options(config)) for config in configs]


def interrupted_runs(directory: Path) -> list[RunOnDisk]:
    """Return the interrupted runs in a folder, the oldest first."""
    runs = []
    for state_file in sorted(directory.glob("*/resume.pt")):
        # Another process may have just finished the run, and removed the file.
        with contextlib.suppress(UserError):
            options = load_tensors(state_file)["options"]
            runs.append(RunOnDisk(state_file.parent, options))
    return runs


def note_other_methods(directory: Path, experiment: Experiment) -> None:
    """Note the options of runs in a folder, finished or interrupted, that tables and verdicts will
    show as another method beside an experiment."""
    if not directory.is_dir():
        return
    runs, _ = read_runs(directory)
    experiments: list[Experiment] = [run.row for run in runs]
    for run in interrupted_runs(directory):
        with contextlib.suppress(ValueError):  # of a script that does not stitch
            experiments.append(Experiment.of(run.options))
    n_runs = Counter(other_options(of_run, experiment) for of_run in experiments)
    del n_runs[""]
    if n_runs:
        note(
            f"{directory}: {counted(n_runs.total(), 'run')} with {listed(n_runs, n=2)}, which tables and "
            "verdicts show as another method; give another -dir to keep them apart"
        )


def _warn_of_truncated(rows: Iterable[Pair], matched: Mapping[Pair, Matching]) -> None:
    """Warn if the cutoff of singular values truncates the fit of a pair."""
    truncated = [pair for pair in rows if pair in matched and matched[pair].truncated]
    if truncated:
        warn(
            f"the cutoff of singular values truncates the fit of {listed(truncated)}: more rows and"
            " channels of unequal size drop more directions; give --pinv-cutoff exact"
        )


def _warn_of_penalties(rows: Iterable[Pair], matched: Mapping[Pair, Matching]) -> None:
    """Warn of pairs with a penalty of ridge at an edge of its grid, and name the remedy."""
    edges = {pair: matched[pair].penalty_edge for pair in rows if pair in matched}
    unpredicted = [pair for pair, edge in edges.items() if edge == "largest"]
    if unpredicted:
        warn(
            f"ridge chose its largest penalty for {listed(unpredicted)}: the front layer predicts"
            " nothing of the end layer on held-out images, and the stitch gives the mean; raise"
            " -pinv-samples"
        )
    unequal = [pair for pair, edge in edges.items() if edge == "smallest"]
    if unequal:
        warn(
            f"ridge chose its smallest penalty for {listed(unequal)}, and a smaller one might fit"
            " better, as where channels are of unequal size; give -i pinv --pinv-cutoff exact"
        )


def _warn_of_few(rows: Mapping[Pair, StitchRow], *, is_auto: bool) -> None:
    """Warn of pairs that were matched on too few images.

    Args:
        is_auto: the number of images was chosen for each pair already.
    """
    few = [
        pair
        for pair, row in rows.items()
        if row.is_matched_on_few(keeps_variance=row.init in KEEP_VARIANCE)
    ]
    if not few:
        return
    remedy = "; raise -pinv-samples, or give -pinv-samples auto"
    if is_auto:
        remedy = ""
    warn(
        f"too few images to match {listed(few)}: R² is much lower on the test images than on the"
        f" matched ones{remedy}"
    )


def _nearest(
    by_identity: Mapping[Hashable, Sequence[RunOnDisk]], options: Options
) -> list[RunOnDisk]:
    """Return a list with the nearest run to options; [] if no run has their identity.

    Of several runs with the identity of the options, it is the first with equal options, or else
    the first.
    """
    candidates = by_identity.get(_identity(options), [])
    equal = [run for run in candidates if not differences(run.options, options)]
    return [*equal, *candidates][:1]


def _by_identity(runs: Iterable[RunOnDisk]) -> dict[Hashable, list[RunOnDisk]]:
    """Group runs by identity."""
    return grouped(runs, lambda run: _identity(run.options))


def _identity(options: Options) -> Hashable:
    """Return a value to compare runs by: their layers, networks, method and seed.

    It tells training from matching, but ignores the number of epochs and all options without a
    column. It is None for options of a script that does not stitch.
    """
    try:
        experiment = Experiment.of(options)
    except ValueError:
        return None
    is_trained = experiment.n_epochs != 0
    columns = dataclasses.replace(experiment, n_epochs=is_trained, further_options=FurtherOptions())
    return pair_of(options), columns.key
