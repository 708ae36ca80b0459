"""How far the activations that stitches make are out of distribution for the network they are made for."""

import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from src.checkpoints import check_fit, load_state
from src.errors import UserError
from src.models import Network
from src.ood.scorers import Batches, Scorer
from src.stitching.grid import Grid
from src.stitching.layers import StitchingLayer
from src.stitching.results import Run
from src.stitching.stitched_model import Pair, build_layers

Module = TypeVar("Module", bound=nn.Module)
LAYER_OPTIONS = ("c2t_cls_token", "t2c_cls_token", "upsample_mode")
SAME = ("front_model_path", "end_model_path", "front_model_type", "end_model_type", "stitching_type")


class PairEvaluation(NamedTuple):
    """What a stitch reaches over a dataset."""

    accuracy: float  # in [0, 1]
    energies: np.ndarray  # (N,): scores of the stitched activations by the detector of the end layer


def common_options(runs: Sequence[Run], folder: Path) -> dict:
    """Return the options that all runs of a folder must share: networks and stitching type.

    Raises:
        UserError: there are no runs, or they differ; lists the values.
    """
    if not runs:
        raise UserError(f"{folder} holds no finished stitching run; give the folder that holds their folders")
    for name in SAME:
        values = sorted({str(run.options.get(name)) for run in runs})
        if len(values) > 1:
            raise UserError(f"the runs differ in {name}: {', '.join(values)}; evaluate one kind of runs at a time")
        if not isinstance(runs[0].options.get(name), str):
            raise UserError(f"{runs[0].folder / 'config.txt'} names no {name}; restore it or remove the folder")
    return runs[0].options


def made_with(
    options: Mapping, detector: str, dataset: str, id_dataset: str | None, checked: str | None
) -> dict[str, str]:
    """Collect what all rows of an evaluation share, by columns of `ood_evaluation.csv`.

    Args:
        options: those of `common_options`.
        checked: the dataset of the sanity check, if there is one.
    """
    data = {"detector": detector, "dataset": dataset, "id_dataset": id_dataset or dataset}
    return {name: options[name] for name in SAME} | data | {"sanity_dataset": checked or ""}


def grids_of(
    runs: Mapping[Pair, Run],
    front: Network,
    end: Network,
    end_layers: Collection[str],
    *,
    image_shape: Sequence[int],
) -> tuple[list[Grid], list[str]]:
    """Rebuild the stitches of runs: one grid for each retained rank, and one for each whole checkpoint.

    Args:
        end_layers: stitches into others are left out.
    Returns:
        The grids, and why what is not in them is missing.
    """
    shared: dict[int | None, dict[Pair, StitchingLayer]] = {}
    whole, unusable = [], []
    for pair, run in runs.items():
        if pair.end_layer not in end_layers:
            continue
        options = {name: run.options.get(name) for name in LAYER_OPTIONS}
        rank = run.options.get("front_stitch_rank")
        try:
            layers, _ = build_layers(
                front, end, [pair.front_layer], [pair.end_layer], run.options["stitching_type"],
                image_shape=image_shape, seed=0, **options,
            )  # fmt: skip
            own_networks = _load(run.folder / "final_model.pt", layers[pair], front, end)
        except UserError as error:
            unusable.append(str(error))
        else:
            if own_networks:
                whole.append(Grid(*own_networks, layers, front_rank=rank))
            else:
                shared.setdefault(rank, {}).update(layers)
    return [*(Grid(front, end, layers, front_rank=rank) for rank, layers in shared.items()), *whole], unusable


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
def evaluate_stitches(grid: Grid, scorers: Mapping[str, Scorer], batches: Batches) -> dict[Pair, PairEvaluation]:
    """Accuracies and scores of all stitches of a grid from one pass over labelled images.

    Args:
        scorers: by end layer.
    """
    grid.train(False)
    n_samples = 0
    n_correct: dict[Pair, Tensor] = {}
    energies: dict[Pair, list[Tensor]] = {pair: [] for pair in grid.layers}
    for images, labels in batches:
        n_samples += len(labels)
        sources = grid.truncated(grid.front.activations(images, grid.front_layers))
        for pairs, stitched, logits in grid.stitched(images, sources):
            scored = scorers[pairs[0].end_layer].score(stitched.flatten(0, 1)).unflatten(0, (len(pairs), -1))
            for pair, pair_energies, pair_logits in zip(pairs, scored, logits, strict=True):
                energies[pair].append(pair_energies)
                n_correct[pair] = n_correct.get(pair, 0) + (pair_logits.argmax(-1) == labels).sum()
    return {
        pair: PairEvaluation(n_correct[pair].item() / n_samples, torch.cat(energies[pair]).cpu().numpy())
        for pair in grid.layers
    }


@torch.no_grad()
def energies_of(network: Network, scorers: Mapping[str, Scorer], batches: Batches) -> dict[str, np.ndarray]:
    """Return the scores (N,) of a network's own activations by layer, from one pass that ends at the last of them."""
    network = network.for_inference(list(scorers))
    energies: dict[str, list[Tensor]] = {layer: [] for layer in scorers}
    for images, _ in batches:
        for layer, activation in network.activations(images, list(scorers)).items():
            energies[layer].append(scorers[layer].score(activation))
    return {layer: torch.cat(parts).cpu().numpy() for layer, parts in energies.items()}
