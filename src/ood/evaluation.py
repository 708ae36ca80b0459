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
from src.stitching.rows import Pair
from src.stitching.stitched_model import build_layers

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


def made_with(options: Mapping, dataset: str, id_dataset: str | None, checked: str | None) -> dict[str, str]:
    """Collect what all rows of an evaluation share, by columns of `ood_evaluation.csv`.

    Args:
        options: those of `common_options`.
        checked: the dataset of the sanity check, if there is one.
    """
    data = {"dataset": dataset, "id_dataset": id_dataset or dataset}
    return {name: options[name] for name in SAME} | data | {"sanity_dataset": checked or ""}


def grids_of(
    runs: Mapping[Pair, Run],
    front: Network,
    end: Network,
    scorers: Mapping[str, Scorers],
    *,
    image_shape: Sequence[int],
) -> tuple[list[Grid], list[str]]:
    """Rebuild the stitches of runs: one grid for each retained rank, and one for each whole checkpoint.

    Args:
        scorers: by detector; stitches into layers without any are left out.
    Returns:
        The grids, and why what is not in them is missing.
    """
    shared: dict[int | None, dict[Pair, StitchingLayer]] = {}
    whole, unusable = [], []
    for pair, run in runs.items():
        if not any(pair.end_layer in by_layer for by_layer in scorers.values()):
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
def evaluate_stitches(
    grids: Iterable[Grid], scorers: Mapping[str, Scorers], batches: Callable[[], Batches]
) -> dict[str, dict[Pair, PairEvaluation]]:
    """Measure accuracies and scores of all stitches in one pass over labelled images for each grid.

    Args:
        scorers: by detector.
        batches: gives the images, once for each grid.
    Returns:
        By detector, the stitches into its layers.
    """
    n_samples: dict[Pair, int] = {}
    n_correct: dict[Pair, Tensor] = {}
    energies: dict[str, dict[Pair, list[Tensor]]] = {name: {} for name in scorers}
    for grid in grids:
        grid.train(False)
        for images, labels in batches():
            sources = grid.truncated(grid.front.activations(images, grid.front_layers))
            for pairs, stitched, logits in grid.stitched(images, sources):
                for pair, pair_logits in zip(pairs, logits, strict=True):
                    n_samples[pair] = n_samples.get(pair, 0) + len(labels)
                    n_correct[pair] = n_correct.get(pair, 0) + (pair_logits.argmax(-1) == labels).sum()
                for name, by_layer in scorers.items():
                    if pairs[0].end_layer in by_layer:
                        scored = by_layer[pairs[0].end_layer].score(stitched.flatten(0, 1))
                        for pair, part in zip(pairs, scored.unflatten(0, (len(pairs), -1)), strict=True):
                            energies[name].setdefault(pair, []).append(part)
    accuracy = {pair: count.item() / n_samples[pair] for pair, count in n_correct.items()}
    return {
        name: {pair: PairEvaluation(accuracy[pair], torch.cat(parts).cpu().numpy()) for pair, parts in of.items()}
        for name, of in energies.items()
    }


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
