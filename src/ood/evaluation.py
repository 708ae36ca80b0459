"""How far the activations that stitches make are out of distribution for the network they are made for."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from src.checkpoints import check_fit, load_state
from src.errors import UserError
from src.models import Network
from src.ood.scorers import Batches, Scorers
from src.stitching.grid import Grid
from src.stitching.layers import StitchingLayer
from src.stitching.results import Run
from src.stitching.rows import Pair, by_experiment
from src.stitching.stitched_model import build_layers

Module = TypeVar("Module", bound=nn.Module)
LAYER_OPTIONS = ("c2t_cls_token", "t2c_cls_token", "upsample_mode")
SAME = ("front_model_path", "end_model_path", "front_model_type", "end_model_type", "stitching_type")


class StitchEvaluation(NamedTuple):
    """What the stitch of a run reaches over a dataset."""

    run: Run
    accuracy: float  # in [0, 1]
    energies: np.ndarray  # (N,): scores of the stitched activations by the detector of the end layer


def common_options(runs: Sequence[Run], folder: Path) -> dict:
    """Return the options that all runs of a folder must share: networks and stitching type.

    Raises:
        UserError: there are no runs, or they differ; lists the values.
    """
    if not runs:
        raise UserError(f"{folder} holds no finished stitching run; give the folder that holds their folders")
    for name in (*SAME, "front_model_path_seed", "end_model_path_seed"):  # the seeds are those of fresh weights
        values = sorted({str(run.options.get(name)) for run in runs})
        if len(values) > 1:
            raise UserError(f"the runs differ in {name}: {', '.join(values)}; evaluate one kind of runs at a time")
        if name in SAME and not isinstance(runs[0].options.get(name), str):
            raise UserError(f"{runs[0].folder / 'config.txt'} names no {name}; restore it or remove the folder")
    return runs[0].options


def grids_of(
    runs: Iterable[Run], front: Network, end: Network, scorers: Mapping[str, Scorers], *, image_shape: Sequence[int]
) -> tuple[list[tuple[Grid, dict[Pair, Run]]], list[str]]:
    """Rebuild the stitches of runs: one grid for each experiment, and one for each whole checkpoint.

    Args:
        runs: one of each pair in each experiment.
        scorers: by detector; stitches into layers without any are left out.
    Returns:
        The grids with their runs, and why what is not in them is missing.
    """
    grids, unusable = [], []
    for rows in by_experiment([run.row for run in runs]).values():
        folders, layers, shared = {row.folder for row in rows}, {}, {}
        for run in (run for run in runs if run.row.folder in folders):
            pair, options = run.row.pair, {name: run.options.get(name) for name in LAYER_OPTIONS}
            if not any(pair.end_layer in by_layer for by_layer in scorers.values()):
                continue
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
                grids.append((Grid(*own_networks, own_layers, front_rank=run.row.front_stitch_rank), {pair: run}))
            else:
                layers, shared = layers | own_layers, shared | {pair: run}
        if layers:
            grids.append((Grid(front, end, layers, front_rank=rows[0].front_stitch_rank), shared))
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
def evaluate_stitches(
    grids: Iterable[tuple[Grid, Mapping[Pair, Run]]], scorers: Mapping[str, Scorers], batches: Callable[[], Batches]
) -> dict[str, list[StitchEvaluation]]:
    """Measure accuracies and scores of all stitches in one pass over labelled images for each grid.

    Args:
        grids: with the run of each pair.
        scorers: by detector.
        batches: gives the images, once for each grid.
    Returns:
        By detector, the stitches into its layers.
    """
    evaluations: dict[str, list[StitchEvaluation]] = {name: [] for name in scorers}
    for grid, runs in grids:
        grid.train(False)
        hits: dict[Pair, list[Tensor]] = {}
        energies: dict[tuple[str, Pair], list[Tensor]] = {}
        for images, labels in batches():
            sources = grid.truncated(grid.front.activations(images, grid.front_layers))
            for pairs, stitched, logits in grid.stitched(images, sources):
                for pair, pair_logits in zip(pairs, logits, strict=True):
                    hits.setdefault(pair, []).append(pair_logits.argmax(-1) == labels)
                for name, by_layer in scorers.items():
                    if pairs[0].end_layer in by_layer:
                        scored = by_layer[pairs[0].end_layer].score(stitched.flatten(0, 1))
                        for pair, part in zip(pairs, scored.unflatten(0, (len(pairs), -1)), strict=True):
                            energies.setdefault((name, pair), []).append(part)
        for (name, pair), parts in energies.items():
            accuracy = torch.cat(hits[pair]).double().mean().item()
            evaluations[name].append(StitchEvaluation(runs[pair], accuracy, torch.cat(parts).cpu().numpy()))
    return evaluations


@torch.no_grad()
def energies_of(network: Network, scorers: Mapping[str, Scorers], batches: Batches) -> dict[str, dict[str, np.ndarray]]:
    """Score (N,) a network's own activations, by detector and layer, in one pass that ends at the last layer."""
    layers = list(dict.fromkeys(layer for by_layer in scorers.values() for layer in by_layer))
    network = network.for_inference(layers)
    energies: dict[str, dict[str, list[Tensor]]] = {
        name: {layer: [] for layer in by_layer} for name, by_layer in scorers.items()
    }
    for images, _ in batches:
        activations = network.activations(images, layers)
        for name, by_layer in scorers.items():
            for layer, scorer in by_layer.items():
                energies[name][layer].append(scorer.score(activations[layer]))
    return {
        name: {layer: torch.cat(parts).cpu().numpy() for layer, parts in of_layers.items()}
        for name, of_layers in energies.items()
    }
