"""How far the activations that stitches make are out of distribution for the network they are made for."""

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.files import write_bytes
from src.ood.metrics import OODMetrics, auroc_interval, ood_metrics
from src.ood.reference import Batches, Reference
from src.ood.rows import EvaluationRow, StitchValidity
from src.ood.validity import features
from src.results.experiments import Pair
from src.stitching.folders import StitchingRun
from src.stitching.grid import Grid
from src.stitching.stitched_model import activations_of_both


class StitchScores(NamedTuple):
    """The accuracy of a stitch over a data set, and the scores of its activations."""

    run: StitchingRun
    accuracy: float  # in [0, 1]
    scores: np.ndarray  # (N,), by the detector of the end layer
    validity: StitchValidity | None  # None where it is not measured


class DataNames(NamedTuple):
    """The names of the data that stitches are evaluated on."""

    dataset: str  # the images that are stitched; those of the runs, under whatever path
    is_other: bool = False  # they are others than those of the runs
    id_dataset: str = ""  # of the end network's own activations; "": the same images
    sanity_dataset: str = ""  # that detectors should find OOD; "": none


class Evaluation(NamedTuple):
    """The evaluation of stitches by one kind of detector."""

    stitches: list[StitchScores]
    own: dict[str, np.ndarray]  # (N,) by layer: scores of the end network's own activations
    other: dict[str, np.ndarray]  # (M,) by layer: scores of those of the sanity-check data, if there are any
    sanity: dict[str, OODMetrics]  # by layer: how well the detector tells these two apart
    rows: list[EvaluationRow]


@torch.no_grad()
def score_stitches(
    grids: Iterable[tuple[Grid, Mapping[Pair, StitchingRun]]], reference: Reference, batches: Callable[[], Batches]
) -> dict[str, list[StitchScores]]:
    """Measure accuracies, scores and validity of all stitches in one pass over labelled images for each grid.

    Args:
        grids: with the run of each pair.
        batches: gives the test images of the reference, once for each grid.
    Returns:
        By score, the stitches into layers that have a detector of it; one end layer after the other.
    """
    stitches: dict[str, list[StitchScores]] = {name: [] for name in reference.detectors}
    for grid, runs in grids:
        accuracies, scores, validity = _score_grid(grid, reference, batches())
        for (name, pair), of_pair in scores.items():
            stitches[name].append(StitchScores(runs[pair], accuracies[pair], of_pair, validity.get(pair)))
    for name, of_score in stitches.items():
        layers = list(reference.detectors[name])
        of_score.sort(key=lambda stitch, layers=layers: layers.index(stitch.run.row.end_layer))
    return stitches


def _score_grid(
    grid: Grid, reference: Reference, batches: Batches
) -> tuple[dict[Pair, float], dict[tuple[str, Pair], np.ndarray], dict[Pair, StitchValidity]]:
    """Return accuracies by pair, scores by score and pair, and validity by pair.

    Until the pass has ended, all stays on the device: a copy waits for it.
    """
    grid.train(False)
    hits: dict[Pair, list[Tensor]] = defaultdict(list)
    pooled: dict[Pair, list[Tensor]] = defaultdict(list)
    scores: dict[tuple[str, Pair], list[Tensor]] = defaultdict(list)
    n_seen = 0
    for images, labels in batches:
        acts, _, recorded = activations_of_both(
            grid.front, grid.front_layers, grid.end, [], images, after=grid.end_layers
        )
        sources = grid.truncated(acts[""])
        chosen = reference.sample.in_batch(n_seen, len(labels))
        n_seen += len(labels)
        for pairs, stitched, logits in grid.stitched(recorded, sources):
            layer = pairs[0].end_layer
            for pair, hit in zip(pairs, logits.argmax(-1) == labels, strict=True):
                hits[pair].append(hit.sum())
            for name, by_layer in reference.detectors.items():
                if layer in by_layer:
                    scored = by_layer[layer].score(stitched.flatten(0, 1)).unflatten(0, (len(pairs), -1))
                    for pair, part in zip(pairs, scored, strict=True):
                        scores[name, pair].append(part)
            if layer in reference.validity and len(chosen):
                is_sequence = grid.end.is_sequence(layer)
                sampled = features(stitched.index_select(1, chosen).flatten(0, 1), is_sequence=is_sequence)
                for pair, part in zip(pairs, sampled.unflatten(0, (len(pairs), -1)), strict=True):
                    pooled[pair].append(part)
    accuracies = torch.stack([torch.stack(parts).sum() for parts in hits.values()]).double() / n_seen
    validity = {}
    for pair in list(pooled):
        validity[pair] = reference.validity[pair.end_layer].measure(torch.cat(pooled.pop(pair)))
    return dict(zip(hits, accuracies.tolist(), strict=True)), _copied(scores), validity


def _copied(scores: Mapping[tuple[str, Pair], Sequence[Tensor]]) -> dict[tuple[str, Pair], np.ndarray]:
    """Return the scores (N,) of all pairs as arrays, in one copy for each score and end layer."""
    by_layer: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for name, pair in scores:
        by_layer[name, pair.end_layer].append(pair)
    arrays = {}
    for (name, _), pairs in by_layer.items():
        together = torch.stack([torch.cat(scores[name, pair]) for pair in pairs]).cpu().numpy()  # (P, N)
        arrays |= {(name, pair): of_pair for pair, of_pair in zip(pairs, together, strict=True)}
    return arrays


def evaluate(name: str, stitches: Sequence[StitchScores], reference: Reference, data: DataNames) -> Evaluation:
    """Measure how well the detectors of one score tell stitched activations, as OOD, from the end network's own."""
    own, other, detectors = reference.own[name], reference.sanity.get(name, {}), reference.detectors[name]
    sanity = {layer: ood_metrics(own[layer], scores) for layer, scores in other.items()}
    rows = []
    for run, accuracy, scores, validity in stitches:
        layer, dataset = run.row.end_layer, data.dataset if data.is_other else run.row.dataset or data.dataset
        of_run = run.row.settings | {"dataset": dataset, "folder": run.folder.name}
        low, high = auroc_interval(own[layer], scores, paired=not data.id_dataset)
        rows.append(EvaluationRow(
            **of_run,
            **run.row.pair._asdict(),
            front_depth=run.row.front_depth,
            end_depth=run.row.end_depth,
            **ood_metrics(own[layer], scores)._asdict(),
            **(validity._asdict() if validity else {}),
            accuracy=accuracy,
            mean_energy=float(scores.mean()),
            mean_id_energy=float(own[layer].mean()),
            detector=name,
            detector_id_data=detectors[layer].id_data,
            detector_ood_data=detectors[layer].ood_data or None,
            id_dataset=data.id_dataset or dataset,
            sanity_dataset=data.sanity_dataset or None,
            sanity_auroc=sanity[layer].auroc if layer in sanity else None,
            auroc_low=low,
            auroc_high=high,
        ))  # fmt: skip
    return Evaluation(list(stitches), own, other, sanity, rows)


def save_scores(folder: Path, evaluation: Evaluation, *, sanity_name: str) -> None:
    """Save the scores of all images as float32 arrays: END_LAYER/FRONT_LAYER.npy.

    Where a pair has several runs, the name of the run's folder stands behind that of the front layer. The scores of
    the sanity-check data are END_LAYER/SANITY_NAME.npy.
    """
    n_runs = Counter(stitch.run.row.pair for stitch in evaluation.stitches)
    arrays = {Path(layer, sanity_name): scores for layer, scores in evaluation.other.items()}
    for run, _, scores, _ in evaluation.stitches:
        front, end = run.row.pair
        arrays[Path(end, front if n_runs[run.row.pair] == 1 else f"{front} {run.folder.name}")] = scores
    for path, scores in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, scores.astype(np.float32), allow_pickle=False)
        write_bytes(folder / f"{path}.npy", buffer.getvalue())
