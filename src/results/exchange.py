"""Writes stitches in the layout of the public code: a folder for each stitch."""

from pathlib import Path

from src.choices import AUTO, Options
from src.core.files import durable_together, read_json, write_json
from src.results.checkpoints import StateDict, load_stitch
from src.results.folders import Stitch
from src.results.run import new_folder
from src.results.writing import write_logs, write_stitches


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
