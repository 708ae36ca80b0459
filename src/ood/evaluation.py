"""How far the activations that stitches make are out of distribution for the network they are made
for."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.choices.datasets import dataset_label
from src.files import write_bytes
from src.ood.evaluation_rows import EvaluationRow, StitchValidity
from src.ood.metrics import auroc_interval, ood_metrics
from src.ood.reference import Reference
from src.ood.validity import features
from src.results.tables import IntervalEstimate
from src.stitching.experiments import Pair
from src.stitching.folders import StitchingRun
from src.stitching.grid import Grid


class StitchScores(NamedTuple):
    """The accuracy of a stitch over the test images, and the scores of its activations."""

    run: StitchingRun
    accuracy: float  # in [0, 1]
    scores: dict[str, np.ndarray]  # (N,), by each score that has a detector for the end layer
    validity: StitchValidity | None  # None where it is not measured
    identified: IntervalEstimate | None  # share of the test images; measured where validity is


def score_stitches(
    grids: Iterable[tuple[Grid, Mapping[Pair, StitchingRun]]], reference: Reference
) -> list[StitchScores]:
    """Measure accuracies, scores and validity of all stitches in one pass over the test images for
    each grid.

    Args:
        grids: with the run of each pair.
    Returns:
        The stitches, one end layer after the other.
    """
    stitches = [stitch for grid, runs in grids for stitch in _score_grid(grid, runs, reference)]
    return sorted(
        stitches, key=lambda stitch: reference.options.layers.index(stitch.run.row.end_layer)
    )


@torch.no_grad()
def _score_grid(
    grid: Grid, runs: Mapping[Pair, StitchingRun], reference: Reference
) -> Iterator[StitchScores]:
    """Score the stitches of a grid. Until the pass has ended, all stays on the device: a copy waits
    for it."""
    grid.train(False)
    kept: dict[Pair, dict[str, list[Tensor]]] = {pair: defaultdict(list) for pair in runs}
    options = reference.options
    batches = options.batches(options.test, "stitched activations")
    for (images, labels), chosen in zip(batches, options.sampled_in_batches(), strict=True):
        acts = grid.front.activations(images, grid.front_layers)
        for pairs, stitched, logits in grid.stitched(acts, images):
            layer, found = pairs[0].end_layer, {"hits": logits.argmax(-1) == labels}
            for (score, of_layer), detector in reference.detectors.items():
                if of_layer == layer:
                    found[score] = detector.score(stitched.flatten(0, 1)).unflatten(
                        0, (len(pairs), -1)
                    )
            if layer in reference.validity and len(chosen):
                sampled = stitched.index_select(1, chosen).flatten(0, 1)
                sampled = features(sampled, is_sequence=grid.end.is_sequence(layer))
                found["sampled"] = sampled.unflatten(0, (len(pairs), -1))
            for name, values in found.items():
                for pair, part in zip(pairs, values, strict=True):
                    kept[pair][name].append(part)
    for pair, run in runs.items():
        arrays = {name: torch.cat(parts) for name, parts in kept.pop(pair).items()}
        accuracy, sampled = (
            arrays.pop("hits").sum().item() / len(options.test),
            arrays.pop("sampled", None),
        )
        scores = {score: of_images.cpu().numpy() for score, of_images in arrays.items()}
        validity, identified = None, None
        if sampled is not None:
            of_layer = reference.validity[pair.end_layer]
            validity, identified = of_layer.of_stitch(sampled), of_layer.identification_of(sampled)
        yield StitchScores(run, accuracy, scores, validity, identified)


def evaluate_stitches(
    score: str, stitches: Iterable[StitchScores], reference: Reference, *, other_data: bool = False
) -> list[EvaluationRow]:
    """Measure how well the detectors of a score tell stitched activations, as OOD, from the end
    network's own.

    Args:
        other_data: the images are others than those of the runs.
    """
    options, rows = reference.options, []
    for run, accuracy, scores, validity, identified in (
        stitch for stitch in stitches if score in stitch.scores
    ):
        key, dataset = (
            (score, run.row.end_layer),
            options.dataset if other_data else run.row.dataset or options.dataset,
        )
        own, stitched, detector = reference.own[key], scores[score], reference.detectors[key]
        low, high = auroc_interval(own, stitched, paired=not options.id_dataset)
        of_run = run.row.settings | {"dataset": dataset, "folder": run.folder.name}
        rows.append(EvaluationRow(
            **of_run,
            **run.row.pair._asdict(),
            front_depth=run.row.front_depth,
            end_depth=run.row.end_depth,
            **ood_metrics(own, stitched)._asdict(),
            **(validity._asdict() if validity else {}),
            **_columns_of(identified),
            noise_cost=reference.noise_costs.get(run.row.end_layer),
            accuracy=accuracy,
            mean_energy=float(stitched.mean()),
            mean_id_energy=float(own.mean()),
            detector=score,
            detector_id_data=detector.id_data,
            detector_ood_data=detector.ood_data or None,
            id_dataset=options.id_dataset or dataset,
            sanity_dataset=options.sanity_dataset or None,
            sanity_auroc=reference.checks[key].auroc if key in reference.checks else None,
            auroc_low=low,
            auroc_high=high,
        ))  # fmt: skip
    return rows


def _columns_of(identified: IntervalEstimate | None) -> dict[str, float]:
    """Return the columns of an identification; none where it was not measured."""
    if identified is None:
        return {}
    return {
        "identification": identified.value,
        "identification_low": identified.low,
        "identification_high": identified.high,
    }


def scores_of_images(
    score: str, stitches: Sequence[StitchScores], reference: Reference
) -> dict[str, np.ndarray]:
    """Return a score of all images as float32 arrays (N,) by END_LAYER/FRONT_LAYER.

    Where a pair has several runs, the name of the run's folder stands behind that of the front
    layer. The scores of the sanity-check data are END_LAYER/SANITY_NAME."""
    n_runs, name = (
        Counter(stitch.run.row.pair for stitch in stitches),
        dataset_label(reference.options.sanity_dataset),
    )
    arrays = {
        f"{layer}/{name}": scores
        for layer, scores in reference.of_score(score, reference.sanity).items()
    }
    for run, _, scores, *_ in (stitch for stitch in stitches if score in stitch.scores):
        front, end = run.row.pair
        arrays[f"{end}/{front if n_runs[run.row.pair] == 1 else f'{front} {run.folder.name}'}"] = (
            scores[score]
        )
    return {key: array.astype(np.float32) for key, array in arrays.items()}


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save each array as `.npy` below a folder, as the public code does."""
    for key, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_bytes(folder / f"{key}.npy", buffer.getvalue())


def save_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save arrays in one `.npz` file. The public code takes each folder beside the runs for one of
    them."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
