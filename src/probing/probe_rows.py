"""The table of linear probes and its figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.network_names import NetworkName
from src.results.captions import caption, common, network, short
from src.results.curves import curves
from src.results.tables import Rank, write_table


class ProbeRow(NamedTuple):
    """A linear probe: a row of the table of `exec_probe.py`."""

    model: str
    layer: str
    rank: Rank
    accuracy: float
    train_accuracy: float | None  # None: not trained
    loss: float
    seed: int | None
    epochs: int | None
    model_type: str
    dataset: str
    n_images: int | None  # test images
    shortcut: float | None = None  # images had dots
    model_weights: str | None = None  # the first digits of their SHA-256

    contents, written_by = "probing", "exec_probe.py -o"

    @property
    def networks(self) -> tuple[NetworkName]:
        """The network."""
        return (
            NetworkName.of(self.model, self.model_type, seed=self.seed, weights=self.model_weights),
        )


def write_files(
    path: Path, rows: Sequence[ProbeRow], widths: Mapping[str, int], *, figure: str, title: str
) -> None:
    """Write a CSV with one row a probe, and beside it a figure of accuracy over rank.

    Args:
        widths: features of each layer; full rank is drawn there, and so is every rank above.
        figure: the ending of its name, .png or .pdf.
    """
    write_table(path, ProbeRow, rows)
    lines: dict[str, dict[int, float]] = {layer: {} for layer in widths}
    for row in rows:
        lines[row.layer][min(row.rank or widths[row.layer], widths[row.layer])] = row.accuracy
    n_epochs = common(rows, "epochs")
    below = caption(
        network=network(common(rows, "model"), common(rows, "model_type")),
        data=short(common(rows, "dataset")),
        method=f"linear probes, {n_epochs} epoch{'' if n_epochs == 1 else 's'}",
        images=common(rows, "n_images"),
    )
    texts = {
        "x_label": "rank",
        "y_label": "accuracy",
        "y_range": (0, 1),
        "title": title,
        "caption": below,
    }
    curves(path.with_suffix(figure), {"linear probes": lines}, **texts)
