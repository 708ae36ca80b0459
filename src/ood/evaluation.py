"""Scores of stitched activations: how far out of distribution are they for the end network?"""

import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.choices.datasets import dataset_label
from src.ground.console import warn
from src.ground.files import write_bytes
from src.models.tokens import TokenLayout
from src.ood.cells import cells
from src.ood.detectors import Detector
from src.ood.identifying import Foils, OwnLayer, Shown, share_of
from src.ood.metrics import OODMetrics, auroc_interval, ood_metrics
from src.ood.reference import DetectorKey, Reference
from src.ood.validity import N_IMAGES, features
from src.runs.folders import StitchingRun
from src.stitching.grid import Grid
from src.tables.evaluation_rows import EvaluationRow, WayRow
from src.training import NO_CLASS, predicted_classes
from src.values import Interval, Pair, StitchValidity


class StitchScores(NamedTuple):
    """The accuracy of a stitch on the test images, and the scores of its activations."""

    run: StitchingRun
    accuracy: float  # in [0, 1]; NaN if logits are not finite
    scores: dict[str, np.ndarray]  # (N,): by score, if the end layer has a detector for it
    validity: StitchValidity | None  # None: it was not measured
    # 1, 0, ½ or NaN of each identified image, (n,), by layer of the way; empty: not measured
    identified: dict[str, np.ndarray]

    @property
    def way(self) -> list[WayRow]:
        """The share of identified images at each layer of the way."""
        row = self.run.row
        shares = {layer: share_of(identified) for layer, identified in self.identified.items()}
        return [
            WayRow(
                self.run.folder.name,
                *row.pair,
                layer,
                *share,
                n_images=len(self.identified[layer]),
                test_images=row.test_images,
            )
            for layer, share in shares.items()
        ]


class _Batches(NamedTuple):
    """Scores of a stitch on each batch, kept on the device: a copy to the CPU would wait."""

    is_right: list[Tensor]  # (B,): 1, 0, or NaN where logits are not finite
    scores: dict[str, list[Tensor]]  # (B,), by score
    samples: list[Tensor]  # `features` of the sampled images, (n_in_batch, positions + 1, C)
    shown: dict[str, Shown]  # by layer of the way


def score_stitches(
    grids: Iterable[tuple[Grid, Mapping[Pair, StitchingRun]]], reference: Reference
) -> list[StitchScores]:
    """Measure accuracy, scores and validity of all stitches; return the stitches by end layer.

    Each grid takes one pass over the test images. A stitch whose activations are not finite has
    scores and validity of NaN, with a warning.

    Args:
        grids: each grid with the run of each of its pairs.
    """
    stitches: list[StitchScores] = []
    for grid, runs in grids:
        stitches += _score_grid(grid, runs, reference)
    for stitch in stitches:
        _warn_if_not_finite(stitch)
    layers = reference.options.layers
    return sorted(stitches, key=lambda stitch: layers.index(stitch.run.row.end_layer))


@torch.no_grad()
def _score_grid(
    grid: Grid, runs: Mapping[Pair, StitchingRun], reference: Reference
) -> Iterator[StitchScores]:
    """Yield the scores of each stitch of a grid, after one pass over the test images."""
    grid.train(False)
    detectors = {
        layer: _detectors_of_layer(reference.detectors, layer) for layer in grid.end_layers
    }
    kept = {pair: _Batches([], {}, [], defaultdict(Shown)) for pair in runs}
    ways = reference.ways if reference.foils else None
    for batch in _batches_of(reference):
        activations = grid.front.activations(batch.images, grid.front_layers)
        for pairs, stitched in grid.stitched(activations, batch.images, ways):
            kept_of_pairs = [kept[pair] for pair in pairs]
            layer = pairs[0].end_layer
            at_end = stitched[layer]  # (P, B, …)
            classes = predicted_classes(stitched[grid.end.output_name])  # (P, B)
            is_right = torch.where(classes == NO_CLASS, math.nan, classes == batch.labels)
            for of_pair, right in zip(kept_of_pairs, is_right, strict=True):
                of_pair.is_right.append(right)
            for score, detector in detectors[layer].items():
                scores = detector.score(at_end.flatten(0, 1)).unflatten(0, (len(pairs), -1))
                for of_pair, values in zip(kept_of_pairs, scores, strict=True):
                    of_pair.scores.setdefault(score, []).append(values)
            if layer in reference.validity and len(batch.sampled):
                layout = reference.validity[layer].layout
                samples = _sampled_features(at_end, batch.sampled, layout)
                for of_pair, sample in zip(kept_of_pairs, samples, strict=True):
                    of_pair.samples.append(sample)
            if ways and len(batch.identified):
                _add_shown(kept_of_pairs, stitched, ways[layer], batch, reference.own_layers)
    for pair, run in runs.items():
        yield _stitch_scores(run, kept.pop(pair), reference)


class _Batch(NamedTuple):
    """A batch of test images."""

    images: Tensor  # (B, C, H, W)
    labels: Tensor  # (B,)
    sampled: Tensor  # the positions of the images that validity is measured on
    identified: Tensor  # the positions of the images that are identified
    places: slice  # of the latter, among all identified images


def _batches_of(reference: Reference) -> Iterator[_Batch]:
    """Yield the test images, with a progress bar."""
    options = reference.options
    images_of_foils = torch.empty(0, dtype=torch.long)
    if reference.foils:
        images_of_foils = reference.foils.images
    batches = options.batches(options.test, "stitched activations")
    sampled = options.by_batch(options.sample(N_IMAGES))
    identified = options.by_batch(images_of_foils)
    first = 0
    for (images, labels), samples, positions in zip(batches, sampled, identified, strict=True):
        places = slice(first, first + len(positions))
        yield _Batch(images, labels, samples, positions, places)
        first += len(positions)


def _add_shown(
    kept: Sequence[_Batches],
    stitched: Mapping[str, Tensor],
    way: Sequence[str],
    batch: _Batch,
    own_layers: Mapping[str, OwnLayer],
) -> None:
    """Add what P stitches show of the identified images of a batch, at each layer of the way.

    Args:
        stitched: activations (P, B, …) of the stitched networks, by layer.
    """
    for layer in way:
        own_layer = own_layers[layer]
        identified = stitched[layer].index_select(1, batch.identified)
        in_cells = cells(identified.flatten(0, 1), own_layer.layout).flatten(1)
        in_cells = in_cells.unflatten(0, (len(kept), -1))  # (P, n_in_batch, D)
        sums = own_layer.compare(in_cells, batch.places)
        for i, of_pair in enumerate(kept):
            of_pair.shown[layer].add(*sums, i)


def _detectors_of_layer(
    detectors: Mapping[DetectorKey, Detector], layer: str
) -> dict[str, Detector]:
    """Return the detectors of a layer by score."""
    return {key.score: detector for key, detector in detectors.items() if key.layer == layer}


def _sampled_features(stitched: Tensor, positions: Tensor, layout: TokenLayout | None) -> Tensor:
    """Return the `features` of sampled images, (P, n_in_batch, positions + 1, C).

    Args:
        stitched: activations of P stitches for a batch, (P, B, …).
        positions: of the sampled images in the batch, (n_in_batch,).
        layout: of tokens (see `cells`).
    """
    sampled = stitched.index_select(1, positions).flatten(0, 1)
    return features(sampled, layout).unflatten(0, (len(stitched), -1))


def _stitch_scores(run: StitchingRun, kept: _Batches, reference: Reference) -> StitchScores:
    """Return the scores of a stitch from the scores of its batches."""
    accuracy = torch.cat(kept.is_right).sum().item() / len(reference.options.test)
    scores = {score: torch.cat(parts).cpu().numpy() for score, parts in kept.scores.items()}
    validity = None
    if kept.samples:
        validity = reference.validity[run.row.end_layer].of_stitch(torch.cat(kept.samples))
    identified = {}
    for layer, shown in kept.shown.items():
        identified[layer] = reference.own_layers[layer].identified(shown).cpu().numpy()
    return StitchScores(run, accuracy, scores, validity, identified)


def _warn_if_not_finite(stitch: StitchScores) -> None:
    """Warn if the activations of a stitch are not finite, as after a training that diverged."""
    is_finite = not math.isnan(stitch.accuracy)
    is_finite &= all(np.isfinite(scores).all() for scores in stitch.scores.values())
    if stitch.validity is not None and math.isnan(stitch.validity.density):
        is_finite = False
    if not is_finite:
        warn(
            f"{stitch.run.folder}: the activations of this stitch are not finite, so its accuracy "
            "and OOD scores are nan; stitch it again, with a lower -lr if it was trained"
        )


def evaluate_stitches(
    score: str, stitches: Iterable[StitchScores], reference: Reference, *, other_data: bool = False
) -> list[EvaluationRow]:
    """Measure how well the detectors of a score tell stitched from the end network's activations.

    Stitched activations count as OOD, the end network's own activations as ID.

    Args:
        score: the name of the score. Stitches without a detector for it are skipped.
        other_data: the test images are other data than the runs were made on.
    Returns:
        One row a stitch, in the order of the stitches.
    """
    return [
        _evaluate_stitch(score, stitch, reference, other_data=other_data)
        for stitch in stitches
        if score in stitch.scores
    ]


def _evaluate_stitch(
    score: str, stitch: StitchScores, reference: Reference, *, other_data: bool
) -> EvaluationRow:
    """Return the row of one stitch and one detector."""
    options = reference.options
    row = stitch.run.row
    key = DetectorKey(score, row.end_layer)
    detector = reference.detectors[key]
    id_scores = reference.id_scores[key]
    stitch_scores = stitch.scores[score]

    # How well the detector tells stitched from own activations
    is_paired = not options.id_dataset  # both are activations of the test images
    if np.isfinite(stitch_scores).all():
        metrics = ood_metrics(id_scores, stitch_scores)
        interval = auroc_interval(id_scores, stitch_scores, paired=is_paired)
        mean_score = float(stitch_scores.mean())
    else:
        metrics = OODMetrics(math.nan, math.nan, math.nan)
        interval = Interval(math.nan, math.nan)
        mean_score = math.nan

    # The data: those of the run, as its row names them, unless other data were given
    dataset = options.dataset
    if not other_data and row.dataset is not None:
        dataset = row.dataset
    of_run: dict[str, Any] = row.settings | {"dataset": dataset, "folder": stitch.run.folder.name}
    sanity_auroc = None
    if key in reference.checks:
        sanity_auroc = reference.checks[key].auroc

    return EvaluationRow(
        **of_run,
        **row.pair._asdict(),
        front_depth=row.front_depth,
        end_depth=row.end_depth,
        **metrics._asdict(),
        auroc_low=interval.low,
        auroc_high=interval.high,
        **_validity_columns(stitch),
        accuracy=stitch.accuracy,
        mean_energy=mean_score,
        mean_id_energy=float(id_scores.mean()),
        detector=score,
        detector_id_data=detector.id_data,
        detector_ood_data=detector.ood_data or None,
        id_dataset=options.id_dataset or dataset,
        sanity_dataset=options.sanity_dataset or None,
        sanity_auroc=sanity_auroc,
    )


def _validity_columns(stitch: StitchScores) -> dict[str, Any]:
    """Return the columns of validity and identification; empty if they were not measured."""
    columns: dict[str, Any] = {}
    if stitch.validity is not None:
        columns |= stitch.validity._asdict()
    if stitch.identified:
        # The layer that identifies fewest images; where activations are not finite, the first one
        weakest = min(stitch.way, key=lambda row: -1 if math.isnan(row.share) else row.share)
        columns["identification"] = weakest.share
        columns["identification_low"] = weakest.share_low
        columns["identification_high"] = weakest.share_high
        columns["lost_at"] = weakest.layer
    return columns


def scores_of_images(
    score: str, stitches: Sequence[StitchScores], reference: Reference
) -> dict[str, np.ndarray]:
    """Return the scores of all images as float32 arrays (N,), by END_LAYER/FRONT_LAYER.

    If several runs stitch the same two layers, the key is END_LAYER/FRONT_LAYER RUN_FOLDER. The
    scores of the sanity-check data have the key END_LAYER/SANITY_DATASET.
    """
    arrays = {}
    sanity_name = dataset_label(reference.options.sanity_dataset)
    for layer, scores in reference.of_score(score, reference.sanity_scores).items():
        arrays[f"{layer}/{sanity_name}"] = scores

    n_runs = Counter(stitch.run.row.pair for stitch in stitches)
    for stitch in stitches:
        if score not in stitch.scores:
            continue
        pair = stitch.run.row.pair
        key = f"{pair.end_layer}/{pair.front_layer}"
        if n_runs[pair] > 1:
            key += f" {stitch.run.folder.name}"
        arrays[key] = stitch.scores[score]
    return {key: scores.astype(np.float32) for key, scores in arrays.items()}


def identified_images(stitches: Iterable[StitchScores], foils: Foils) -> dict[str, np.ndarray]:
    """Return which images each stitch identifies: float16 (layers, n), by folder of the run.

    The layers are those of the way, in order. A value is 1, 0, or ½ for a tie. `images` and `foils`
    have the indices of the n images and of their foils among the test images.
    """
    arrays = {"images": foils.images.numpy(), "foils": foils.foils.numpy()}
    for stitch in stitches:
        identified = np.stack(list(stitch.identified.values()))
        arrays[stitch.run.folder.name] = identified.astype(np.float16)
    return arrays


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save each array as `FOLDER/KEY.npy`, as the public code does."""
    for key, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_bytes(folder / f"{key}.npy", buffer.getvalue())


def save_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save arrays in one `.npz` file.

    A folder of `.npy` files beside the runs would not do: the public code takes every folder there
    for a run.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]  # numpy's stubs know no names
    write_bytes(path, buffer.getvalue())
