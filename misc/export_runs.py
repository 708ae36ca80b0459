#!/usr/bin/env python3
"""Export stitches to the layout of the paper's code."""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli, results
from src.core.choices import AUTO
from src.core.console import counted, listed, note, warn
from src.core.errors import UserError
from src.core.files import durable_together, read_json, write_json
from src.results.public import CONFIG, STITCH, chosen_options

if TYPE_CHECKING:
    import torch

    from src.results.stitches import Stitch


def parser() -> cli.Parser:
    options = cli.Parser(
        "Export stitches to the layout of the paper's code: a folder per stitch, which this suite reads as well."
    )
    add = options.add_argument
    add("source_dirs", nargs="+", help="folders of stitching runs, or single runs")
    add("-o", "--output", required=True, help="new folder to write to")
    return options


def main(args: Namespace) -> None:
    """Write the runs to a new folder, with the layout of the public code."""
    target = Path(args.output)
    if target.exists():
        raise UserError(f"-o {target} exists; give a new folder")
    stitches = []
    for folder in args.source_dirs:
        of_folder, skipped = results.stitches.read_stitches(folder)
        for reason in skipped:
            warn(f"skipped: {reason}")
        if not of_folder:
            raise results.stitches.without_runs(Path(folder))
        stitches += of_folder
    check_saved(stitches)
    for stitch in stitches:
        export_stitch(stitch, target)
    note(f"wrote {counted(len(stitches), 'folder', 'folders')} to {target}")


def check_saved(stitches: "Sequence[Stitch]") -> None:
    """Raise a UserError if the stitching layers of a run are not on disk."""
    names = (results.stitches.STITCHES, STITCH)
    folders = dict.fromkeys(stitch.files.folder for stitch in stitches)
    unsaved = [folder for folder in folders if not any((folder / name).is_file() for name in names)]
    if unsaved:
        raise UserError(
            f"{len(unsaved)} of {len(folders)} runs have no {' and no '.join(names)} ({listed(unsaved, n=3)}), which "
            "their stitches are exported from; give other folders, or stitch again without --no-save"
        )


def export_stitch(stitch: "Stitch", target: Path) -> None:
    """Write a stitch to its own folder in `target`, as a run for one pair of layers."""
    pair = stitch.pair
    state = results.scoring.load_stitch(stitch.files.folder, pair)
    predictions = {}
    if stitch.predictions is not None:
        predictions = {pair: stitch.predictions}
    record = stitch.files.folder / "run.json"
    made_with = read_json(record) if record.exists() else {}  # the public code writes none
    folder = results.run.new_folder(target)
    with durable_together():
        results.stitch_runs.write_stitches(
            folder,
            [stitch],
            states={pair: state},
            predictions=predictions,
            command=made_with.get("command", ""),
        )
        results.run.write_logs(folder, stitch.files.epochs.get(pair, []))
        if made_with:
            write_json(folder / "run.json", made_with)
    write_json(folder / CONFIG, chosen_options(stitch.options, chosen_of(stitch, state)))


def chosen_of(stitch: "Stitch", state: "Mapping[str, torch.Tensor]") -> dict:
    """Return the stitching type and the CLS token that `auto` chose for a stitch; {} of another type.

    Args:
        state: the state dict of the stitching layer.
    """
    if stitch.options["stitching_type"] != AUTO:
        return {}
    token = None
    if stitch.record["stitching_type"] == "c2t":
        token = "learn" if "cls_token" in state else "pool"
    return {
        "stitching_type": stitch.record["stitching_type"],
        "stitching_option": AUTO,
        "c2t_cls_token": token,
    }


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
