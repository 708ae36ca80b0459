"""How far the activations that stitches make are out of distribution for the network they are made for."""

import copy
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from src.checkpoints import check_fit, load_state
from src.errors import UserError
from src.files import write_bytes
from src.images import ImageSpec
from src.models import Network
from src.ood.detectors import Detector, make_detector
from src.ood.metrics import OODMetrics, ood_metrics
from src.ood.networks import StitchedNetworks
from src.ood.registry import SCORES
from src.ood.store import DetectorStore
from src.results.experiments import Pair, by_experiment
from src.results.folders import StitchingRun
from src.results.matrices import natural_order
from src.results.rows import EvaluationRow
from src.stitching.grid import Grid
from src.stitching.layers import StitchingLayer
from src.stitching.stitched_model import build_layers

Module = TypeVar("Module", bound=nn.Module)
Batches = Iterable[tuple[Tensor, Tensor]]
Detectors = dict[str, dict[str, Detector]]  # by score and layer
LAYER_OPTIONS = ("c2t_cls_token", "t2c_cls_token", "upsample_mode")


class StitchScores(NamedTuple):
    """The accuracy of a stitch over a data set, and the scores of its activations."""

    run: StitchingRun
    accuracy: float  # in [0, 1]
    scores: np.ndarray  # (N,), by the detector of the end layer


class Evaluation(NamedTuple):
    """The evaluation of stitches by one kind of detector."""

    stitches: list[StitchScores]
    own: dict[str, np.ndarray]  # (N,) by layer: scores of the end network's own activations
    other: dict[str, np.ndarray]  # (M,) by layer: scores of those of the sanity-check data, if there are any
    sanity: dict[str, OODMetrics]  # by layer: how well the detector tells these two apart
    rows: list[EvaluationRow]


def make_detectors(
    names: Sequence[str],
    networks: StitchedNetworks,
    layers: Iterable[str],
    images: ImageSpec,
    *,
    store: DetectorStore,
    all_in_store: bool,
    training_batches: Callable[[], Batches],
    id_data: str,
) -> tuple[Detectors, list[str]]:
    """Load the trained detectors of layers of the end network, and fit the others.

    Args:
        names: of `SCORES`.
        images: that the network takes.
        all_in_store: load the trained detectors of all other layers, too.
        training_batches: gives labelled training images, shuffled and not augmented; called if a detector is fitted.
        id_data: the name of these images.
    Returns:
        The detectors, without scores that have none; and for each missing one the reason.
    """
    layers, detectors, missing = natural_order(layers), {name: {} for name in names}, []
    fitted = [name for name in names if not SCORES[name].is_trained]
    for name in set(names).difference(fitted):
        store.entries()  # a missing store is an error, a missing detector is not
        more = natural_order(set(store.layers(networks.end_name)).difference(layers)) if all_in_store else []
        device = next(networks.end.parameters()).device
        for layer in [*layers, *more]:
            try:
                detectors[name][layer] = store.load(networks.end_name, layer, images, device=device)
            except UserError as error:
                missing.append(str(error))
    if fitted:
        for (name, layer), detector in fit_detectors(fitted, networks.end, layers, training_batches()).items():
            if isinstance(detector, ValueError):
                missing.append(f"no {name} for {layer}: {detector}")
            else:
                detector.id_data, detectors[name][layer] = id_data, detector
    return {name: by_layer for name, by_layer in detectors.items() if by_layer}, missing


@torch.no_grad()
def fit_detectors(
    names: Sequence[str], network: Network, layers: Sequence[str], batches: Batches
) -> dict[tuple[str, str], Detector | ValueError]:
    """Fit detectors of `SCORES` for each layer in one pass over labelled training images.

    Returns:
        By name and layer, the detector, or why it could not be fitted.
    """
    network = network.for_inference(layers)
    detectors = {(name, layer): make_detector(name) for name in names for layer in layers}
    for images, labels in batches:
        activations = network.activations(images, layers)
        for (_, layer), detector in detectors.items():
            detector.add(activations[layer], labels)
    return {key: _fitted(detector) for key, detector in detectors.items()}


def _fitted(detector: Detector) -> Detector | ValueError:
    try:
        detector.fit()
    except ValueError as error:
        return error
    return detector


def rebuild_grids(
    runs: Iterable[StitchingRun], networks: StitchedNetworks, detectors: Detectors, *, image_shape: Sequence[int]
) -> tuple[list[tuple[Grid, dict[Pair, StitchingRun]]], list[str]]:
    """Rebuild the stitches of runs: one grid for each experiment, and one for each whole checkpoint.

    Args:
        runs: one of each pair in each experiment.
        detectors: stitches into layers without any are left out.
    Returns:
        The grids with their runs, and for each run that cannot be rebuilt the reason.
    """
    front, end, _ = networks
    with_detector = {layer for by_layer in detectors.values() for layer in by_layer}
    grids, unusable, by_row = [], [], {run.row: run for run in runs}
    for rows in by_experiment(by_row).values():
        layers, shared, rank = {}, {}, {"front_rank": rows[0].experiment.method.front_stitch_rank}
        for run in (by_row[row] for row in rows if row.pair.end_layer in with_detector):
            pair, options = run.row.pair, {name: run.options.get(name) for name in LAYER_OPTIONS}
            try:
                own_layers, _ = build_layers(
                    front, end, [pair.front_layer], [pair.end_layer], run.options["stitching_type"],
                    image_shape=image_shape, seed=0, **options,
                )  # fmt: skip
                own_networks = _load(run.folder / "final_model.pt", own_layers[pair], front, end)
            except UserError as error:
                unusable.append(str(error))
                continue
            if own_networks:
                grids.append((Grid(*own_networks, own_layers, **rank), {pair: run}))
            else:
                layers, shared = layers | own_layers, shared | {pair: run}
        if layers:
            grids.append((Grid(front, end, layers, **rank), shared))
    return grids, unusable


def _load(path: Path, layer: StitchingLayer, front: Network, end: Network) -> list[Network]:
    """Load the stitching layer of a run; of a whole checkpoint, also copies of the networks with their statistics."""
    state, own_networks = load_state(path), []
    if any(key.startswith("stitching_layer.") for key in state):
        for network, prefix in ((front, "front_model.model."), (end, "end_model.model.")):
            own_networks.append(_take_over(copy.deepcopy(network), _below(prefix, state), path))
        state = _below("stitching_layer.", state)
    _take_over(layer, state, path)
    return own_networks


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _take_over(module: Module, state: dict[str, Tensor], path: Path) -> Module:
    check_fit(state, module.state_dict(), given=str(path), wanted="the networks and layers of its config.txt")
    module.load_state_dict(state)
    return module


@torch.no_grad()
def score_stitches(
    grids: Iterable[tuple[Grid, Mapping[Pair, StitchingRun]]], detectors: Detectors, batches: Callable[[], Batches]
) -> dict[str, list[StitchScores]]:
    """Measure accuracies and scores of all stitches in one pass over labelled images for each grid.

    Args:
        grids: with the run of each pair.
        batches: gives the images, once for each grid.
    Returns:
        By score, the stitches into layers that have a detector of it; one end layer after the other.
    """
    stitches: dict[str, list[StitchScores]] = {name: [] for name in detectors}
    for grid, runs in grids:
        grid.train(False)
        hits: dict[Pair, list[Tensor]] = {}
        scores: dict[tuple[str, Pair], list[Tensor]] = {}
        for images, labels in batches():
            sources = grid.truncated(grid.front.activations(images, grid.front_layers))
            for pairs, stitched, logits in grid.stitched(images, sources):
                for pair, pair_logits in zip(pairs, logits, strict=True):
                    hits.setdefault(pair, []).append(pair_logits.argmax(-1) == labels)
                for name, by_layer in detectors.items():
                    if pairs[0].end_layer in by_layer:
                        scored = by_layer[pairs[0].end_layer].score(stitched.flatten(0, 1))
                        for pair, part in zip(pairs, scored.unflatten(0, (len(pairs), -1)), strict=True):
                            scores.setdefault((name, pair), []).append(part)
        for (name, pair), parts in scores.items():
            accuracy = torch.cat(hits[pair]).double().mean().item()
            stitches[name].append(StitchScores(runs[pair], accuracy, torch.cat(parts).cpu().numpy()))
    for name, of_score in stitches.items():
        of_score.sort(key=lambda stitch: list(detectors[name]).index(stitch.run.row.pair.end_layer))
    return stitches


@torch.no_grad()
def score_network(network: Network, detectors: Detectors, batches: Batches) -> dict[str, dict[str, np.ndarray]]:
    """Score (N,) a network's own activations, by score and layer, in one pass that ends at the last layer."""
    layers = list(dict.fromkeys(layer for by_layer in detectors.values() for layer in by_layer))
    network = network.for_inference(layers)
    scores: dict[str, dict[str, list[Tensor]]] = {
        name: {layer: [] for layer in by_layer} for name, by_layer in detectors.items()
    }
    for images, _ in batches:
        activations = network.activations(images, layers)
        for name, by_layer in detectors.items():
            for layer, detector in by_layer.items():
                scores[name][layer].append(detector.score(activations[layer]))
    return {
        name: {layer: torch.cat(parts).cpu().numpy() for layer, parts in of_layers.items()}
        for name, of_layers in scores.items()
    }


def evaluate(
    name: str,
    detectors: Mapping[str, Detector],
    stitches: Sequence[StitchScores],
    own: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    data: Mapping[str, str],
) -> Evaluation:
    """Measure how well the detectors of one score tell stitched activations, as OOD, from the end network's own.

    Args:
        detectors, own, other: by layer; `other` may be empty.
        data: `dataset`, `id_dataset` and `sanity_dataset`: the names of the data.
    """
    sanity = {layer: ood_metrics(own[layer], scores) for layer, scores in other.items()}
    rows = []
    for run, accuracy, scores in stitches:
        layer = run.row.pair.end_layer
        rows.append(EvaluationRow(
            run.row.pair,
            accuracy,
            *ood_metrics(own[layer], scores),
            float(scores.mean()),
            float(own[layer].mean()),
            run.folder.name,
            name,
            detectors[layer].id_data,
            data["id_dataset"],
            run.row.experiment._replace(dataset=data["dataset"]),
            detectors[layer].ood_data,
            data["sanity_dataset"],
            sanity[layer].auroc if layer in sanity else None,
        ))  # fmt: skip
    return Evaluation(list(stitches), dict(own), dict(other), sanity, rows)


def save_scores(folder: Path, evaluation: Evaluation, *, sanity_name: str) -> None:
    """Save the scores of all images as float32 arrays: END_LAYER/FRONT_LAYER.npy.

    Where a pair has several runs, the name of the run's folder stands behind that of the front layer. The scores of
    the sanity-check data are END_LAYER/SANITY_NAME.npy.
    """
    n_runs = Counter(stitch.run.row.pair for stitch in evaluation.stitches)
    arrays = {Path(layer, sanity_name): scores for layer, scores in evaluation.other.items()}
    for run, _, scores in evaluation.stitches:
        front, end = run.row.pair
        arrays[Path(end, front if n_runs[run.row.pair] == 1 else f"{front} {run.folder.name}")] = scores
    for path, scores in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, scores.astype(np.float32), allow_pickle=False)
        write_bytes(folder / f"{path}.npy", buffer.getvalue())
