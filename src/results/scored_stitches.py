"""Stitches with their scores: the rows and the files of an evaluation."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.choices import Options
from src.choices.datasets import dataset_label
from src.core.console import warn
from src.core.files import write_arrays
from src.ood.evaluation import StitchScores, detection_of, score_grid
from src.ood.reference import Reference
from src.results.evaluation import EvaluationFiles, EvaluationRow, columns_of_skill
from src.results.folders import Stitch
from src.results.public import write_energies
from src.results.reloading import GridOfStitches
from src.results.spec import on_same_images
from src.values import Pair

MOST_CHANGED = 0.02  # difference of accuracies that precision and batches may make


class ScoredStitch(NamedTuple):
    """A stitch with its scores."""

    stitch: Stitch
    scores: StitchScores
    experiment: str  # the title of its experiment


class MeasuredStitches(NamedTuple):
    """The scores of stitches that this process has just made."""

    reference: Reference
    scores: dict[tuple[str, Pair], StitchScores]

    def are_all_of(self, stitches: Iterable[Stitch]) -> bool:
        """Return whether all stitches have scores."""
        return all(stitch.row.place in self.scores for stitch in stitches)

    def scored(self, experiments: Mapping[str, Sequence[Stitch]]) -> list[ScoredStitch]:
        """Return the stitches that have scores, by the depth of their end layers.

        Args:
            experiments: the stitches of each experiment by its title.
        """
        scored = [
            ScoredStitch(stitch, self.scores[stitch.row.place], title)
            for title, stitches in experiments.items()
            for stitch in stitches
            if stitch.row.place in self.scores
        ]
        layers = self.reference.options.layers
        return sorted(
            scored, key=lambda scored_stitch: layers.index(scored_stitch.stitch.row.end_layer)
        )


def score_stitches(grids: Iterable[GridOfStitches], reference: Reference) -> MeasuredStitches:
    """Score all stitches."""
    scores: dict[tuple[str, Pair], StitchScores] = {}
    for grid, stitches in grids:
        scores_of_pair = score_grid(grid, reference)
        scores |= {stitch.row.place: scores_of_pair[pair] for pair, stitch in stitches.items()}
    return MeasuredStitches(reference, scores)


def check_scored(scored: Iterable[ScoredStitch], *, other_data: bool, batch_size: int) -> None:
    """Warn of stitches with activations that are not finite, or with a changed accuracy.

    Args:
        other_data: the test images are other data than the stitches were made on.
        batch_size: of the evaluation.
    """
    for stitch, scores, _ in scored:
        title = f"{stitch.folder}, {stitch.row.pair}"
        if not scores.is_finite:
            warn(
                f"{title}: the activations of this stitch are not finite, so its accuracy "
                "and OOD scores are nan; stitch it again, with a lower -lr if it was trained"
            )
        elif not other_data and abs(scores.accuracy - stitch.row.accuracy) > MOST_CHANGED:
            cause = "images, networks or user code have changed; stitch it again"
            batch_size_before = stitch.options.get("batch_size", batch_size)
            if stitch.row.front_stitch_rank and batch_size != batch_size_before:
                cause = f"--front-stitch-rank cuts each batch by itself; give -b {batch_size_before}, as it was made"
            warn(
                f"{title}: this stitch had an accuracy of {stitch.row.accuracy:.4f} when it was made, and has "
                f"{scores.accuracy:.4f} now: {cause}"
            )


def evaluation_rows(
    scored: Iterable[ScoredStitch],
    reference: Reference,
    record: Options,
    *,
    other_data: bool = False,
) -> list[EvaluationRow]:
    """Return the row of each stitch, in their order.

    Args:
        record: the images of the evaluation, by column.
        other_data: the test images are other data than the stitches were made on.
    """
    options = reference.options
    rows = []
    for stitch, scores, _ in scored:
        # The data: those of the stitch, as its row names them, unless other data were given
        dataset = dataset_label(options.dataset)
        if not other_data and stitch.row.dataset is not None:
            dataset = stitch.row.dataset
        row = EvaluationRow(
            **stitch.row.pair._asdict(),
            **record,
            folder=stitch.folder.name,
            dataset=dataset,
            id_dataset=options.id_dataset or dataset,
            sanity_dataset=options.sanity_dataset or None,
            accuracy=scores.accuracy,
            further=_measured_by_detectors(stitch.row.end_layer, scores, reference),
            **columns_of_skill(scores.skill),
        )
        rows.append(row)
    return rows


def _measured_by_detectors(
    end_layer: str, scores: StitchScores, reference: Reference
) -> dict[str, float]:
    """Return what the detectors of the end layer measured of a stitch, by column."""
    columns: dict[str, float] = {}
    for name, of_stitch in scores.scores.items():
        detection = detection_of(
            of_stitch,
            reference.id_scores[name][end_layer],
            is_paired=not reference.options.id_dataset,  # both are activations of the test images
        )
        measured = {
            **detection.metrics._asdict(),
            "auroc_low": detection.auroc_interval.low,
            "auroc_high": detection.auroc_interval.high,
            "mean_energy": detection.mean_stitched,
            "mean_id_energy": detection.mean_own,
        }
        check = reference.checks.get(name, {}).get(end_layer)
        if check:
            measured["sanity_auroc"] = check.auroc
        columns |= {f"{column}_{name}": value for column, value in measured.items()}
    return columns


def with_earlier_detectors(
    rows: Iterable[EvaluationRow], earlier: Iterable[EvaluationRow]
) -> list[EvaluationRow]:
    """Return rows with what other detectors measured of the same stitches on the same images."""
    before = {row.place: row for row in earlier}
    together = []
    for row in rows:
        of_stitch = before.get(row.place)
        if of_stitch and on_same_images(row, of_stitch):
            others = {
                name: value
                for name, value in of_stitch.further.items()
                if name.rpartition("_")[2] not in row.detectors
            }
            row = replace(row, further=others | row.further)
        together.append(row)
    return together


def describe_detectors(reference: Reference) -> dict[str, dict[str, dict[str, object]]]:
    """Return the data that detectors were made with and their sanity checks, by detector and layer."""
    described: dict[str, dict[str, dict[str, object]]] = {}
    for (score, layer), detector in reference.detectors.items():
        entry: dict[str, object] = {"id_data": detector.id_data, "ood_data": detector.ood_data}
        check = reference.checks.get(score, {}).get(layer)
        if check:
            entry["sanity_check"] = check._asdict()
        described.setdefault(score, {})[layer] = entry
    return described


def save_scores(
    folder: str | None,
    files: EvaluationFiles,
    scored: Sequence[ScoredStitch],
    reference: Reference,
) -> None:
    """Save the scores of all images, by each detector that scored a stitch.

    Args:
        folder: to write an array a file to, in a folder a detector if there are several; None: write a
            file a detector.
    """
    detectors = dict.fromkeys(chain.from_iterable(scores.scores for _, scores, _ in scored))
    has_several = len(reference.options.scores) > 1
    for detector in detectors:
        arrays = _scores_of_images(detector, scored, reference)
        if not folder:
            write_arrays(files.scores(detector), arrays)
        elif has_several:
            write_energies(Path(folder, detector), arrays)
        else:
            write_energies(Path(folder), arrays)


def _scores_of_images(
    score: str, scored: Sequence[ScoredStitch], reference: Reference
) -> dict[str, np.ndarray]:
    """Return the scores of all images as float32 arrays (N,), by END_LAYER/FRONT_LAYER.

    If stitches of several runs have the same two layers, the key is END_LAYER/FRONT_LAYER RUN_FOLDER. The
    scores of the sanity-check data have the key END_LAYER/SANITY_DATASET.
    """
    arrays = {}
    for layer, scores in reference.sanity_scores.get(score, {}).items():
        arrays[f"{layer}/{dataset_label(reference.options.sanity_dataset)}"] = scores

    n_stitches = Counter(scored_stitch.stitch.row.pair for scored_stitch in scored)
    for stitch, scores_of_stitch, _ in scored:
        if score not in scores_of_stitch.scores:
            continue
        pair = stitch.row.pair
        key = f"{pair.end_layer}/{pair.front_layer}"
        if n_stitches[pair] > 1:
            key += f" {stitch.folder.name}"
        arrays[key] = scores_of_stitch.scores[score]
    return {key: scores.astype(np.float32) for key, scores in arrays.items()}
