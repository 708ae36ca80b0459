"""The two networks that stitching runs were made with, loaded again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from src.checkpoints import is_entry, load_model
from src.console import warn
from src.errors import UserError
from src.models import Network
from src.models.own import is_own, sha256_of, split_own
from src.ood.detectors import Source, source_of
from src.stitching.results import Run


def load_networks(
    options: Mapping[str, Any],
    runs: Sequence[Run],
    given: Mapping[str, Any],
    *,
    n_classes: int,
    image_shape: Sequence[int],
    device: torch.device,
) -> tuple[Network, Network, Source]:
    """Load the front and the end network; returns them, and what tells the end network apart.

    Args:
        options: what all runs share, see evaluation.common_options.
        given: the options of the script, of which `front_model`, `front_type`, `end_model` and `end_type` count.
        image_shape: (C, H, W) of the images.
    Raises:
        UserError: see network_of; or a checkpoint does not fit.
    """
    named = {
        side: network_of(options, side, path=given[f"{side}_model"], name=given[f"{side}_type"])
        for side in ("front", "end")
    }
    front, end = (
        load_model(**network, n_classes=n_classes, image_shape=image_shape, device=device) for network in named.values()
    )
    front, end = choose_layers(front, end, runs, image_shape=image_shape)
    return front, end, source_of(**named["end"])


def network_of(options: Mapping, side: str, *, path: str | None, name: str | None) -> dict:
    """Collect the arguments of `load_model` for the front or end network of runs; its checkpoint may have been moved.

    Args:
        options: of a run.
        side: `front` or `end`.
        path: of the checkpoint, if another is given than that of the runs.
        name: of the network, if the user gave it. The code of a file runs only if it is named there.
    Raises:
        UserError: the checkpoint is not where it was, the network is from a file that was not named, or another one
            was named.
    """
    recorded, stored = options[f"{side}_model_type"], options[f"{side}_model_path"]
    if is_own(recorded) and name is None:
        raise UserError(
            f"the {side} network of these runs is {recorded}, and the code that a folder names is not run by itself; "
            f"name it with --{side}-type FILE.py:FUNCTION"
        )
    if name is not None and (not is_own(recorded) or split_own(recorded)[1] != split_own(name)[1]):
        raise UserError(f"--{side}-type {name}: the {side} network of these runs is {recorded}; name that one")
    if name is not None and sha256_of(name) != options.get(f"{side}_model_type_sha256"):
        warn(f"{name} is not the file that these runs were made with: it has changed since")
    is_file = path is None and stored != "-" and not is_entry(stored)
    if is_file and not Path(stored).exists():
        raise UserError(f"{stored}, the {side} network of these runs, is not there; name its place with --{side}-model")
    return {"path": path or stored, "name": name or recorded, "seed": options.get(f"{side}_model_path_seed")}


def choose_layers(
    front: Network, end: Network, runs: Sequence[Run], *, image_shape: Sequence[int]
) -> tuple[Network, Network]:
    """Let the networks give the activations of the stitched layers as the runs had them (Network.channels_first)."""
    networks = {"front": front, "end": end}
    for side, network in networks.items():
        for last in (False, True):
            names = {getattr(run.row, f"{side}_layer"): True for run in runs
                     if (run.options.get("channels_last") in (side, "both")) == last}  # fmt: skip
            layers = [name for name in names if name in network.layer_names]
            if layers:
                networks[side] = network = network.channels_first(layers, image_shape=image_shape, channels_last=last)
    return networks["front"], networks["end"]
