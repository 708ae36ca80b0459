"""Stitches with their scores: the rows and the files of an evaluation."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.choices import Options
from src.choices.datasets import dataset_label
from src.core.console import warn
from src.core.files import write_arrays
from src.ood.evaluation import StitchScores, score_grid, separation_of
from src.ood.reference import Reference
from src.results.evaluation_rows import EvaluationFiles, EvaluationRow, SkillRow
from src.results.experiments import Place
from src.results.folders import Stitch
from src.results.public import write_energies
from src.results.reloading import GridOfStitches

MOST_CHANGED = 0.02  # difference of accuracies that precision and batches may make


class ScoredStitch(NamedTuple):
    """A stitch with its scores."""

    stitch: Stitch
    scores: StitchScores
    experiment: str  # the title of its experiment


class MeasuredStitches(NamedTuple):
    """The scores of stitches that this process has just made."""

    reference: Reference
    scores: dict[Place, StitchScores]

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
    scores: dict[Place, StitchScores] = {}
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
    score: str,
    scored: Iterable[ScoredStitch],
    reference: Reference,
    record: Options,
    *,
    other_data: bool = False,
) -> list[EvaluationRow]:
    """Return the row of each stitch, in their order.

    Args:
        score: the name of the score. Stitches without a detector for it are skipped.
        record: the weights and the images of the evaluation, by column.
        other_data: the test images are other data than the stitches were made on.
    """
    return [
        _evaluation_row(score, item, reference, record, other_data=other_data)
        for item in scored
        if score in item.scores.scores
    ]


def _evaluation_row(
    score: str, scored: ScoredStitch, reference: Reference, record: Options, *, other_data: bool
) -> EvaluationRow:
    """Return the row of one stitch and one detector."""
    options = reference.options
    row = scored.stitch.row
    detector = reference.detectors[score][row.end_layer]
    separation = separation_of(
        scored.scores.scores[score],
        reference.id_scores[score][row.end_layer],
        is_paired=not options.id_dataset,  # both are activations of the test images
    )

    # The data: those of the stitch, as its row names them, unless other data were given
    dataset = dataset_label(options.dataset)
    if not other_data and row.dataset is not None:
        dataset = row.dataset
    settings = {**row.settings, **record, "dataset": dataset, "folder": scored.stitch.folder.name}
    sanity_auroc = None
    checks = reference.checks.get(score, {})
    if row.end_layer in checks:
        sanity_auroc = checks[row.end_layer].auroc

    return EvaluationRow(
        **settings,
        options=row.options,
        **row.pair._asdict(),
        front_depth=row.front_depth,
        end_depth=row.end_depth,
        **separation._asdict(),
        accuracy=scored.scores.accuracy,
        detector=score,
        detector_id_data=detector.id_data,
        detector_ood_data=detector.ood_data or None,
        id_dataset=options.id_dataset or dataset,
        sanity_dataset=options.sanity_dataset or None,
        sanity_auroc=sanity_auroc,
        experiment=scored.experiment,
    )


def save_scores(
    folder: str | None,
    files: EvaluationFiles,
    detectors: Iterable[str],
    scored: Sequence[ScoredStitch],
    reference: Reference,
) -> None:
    """Save the scores of all images, by each detector with an evaluation.

    Args:
        folder: to write an array a file to, in a folder a detector if there are several; None: write a
            file a detector.
        detectors: that have evaluations.
    """
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


def skill_rows(scored: Iterable[ScoredStitch], test_images: str | None) -> list[SkillRow]:
    """Return the skill of each stitch, in their order.

    Args:
        test_images: the first digits of their fingerprint.
    """
    return [
        SkillRow.of(stitch.folder.name, stitch.row.pair, scores.skill, test_images)
        for stitch, scores, _ in scored
    ]
