"""The run folders of a grid, one a pair, as if each pair had run alone.

`final_model.pt`, `summary.txt`, `config.txt` and `training_logs.csv` are the public code's; `metrics.json` and
`predictions.npz` are new.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from src.checkpoints import save_state
from src.errors import UserError
from src.files import write_json, write_text
from src.models import Network
from src.options import MATCHED_INITS
from src.report import note, result, warn
from src.resuming import StateFile
from src.run_folder import RunFolder
from src.stitching.grid import GridScore, Matched
from src.stitching.layers import StitchingLayer
from src.stitching.predictions import agreement, write_predictions
from src.stitching.results import Metrics
from src.stitching.stitched_model import Pair, full_state
from src.stitching.unfinished import find_state, finished_pairs, new_state
from src.training import EpochLog, Score, report_epoch

THRESHOLDS = ("0", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1")


class StitchingRuns:
    """A run folder for every pair: follows the training, and writes what came of it.

    Args:
        directory: the folder that holds the run folders.
        layers: the stitching layer of each pair.
        options: the options of the script; those of a pair's `config.txt` name that pair's layers.
        resume: go on with runs of the same options in `directory`; `layers` are then those that are left to do.
    Raises:
        UserError: there is an objective but no training; or, on resuming, there are runs of these pairs whose options
            differ.
    """

    def __init__(
        self,
        directory: Path,
        layers: Mapping[Pair, StitchingLayer],
        *,
        options: Mapping[str, Any],
        resume: bool = False,
    ):
        self.directory, self.layers, self.options = Path(directory), dict(layers), dict(options)
        whole = self._options_of(next(iter(layers))) if len(layers) == 1 else self.options
        if options["objective"] != "task" and not options["n_epochs"]:
            raise UserError(f"--objective {options['objective']} with -e 0: nothing is trained; leave one of them out")
        self._state = find_state(self.directory, whole) if resume else new_state(self.directory, whole)
        if resume:
            self._leave_out_finished()
        if options["init"] == "rand" and not options["n_epochs"]:
            warn("-e 0 -i rand: a random stitching layer is measured; -i pinv would match it")
        if options["init"] not in MATCHED_INITS and options["front_pinv_rank"]:
            warn(f"--front-pinv-rank counts with -i {', '.join(MATCHED_INITS)} only")

    def _leave_out_finished(self) -> None:
        """Leave out the pairs that are finished, unless they were trained together with others that are not."""
        finished = finished_pairs(self.directory, self.layers, self.options)
        trained = list(claimed_folders(self._state)) if "training" in self._state.content else []
        left = trained if set(trained) - finished else [pair for pair in self.layers if pair not in finished]
        if finished:
            note(f"{self.directory}: {len(finished)} of {len(self.layers)} runs are finished")
        self.layers = {pair: self.layers[pair] for pair in left}
        if not left:
            self._state.remove()

    def _options_of(self, pair: Pair) -> dict[str, Any]:
        return self.options | pair._asdict()

    @cached_property
    def folders(self) -> dict[Pair, RunFolder]:
        """The run folder of each pair; claimed when there is something to write, so that a failure leaves none."""
        claimed, folders = claimed_folders(self._state), {}
        for pair in self.layers:
            options, first = self._options_of(pair), not folders  # it is held: no other process goes on from the state
            if pair in claimed:
                path = self.directory / claimed[pair]
                folders[pair] = RunFolder(path, options, resume=True, exclusive=first)
            else:
                folders[pair] = RunFolder.claim(self.directory, options, exclusive=first)
        return folders

    def claim(self) -> StateFile:
        """Claim the run folders; returns where the training is to keep how far it is."""
        self._state.write(folders=[[*pair, folder.path.name] for pair, folder in self.folders.items()])
        return self._state

    def log(self, history: Sequence[Sequence[EpochLog]]) -> None:
        """Write the logs of all epochs so far, one a pair; report the last, or its mean when there are several."""
        for pair, logs in zip(self.layers, zip(*history, strict=True), strict=True):
            self.folders[pair].write_logs(logs)
        title = self._title(next(iter(self.layers)))
        if title:
            note(title if len(self.layers) == 1 else f"means over {len(self.layers)} pairs:")
        train, val = (Score(*map(fmean, zip(*scores, strict=True))) for scores in zip(*history[-1], strict=True))
        report_epoch(len(history), EpochLog(train, val))

    def finish(
        self, score: GridScore, matched: Mapping[Pair, Matched], *, whole_networks: tuple[Network, Network] | None
    ) -> None:
        """Write the results of every pair and report its accuracy.

        Args:
            matched: the pairs that were matched directly.
            whole_networks: front and end network where they are to be saved as well.
        """
        self.claim()
        for pair, layer in self.layers.items():
            folder, options = self.folders[pair], self._options_of(pair)
            if folder.finished:  # before the run was killed
                continue
            if not options["no_save"]:
                state = layer.state_dict() if whole_networks is None else full_state(*whole_networks, layer, pair)
                save_state(folder.path / "final_model.pt", state)
            if not options["no_predictions"]:
                write_predictions(folder.path / "predictions.npz", score, pair)
            _write_summary(folder.path, options, _metrics(score, pair, matched.get(pair)), layer, matched.get(pair))
            folder.finish()
            if len(self.layers) == 1:
                note(f"wrote {folder.path}")
            result(f"{self._title(pair)}Clean accuracy: {score.pairs[pair].accuracy:.2%}")
        self._state.remove()

    def _title(self, pair: Pair) -> str:
        alone = tuple(pair) == (self.options["front_layer"], self.options["end_layer"])
        return "" if alone else f"{pair.front_layer} -> {pair.end_layer}: "


def _metrics(score: GridScore, pair: Pair, matched: Matched | None) -> Metrics:
    accuracy, difference, predictions = score.pairs[pair]
    return Metrics(
        accuracy,
        score.front_accuracy,
        score.end_accuracy,
        None if matched is None else matched.error,
        difference,
        *agreement(predictions, score.end_predictions),
    )


def _write_summary(
    folder: Path, options: Mapping[str, Any], metrics: Metrics, layer: StitchingLayer, matched: Matched | None
) -> None:
    """Write `summary.txt` (some lines end with a blank, which readers rely on) and `metrics.json`."""
    sparsity = {threshold: layer.sparsity(float(threshold)) for threshold in THRESHOLDS}
    lines = [
        f"Front model: {options['front_model_path']} ",
        f"End model: {options['end_model_path']} ",
        f"Front layer: {options['front_layer']} ",
        f"End layer: {options['end_layer']} ",
        f"Clean accuracy: {metrics.accuracy:.4f} ",
        f"Normalized PINV difference: {metrics.matching_error or 0:.4f}",  # 0 as there: nothing was matched
        f"Normalized representation difference: {metrics.representation_difference:.4f}",
        "",
        f"Command: {' '.join(sys.argv)}",
        "",
        "Sparsity",
        *(_sparsity_lines(sparsity)),
    ]
    write_text(folder / "summary.txt", "\n".join(lines) + "\n")
    values = metrics._asdict()
    for name, value in values.items():
        if value is not None and not math.isfinite(value):  # JSON has no word for it
            warn(f"{options['front_layer']} -> {options['end_layer']}: the {name} is not finite ({value})")
            values[name] = None
    if matched is not None and matched.ridge_penalty is not None:
        values["ridge_penalty"] = matched.ridge_penalty
    write_json(folder / "metrics.json", values | {"sparsity": sparsity})


def _sparsity_lines(sparsity: Mapping[str, float]) -> Iterable[str]:
    for threshold, share in sparsity.items():
        tabs = "\t\t" if threshold == "0" else "\t"
        yield f"{threshold}: {tabs}{share}"


def claimed_folders(state: StateFile) -> dict[Pair, str]:
    """The names of the folders that an interrupted run claimed.

    Raises:
        UserError: the state says something else, or names what is no folder of a run.
    """
    try:
        claimed = {Pair(front, end): Path(name).name for front, end, name in state.content.get("folders", [])}
    except (TypeError, ValueError) as error:
        raise UserError(f"{state.path} does not say where runs stand; remove it and start anew") from error
    if not all(name.isprintable() and name not in ("", "..") for name in claimed.values()):
        raise UserError(f"{state.path} names what is no folder of a run; remove it and start anew")
    return claimed
