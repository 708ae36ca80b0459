"""Reads and writes files in the layout of the public code: stitches, stores of detectors, and energies.

Only this module knows the files that the public code writes and reads. It does not import torch.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.core.choices import AUTO, STARTS, Options
from src.core.errors import UserError
from src.core.files import (
    read_json,
    readable,
    write_bytes,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    import numpy as np


RUN_NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(\.\d+)?")  # the folder of a run
CONFIG = "config.txt"  # the options of a run, as JSON
STITCH = "final_model.pt"  # the state dict of a stitch
# Beginnings of the keys in the state dict of a whole stitched network, by its part
PARTS = {"layer": "stitching_layer.", "front": "front_model.model.", "end": "end_model.model."}
SUMMARY = "summary.txt"  # what was measured of a stitch
META = "meta.json"  # of a store: network, layer and data of each detector
# Lines of `summary.txt`, and the metrics that they hold
METRICS = {
    "Clean accuracy": "accuracy",
    "Normalized PINV difference": "matching_error",
    "Normalized representation difference": "representation_difference",
}
SPARSITY = "sparsity_"  # begins the columns of sparsity, before the threshold
N_SUMMARY_LINES = 7  # lines with values at the start of `summary.txt`
# Values of this suite for the options that the public code writes as "" or 0
EMPTY: Options = {"scheduler": "none", "front_stitch_rank": None, "front_pinv_rank": None}


def read_options(path: Path) -> Options:
    """Read the options in a `config.txt` of this suite or of the public code."""
    options = read_json(path)
    if not isinstance(options, dict):
        raise UserError(f"{path} holds no options; remove its folder")
    for name, value in EMPTY.items():
        if name in options and not options[name]:
            options[name] = value
    return options


def typed_options(options: Options) -> Options:
    """Return the options of a run as they were typed, with `auto` where it chose the stitching type."""
    typed = dict(options)
    token = typed.pop("c2t_cls_option", None)
    if typed.pop("stitching_option", None) == AUTO:
        typed |= {"stitching_type": AUTO, "c2t_cls_token": token}
    return typed


def chosen_options(typed: Options, chosen: Options) -> Options:
    """Return the options of a run for one pair of layers, with the stitching type that `auto` chose.

    Args:
        chosen: the stitching type and the CLS token of the pair; empty: nothing was chosen.
    """
    if not chosen:
        return typed
    return {**typed, **chosen, "c2t_cls_option": typed.get("c2t_cls_token")}


def write_summary(folder: Path, record: Mapping[str, Any], *, command: str) -> None:
    """Write `summary.txt` of a stitch.

    Args:
        record: of `grid.csv`.
        command: the command line of the run.
    """
    # Readers rely on the blanks at the ends of lines.
    lines = [
        f"Front model: {record['front_model_path']} ",
        f"End model: {record['end_model_path']} ",
        f"Front layer: {record['front_layer']} ",
        f"End layer: {record['end_layer']} ",
        f"Clean accuracy: {record['accuracy']:.4f} ",
        f"Normalized PINV difference: {record['matching_error'] or 0:.4f}",  # 0 where nothing was matched
        f"Normalized representation difference: {record['representation_difference']:.4f}",
        "",
        f"Command: {command}",
        "",
        "Sparsity",
    ]
    shares = {name: share for name, share in record.items() if name.startswith(SPARSITY)}
    for column, share in shares.items():
        threshold = column.removeprefix(SPARSITY)
        tabs = "\t\t" if threshold == "0" else "\t"
        lines.append(f"{threshold}: {tabs}{share}")
    write_text(folder / SUMMARY, "\n".join(lines) + "\n")


def read_summary(folder: Path, options: Options) -> dict[str, object]:
    """Read the metrics in `summary.txt` of a run, as texts by name.

    Raises:
        UserError: the file is missing or damaged.
    """
    summary = folder / SUMMARY
    with readable(summary, "remove the folder, and stitch this pair again"):
        lines = summary.read_text(encoding="utf-8").splitlines()
    metrics: dict[str, object] = {}
    for line in lines[:N_SUMMARY_LINES]:
        title, _, value = line.partition(": ")
        if title in METRICS:
            metrics[METRICS[title]] = value.strip()
    if options.get("init") in STARTS:
        metrics["matching_error"] = None  # the public code writes 0
    return metrics


def states_in(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split the state dict of a stitch: "layer", and with whole networks also "front" and "end"."""
    if not any(key.startswith(PARTS["layer"]) for key in state):
        return {"layer": dict(state)}
    states: dict[str, dict[str, Any]] = {}
    for part, prefix in PARTS.items():
        states[part] = {}
        for key, value in state.items():
            if key.startswith(prefix):
                states[part][key.removeprefix(prefix)] = value
    return states


def write_energies(folder: Path, arrays: Mapping[str, "np.ndarray"]) -> None:
    """Write each array as `FOLDER/KEY.npy`."""
    import numpy as np  # the scripts read options before they load it

    for key, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_bytes(folder / f"{key}.npy", buffer.getvalue())


def read_meta(store: Path) -> dict[str, dict[str, Any]]:
    """Read the entries of a store of detectors by file name, oldest first; {} without `meta.json`."""
    meta = store / META
    with readable(meta, "restore it or move it away"):
        written = read_json(meta) if meta.exists() else {}
        return {name: dict(entry) for name, entry in written.items()}


def write_meta(store: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the entries of a store of detectors."""
    write_json(store / META, entries)
