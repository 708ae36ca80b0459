"""The two networks that stitching runs were made with, and the stitches, loaded again."""

import copy
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.checkpoints import fill, load_state
from src.console import warn
from src.errors import UserError
from src.images import ImageSpec
from src.models import Network
from src.network_names import NetworkName, content_of, file_and_function, is_user_network, titles_of
from src.results.weights import names_of, warn_of_newer
from src.session import Session
from src.stitching.experiments import Pair, by_experiment
from src.stitching.folders import StitchingRun
from src.stitching.grid import Grid
from src.stitching.layers import StitchingLayer
from src.stitching.stitched_model import build_layers

LAYER_OPTIONS = ("c2t_cls_token", "t2c_cls_token", "upsample_mode")
SIDES = ("front", "end")
SHARED = ("front_model_type", "end_model_type", "stitching_type")
GridOfRuns = tuple[Grid, dict[Pair, StitchingRun]]


def check_runs(runs: Sequence[StitchingRun], folder: Path, given: Mapping[str, Any]) -> None:
    """Refuse no runs, runs of other weights than their checkpoints hold now, and runs that differ
    in what they share.

    They share the networks, under whatever paths, and the stitching type.

    Args:
        given: the options of the script, of which `front_model` and `end_model` count.
    """
    if not runs:
        raise UserError(
            f"{folder} holds no finished stitching run; give the folder that holds their folders"
        )
    for name in SHARED:
        values = sorted({str(run.options.get(name)) for run in runs})
        if len(values) > 1:
            raise UserError(
                f"the runs differ in {name}: {', '.join(values)}; evaluate one kind of runs at a time"
            )
    for side, networks in zip(
        SIDES, zip(*(run.row.networks for run in runs), strict=True), strict=True
    ):
        moved = given[f"{side}_model"]
        now = [network._replace(path=moved or network.path) for network in networks]
        _refuse_earlier(side, networks, [network.has_changed for network in now], moved)
        titles = titles_of(networks)
        if len(titles) > 1:
            values = ", ".join(sorted(titles.values()))
            raise UserError(
                f"the runs differ in {side}_model_path: {values}; evaluate one kind of runs at a time"
            )
    warn_of_newer((run.folder / "config.txt", run.row.networks) for run in runs)


def _refuse_earlier(
    side: str,
    networks: Sequence[NetworkName],
    has_changed: Sequence[bool],
    moved: str | None = None,
) -> None:
    """Raise a UserError if the weights of runs are not those at hand, which would be evaluated in
    their place."""
    titles = [
        network.title for network, is_other in zip(networks, has_changed, strict=True) if is_other
    ]
    if not titles:
        return
    runs = f"{len(titles)} of {len(networks)} runs are"
    if moved:
        raise UserError(
            f"--{side}-model {moved}: {runs} of other weights; give the checkpoint they were made with"
        )
    remedy = "remove their folders and stitch again"
    if not any(
        network.is_given for network in networks
    ):  # weights that come with a type are no file
        remedy += f", or say with --{side}-model where the old checkpoint is"
    raise UserError(f"{runs} of earlier weights of {names_of(titles)}; {remedy}")


def check_data(
    dataset: str, runs: Sequence[StitchingRun], *, other_data: bool, shortcut: float | None = None
) -> None:
    """Refuse runs that were stitched on other data than they are evaluated on, unless others are
    wanted.

    A user's own data are the same under another path if they have their name and nothing is at the
    old path."""
    dots = {run.row.shortcut for run in runs}
    if dots != {shortcut} and not other_data:
        given = ", ".join(map(str, dots))
        raise UserError(
            f"--shortcut {shortcut}: these runs were stitched with --shortcut {given}; give that one"
        )
    recorded = {run.row.dataset for run in runs} - {None}
    others = {name for name in recorded if name != dataset and not _has_moved(Path(name), dataset)}
    if other_data and not others:
        raise UserError(
            f"--other-data: no run says that it was stitched on other data than {dataset}; leave it out"
        )
    if others and not other_data:
        remedy = (
            "keep those on each in a folder of their own" if len(recorded) > 1 else "give that one"
        )
        raise UserError(
            f"-d {dataset}: these runs were stitched on {', '.join(sorted(recorded))}; {remedy}, or give --other-data "
            "for an evaluation on other data, which the verdict leaves out"
        )


def _has_moved(recorded: Path, dataset: str) -> bool:
    return recorded.is_absolute() and recorded.name == Path(dataset).name and not recorded.exists()


def load_networks(
    runs: Sequence[StitchingRun],
    given: Mapping[str, Any],
    images: ImageSpec,
    *,
    session: Session,
    device: Any,
) -> dict[str, tuple[Network, NetworkName]]:
    """Load the networks of runs: by side, with its name and the SHA-256 of its weights; raises
    UserError as `name_of`.

    They give the activations of the stitched layers as the runs had them.

    Args:
        given: the options of the script, of which `front_model`, `front_type`, `end_model` and `end_type` count.
    """
    networks = {}
    for i, side in enumerate(SIDES):
        name = name_of(
            runs[0].options, side, path=given[f"{side}_model"], type=given[f"{side}_type"]
        )
        network = session.network(name, images, device=device, encoder=side == "front")
        recorded = [run.row.networks[i] for run in runs]
        if name.is_fresh:  # of a function whose file may have been moved
            name = name._replace(weights=recorded[0].content)
        else:
            name = name._replace(weights=session.weights(name, images, device=device))
        _refuse_earlier(
            side, recorded, [bool(of.weights) and of.identity != name.identity for of in recorded]
        )
        for channels_last in (False, True):
            layers = {getattr(run.row.pair, f"{side}_layer") for run in runs
                      if (run.options.get("channels_last") in (side, "both")) == channels_last}  # fmt: skip
            known = [layer for layer in network.layer_names if layer in layers]
            network = network.channels_first(
                known, image_shape=images.shape, channels_last=channels_last
            )
        networks[side] = network, name
    return networks


def with_weights(run: StitchingRun, names: Mapping[str, NetworkName]) -> StitchingRun:
    """Return a run whose row has the weights that it is evaluated with, which earlier versions did
    not record."""
    weights = {f"{side}_weights": name.identity for side, name in names.items()}
    return dataclasses.replace(run, row=dataclasses.replace(run.row, **weights))


def name_of(
    options: Mapping[str, Any], side: str, *, path: str | None, type: str | None
) -> NetworkName:
    """Return the name of the front or end network of a run with these options.

    Args:
        path: of the checkpoint, if it was moved.
        type: of a network from a file, whose code runs only if it is named here.
    Raises:
        UserError: the checkpoint is not there, or the file was not named, or another one.
    """
    path_and_type = options.get(f"{side}_model_path"), options.get(f"{side}_model_type")
    recorded = NetworkName.of(*path_and_type, seed=options.get("seed"))
    if is_user_network(recorded.type) and type is None:
        raise UserError(
            f"the {side} network of these runs is {recorded.type}, and the code that a folder names is not run by "
            f"itself; name it with --{side}-type FILE.py:FUNCTION"
        )
    if type is not None:
        file, function = file_and_function(type)
        if not is_user_network(recorded.type) or file_and_function(recorded.type)[1] != function:
            raise UserError(
                f"--{side}-type {type}: the {side} network of these runs is {recorded.type}; name that one"
            )
        if content_of(file) != options.get(f"{side}_model_type_sha256"):
            warn(f"{type} is not the file that these runs were made with: it has changed since")
    if path is None and recorded.is_file and not Path(recorded.path).exists():
        raise UserError(
            f"{recorded.path}, the {side} network of these runs, is not there; name its place with --{side}-model"
        )
    return recorded._replace(path=path or recorded.path, type=type or recorded.type)


def rebuild_grids(
    runs: Iterable[StitchingRun],
    front: Network,
    end: Network,
    end_layers: Collection[str],
    *,
    image_shape: Sequence[int],
) -> tuple[list[GridOfRuns], list[str]]:
    """Rebuild the stitches of runs: one grid for each experiment, and one for each whole
    checkpoint.

    Args:
        runs: one of each pair in each experiment.
        end_layers: stitches into others are left out.
    Returns:
        The grids with their runs, and the reason for each run that cannot be rebuilt.
    """
    grids, unusable, by_row = [], [], {run.row: run for run in runs}
    for rows in by_experiment(by_row).values():
        layers, shared, rank = {}, {}, {"front_rank": rows[0].front_stitch_rank}
        for run in (by_row[row] for row in rows if row.end_layer in end_layers):
            pair = run.row.pair
            try:
                *own, layer = _rebuild(run, front, end, image_shape)
            except UserError as error:
                unusable.append(str(error))
                continue
            if own[0] is front:
                layers[pair], shared[pair] = layer, run
            else:
                grids.append((Grid(*own, {pair: layer}, **rank), {pair: run}))
        if layers:
            grids.append((Grid(front, end, layers, **rank), shared))
    return grids, unusable


def _rebuild(
    run: StitchingRun, front: Network, end: Network, image_shape: Sequence[int]
) -> tuple[Network, Network, StitchingLayer]:
    """Load the stitching layer of a run; of a whole checkpoint, also copies of the networks with
    their statistics."""
    pair, options = run.row.pair, run.options
    layers, _ = build_layers(
        front, end, [pair.front_layer], [pair.end_layer], options["stitching_type"],
        image_shape=image_shape, seed=0, **{name: options.get(name) for name in LAYER_OPTIONS},
    )  # fmt: skip
    path = run.folder / "final_model.pt"
    state, parts = load_state(path), {"": layers[pair]}
    if any(key.startswith("stitching_layer.") for key in state):
        front, end = copy.deepcopy(front), copy.deepcopy(end)
        parts = {
            "stitching_layer.": layers[pair],
            "front_model.model.": front,
            "end_model.model.": end,
        }
    for prefix, module in parts.items():
        own = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        fill(module, own, source=str(path), expected="the networks and layers of its config.txt")
    return front, end, layers[pair]
