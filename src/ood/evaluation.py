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
from src.models import Network
from src.ood.corruptions import CORRUPTIONS
from src.ood.detectors import Detector
from src.ood.fitting import Batches, Detectors, Reference
from src.ood.metrics import OODMetrics, auroc_interval, ood_metrics
from src.ood.rows import EvaluationRow, Sight, StitchValidity
from src.ood.validity import ValidityScores, features
from src.results.experiments import Pair
from src.results.tables import to_record
from src.stitching.folders import StitchingRun
from src.stitching.grid import Grid


class StitchScores(NamedTuple):
    """The accuracy of a stitch over a data set, and the scores of its activations."""

    run: StitchingRun
    accuracy: float  # in [0, 1]
    scores: np.ndarray  # (N,), by the detector of the end layer
    validity: StitchValidity | None  # None without a reference


class DataNames(NamedTuple):
    """The names of the data that stitches are evaluated on."""

    dataset: str  # the images that are stitched; those of the runs, under whatever path
    is_other: bool = False  # they are others than those of the runs
    id_dataset: str = ""  # of the end network's own activations; "": the same images
    sanity_dataset: str = ""  # that detectors should find OOD; "": none


class Examination(NamedTuple):
    """What the end network's own test activations show of layers that have a reference."""

    validity: dict[str, ValidityScores]  # of these activations, by layer
    sights: dict[str, dict[str, Sight]]  # of detectors, by score and layer


class Evaluation(NamedTuple):
    """The evaluation of stitches by one kind of detector."""

    stitches: list[StitchScores]
    own: dict[str, np.ndarray]  # (N,) by layer: scores of the end network's own activations
    other: dict[str, np.ndarray]  # (M,) by layer: scores of those of the sanity-check data, if there are any
    sanity: dict[str, OODMetrics]  # by layer: how well the detector tells these two apart
    sights: dict[str, Sight]  # by layer: what the detector can see, where there is a reference
    rows: list[EvaluationRow]


@torch.no_grad()
def examine(
    network: Network, detectors: Detectors, references: Mapping[str, Reference], batches: Batches
) -> tuple[Examination, list[str]]:
    """Measure the validity of a network's own activations, and what detectors can see in corrupted ones, in one pass.

    Args:
        batches: labelled test images in random order, since corruptions mix each with its neighbour.
    Returns:
        The examination; and for each layer of which validity cannot be measured the reason.
    """
    layers, missing = list(references), []
    own: dict[str, list[Tensor]] = defaultdict(list)
    scores: dict[tuple[str, str, str], list[Tensor]] = defaultdict(list)
    for images, labels in batches if layers else ():
        activations = network.activations(images, layers)
        for layer, reference in references.items():
            act = activations[layer]
            own[layer].append(features(act))
            if len(act) < 2:
                continue  # there is no other image to be mixed with
            for what in ("own", *CORRUPTIONS):
                shown = act if what == "own" else CORRUPTIONS[what].apply(act, labels, reference.means)
                for name, by_layer in detectors.items():
                    if layer in by_layer:
                        scores[name, layer, what].append(by_layer[layer].score(shown))
    found = Examination({}, {name: {} for name in detectors})
    for layer, reference in references.items():
        try:
            found.validity[layer] = reference.validity.measure_features(torch.cat(own[layer]))
        except ValueError as error:
            missing.append(f"no validity for {layer}: {error}")
        for name, by_layer in detectors.items():
            if layer in by_layer:
                of_layer = {what: _joined(scores[name, layer, what]) for what in ("own", *CORRUPTIONS)}
                training = by_layer[layer].training_scores().cpu().numpy()
                found.sights[name][layer] = _sight(of_layer, training)
    return found, missing


def _sight(scores: Mapping[str, np.ndarray], training: np.ndarray) -> Sight:
    """Return what scores (n,) of own and corrupted activations tell, and those of training images."""
    aurocs = [ood_metrics(scores["own"], scores[what]).auroc for what in CORRUPTIONS]
    return Sight(*(max(auroc, 1 - auroc) for auroc in aurocs), ood_metrics(training, scores["own"]).auroc)


@torch.no_grad()
def score_stitches(
    grids: Iterable[tuple[Grid, Mapping[Pair, StitchingRun]]],
    detectors: Detectors,
    references: Mapping[str, Reference],
    own_validity: Mapping[str, ValidityScores],
    batches: Callable[[], Batches],
    *,
    sample: Tensor,
) -> dict[str, list[StitchScores]]:
    """Measure accuracies, scores and validity of all stitches in one pass over labelled images for each grid.

    Args:
        grids: with the run of each pair.
        own_validity: of the end network's activations of the sampled images, by layer; of these validity is measured.
        batches: gives the images, once for each grid.
        sample: (N,), bool: the images that validity is measured on.
    Returns:
        By score, the stitches into layers that have a detector of it; one end layer after the other.
    """
    stitches: dict[str, list[StitchScores]] = {name: [] for name in detectors}
    for grid, runs in grids:
        grid.train(False)
        hits: dict[Pair, list[Tensor]] = defaultdict(list)
        pooled: dict[Pair, list[Tensor]] = defaultdict(list)
        scores: dict[tuple[str, Pair], list[Tensor]] = defaultdict(list)
        n_seen = 0
        for images, labels in batches():
            sources = grid.truncated(grid.front.activations(images, grid.front_layers))
            chosen = sample[n_seen : n_seen + len(labels)].nonzero()[:, 0].to(labels.device)
            n_seen += len(labels)
            _, recorded = grid.end.record(images, [], after=grid.end_layers)
            for pairs, stitched, logits in grid.stitched(recorded, sources):
                layer = pairs[0].end_layer
                for pair, pair_logits in zip(pairs, logits, strict=True):
                    hits[pair].append(pair_logits.argmax(-1) == labels)
                for name, by_layer in detectors.items():
                    if layer in by_layer:
                        scored = by_layer[layer].score(stitched.flatten(0, 1)).unflatten(0, (len(pairs), -1))
                        for pair, part in zip(pairs, scored, strict=True):
                            scores[name, pair].append(part)
                if layer in own_validity and len(chosen):
                    for pair, activations in zip(pairs, stitched, strict=True):
                        pooled[pair].append(features(activations.index_select(0, chosen)).cpu())
        validity = {}
        for pair, parts in pooled.items():
            measured = references[pair.end_layer].validity.measure_features(torch.cat(parts))
            validity[pair] = StitchValidity(*measured, *own_validity[pair.end_layer])
        for (name, pair), parts in scores.items():
            accuracy = torch.cat(hits[pair]).double().mean().item()
            stitches[name].append(StitchScores(runs[pair], accuracy, _joined(parts), validity.get(pair)))
    for name, of_score in stitches.items():
        of_score.sort(key=lambda stitch: list(detectors[name]).index(stitch.run.row.end_layer))
    return stitches


@torch.no_grad()
def score_network(network: Network, detectors: Detectors, batches: Batches) -> dict[str, dict[str, np.ndarray]]:
    """Score (N,) a network's own activations, by score and layer, in one pass that ends at the last layer."""
    layers = list(dict.fromkeys(layer for by_layer in detectors.values() for layer in by_layer))
    scores: dict[str, dict[str, list[Tensor]]] = {
        name: {layer: [] for layer in by_layer} for name, by_layer in detectors.items()
    }
    for images, _ in batches:
        activations = network.activations(images, layers)
        for name, by_layer in detectors.items():
            for layer, detector in by_layer.items():
                scores[name][layer].append(detector.score(activations[layer]))
    return {name: {layer: _joined(parts) for layer, parts in of_layers.items()} for name, of_layers in scores.items()}


def evaluate(
    name: str,
    detectors: Mapping[str, Detector],
    stitches: Sequence[StitchScores],
    own: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    sights: Mapping[str, Sight],
    data: DataNames,
) -> Evaluation:
    """Measure how well the detectors of one score tell stitched activations, as OOD, from the end network's own.

    Args:
        detectors, own, other, sights: by layer; the last two may be empty.
        data: the names of the data.
    """
    sanity = {layer: ood_metrics(own[layer], scores) for layer, scores in other.items()}
    rows = []
    for run, accuracy, scores, validity in stitches:
        layer, dataset = run.row.end_layer, run.row.dataset
        if data.is_other or dataset is None:
            dataset = data.dataset
        low, high = auroc_interval(own[layer], scores, paired=not data.id_dataset)
        measured = ood_metrics(own[layer], scores)._asdict()
        for more in (validity, sights.get(layer)):
            measured |= more._asdict() if more else {}
        of_run = to_record(run.row.experiment) | {
            "front_layer": run.row.front_layer,
            "end_layer": layer,
            "folder": run.folder.name,
            "dataset": dataset,
        }
        rows.append(EvaluationRow(
            **of_run,
            **measured,
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
    return Evaluation(list(stitches), dict(own), dict(other), sanity, dict(sights), rows)


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


def _joined(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).cpu().numpy()
