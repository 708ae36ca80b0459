"""Stitches and their two networks, loaded from the files of runs."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from src.choices import Options
from src.ground.console import listed, warn
from src.ground.errors import UserError
from src.ground.images import ImageSpec
from src.ground.user_code import is_user_code, place_and_function, source_of
from src.models import Network
from src.results.changes import warn_of_newer
from src.results.checkpoints import fill, load_stitch
from src.results.folders import Stitch, one_of_each
from src.results.image_records import SPLITS, are_same, short_images
from src.results.network_names import NetworkName, content_of, titles_of
from src.results.session import Session
from src.stitching.grid import Grid
from src.stitching.layers import StitchingLayer
from src.stitching.stitched_model import build_layers
from src.values import Pair

SIDES = ("front", "end")
OTHER_DATA = "give --other-data for an evaluation on other data, which the verdict leaves out"
SHARED = ("front_model_type", "end_model_type", "stitching_type")


Experiments = dict[str, list[Stitch]]  # runs by the title of their experiment


class GridOfRuns(NamedTuple):
    """A grid of the stitches of runs of one experiment."""

    grid: Grid
    runs: dict[Pair, Stitch]


class MovedNetwork(NamedTuple):
    """The present place of a network of runs; None: the recorded place."""

    path: str | None  # the checkpoint
    # FILE.py:FUNCTION or package.module:function for a network of a user's code. The code runs only
    # if it is named here.
    type: str | None
    own_types: Sequence[str] = ()  # further ones; that of the recorded function is the type


def check_runs(runs: Sequence[Stitch], folder: Path, moved: Mapping[str, MovedNetwork]) -> None:
    """Raise a UserError unless all runs can be evaluated together.

    There must be a run. All runs must have the same networks, under whatever paths, and the same
    stitching type; all or none are controls. The checkpoints must hold the weights that the runs recorded.

    Args:
        folder: of the runs, for the message.
        moved: the networks, by side.
    """
    if not runs:
        raise UserError(
            f"{folder} holds no finished stitching run; give the folder that holds their folders"
        )
    runs = one_of_each(runs)
    for name in SHARED:
        _refuse_several(name, [str(run.row.distinctions[name]) for run in runs])
    for i, side in enumerate(SIDES):
        path = moved[side].path
        networks = [run.row.networks[i] for run in runs]
        networks_now = [network._replace(path=path or network.path) for network in networks]
        earlier = [network for network in networks_now if network.has_changed]
        _refuse_earlier(side, earlier, len(runs), path)
        _refuse_several(f"{side}_model_path", titles_of(networks).values())
    warn_of_newer((run.files.folder / "config.txt", run.row.networks) for run in runs)


def _refuse_several(name: str, values: Iterable[str]) -> None:
    """Raise a UserError if runs have several values of an option."""
    distinct = sorted(set(values))
    if len(distinct) > 1:
        raise UserError(
            f"the runs differ in {name}: {', '.join(distinct)}; evaluate one kind of runs at a time"
        )


def _refuse_earlier(
    side: str, earlier: Sequence[NetworkName], n_runs: int, moved_to: str | None = None
) -> None:
    """Raise a UserError if the weights of a network have changed since a run was made.

    Args:
        earlier: the network on a side, of each run for which its weights have changed.
        n_runs: the number of all runs.
        moved_to: the path of the checkpoint on the command line.
    """
    if not earlier:
        return
    runs = f"{len(earlier)} of {n_runs} runs are"
    if moved_to:
        raise UserError(
            f"--{side}-model {moved_to}: {runs} of other weights; give the checkpoint they were"
            " made with"
        )
    remedy = "remove their folders and stitch again"
    if not any(network.is_given for network in earlier):
        remedy += f", or say with --{side}-model where the old checkpoint is"
    titles = dict.fromkeys(network.title for network in earlier)
    raise UserError(f"{runs} of earlier weights of {listed(titles)}; {remedy}")


def check_images(runs: Sequence[Stitch], options: Options) -> None:
    """Raise a UserError unless an evaluation and the runs have the same images.

    With `--other-data`, the images or the names of their data sets must differ instead.

    Args:
        options: of the evaluation, with the fingerprints of its images.
    """
    runs = one_of_each(runs)
    dataset = options["dataset"]
    names = {run.row.dataset for run in runs if run.row.dataset is not None}
    are_other_names = any(name != dataset and not _has_moved(name, dataset) for name in names)
    n_other: Counter[str] = Counter()  # runs with other images, by title of the images
    for run in runs:
        for split, fingerprint in short_images(options).items():
            if not are_same(getattr(run.row, split), fingerprint):
                n_other[SPLITS[split]] += 1
    if options["other_data"]:
        if not n_other and not are_other_names:
            raise UserError(
                f"--other-data: no run says that it was stitched on other data than {dataset}; leave it out"
            )
        return
    _refuse_shortcut(options["shortcut"], {run.row.shortcut for run in runs})
    if are_other_names:
        remedy = "give that one" if len(names) == 1 else "keep a folder of runs for each data set"
        raise UserError(
            f"-d {dataset}: these runs were stitched on {', '.join(sorted(names))}; {remedy}, or {OTHER_DATA}"
        )
    if n_other:
        here = options["dataset_root"]
        roots = {str(run.options.get("dataset_root", here)) for run in runs} - {here}
        cause = "they have changed since"
        if roots:
            cause = f"those of the runs are in -data {listed(sorted(roots))}"
        raise UserError(
            f"-d {dataset}: {max(n_other.values())} of {len(runs)} runs were made with other"
            f" {' and '.join(n_other)}: {cause}; give these images (-data, --intervention-seed), remove the folders and"
            f" stitch again, or {OTHER_DATA}"
        )


def _refuse_shortcut(shortcut: float | None, of_runs: set[float | None]) -> None:
    """Raise a UserError that names the `--shortcut` of the runs, unless it is that of the evaluation.

    Args:
        shortcut: of the evaluation; None: no dots.
        of_runs: the different values of the runs.
    """
    if of_runs == {shortcut}:
        return
    option, *others = (
        "without --shortcut" if value is None else f"--shortcut {value}"
        for value in (shortcut, *of_runs)
    )
    raise UserError(
        f"{option}: these runs were stitched {' and '.join(sorted(others))}; give the same, and keep a folder of runs "
        "for each"
    )


def _has_moved(recorded: str, dataset: str) -> bool:
    """Return whether a user's data moved from a recorded path: the old path is gone, the name stays."""
    path = Path(recorded)
    return path.is_absolute() and path.name == Path(dataset).name and not path.exists()


def load_networks(
    runs: Sequence[Stitch],
    moved: Mapping[str, MovedNetwork],
    images: ImageSpec,
    *,
    session: Session,
    device: torch.device | str,
) -> dict[str, tuple[Network, NetworkName]]:
    """Load the front and the end network of runs.

    The networks return the activations of the stitched layers with the channel axis where it was in
    the runs.

    Args:
        moved: the networks, by side.

    Returns:
        For "front" and "end" the network, and its name with the SHA-256 of its weights.

    Raises:
        UserError: as `name_of`, or the weights have changed since a run was made.
    """
    networks = {}
    for i, side in enumerate(SIDES):
        name = name_of(runs[0].options, side, moved[side])
        network = session.network(name, images, device=device, encoder=side == "front")
        recorded = [run.row.networks[i] for run in one_of_each(runs)]
        if name.is_fresh:
            # The weights hash the type. A user's file may have moved, and so its type has changed.
            weights = runs[0].options.get(f"{side}_model_path_sha256") or recorded[0].content
        else:
            weights = session.weights(name, images, device=device)
        name = name._replace(weights=weights)
        earlier = [
            network for network in recorded if network.weights and network.identity != name.identity
        ]
        _refuse_earlier(side, earlier, len(recorded))
        networks[side] = (_with_channels_first(network, side, runs, images.shape), name)
    return networks


def _with_channels_first(
    network: Network, side: str, runs: Sequence[Stitch], image_shape: Sequence[int]
) -> Network:
    """Return a network that gives (B, C, H, W) at its stitched layers, as in the runs.

    Runs with `channels_last` took (B, H, W, C) where nothing else told.
    """
    stitched: dict[bool, set[str]] = {False: set(), True: set()}  # layers, by `channels_last`
    for run in runs:
        is_last = run.options.get("channels_last") in (side, "both")
        stitched[is_last].add(getattr(run.row, f"{side}_layer"))
    names = network.layer_names
    for is_last, layers in stitched.items():
        if layers:
            by_depth = [name for name in names if name in layers]
            network = network.channels_first(
                by_depth, image_shape=image_shape, channels_last=is_last
            )
    return network


def with_records(
    experiments: Mapping[str, Iterable[Stitch]],
    names: Mapping[str, NetworkName],
    fingerprints: Mapping[str, str | None],
) -> Experiments:
    """Return runs with the weights and the images of their evaluation in their rows.

    The public code records neither.

    Args:
        names: of the loaded networks, by side.
        fingerprints: of the loaded images, by split, from `short_images`.
    """
    weights = {side: names[side].identity for side in SIDES}
    recorded: Experiments = {}
    for title, runs in experiments.items():
        recorded[title] = []
        for run in runs:
            row = dataclasses.replace(
                run.row,
                front_weights=weights["front"],
                end_weights=weights["end"],
                train_images=fingerprints["train_images"] or run.row.train_images,
                test_images=fingerprints["test_images"] or run.row.test_images,
            )
            recorded[title].append(dataclasses.replace(run, row=row))
    return recorded


def name_of(options: Options, side: str, moved: MovedNetwork) -> NetworkName:
    """Return the name of the front or the end network of a run.

    Args:
        options: of the run.
        side: "front" or "end".
        moved: where it is now.

    Raises:
        UserError: the checkpoint is missing, or the network is code of the user's that the command
            line does not name.
    """
    path = moved.path
    recorded = NetworkName.of(
        options.get(f"{side}_model_path"),
        options.get(f"{side}_model_type"),
        seed=options.get("seed"),
    )
    type = moved.type
    if type is None and is_user_code(recorded.type):
        type = own_type_of(recorded.type, moved.own_types)
    if type is not None:
        functions = [place_and_function(name)[1] for name in (type, recorded.type)]
        if not is_user_code(recorded.type) or functions[0] != functions[1]:
            raise UserError(
                f"--{side}-type {type}: the {side} network of these runs is {recorded.type}; name"
                " that one"
            )
        if content_of(source_of(type)) != options.get(f"{side}_model_type_sha256"):
            warn(f"{type} is not the file that these runs were made with: it has changed since")
    if path is None and recorded.is_file and not Path(recorded.path).exists():
        raise UserError(
            f"{recorded.path}, the {side} network of these runs, is not there; name its place with"
            f" --{side}-model"
        )
    return recorded._replace(path=path or recorded.path, type=type or recorded.type)


def own_type_of(recorded: str, own_types: Sequence[str]) -> str:
    """Return the one of `own_types` that is the recorded type, or its function in another file.

    Raises:
        UserError: none of them is.
    """
    function = place_and_function(recorded)[1]
    types = [name for name in own_types if place_and_function(name)[1] == function]
    if not types:
        raise UserError(
            "the code of networks that a folder names is not run by itself; name it with "
            f"--own-types {recorded}"
        )
    return recorded if recorded in types else types[0]


def rebuild_grids(
    experiments: Mapping[str, Sequence[Stitch]],
    front: Network,
    end: Network,
    *,
    image_shape: Sequence[int],
) -> tuple[list[GridOfRuns], list[str]]:
    """Rebuild the stitches of runs: a grid per experiment, and a grid per whole checkpoint.

    A whole checkpoint holds both networks, whose BatchNorm statistics moved in training.

    Args:
        experiments: the runs of each experiment by its title, one for each pair of layers.
        front: the front network of all runs.
        end: the end network of all runs.
        image_shape: (C, H, W).

    Returns:
        The grids with their runs, and one message per run that cannot be rebuilt.
    """
    grids: list[GridOfRuns] = []
    messages = []
    for runs in experiments.values():
        rank = runs[0].row.front_stitch_rank
        layers: dict[Pair, StitchingLayer] = {}
        runs_of_grid: dict[Pair, Stitch] = {}
        for run in runs:
            pair = run.row.pair
            try:
                networks, layer = _rebuild(run, (front, end), image_shape)
            except UserError as error:
                messages.append(str(error))
                continue
            if networks == (front, end):
                layers[pair] = layer
                runs_of_grid[pair] = run
            else:
                grid = Grid(*networks, {pair: layer}, front_rank=rank)
                grids.append(GridOfRuns(grid, {pair: run}))
        if layers:
            grid = Grid(front, end, layers, front_rank=rank)
            grids.append(GridOfRuns(grid, runs_of_grid))
    return grids, messages


def _rebuild(
    run: Stitch, networks: tuple[Network, Network], image_shape: Sequence[int]
) -> tuple[tuple[Network, Network], StitchingLayer]:
    """Load the stitch of a run; return its networks and its layer.

    The networks are those that were given. From a whole checkpoint they are copies, with the
    statistics of the checkpoint.
    """
    pair = run.row.pair
    layers, _ = build_layers(
        *networks,
        [pair.front_layer],
        [pair.end_layer],
        run.options["stitching_type"],
        image_shape=image_shape,
        seed=0,
        c2t_cls_token=run.options.get("c2t_cls_token"),
        t2c_cls_token=run.options.get("t2c_cls_token"),
        upsample_mode=run.options.get("upsample_mode", "bilinear"),
    )
    layer = layers[pair]
    state = load_stitch(run.files.folder, pair)
    modules: dict[str, Network | StitchingLayer] = {"": layer}  # by the prefix of their keys
    is_whole = any(key.startswith("stitching_layer.") for key in state)
    if is_whole:
        networks = copy.deepcopy(networks)
        front, end = networks
        modules = {
            "stitching_layer.": layer,
            "front_model.model.": front,
            "end_model.model.": end,
        }
    for prefix, module in modules.items():
        state_of_module = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        fill(
            module,
            state_of_module,
            source=f"the stitch {pair} of {run.folder}",
            expected="the networks and layers of its config.txt",
        )
    return networks, layer
