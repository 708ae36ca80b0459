"""Stitching runs over grids of pairs of layers: checks their options, resumes interrupted runs, and writes each
to one folder, which `stitches` reads. A run of one stitch has the files of the public code, see `public`.
"""

import contextlib
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from src.core.choices import AUTO, STITCHING_TYPES, Options
from src.core.choices.stitching import INITS, KEEP_VARIANCE
from src.core.console import counted, listed, note, note_once, result, warn, warn_once
from src.core.errors import UserError
from src.core.files import durable_together, write_arrays, write_json
from src.core.tensors import on_cpu, save_state, save_tensors
from src.core.values import MeasuredStitch, Pair, Predictions
from src.models import Network
from src.results.public import RUN_NAME, SPARSITY, STITCH, chosen_options, write_summary
from src.results.run import (
    Run,
    as_written,
    epoch_row,
    new_folder,
    read_state,
    report_epoch,
    write_logs,
)
from src.results.spec import (
    OPTIONS,
    RANKS,
    changed_since,
    described,
    difference,
    is_idle,
    short_images,
    spec_of,
)
from src.results.stitches import (
    GRID,
    METRICS,
    STITCHES,
    EvaluationFiles,
    Stitch,
    columns_of,
    columns_of_skill,
    metrics_of,
    one_of_each,
    read_stitches,
    remove_parts,
    stitches_of_run,
)
from src.results.tables import EVALUATIONS, write_table
from src.stitching.closed_forms import Matching
from src.stitching.grid import GridMetrics
from src.stitching.layers import StitchingLayer
from src.stitching.matching import with_matching
from src.stitching.stitched_model import StitchedModel
from src.training import EpochLog, HeadResult, State


def check_options(
    options: Options,
    layers: Mapping[Pair, StitchingLayer],
    front: Network,
    end: Network,
) -> None:
    """Warn of options that have no effect, or an unexpected one.

    Notes the types that `auto` chooses, and end layers that a shortcut bypasses.

    Args:
        options: of the run.
        layers: the stitching layers of all pairs.

    Raises:
        UserError: two options contradict each other.
    """
    if options["stitching_type"] == AUTO:
        _note_chosen_types(list(layers.values()))
    _check_training(options)
    _warn_of_options_of_other_inits(options)
    _warn_of_high_ranks(options, layers)
    modules = [*front.modules(), *end.modules()]
    has_batch_norms = any(isinstance(module, _BatchNorm) for module in modules)
    if options["n_epochs"] and not options["mod_only_stitch"] and has_batch_norms:
        note(
            "without --mod-only-stitch the BatchNorm statistics of both networks move, in the parts "
            "that the stitch uses"
        )
    cuts = set(end.cut_names)
    inside = dict.fromkeys(pair.end_layer for pair in layers if pair.end_layer not in cuts)
    if inside:
        note(
            f"{listed(inside)}: inside a block, whose shortcut carries information on the inputs around "
            "the layer (misc/list_layers.py lists the layers)"
        )


def _note_chosen_types(layers: Sequence[StitchingLayer]) -> None:
    """Print a note on how many pairs each stitching type was chosen for, and how it maps the activations."""
    parts = []
    types = Counter(layer.stitching_type for layer in layers)
    for name, n_pairs in types.items():
        part = f"{name} for {counted(n_pairs, 'pair', 'pairs')}"
        if STITCHING_TYPES[name].reading:
            part += f" ({STITCHING_TYPES[name].reading})"
        parts.append(part)
    note_once(f"{AUTO} chooses {', '.join(parts)}")


def _check_training(options: Options) -> None:
    """Raise a UserError for an objective without training; warn of a random stitching layer."""
    if options["n_epochs"]:
        return
    if options["objective"] != "task":
        raise UserError(
            f"--objective {options['objective']} with -e 0: nothing is trained; leave one of them out"
        )
    if options["init"] == "rand":
        warn("-e 0 -i rand: a random stitching layer is measured; -i pinv would match it")


def _warn_of_options_of_other_inits(options: Options) -> None:
    """Warn of options of direct matching that have no effect with this `-i`."""
    for name, option in OPTIONS.items():
        is_of_matching = "init" in option.idle and options[name] != option.absent
        if is_of_matching and is_idle(name, options):
            inits = [init for init in INITS if init not in option.idle["init"]]
            warn_once(f"{option.flag} has an effect only with -i {', '.join(inits)}")


def _warn_of_high_ranks(options: Options, layers: Mapping[Pair, StitchingLayer]) -> None:
    """Warn of ranks that do not reduce a front layer."""
    widths = {pair.front_layer: layer.transform.weight.shape[1] for pair, layer in layers.items()}
    for option in RANKS:
        rank = options[option] or 0
        whole = [f"{name} ({width})" for name, width in widths.items() if rank > width]
        if whole:
            flag = option.replace("_", "-")
            warn(f"--{flag} {rank} is above the width of {', '.join(whole)}: no effect")


UNMEASURED = dict.fromkeys(("train_acc", "train_loss", "val_acc", "val_loss"))
# Measurements that are undefined for some stitches
MAY_BE_UNDEFINED = ("kappa", "front_accuracy", "r2_fit", "r2_test")


class FolderOfCall:
    """The folder of a call that trains whole networks, in which each pair of layers is a run with its own
    folder.

    Attributes:
        path: None before it is made.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.path: Path | None = None

    def take_up(self, part: Path) -> None:
        """Resume in the folder of an earlier call, which holds the folder of a pair."""
        if part.parent != self.directory:
            self.path = part.parent

    def folder_of(self, pair: Pair) -> Path:
        """Create the folder of a pair, and return its path."""
        if self.path is None:
            self.path = new_folder(self.directory)
        folder = self.path / f"{pair.front_layer} to {pair.end_layer}"
        folder.mkdir(exist_ok=True)
        return folder


class GridRun:
    """A stitching run over a grid of pairs of layers, in a folder that is created with the first files.

    Args:
        directory: the folder of the run's folder.
        layers: the stitching layer of each pair.
        options: of the run.
        chosen: by pair, the options that `auto` chose.
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
        options: Options,
        *,
        chosen: Mapping[Pair, Options] | None = None,
        call: FolderOfCall | None = None,
    ):
        self.directory = Path(directory)
        self.call = call
        self.layers = dict(layers)
        self.typed = options
        self.spec = spec_of(options)
        self.chosen = chosen or {}
        self.folder: Path | None = None
        self.start = datetime.now()
        self._run: Run | None = None

    @property
    def state(self) -> State | None:
        """The training state of an interrupted run; None if training starts from the beginning."""
        if self._run is None:
            return None
        return self._run.state.get("loop")

    @property
    def options(self) -> Options:
        """The content of `config.txt`; for a single pair with its layers, as in the public code."""
        if len(self.layers) != 1:
            return self.typed
        return self._options_of(*self.layers)

    def _options_of(self, pair: Pair) -> Options:
        """Return the options of a pair, with the stitching type that `auto` chose."""
        return chosen_options({**self.typed, **pair._asdict()}, self.chosen.get(pair, {}))

    def resume(self, finished: Iterable[Stitch], interrupted: Mapping[Path, Options]) -> int:
        """Lock an interrupted run of the same spec; without one, drop the finished pairs.

        Args:
            interrupted: options of runs by folder.

        Returns:
            The number of finished pairs.

        Raises:
            Busy: another process works on the interrupted run.
        """
        of_grid = [stitch for stitch in finished if stitch.pair in self.layers]
        done = [stitch for stitch in of_grid if not difference(stitch.spec, self.spec)]
        if self.call and done:
            self.call.take_up(done[-1].files.folder)
        folders = self._of_this_spec(interrupted)
        if not folders:
            for stitch in done:
                self.layers.pop(stitch.pair, None)
            # A single pair that remains has options of its own
            folders = self._of_this_spec(interrupted)
        if folders:
            self._take_up(folders[0])
        return len({stitch.pair for stitch in done})

    def _of_this_spec(self, interrupted: Mapping[Path, Options]) -> list[Path]:
        """Return the folders of runs of this spec with the layers of the options."""
        return [
            folder
            for folder, options in interrupted.items()
            if pair_of(options) == pair_of(self.options)
            and not difference(spec_of(options), self.spec)
        ]

    def _take_up(self, folder: Path) -> None:
        """Lock the folder of an interrupted run, and continue with its pairs.

        They resume together: in batches of another size the results could round differently.
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
        """Return the locked run; the first call creates its folder."""
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
        score: GridMetrics,
        matched: Mapping[Pair, Matching],
        *,
        whole_networks: tuple[Network, Network] | None,
    ) -> list[Stitch]:
        """Write the results of all pairs, before `finish`; return the stitches.

        Args:
            score: the metrics and predictions of all pairs.
            matched: the direct matching of each pair; empty if no pair was matched.
            whole_networks: the front and the end network to save with the only stitching layer; None:
                save stitching layers only.
        """
        run = self._claimed()
        records = [self._record(pair, score, matched) for pair in self.layers]
        stitches = stitches_of_run(run.folder, self.typed, records)
        with durable_together():
            write_stitches(
                run.folder,
                stitches,
                states=self._states(whole_networks),
                predictions=self._predictions(score),
                command=" ".join(sys.argv),
            )
            run.start = self.start
            write_json(run.made_with, run.provenance())
        _warn_of_undefined(stitches)
        _warn_of_fits(stitches, is_auto=self.typed["n_pinv_init_samples"] == "auto")
        return stitches

    def finish(self) -> None:
        """Mark the run as finished, when all its files are on disk."""
        run = self._claimed()
        write_json(run.config, as_written(run.options))
        run.discard()
        note(f"wrote {run.folder}")

    def _record(
        self, pair: Pair, score: GridMetrics, matched: Mapping[Pair, Matching]
    ) -> dict[str, Any]:
        """Return the record of a pair: its settings, its layers, and its measurements."""
        metrics = score.pairs[pair]
        if pair in matched:
            metrics = with_matching(metrics, matched[pair])
        shares = self.layers[pair].sparsity()
        settings = {**columns_of(self._options_of(pair)), **pair._asdict()}
        width = self.layers[pair].transform.weight.shape[1]
        for option in RANKS:  # a rank above the width keeps all components
            if settings[option]:
                settings[option] = min(settings[option], width)
        sparsity = {f"{SPARSITY}{threshold}": share for threshold, share in shares.items()}
        return {**settings, **vars(metrics), **sparsity}

    def _states(
        self, whole_networks: tuple[Network, Network] | None
    ) -> dict[Pair, Mapping[str, Tensor]]:
        """Return the state dicts to save of each pair; empty with `--no-save`."""
        if self.typed["no_save"]:
            return {}
        if whole_networks is None:
            return {pair: layer.state_dict() for pair, layer in self.layers.items()}
        ((pair, layer),) = self.layers.items()
        return {pair: StitchedModel(*whole_networks, layer, pair).state_dict()}

    def _predictions(self, score: GridMetrics) -> dict[Pair, Predictions]:
        """Return the predictions to save of each pair."""
        of_networks = [score.predictions[name].numpy() for name in ("front", "end", "labels")]
        return {
            pair: Predictions(score.predictions[pair].numpy(), *of_networks) for pair in self.layers
        }

    def _title(self, pair: Pair) -> str:
        """Return the title of a pair; "" if the options name no other pair."""
        if pair == pair_of(self.typed):
            return ""
        return f"{pair}: "


def pair_of(options: Options) -> Pair:
    """Return the pair of layers in the options of a run."""
    return Pair(options.get("front_layer", ""), options.get("end_layer", ""))


def _mean(results: Iterable[HeadResult]) -> HeadResult:
    """Compute the mean of each value over the results of several heads."""
    return HeadResult(*(fmean(values) for values in zip(*results, strict=True)))


def resume(directory: Path, runs: Sequence[GridRun]) -> None:
    """Resume the interrupted runs of a call in their folders, without finished pairs.

    Args:
        directory: of the runs; it may not exist.

    Raises:
        Busy: another process works on an interrupted run.
        UserError: networks or images have changed since a run.
    """
    if not directory.is_dir():
        return
    finished, _ = read_stitches(directory)
    interrupted = interrupted_runs(directory)
    options_of_finished = [stitch.options for stitch in one_of_each(finished)]
    for options in [*options_of_finished, *interrupted.values()]:
        changed = changed_since(options, runs[0].typed)
        if changed:
            raise UserError(
                f"{directory} has runs from before a change ({described(changed)}); remove their folders, give another "
                "-dir, or restore what has changed"
            )
    n_pairs = sum(len(run.layers) for run in runs)
    n_finished = sum(run.resume(finished, interrupted) for run in runs)
    if n_finished:
        note(f"{directory}: {n_finished} of {n_pairs} stitches are finished")


def interrupted_runs(directory: Path) -> dict[Path, Options]:
    """Return the options of interrupted runs in a folder, by the folder of each run, the oldest first."""
    of_pairs = [
        path for path in directory.glob("*/*/resume.pt") if RUN_NAME.fullmatch(path.parents[1].name)
    ]
    runs = {}
    for state_file in sorted([*directory.glob("*/resume.pt"), *of_pairs]):
        # Another process may have just removed the file of a finished run; not all scripts stitch.
        with contextlib.suppress(UserError):
            options = read_state(state_file)["options"]
            if "stitching_type" in options:
                runs[state_file.parent] = options
    return runs


def _warn_of_undefined(stitches: Iterable[Stitch]) -> None:
    """Warn of measurements that are not finite, except those that may be undefined."""
    for stitch in stitches:
        for name in METRICS:
            value = stitch.record[name]
            is_number = isinstance(value, float)
            if is_number and name not in MAY_BE_UNDEFINED and not math.isfinite(value):
                warn(f"{stitch.pair}: the {name} is not finite ({value})")


def _warn_of_fits(stitches: Iterable[Stitch], *, is_auto: bool) -> None:
    """Warn of pairs with an unreliable closed-form fit, and suggest a remedy.

    Args:
        is_auto: the number of images was chosen for each pair already.
    """
    more_images = "; raise -pinv-samples, or give -pinv-samples auto"
    if is_auto:
        more_images = ""
    doubtful = {
        "the cutoff of singular values truncates the fit of {}: more rows and channels of unequal size drop more "
        "directions; give --pinv-cutoff exact": [
            stitch.pair for stitch in stitches if stitch.record["truncated"]
        ],
        "too few fitting samples for {}: R² is much lower on the test inputs than on the fitting samples"
        f"{more_images}": [
            stitch.pair
            for stitch in stitches
            if metrics_of(stitch.record).has_few_fitting_samples(
                keeps_variance=stitch.record["init"] in KEEP_VARIANCE
            )
        ],
    }
    for text, pairs in doubtful.items():
        if pairs:
            warn(text.format(listed(pairs)))


def write_stitches(
    folder: Path,
    stitches: Sequence[Stitch],
    *,
    states: Mapping[Pair, Mapping[str, Tensor]],
    predictions: Mapping[Pair, Predictions],
    command: str,
) -> None:
    """Write the files of a run, but for its logs, `run.json` and `config.txt`.

    Args:
        stitches: of the run, in any folder.
        states: their weights; empty: they are not saved.
        predictions: their predictions; empty: they are not saved.
        command: the command line of the run.
    """
    records = [{**stitch.record, "folder": folder.name} for stitch in stitches]
    write_table(folder / "grid.csv", GRID, records)
    if predictions:
        write_predictions(folder / "predictions.npz", list(predictions.values()))
    if len(stitches) > 1:
        if states:
            save_stitches(folder, states)
        return
    write_summary(folder, stitches[0].record, command=command)
    for state in states.values():
        save_state(folder / STITCH, state)


def save_stitches(folder: Path, states: Mapping[Pair, Mapping[str, Tensor]]) -> None:
    """Save the state dicts of stitching layers in `stitches.pt`, by front layer and end layer."""
    by_layers: dict[str, dict[str, dict[str, Tensor]]] = {}
    for pair, state in states.items():
        by_layers.setdefault(pair.front_layer, {})[pair.end_layer] = on_cpu(state)
    save_tensors(folder / STITCHES, by_layers)


def write_predictions(path: Path, predictions: Sequence[Predictions]) -> None:
    """Write predicted classes and labels of stitches of two networks as a compressed npz.

    The array `stitched` is (N,) of one stitch, and (stitches, N) of several. All are int16, or int32 if
    there are too many classes.
    """
    _, front, end, labels = predictions[0]
    stitched = np.stack([of_stitch.stitched for of_stitch in predictions])
    if len(stitched) == 1:
        (stitched,) = stitched
    classes = Predictions(stitched, front, end, labels)
    largest = max(int(of_images.max()) for of_images in classes)
    dtype = np.int16 if largest <= np.iinfo(np.int16).max else np.int32
    small = Predictions(*(of_images.astype(dtype) for of_images in classes))
    write_arrays(path, small._asdict())


def write_logs_of_pairs(
    folder: Path, epochs: Mapping[Pair, Sequence[Mapping[str, object]]]
) -> None:
    """Write `training_logs.csv` of one pair, or of several with their layers."""
    rows: list[Mapping[str, object]] = []
    for pair, of_pair in epochs.items():
        layers = pair._asdict() if len(epochs) > 1 else {}
        rows += [{**layers, **epoch} for epoch in of_pair]
    write_logs(folder, rows)


def write_judged_run(
    directory: Path, options: Options, stitches: Mapping[Pair, MeasuredStitch]
) -> None:
    """Write a run, without its stitching layers, and its evaluation to a folder with a unique name.

    Args:
        directory: of the folder.
        options: of `exec_stitch.py`.
    Raises:
        UserError: a file cannot be written.
    """
    folder = new_folder(directory)
    records = []
    evaluations = []
    epochs = {}
    for pair, stitch in stitches.items():
        of_pair = chosen_options({**options, **pair._asdict()}, stitch.chosen)
        records.append({**columns_of(of_pair), **pair._asdict(), **vars(stitch.metrics)})
        evaluation = {
            **pair._asdict(),
            **short_images(options),
            "folder": folder.name,
            "dataset": records[-1]["dataset"],
            "accuracy": stitch.metrics.accuracy,
            **columns_of_skill(stitch.skill),
        }
        evaluations.append(evaluation)
        if stitch.losses:
            epochs[pair] = [UNMEASURED | {"train_loss": loss} for loss in stitch.losses]
    predictions = {pair: stitch.predictions for pair, stitch in stitches.items()}
    with durable_together():
        command = " ".join(sys.argv)
        written = stitches_of_run(folder, options, records)
        write_stitches(folder, written, states={}, predictions=predictions, command=command)
        write_table(EvaluationFiles(folder).table, EVALUATIONS, evaluations)
        write_logs_of_pairs(folder, epochs)
    if len(stitches) == 1:
        options = of_pair
    Run(folder, options).finish()
