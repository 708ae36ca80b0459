"""Runs in earlier forms: a folder a stitch, of the public code and of version 2.0.0.dev0."""

import itertools
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.choices import AUTO, Options
from src.ground.files import durable_together, read_json, write_json
from src.ground.grouping import grouped
from src.results.checkpoints import StateDict, load_state, load_stitch
from src.results.folders import RunFiles, Stitch, as_typed, row_of
from src.results.network_list import TABLES, ListedNetwork, pair_name, stitches_name
from src.results.options import read_options
from src.results.run import new_folder
from src.results.stitch_rows import SPARSITY, StitchRow
from src.results.training_rows import EpochRow
from src.results.writing import write_logs, write_logs_of_pairs, write_stitches
from src.values import Pair, Predictions

# Options that differ between the folders of one call
OF_A_PAIR = ("front_layer", "end_layer", "stitching_type", "c2t_cls_token")


def export_stitch(stitch: Stitch, target: Path) -> None:
    """Write a stitch to a folder of its own in `target`, with the files of the public code.

    Raises:
        UserError: the run has not kept the stitch.
    """
    state = load_stitch(stitch.files.folder, stitch.row.pair)
    predictions = {}
    if stitch.predictions is not None:
        predictions = {stitch.row.pair: stitch.predictions}
    record = stitch.files.folder / "run.json"
    made_with = read_json(record) if record.exists() else {}  # the public code writes none

    folder = new_folder(target)
    with durable_together():
        write_stitches(
            folder,
            {stitch.row.pair: stitch.row},
            states={stitch.row.pair: state},
            predictions=predictions,
            command=made_with.get("command", ""),
        )
        write_logs(folder, stitch.files.epochs.get(stitch.row.pair, []))
        if made_with:
            write_json(folder / "run.json", made_with)
    write_json(folder / "config.txt", _with_chosen_type(stitch, state))


def _with_chosen_type(stitch: Stitch, state: StateDict) -> Options:
    """Return the options of a stitch with the type that `auto` chose."""
    if stitch.options["stitching_type"] != AUTO:
        return stitch.options
    made_cls = None
    if stitch.row.stitching_type == "c2t":
        made_cls = "learn" if "cls_token" in state else "pool"
    return {
        **stitch.options,
        "stitching_type": stitch.row.stitching_type,
        "stitching_option": AUTO,
        "c2t_cls_token": made_cls,
        "c2t_cls_option": stitch.options.get("c2t_cls_token"),
    }


def earlier_calls(source: Path) -> list[list[Path]]:
    """Return the folders of version 2.0.0.dev0 below a folder, grouped by call."""
    folders = sorted(path.parent for path in source.rglob("metrics.json"))
    finished = [folder for folder in folders if (folder / "config.txt").is_file()]
    stitches = [folder for folder in finished if not _is_control(folder)]
    return list(grouped(stitches, _call_of).values())


def _is_control(folder: Path) -> bool:
    """Return whether a folder has a stitch from labels without images: skill has a baseline of its
    own."""
    return bool(read_options(folder / "config.txt").get("class_control"))


def _call_of(folder: Path) -> tuple[Path, str, str]:
    """Return place, start and options, which the folders of one call share."""
    options = {
        name: value
        for name, value in read_options(folder / "config.txt").items()
        if name not in OF_A_PAIR
    }
    if options["n_epochs"] and not options["mod_only_stitch"]:  # it has networks of its own
        options["folder"] = folder.name
    start = read_json(folder / "run.json")["start"]
    return folder.parent, start, json.dumps(options, sort_keys=True)


def present_place(place: Path, networks: Iterable[ListedNetwork]) -> Path:
    """Return the present place of stitches of all_pairs.py: METHOD/A-B became `A to B`/METHOD.

    Args:
        place: of their folder, below the folder to bring.
        networks: of the list; other places stay.
    """
    for pair in itertools.permutations(networks, 2):
        if place.name == pair_name(*pair) and len(place.parts) > 1:
            return place.parents[1] / stitches_name(*pair) / place.parent.name
    return place


def copy_tables(source: Path, target: Path) -> None:
    """Copy the folders of tables below a folder, which have kept their form."""
    for folder in sorted(source.rglob("*/")):
        if folder.name in TABLES:
            shutil.copytree(folder, target / folder.relative_to(source))


def import_run(folders: Sequence[Path], target: Path) -> None:
    """Write the stitches of one call of version 2.0.0.dev0 as a run in `target`.

    Args:
        folders: of the stitches.
    """
    options = read_options(folders[0] / "config.txt")
    made_with = read_json(folders[0] / "run.json")
    new = new_folder(target)
    rows: dict[Pair, StitchRow] = {}
    states: dict[Pair, StateDict] = {}
    predictions: dict[Pair, Predictions] = {}
    epochs: dict[Pair, list[EpochRow]] = {}
    for folder in folders:
        row = _earlier_row(folder, new)
        files = RunFiles(folder, [row.pair])
        rows[row.pair] = row
        predictions |= files.predictions
        epochs |= files.epochs
        if (folder / "final_model.pt").exists():
            states[row.pair] = load_state(folder / "final_model.pt")
    if len(predictions) < len(rows):  # a damaged file was left out, with a warning
        predictions = {}
    with durable_together():
        write_stitches(
            new, rows, states=states, predictions=predictions, command=made_with["command"]
        )
        write_logs_of_pairs(new, epochs)
        write_json(new / "run.json", made_with)
    if len(rows) > 1:
        options = {**as_typed(options), **_layers_of(rows)}
    write_json(new / "config.txt", options)


def _layers_of(pairs: Iterable[Pair]) -> dict[str, str]:
    """Return the layers of pairs as options."""
    fronts, ends = (dict.fromkeys(layers) for layers in zip(*pairs, strict=True))
    return {"front_layer": ",".join(fronts), "end_layer": ",".join(ends)}


def _earlier_row(folder: Path, new: Path) -> StitchRow:
    """Return the row of a stitch of version 2.0.0.dev0, for a new folder."""
    metrics = read_json(folder / "metrics.json")
    sparsity = metrics.pop("sparsity", {})
    record = {f"{SPARSITY}{threshold}": share for threshold, share in sparsity.items()} | metrics
    return row_of(new, read_options(folder / "config.txt"), record)
