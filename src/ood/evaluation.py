"""How far the activations that stitches make are out of distribution for the network they are made for."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from src.checkpoints import check_fit, is_entry, load_state
from src.errors import UserError
from src.models import Network
from src.models.own import is_own, sha256_of, split_own
from src.ood.energy import energy
from src.report import warn
from src.stitching.grid import Grid, build_layers
from src.stitching.layers import StitchingLayer
from src.stitching.results import Run
from src.stitching.stitched_model import Pair

Module = TypeVar("Module", bound=nn.Module)
Batches = Iterable[tuple[Tensor, Tensor]]
LAYER_OPTIONS = ("c2t_cls_token", "t2c_cls_token", "upsample_mode")
SAME = ("front_model_path", "end_model_path", "front_model_type", "end_model_type", "stitching_type")


class PairEvaluation(NamedTuple):
    """What a stitch reaches over a dataset."""

    accuracy: float  # in [0, 1]
    energies: np.ndarray  # (N,): of the stitched activations, in the eyes of the detector of the end layer


def common_options(runs: Sequence[Run]) -> dict:
    """The options that all runs of a folder must share: networks and stitching type.

    Raises:
        UserError: they differ; lists the values.
    """
    for name in SAME:
        values = sorted({str(run.options.get(name)) for run in runs})
        if len(values) > 1:
            raise UserError(f"the runs differ in {name}: {', '.join(values)}; evaluate one kind of runs at a time")
        if not isinstance(runs[0].options.get(name), str):
            raise UserError(f"{runs[0].folder / 'config.txt'} names no {name}; restore it or remove the folder")
    return runs[0].options


def network_of(options: Mapping, side: str, *, path: str | None, name: str | None) -> dict:
    """What `load_model` needs for the front or end network of runs, whose checkpoint may have been moved.

    Args:
        options: of a run.
        side: `front` or `end`.
        path: of the checkpoint, if another is given than that of the runs.
        name: of the network, if the user gave it. The code of a file runs only if it is named there.
    Raises:
        UserError: the checkpoint is not where it was, the network is from a file that was not named, or another one
            was named.
    """
    known, stored = options[f"{side}_model_type"], options[f"{side}_model_path"]
    if is_own(known) and name is None:
        raise UserError(
            f"the {side} network of these runs is {known}, and the code that a folder names is not run by itself; "
            f"name it with --{side}-type FILE.py:FUNCTION"
        )
    if name is not None and (not is_own(known) or split_own(known)[1] != split_own(name)[1]):
        raise UserError(f"--{side}-type {name}: the {side} network of these runs is {known}; name that one")
    if name is not None and sha256_of(name) != options.get(f"{side}_model_type_sha256"):
        warn(f"{name} is not the file that these runs were made with: it has changed since")
    is_file = path is None and stored != "-" and not is_entry(stored)
    if is_file and not Path(stored).exists():
        raise UserError(f"{stored}, the {side} network of these runs, is not there; name its place with --{side}-model")
    return {"path": path or stored, "name": name or known, "seed": options.get(f"{side}_model_path_seed")}


def choose_layers(front: Network, end: Network, runs: Mapping[Pair, Run], *, image_shape: Sequence[int]) -> None:
    """Let the networks give the activations of the stitched layers as the runs had them (see Network.choose)."""
    for side, network in (("front", front), ("end", end)):
        for last in (False, True):
            names = {getattr(pair, f"{side}_layer"): True for pair, run in runs.items()
                     if (run.options.get("channels_last") in (side, "both")) == last}  # fmt: skip
            known = [name for name in names if name in network.layer_names]
            if known:
                network.choose(",".join(known), image_shape=image_shape, channels_last=last)


def grids_of(
    runs: Mapping[Pair, Run], front: Network, end: Network, *, image_shape: Sequence[int]
) -> tuple[list[Grid], list[str]]:
    """Rebuild the stitches of runs: one grid for each retained rank, and one for each whole checkpoint.

    Returns:
        The grids, and why what is not in them is missing.
    """
    shared: dict[int | None, dict[Pair, StitchingLayer]] = {}
    whole, unusable = [], []
    for pair, run in runs.items():
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
def evaluate_stitches(grid: Grid, detectors: Mapping[str, Network], batches: Batches) -> dict[Pair, PairEvaluation]:
    """Accuracies and energies of all stitches of a grid from one pass over labelled images.

    Args:
        detectors: by end layer; each takes the activation of that layer.
    """
    grid.train(False)
    n_samples = 0
    n_correct: dict[Pair, Tensor] = {}
    energies: dict[Pair, list[Tensor]] = {pair: [] for pair in grid.layers}
    for images, labels in batches:
        n_samples += len(labels)
        sources = grid.truncated(grid.front.activations(images, grid.front_layers))
        for pairs, stitched, logits in grid.stitched(images, sources):
            scored = energy(detectors[pairs[0].end_layer](stitched.flatten(0, 1))).unflatten(0, (len(pairs), -1))
            for pair, pair_energies, pair_logits in zip(pairs, scored, logits, strict=True):
                energies[pair].append(pair_energies)
                n_correct[pair] = n_correct.get(pair, 0) + (pair_logits.argmax(-1) == labels).sum()
    return {
        pair: PairEvaluation(n_correct[pair].item() / n_samples, torch.cat(energies[pair]).cpu().numpy())
        for pair in grid.layers
    }


@torch.no_grad()
def energies_of(network: Network, detectors: Mapping[str, Network], batches: Batches) -> dict[str, np.ndarray]:
    """The energies (N,) of a network's own activations by layer, from one pass that ends at the last of them."""
    network = network.for_inference(list(detectors))
    energies: dict[str, list[Tensor]] = {layer: [] for layer in detectors}
    for images, _ in batches:
        for layer, activation in network.activations(images, list(detectors)).items():
            energies[layer].append(energy(detectors[layer](activation)))
    return {layer: torch.cat(parts).cpu().numpy() for layer, parts in energies.items()}
