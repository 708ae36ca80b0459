"""Writes the run folders of a grid, one for each pair, as if each pair had run alone; `folders` reads them."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from src.checkpoints import load_tensors, save_state
from src.console import listed, note, result, warn
from src.errors import UserError
from src.models import Network
from src.results.experiments import ControlPair, Experiment, Pair, grouped, pair_of
from src.results.options import as_written, differences, read_options, refuse_other_options
from src.results.run import Run, new_folder
from src.stitching.closed_forms import Matching
from src.stitching.folders import write_metrics, write_predictions
from src.stitching.grid import GridScore
from src.stitching.layers import StitchingLayer
from src.stitching.rows import StitchRow
from src.stitching.stitched_model import StitchedModel
from src.training import EpochLog, Score, State
from src.training.recorded import report_epoch, write_logs

Stitch = Pair | ControlPair
BegunRun = tuple[Path, Mapping[str, Any]]  # a file of it, and its options
THRESHOLDS = ("0", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1")


class GridRuns:
    """Keeps a run folder for every pair of a grid: logs, results, and the state to go on from.

    The state of all pairs that train together lies in the folder of the last one, which is finished last.

    Args:
        directory: the folder that holds the run folders.
        layers: the stitching layer of each pair.
        experiment: of the script's options.
        resume: go on with runs of the same options in `directory`; `layers` are then those of unfinished pairs.
    """

    def __init__(
        self, directory: Path, layers: Mapping[Stitch, StitchingLayer], experiment: Experiment, *, resume: bool = False
    ):
        self.directory, self.layers, self.experiment = Path(directory), dict(layers), experiment
        self.folders: dict[Stitch, Path] = {}  # created when there is something to write, so that a failure leaves none
        self._whole = {**experiment.options, "controls": sorted({pair.control for pair in layers})}
        if len(layers) == 1:
            self._whole = experiment.config(*layers)
        self._run: Run | None = None  # keeps the state of all pairs
        if resume:
            self._take_up()

    @property
    def state(self) -> State | None:
        """The state of the training to go on from, if there is one."""
        return self._run.state.get("loop") if self._run else None

    def _take_up(self) -> None:
        """Take over an interrupted run, or else drop finished pairs.

        Pairs that were begun together train and are evaluated together again: other batches could round otherwise.
        """
        finished, self._run = self._finished_pairs(), self._interrupted()
        if finished:
            note(f"{self.directory}: {len(finished)} of {len(self.layers)} runs are finished")
        if self._run:
            self._run.claim(resume=True)
            self.folders = {tuple(pair): self.directory / name for *pair, name in self._run.state["folders"]}
            if self.folders.keys() <= finished:  # killed before it removed its state
                self._run.discard()
                self._run, self.folders = None, {}
        left = self.folders or self.layers.keys() - finished
        self.layers = {pair: layer for pair, layer in self.layers.items() if pair in left}

    def _finished_pairs(self) -> set[Stitch]:
        configs = [(config, read_options(config)) for config in sorted(self.directory.glob("*/config.txt"))]
        by_pair, finished = grouped(configs, lambda each: pair_of(each[1])), set()
        for pair in self.layers:
            given = as_written(self.experiment.config(pair))
            if chosen := _begun(by_pair.get(pair, []), given):
                config, options = chosen
                refuse_other_options(options, given, where=config.parent)
                finished.add(pair)
        return finished

    def _interrupted(self) -> Run | None:
        states = []
        for path in sorted(self.directory.glob("*/resume.pt")):
            with contextlib.suppress(UserError):  # its process has just finished it
                states.append((path, load_tensors(path)["options"]))
        chosen = _begun(states, as_written(self._whole))
        return Run.in_folder(chosen[0].parent, self._whole) if chosen else None

    def _claim(self) -> None:
        """Create the run folders, and lock that of the state, unless that has been done."""
        if self.folders:
            return
        self.folders = {pair: new_folder(self.directory) for pair in self.layers}
        self._run = Run.in_folder(list(self.folders.values())[-1], self._whole)
        self._run.claim(resume=False)
        self._run.save(folders=[[*pair, folder.name] for pair, folder in self.folders.items()])

    def log(self, logs: Mapping[Stitch, Sequence[EpochLog]], state: State) -> None:
        """Write the logs of all epochs so far, one a pair; report the last, or its mean when there are several."""
        self._claim()
        for pair, of_pair in logs.items():
            write_logs(self.folders[pair], of_pair)
        self._run.save(loop=state)
        title = self._title(next(iter(self.layers)))
        if title:
            note(title if len(self.layers) == 1 else f"means over {len(self.layers)} pairs:")
        last = [of_pair[-1] for of_pair in logs.values()]
        train, val = (Score(*map(fmean, zip(*scores, strict=True))) for scores in zip(*last, strict=True))
        report_epoch(len(of_pair), EpochLog(train, val))

    def finish(
        self,
        score: GridScore,
        matched: Mapping[Stitch, Matching],
        *,
        whole_networks: tuple[Network, Network] | None,
    ) -> None:
        """Write the results of every pair and report its accuracy.

        Args:
            matched: the pairs that were matched directly.
            whole_networks: front and end network where they are to be saved as well.
        """
        self._claim()
        rows: dict[Stitch, StitchRow] = {}
        for pair, layer in self.layers.items():
            folder, options = self.folders[pair], self.experiment.options
            if (folder / "config.txt").exists():  # finished before the run was killed
                continue
            if not options["no_save"]:
                saved = layer if whole_networks is None else StitchedModel(*whole_networks, layer, pair)
                save_state(folder / "final_model.pt", saved.state_dict())
            if not options["no_predictions"]:
                write_predictions(folder / "predictions.npz", score.predictions_of(pair))
            settings = self.experiment.settings | pair._asdict()
            rows[pair] = StitchRow(**settings, **_metrics(score, pair, matched.get(pair)), folder=folder.name)
            sparsity = dict(zip(THRESHOLDS, layer.sparsity([float(each) for each in THRESHOLDS]), strict=True))
            penalty = {"ridge_penalty": matched[pair].ridge_penalty} if options["init"] == "ridge" else {}
            write_metrics(folder, rows[pair], sparsity=sparsity, **penalty)
            self.experiment.write(folder, pair)
            if len(self.layers) == 1:
                note(f"wrote {folder}")
            result(f"{self._title(pair)}Clean accuracy: {rows[pair].accuracy:.2%}")
        self._run.discard()
        _warn_of_matching(rows, matched, is_auto=self.experiment.n_pinv_init_samples == "auto")

    def _title(self, pair: Stitch) -> str:
        alone = (pair.front_layer, pair.end_layer) == tuple(pair_of(self.experiment.options))[:2]
        return "" if alone else f"{pair}: "


def _metrics(score: GridScore, pair: Stitch, matched: Matching | None) -> dict[str, Any]:
    """Return the fields of `Metrics`."""
    of_pair = score.pairs[pair]
    agreement, kappa = agreement_of(of_pair.predictions, score.end_predictions)
    of_match = {"matching_error": "error", "n_matched": "n_samples", "matching_rank": "rank", "r2_matched": "r2"}
    return {name: getattr(matched, field) for name, field in of_match.items() if matched} | {
        "accuracy": of_pair.accuracy,
        "front_accuracy": score.front_accuracy,
        "end_accuracy": score.end_accuracy,
        "representation_difference": of_pair.representation_difference,
        "agreement": agreement,
        "kappa": kappa,
        "n_images": len(score.labels),
        "r2_test": of_pair.r2,
        "front_depth": of_pair.depths[0],
        "end_depth": of_pair.depths[1],
    }


def agreement_of(predictions: Tensor, others: Tensor) -> tuple[float, float]:
    """Compare two predictions (N,) of the same images.

    Returns:
        The share of equal ones, and Cohen's kappa (1960): 1 for equal ones, 0 for no more than chance, NaN where both
        give one and the same class.
    """
    n_classes = 1 + int(torch.maximum(predictions, others).max())
    shares = [torch.bincount(classes, minlength=n_classes).double() / len(classes) for classes in (predictions, others)]
    observed, by_chance = (predictions == others).double().mean().item(), (shares[0] @ shares[1]).item()
    return observed, math.nan if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def _warn_of_matching(rows: Mapping[Stitch, StitchRow], matched: Mapping[Stitch, Matching], *, is_auto: bool) -> None:
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


def _begun(files: Iterable[BegunRun], given: Mapping[str, Any]) -> BegunRun | None:
    """Return one with these very options, or else one of the same experiment, if there is any."""
    same = [(bool(differences(begun, given)), file, begun) for file, begun in files if _same_experiment(begun, given)]
    return min(same)[1:] if same else None


def _same_experiment(begun: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Return whether runs have the same layers, networks, method and seed; epochs and other options may differ."""
    try:
        experiments = [Experiment.of(options) for options in (begun, given)]
    except ValueError:  # of another script
        return False
    one, other = (dataclasses.replace(each, n_epochs=each.n_epochs != 0).key for each in experiments)
    return pair_of(begun) == pair_of(given) and one == other
