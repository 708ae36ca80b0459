"""Stitches rebuilt from the folders of their runs."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from src.checkpoints import check_fit, load_state
from src.errors import UserError
from src.models import Network
from src.ood.fitting import Detectors
from src.ood.networks import StitchedNetworks
from src.results.experiments import Pair, by_experiment
from src.stitching.folders import StitchingRun
from src.stitching.grid import Grid
from src.stitching.layers import StitchingLayer
from src.stitching.stitched_model import build_layers

Module = TypeVar("Module", bound=nn.Module)
LAYER_OPTIONS = ("c2t_cls_token", "t2c_cls_token", "upsample_mode")


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
        layers, shared, rank = {}, {}, {"front_rank": rows[0].front_stitch_rank}
        for run in (by_row[row] for row in rows if row.end_layer in with_detector):
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
