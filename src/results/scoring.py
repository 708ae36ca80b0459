"""Evaluates stitches on disk: loads their networks and stitching layers, and writes their scores as rows of
`evaluation.csv`.
"""

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.core.choices import Options
from src.core.choices.datasets import dataset_label
from src.core.console import listed, warn
from src.core.errors import UserError
from src.core.files import write_arrays
from src.core.inputs import InputSpec
from src.core.tensors import load_tensors
from src.core.user_code import digest_of, file_and_function, is_user_code, source_of
from src.core.values import Pair
from src.models import Network
from src.ood.evaluation import OodEvaluation, score_grid, separation_of
from src.ood.reference import EndReference
from src.results.checkpoints import Session, StateDict, fill, load_state
from src.results.network_names import SHORT, NamedNetwork, titles_of
from src.results.public import STITCH, states_in, write_energies
from src.results.spec import CHECKPOINTS, on_same_images, short_images
from src.results.stitches import (
    STITCHES,
    EvaluationFiles,
    Stitch,
    by_detector,
    columns_of_skill,
    one_of_each,
    place_of,
    without_runs,
)
from src.stitching.grid import Grid
from src.stitching.layers import StitchingLayer
from src.stitching.stitched_model import build_layers

OTHER_DATA = "give --other-data for an evaluation on other data, which the verdict leaves out"
SHARED = ("front_model_type", "end_model_type", "stitching_type")


def check_stitches(stitches: Sequence[Stitch], folder: Path) -> None:
    """Raise a UserError unless all stitches are of the same networks, whatever their paths, and of one
    stitching type.

    Args:
        folder: of the runs, for the message.
    """
    if not stitches:
        raise without_runs(folder)
    of_runs = one_of_each(stitches)
    values: dict[str, Collection[str]] = {
        name: {str(stitch.spec[name]) for stitch in of_runs} for name in SHARED
    }
    for i, name in enumerate(CHECKPOINTS):
        values[name] = titles_of(stitch.networks[i] for stitch in of_runs).values()
    for name, distinct in values.items():
        if len(distinct) > 1:
            raise UserError(
                f"the runs differ in {name}: {', '.join(sorted(distinct))}; evaluate them apart: give the folder of "
                "each run"
            )


def check_images(stitches: Sequence[Stitch], options: Options) -> None:
    """Raise a UserError unless the evaluation uses the images that the stitches were made on.

    With `--other-data`, the images or the names of their data sets must differ instead.

    Args:
        options: of the evaluation, with the fingerprints of its images.
    """
    dataset = options["dataset"]
    now = {
        "dataset": dataset_label(dataset),
        "shortcut": options["shortcut"],
        **short_images(options),
    }
    of_runs = one_of_each(stitches)
    others = [stitch for stitch in of_runs if not on_same_images(stitch.record, now)]
    if options["other_data"]:
        if not others:
            raise UserError(
                f"--other-data: no run says that it was stitched on other data than {dataset}; leave it out"
            )
        return
    names = sorted({_images_named_by(stitch.options) for stitch in others})
    if names == [_images_named_by(options)]:
        raise UserError(
            f"-d {dataset} has changed since {len(others)} of {len(of_runs)} runs were stitched on it; restore it, or "
            f"remove the folders and stitch again; or {OTHER_DATA}"
        )
    if names:
        raise UserError(
            f"-d {dataset}: {len(others)} of {len(of_runs)} runs were stitched on other inputs ({listed(names)}); "
            "give these (-d, -data, --shortcut); if they have changed since, remove the folders "
            f"and stitch again; or {OTHER_DATA}"
        )


def _images_named_by(options: Options) -> str:
    """Return the images of a run, by the name of their option on the command line."""
    settings = {"-d": "dataset", "-data": "dataset_root", "--shortcut": "shortcut"}
    values = {flag: options.get(name) for flag, name in settings.items()}
    return " ".join(f"{flag} {value}" for flag, value in values.items() if value is not None)


def load_networks(
    stitches: Sequence[Stitch],
    images: InputSpec,
    *,
    paths: Mapping[str, str | None],
    own_types: Sequence[str],
    session: Session,
    device: torch.device | str,
) -> dict[str, tuple[Network, NamedNetwork]]:
    """Load the front and the end network of stitches.

    The networks return the activations of the stitched layers with the channel axis where it was in
    the runs.

    Args:
        paths: of the checkpoints that were moved since, by side; None: as recorded.
        own_types: names of a user's code that may run.

    Returns:
        For "front" and "end" the network, and its name with the SHA-256 of its weights.

    Raises:
        UserError: as `name_of`, or the weights have changed since the stitches were made.
    """
    networks = {}
    options = stitches[0].options
    for (side, path), recorded in zip(paths.items(), stitches[0].networks, strict=True):
        name = name_of(options, side, path, own_types)
        network = session.network(name, images, device=device, encoder=side == "front")
        name = replace(name, weights=session.weights(name, images, device=device))
        if recorded.weights and recorded.identity != name.identity:
            raise UserError(
                f"{name.title} has other weights than the {side} network of these runs; say with --{side}-model where "
                "its checkpoint is, or remove the runs and stitch again"
            )
        networks[side] = (_with_channels_first(network, side, stitches, images.shape), name)
    return networks


def _with_channels_first(
    network: Network, side: str, stitches: Sequence[Stitch], image_shape: Sequence[int]
) -> Network:
    """Return a network whose stitched layers have the axis order (B, C, H, W), as in the runs.

    Runs with `channels_last` took (B, H, W, C) where nothing else told.
    """
    for is_last in (False, True):
        layers = {
            stitch.record[f"{side}_layer"]
            for stitch in stitches
            if (stitch.options.get("channels_last") in (side, "both")) == is_last
        }
        if layers:
            by_depth = [name for name in network.layer_names if name in layers]
            network = network.channels_first(
                by_depth, image_shape=image_shape, channels_last=is_last
            )
    return network


def name_of(
    options: Options, side: str, path: str | None, own_types: Sequence[str]
) -> NamedNetwork:
    """Return the `NamedNetwork` of the front or the end network of a run.

    Args:
        options: of the run.
        side: "front" or "end".
        path: of the checkpoint now; None: as recorded.
        own_types: names of a user's code that may run.

    Raises:
        UserError: the checkpoint is missing, or the network is code of the user's that the command
            line does not name.
    """
    recorded = NamedNetwork.of(
        options.get(f"{side}_model_path"),
        options.get(f"{side}_model_type"),
        seed=options.get("seed"),
    )
    type = recorded.type
    if is_user_code(type):
        digest = options.get(f"{side}_model_type_sha256")
        type = own_type_of(type, own_types, digest)
        if digest_of(type) != digest:
            raise UserError(
                f"{source_of(type)} is not the code that these runs were stitched with "
                f"({side}_model_type_code was {str(digest)[:SHORT]}, now {digest_of(type)[:SHORT]}); restore it, or "
                "stitch again"
            )
    if path is None and recorded.is_file and not Path(recorded.path).exists():
        raise UserError(
            f"{recorded.path}, the {side} network of these runs, does not exist; give its path with"
            f" --{side}-model"
        )
    return replace(recorded, path=path or recorded.path, type=type)


def own_type_of(recorded: str, own_types: Sequence[str], digest: object) -> str:
    """Return the entry of `own_types` for the recorded type, or for the same function in another file.

    Args:
        digest: the recorded SHA-256 of the file. Of several other files, that of this content comes
            first.

    Raises:
        UserError: none of them is.
    """
    function = file_and_function(recorded)[1]
    types = [name for name in own_types if file_and_function(name)[1] == function]
    if not types:
        raise UserError(
            "the code of networks that a folder names does not run unless the command gives it; add "
            f"--own-types {recorded}"
        )
    if recorded in types:
        return recorded
    return max(types, key=lambda name: digest_of(name) == digest)


def load_stitch(folder: Path, pair: Pair) -> StateDict:
    """Load the state dict of a stitch in a run's folder; only its own tensors are read.

    Raises:
        UserError: as `load_state`; or the run has kept no such stitch.
    """
    path = folder / STITCHES
    if not path.exists():
        return load_state(folder / STITCH)
    states = load_tensors(path, mmap=True)
    try:
        return states[pair.front_layer][pair.end_layer]
    except KeyError:
        raise UserError(f"{path} has no stitch {pair}; stitch again") from None


def rebuild_grids(
    experiments: Iterable[Sequence[Stitch]],
    front: Network,
    end: Network,
    *,
    image_shape: Sequence[int],
) -> tuple[list[tuple[Grid, dict[Pair, Stitch]]], list[str]]:
    """Load stitches from disk as grids, with their stitches: one per experiment, and one per checkpoint of whole
    networks.

    A whole checkpoint holds both networks, whose BatchNorm statistics moved in training.

    Args:
        experiments: the stitches of each experiment, one for each pair of layers.
        front: the front network of all stitches.
        end: the end network of all stitches.
        image_shape: (C, H, W).

    Returns:
        The grids, and one message per stitch that cannot be rebuilt.
    """
    grids: list[tuple[Grid, dict[Pair, Stitch]]] = []
    messages = []
    for stitches in experiments:
        made: dict[tuple[Network, Network], dict[Pair, tuple[Stitch, StitchingLayer]]] = {}
        for stitch in stitches:
            try:
                networks, layer = _rebuild(stitch, (front, end), image_shape)
            except UserError as error:
                messages.append(str(error))
                continue
            made.setdefault(networks, {})[stitch.pair] = (stitch, layer)
        record = stitches[0].record
        form = "" if record["n_epochs"] else record["init"]
        for networks, of_pairs in made.items():
            layers = {pair: layer for pair, (_, layer) in of_pairs.items()}
            grid = Grid(*networks, layers, front_rank=record["front_stitch_rank"], form=form)
            grids.append((grid, {pair: stitch for pair, (stitch, _) in of_pairs.items()}))
    return grids, messages


def _rebuild(
    stitch: Stitch, networks: tuple[Network, Network], image_shape: Sequence[int]
) -> tuple[tuple[Network, Network], StitchingLayer]:
    """Load a stitch; return its networks and its stitching layer.

    The networks are those that were given. From a whole checkpoint they are copies, with the
    statistics of the checkpoint.
    """
    pair = stitch.pair
    layers, _ = build_layers(
        *networks,
        [pair.front_layer],
        [pair.end_layer],
        stitch.options["stitching_type"],
        image_shape=image_shape,
        seed=0,
        c2t_cls_token=stitch.options.get("c2t_cls_token"),
        t2c_cls_token=stitch.options.get("t2c_cls_token"),
        upsample_mode=stitch.options.get("upsample_mode", "bilinear"),
    )
    layer = layers[pair]
    states = states_in(load_stitch(stitch.files.folder, pair))
    modules: dict[str, Network | StitchingLayer] = {"layer": layer}
    if "front" in states:
        networks = copy.deepcopy(networks)
        modules["front"], modules["end"] = networks
    for part, module in modules.items():
        fill(
            module,
            states[part],
            source=f"the stitch {pair} of {stitch.folder}",
            expected="the networks and layers of its config.txt",
        )
    return networks, layer


Scores = dict[tuple[str, Pair], OodEvaluation]  # of stitches, by `Stitch.place`
Scored = Sequence[tuple[Stitch, OodEvaluation]]  # stitches with their scores
MOST_CHANGED = 0.02  # difference of accuracies that precision and batches may make


def score_stitches(
    grids: Iterable[tuple[Grid, Mapping[Pair, Stitch]]], reference: EndReference
) -> Scores:
    """Compute the accuracy, skill and detector scores of all stitches, by their places."""
    scores: Scores = {}
    for grid, stitches in grids:
        scores_of_pair = score_grid(grid, reference)
        scores |= {stitch.place: scores_of_pair[pair] for pair, stitch in stitches.items()}
    return scores


def check_scored(scored: Scored, *, other_data: bool, batch_size: int) -> None:
    """Warn of stitches with activations that are not finite, or whose accuracy differs from the recorded one.

    Args:
        other_data: the test images are other data than the stitches were made on.
        batch_size: of the evaluation.
    """
    for stitch, scores in scored:
        title = f"{stitch.folder}, {stitch.pair}"
        if not scores.is_finite:
            warn(
                f"{title}: the activations of this stitch are not finite, so its accuracy "
                "and OOD scores are nan; stitch it again, with a lower -lr if it was trained"
            )
        elif not other_data and abs(scores.accuracy - stitch.record["accuracy"]) > MOST_CHANGED:
            cause = "inputs, networks or user code have changed; stitch it again"
            batch_size_before = stitch.options.get("batch_size", batch_size)
            if stitch.record["front_stitch_rank"] and batch_size != batch_size_before:
                cause = f"--front-stitch-rank cuts each batch by itself; give -b {batch_size_before}, as it was made"
            warn(
                f"{title}: this stitch had an accuracy of {stitch.record['accuracy']:.4f} when it was made, and has "
                f"{scores.accuracy:.4f} now: {cause}"
            )


def evaluation_rows(
    scored: Scored,
    reference: EndReference,
    record: Options,
    *,
    other_data: bool = False,
) -> list[dict[str, Any]]:
    """Return the record of `evaluation.csv` for each stitch, in order.

    Args:
        record: the images of the evaluation, by column.
        other_data: the test images are other data than the stitches were made on.
    """
    options = reference.options
    rows = []
    for stitch, scores in scored:
        # The data: those of the stitch, as its row names them, unless other data were given
        dataset = dataset_label(options.dataset)
        if not other_data and stitch.record["dataset"] is not None:
            dataset = stitch.record["dataset"]
        row = {
            **stitch.pair._asdict(),
            **record,
            "folder": stitch.folder.name,
            "dataset": dataset,
            "id_dataset": options.id_dataset or dataset,
            "sanity_dataset": options.sanity_dataset or None,
            "accuracy": scores.accuracy,
            **columns_of_skill(scores.skill),
            **_measured_by_detectors(stitch.pair.end_layer, scores, reference),
        }
        rows.append(row)
    return rows


def _measured_by_detectors(
    end_layer: str, scores: OodEvaluation, reference: EndReference
) -> dict[str, float]:
    """Return the measurements by the detectors at the end layer, by column."""
    columns: dict[str, float] = {}
    for name, of_stitch in scores.scores.items():
        separation = separation_of(
            of_stitch,
            reference.id_scores[name][end_layer],
            is_paired=not reference.options.id_dataset,  # both are activations of the test images
        )
        measured = separation._asdict()
        check = reference.checks.get(name, {}).get(end_layer)
        if check:
            measured["sanity_auroc"] = check.auroc
        columns |= {f"{column}_{name}": value for column, value in measured.items()}
    return columns


def with_earlier_detectors(
    rows: Iterable[dict[str, Any]], earlier: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return records extended by earlier measurements with other detectors, of the same stitches on the same
    images."""
    before = {place_of(row): row for row in earlier}
    together = []
    for row in rows:
        of_stitch = before.get(place_of(row))
        further: dict[str, Any] = {}
        if of_stitch and on_same_images(row, of_stitch):
            of_row = by_detector(row)
            for detector, measured in by_detector(of_stitch).items():
                if detector not in of_row:
                    further |= measured
        together.append({**further, **row})
    return together


def describe_detectors(reference: EndReference) -> dict[str, dict[str, dict[str, object]]]:
    """Describe detectors by detector and layer: their training data and their sanity checks."""
    described: dict[str, dict[str, dict[str, object]]] = {}
    for score, of_layers in reference.detectors.items():
        checks = reference.checks.get(score, {})
        described[score] = {
            layer: {"id_data": detector.id_data, "ood_data": detector.ood_data}
            for layer, detector in of_layers.items()
        }
        for layer in described[score].keys() & checks.keys():
            described[score][layer]["sanity_check"] = checks[layer]._asdict()
    return described


def save_scores(
    folder: str | None,
    files: EvaluationFiles,
    scored: Scored,
    reference: EndReference,
) -> None:
    """Save the scores of all images by each detector.

    Args:
        folder: to write an array a file to, in a folder a detector if there are several; None: write a
            file a detector.
    """
    detectors = dict.fromkeys(chain.from_iterable(scores.scores for _, scores in scored))
    for detector in detectors:
        arrays = _scores_of_images(detector, scored, reference)
        if not folder:
            write_arrays(files.scores(detector), arrays)
            continue
        has_several = len(reference.options.scores) > 1
        write_energies(Path(folder, detector if has_several else ""), arrays)


def _scores_of_images(score: str, scored: Scored, reference: EndReference) -> dict[str, np.ndarray]:
    """Return the scores of all images as float32 arrays (N,), by END_LAYER/FRONT_LAYER.

    If stitches of several runs have the same two layers, the key is END_LAYER/FRONT_LAYER RUN_FOLDER. The
    scores of the sanity-check data have the key END_LAYER/SANITY_DATASET.
    """
    arrays = {}
    for layer, scores in reference.sanity_scores.get(score, {}).items():
        arrays[f"{layer}/{dataset_label(reference.options.sanity_dataset)}"] = scores

    n_stitches = Counter(stitch.pair for stitch, _ in scored)
    for stitch, scores_of_stitch in scored:
        if score not in scores_of_stitch.scores:
            continue
        pair = stitch.pair
        key = f"{pair.end_layer}/{pair.front_layer}"
        if n_stitches[pair] > 1:
            key += f" {stitch.folder.name}"
        arrays[key] = scores_of_stitch.scores[score]
    return {key: scores.astype(np.float32) for key, scores in arrays.items()}
