"""The figures of a folder of stitching runs: heat maps of layers, curves over ranks, or means."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from src.collected.grid_matrices import (
    MAX_EXPERIMENTS,
    Sweep,
    experiments_of,
    rank_sweeps,
    shown_matrices,
    shown_rows,
)
from src.collected.groups import Names
from src.ground.console import note
from src.ground.curves import CurvePanel, curves
from src.ground.figures import capitalised, joined
from src.reports.captions import common, describe_stitches
from src.reports.heat_maps import Labels, maps
from src.reports.map_panels import HeatMap
from src.tables.architectures import StitchOfTypes, corresponding_layers
from src.tables.quantities import QUANTITIES
from src.tables.stitch_rows import StitchRow

MAX_PANELS = 12  # in one figure
MAX_LINES = 10  # curves in a panel
TITLE = "accuracy of the stitched network"
STITCHED = Labels("front layer", "end layer", "not stitched or not measured")


def labels_of(rows_of_title: Mapping[str, Iterable[StitchOfTypes]]) -> Labels:
    """Return the labels of heat maps of stitches, with frames around corresponding layers.

    Args:
        rows_of_title: the stitches of each experiment of the figure.
    """
    framed = {title: corresponding_layers(rows) for title, rows in rows_of_title.items()}
    return STITCHED._replace(framed=framed)


def draw_grid(
    path: Path, rows: Sequence[StitchRow], *, title: str = "", names: Names | None = None
) -> None:
    """Draw the accuracies of stitches beside their table; a note names the files.

    Args:
        path: of the table.
        names: of the networks, for titles and the caption.
    """
    caption = describe_stitches(rows, names=names)
    drawn = path.with_suffix(".png")
    sweeps = rank_sweeps(rows, names)
    if sweeps and len(sweeps) <= MAX_EXPERIMENTS:
        draw_ranks(drawn, sweeps, end_accuracy=_end_accuracy(rows), title=title, caption=caption)
    else:
        experiments = experiments_of(rows, names)
        if len(experiments) > MAX_EXPERIMENTS:
            note(f"{drawn} shows means of {len(experiments)} experiments; {path} has all of them")
        _draw_maps(
            drawn, experiments, end_accuracy=_end_accuracy(rows), title=title, caption=caption
        )
    written = str(path)
    if drawn.exists():
        written += f" and {drawn}"
    note(f"wrote {written}")


def _end_accuracy(rows: Sequence[StitchRow]) -> float | None:
    """Return the accuracy of the end network; None of several end networks, or if it is not known."""
    accuracy = common(rows, "end_accuracy")
    if not accuracy or len({row.network_keys[1] for row in rows}) > 1:
        return None
    return None if math.isnan(float(accuracy)) else float(accuracy)


def _draw_maps(
    path: Path,
    experiments: Mapping[str, Sequence[StitchRow]],
    *,
    end_accuracy: float | None,
    title: str,
    caption: str,
) -> None:
    """Draw the accuracies over layers: a panel an experiment, or a mean over experiments."""
    matrices = shown_matrices(experiments)
    if len(matrices) > MAX_PANELS:
        left_out = (
            f"The first {MAX_PANELS} of {len(matrices)} means are shown; the CSV has all of them."
        )
        caption = joined(caption, left_out)
    on_end = "" if end_accuracy is None else f"end network: {end_accuracy:.3f}"
    panels: dict[str, dict[str, HeatMap]] = {}
    rows_of_panel = {}
    shown = zip(matrices.items(), shown_rows(experiments).values(), strict=True)
    for (name, matrix), of_panel in itertools.islice(shown, MAX_PANELS):
        panel_title = name.replace(", ", "\n")
        panel = HeatMap.of(matrix, QUANTITIES["accuracy"])._replace(note=on_end)
        panels[panel_title] = {"accuracy": panel}
        rows_of_panel[panel_title] = of_panel
    maps(path, panels, labels=labels_of(rows_of_panel), title=title, caption=caption)


def draw_ranks(
    path: Path,
    sweeps: Mapping[str, Sweep],
    *,
    end_accuracy: float | None,
    title: str,
    caption: str,
) -> None:
    """Draw the accuracies over ranks: a panel an experiment, a line a pair of layers.

    More than ten pairs of layers are one line of their mean. Full rank has no place on the axis and
    stands in the caption.

    Args:
        end_accuracy: of the end network, drawn as a line; None: of several end networks.
    """
    marks = {} if end_accuracy is None else {f"end network: {end_accuracy:.3f}": end_accuracy}
    panels = []
    at_full_rank = []
    for name, sweep in sweeps.items():
        lines: dict[str, dict[int, list[float]]] = {}
        for pair, accuracy_of_rank in sweep.items():
            label = f"{pair.front_layer} → {pair.end_layer}"
            if len(sweep) > MAX_LINES:
                label = f"mean of {len(sweep)} pairs of layers"
            for rank, accuracy in accuracy_of_rank.items():
                if rank is None:
                    at_full_rank.append(accuracy)
                else:
                    lines.setdefault(label, {}).setdefault(rank, []).append(accuracy)
        means = {
            label: {rank: float(np.mean(values)) for rank, values in line.items()}
            for label, line in lines.items()
        }
        panels.append(CurvePanel(means, TITLE, title=name.replace(", ", "\n"), marks=marks))
    on_ranks = (
        f"{capitalised(TITLE)} over the number of principal components kept of the front layer. "
        "Lines: front → end layer."
    )
    if at_full_rank:
        on_ranks += f" At full rank (mean): {np.mean(at_full_rank):.2f}."
    caption = joined(caption, on_ranks)
    curves(path, panels, x_label="retained rank (components)", title=title, caption=caption)
