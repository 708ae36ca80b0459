"""The report of linear probes: their table, and the figure of accuracy over rank."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from src.ground.curves import CurvePanel, curves
from src.reports.captions import common, headline
from src.tables.network_names import networks_in_words
from src.tables.probe_rows import ProbeRow
from src.tables.tables import write_table


def write_files(
    path: Path, rows: Sequence[ProbeRow], widths: Mapping[str, int], *, title: str
) -> None:
    """Write a CSV with one row a probe, and beside it a figure of accuracy over rank.

    Args:
        widths: the number of features by layer. The full rank is drawn at this number, and so is
            every higher rank.
    """
    write_table(path, ProbeRow, rows)
    accuracies: dict[str, dict[int, float]] = {layer: {} for layer in widths}
    for row in rows:
        width = widths[row.layer]
        drawn_rank = width if row.rank is None else min(row.rank, width)
        accuracies[row.layer][drawn_rank] = row.accuracy
    n_epochs = common(rows, "epochs")
    epochs = "epoch" if n_epochs == "1" else "epochs"
    curves(
        path.with_suffix(".png"),
        [CurvePanel(accuracies, "accuracy of linear probes")],
        x_label="retained rank (components)",
        title=title,
        caption=headline(
            f"Linear probes of layers of {networks_in_words([common(rows, 'model')], [common(rows, 'model_type')])}, "
            f"trained for {n_epochs} {epochs}",
            data=common(rows, "dataset"),
            n_images=common(rows, "n_images"),
        ),
    )
