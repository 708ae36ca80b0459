"""Writes the run folders of a grid, one for each pair, as if each pair had run alone; `folders`
reads them."""

import contextlib
import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from src.checkpoints import load_tensors, save_state
from src.console import listed, note, result, warn
from src.errors import UserError
from src.files import durable_together
from src.grouping import grouped
from src.models import Network
from src.results.options import as_written, differences, read_options, refuse_other_options
from src.results.run import Run, new_folder
from src.results.weights import changed, counted, names_of, recorded, warn_of_newer
from src.stitching.closed_forms import Matching
from src.stitching.experiments import Experiment, Pair, pair_of
from src.stitching.folders import remove_parts, write_metrics, write_predictions
from src.stitching.grid import GridScore
from src.stitching.layers import StitchingLayer
from src.stitching.stitch_rows import StitchRow
from src.stitching.stitched_model import StitchedModel
from src.training import EpochLog, HeadResult, State
from src.training.recorded import report_epoch, write_logs

BegunRun = tuple[Path, Mapping[str, Any]]  # its folder, and its options


class GridRuns:
    """Keeps a run folder for every pair of a grid: logs, results, and the state to go on from.

    The state of all pairs that train together lies in the folder of the last one, which is finished
    last.

    Args:
        directory: the folder that holds the run folders.
        layers: the stitching layer of each pair.
        experiment: of the script's options.
        resume: go on with runs of the same options in `directory`; `layers` are then those of unfinished pairs.

    Attributes:
        start: when this process began them, for `run.json`; now, unless it is set.
    """

    def __init__(
        self,
        directory: Path,
        layers: Mapping[Pair, StitchingLayer],
        experiment: Experiment,
        *,
        resume: bool = False,
    ):
        self.directory, self.layers, self.experiment = Path(directory), dict(layers), experiment
        self.folders: dict[
            Pair, Path
        ] = {}  # created when there is something to write, so that a failure leaves none
        self._whole = experiment.config(*layers) if len(layers) == 1 else experiment.options
        self.start = datetime.now()
        self._run: Run | None = None  # keeps the state of all pairs
        if resume:
            self._take_up()

    @property
    def state(self) -> State | None:
        """The state of the training to go on from, if there is one."""
        return self._run.state.get("loop") if self._run else None

    def _take_up(self) -> None:
        """Take over an interrupted run, or else drop finished pairs.

        Pairs that were begun together train and are evaluated together again: other batches could
        round otherwise."""
        begun = finished_runs(self.directory)
        self._refuse_earlier_weights([*begun, *interrupted_runs(self.directory)])
        finished, self._run = self._finished_pairs(begun), self._interrupted()
        if finished:
            note(f"{self.directory}: {len(finished)} of {len(self.layers)} runs are finished")
        if self._run:
            self._run.claim(resume=True)
            self.folders = {
                Pair(*pair): self.directory / name for *pair, name in self._run.state["folders"]
            }
            for folder in self.folders.values():
                remove_parts(folder)
        left = self.folders or self.layers.keys() - finished
        self.layers = {pair: layer for pair, layer in self.layers.items() if pair in left}

    def _refuse_earlier_weights(self, begun: Sequence[BegunRun]) -> None:
        """Raise a UserError if runs were begun with other weights of these checkpoints; warn if
        that cannot be told."""
        given = as_written(self.experiment.options)
        titles = [titles for titles in (changed(options, given) for _, options in begun) if titles]
        if titles:
            raise UserError(
                f"{self.directory}: {counted(len(titles), 'run')} of earlier weights of {names_of(chain(*titles))}; "
                "remove their folders, give another -dir, or the place of the old checkpoint"
            )
        finished = [
            (folder / "config.txt", recorded(options).values()) for folder, options in begun
        ]
        warn_of_newer((config, networks) for config, networks in finished if config.exists())

    def _finished_pairs(self, configs: Sequence[BegunRun]) -> set[Pair]:
        by_identity, finished = grouped(configs, lambda each: _identity(each[1])), set()
        for pair in self.layers:
            given = as_written(self.experiment.config(pair))
            for folder, options in _nearest(by_identity.get(_identity(given), []), given):
                refuse_other_options(options, given, where=folder)
                finished.add(pair)
        return finished

    def _interrupted(self) -> Run | None:
        given = as_written(self._whole)
        same = [
            each
            for each in interrupted_runs(self.directory)
            if _identity(each[1]) == _identity(given)
        ]
        return next(
            (Run.in_folder(folder, self._whole) for folder, _ in _nearest(same, given)), None
        )

    def _claim(self) -> None:
        """Create the run folders, and lock that of the state, unless that has been done."""
        if self.folders:
            return
        self.folders = {pair: new_folder(self.directory) for pair in self.layers}
        self._run = Run.in_folder(list(self.folders.values())[-1], self._whole)
        self._run.claim(resume=False)
        self._run.save(folders=[[*pair, folder.name] for pair, folder in self.folders.items()])

    def log(self, logs: Mapping[Pair, Sequence[EpochLog]], state: State) -> None:
        """Write the logs of all epochs so far, one a pair; report the last, or its mean when there
        are several."""
        self._claim()
        with durable_together():
            for pair, of_pair in logs.items():
                write_logs(self.folders[pair], of_pair)
        self._run.save(loop=state)
        title = self._title(next(iter(self.layers)))
        if title:
            result(title if len(self.layers) == 1 else f"means over {len(self.layers)} pairs:")
        last = [of_pair[-1] for of_pair in logs.values()]
        train, val = (
            HeadResult(*map(fmean, zip(*results, strict=True)))
            for results in zip(*last, strict=True)
        )
        report_epoch(len(of_pair), EpochLog(train, val))

    def finish(
        self,
        score: GridScore,
        matched: Mapping[Pair, Matching],
        *,
        whole_networks: tuple[Network, Network] | None,
    ) -> None:
        """Write the results of every pair and report its accuracy.

        Args:
            matched: the pairs that were matched directly.
            whole_networks: front and end network where they are to be saved as well.
        """
        self._claim()
        runs = {
            pair: Run.in_folder(self.folders[pair], self.experiment.config(pair))
            for pair in self.layers
        }
        unfinished = [
            pair for pair, run in runs.items() if not run.config.exists()
        ]  # others are where it was killed
        rows: dict[Pair, StitchRow] = {}
        with durable_together():
            for pair in unfinished:
                match = matched.get(pair)
                rows[pair] = self._row(pair, score, match)
                self._write(pair, rows[pair], score, match, whole_networks)
                runs[pair].start = self.start
                runs[pair].write_provenance()
        with durable_together():  # after all other files
            for pair in unfinished:
                runs[pair].mark_as_finished()
        self._run.discard()
        for pair, row in rows.items():
            if len(self.layers) == 1:
                note(f"wrote {self.folders[pair]}")
            result(f"{self._title(pair)}Clean accuracy: {row.accuracy:.2%}")
        _warn_of_matching(rows, matched, is_auto=self.experiment.n_pinv_init_samples == "auto")

    def _row(self, pair: Pair, score: GridScore, match: Matching | None) -> StitchRow:
        """Return what was measured of a pair."""
        settings, measured = self.experiment.settings | pair._asdict(), vars(score.pairs[pair])
        if match:
            measured = measured | {"matching_error": match.error, "r2_matched": match.r2}
            measured |= {"n_matched": match.n_samples, "matching_rank": match.rank}
        return StitchRow(**settings, **measured, folder=self.folders[pair].name)

    def _write(
        self,
        pair: Pair,
        row: StitchRow,
        score: GridScore,
        match: Matching | None,
        whole_networks: tuple[Network, Network] | None,
    ) -> None:
        """Write the results of a pair."""
        folder, layer, options = self.folders[pair], self.layers[pair], self.experiment.options
        if not options["no_save"]:
            saved = layer if whole_networks is None else StitchedModel(*whole_networks, layer, pair)
            save_state(folder / "final_model.pt", saved.state_dict())
        if not options["no_predictions"]:
            classes = score.predictions | {"stitched": score.predictions[pair]}
            write_predictions(folder / "predictions.npz", classes)
        penalty = {"ridge_penalty": match.ridge_penalty} if options["init"] == "ridge" else {}
        write_metrics(folder, row, sparsity=layer.sparsity(), **penalty)

    def _title(self, pair: Pair) -> str:
        alone = pair == pair_of(self.experiment.options)
        return "" if alone else f"{pair}: "


def finished_runs(directory: Path) -> list[BegunRun]:
    """Return the finished runs in a folder, oldest first."""
    return [
        (config.parent, read_options(config)) for config in sorted(directory.glob("*/config.txt"))
    ]


def interrupted_runs(directory: Path) -> list[BegunRun]:
    """Return the interrupted runs in a folder, oldest first."""
    runs = []
    for path in sorted(directory.glob("*/resume.pt")):
        with contextlib.suppress(UserError):  # its process has just finished it
            runs.append((path.parent, load_tensors(path)["options"]))
    return runs


def _warn_of_matching(
    rows: Mapping[Pair, StitchRow], matched: Mapping[Pair, Matching], *, is_auto: bool
) -> None:
    """Warn of pairs whose matching the cutoff truncates, or that were matched on too few images."""
    truncated = [pair for pair in rows if pair in matched and matched[pair].truncated]
    if truncated:
        warn(
            f"the cutoff of singular values spoils the matching of {listed(truncated)}: more rows drop more "
            "directions; --pinv-cutoff exact does not depend on the number of rows"
        )
    few = [pair for pair, row in rows.items() if row.is_matched_on_few]
    if few:
        remedy = "" if is_auto else "; raise -pinv-samples, or give -pinv-samples auto"
        warn(
            f"too few images to match {listed(few)}: R² is much lower on the test images than on the matched ones"
            f"{remedy}"
        )


def _nearest(begun: Sequence[BegunRun], given: Mapping[str, Any]) -> Sequence[BegunRun]:
    """Return the first run with these very options, or else the first; none of none."""
    return sorted(begun, key=lambda each: bool(differences(each[1], given)))[:1]


def _identity(options: Mapping[str, Any]) -> Hashable:
    """Tells layers, networks, method and seed of runs apart, not epochs and other options; None of
    other scripts."""
    try:
        experiment = Experiment.of(options)
    except ValueError:
        return None
    return pair_of(options), dataclasses.replace(experiment, n_epochs=experiment.n_epochs != 0).key
