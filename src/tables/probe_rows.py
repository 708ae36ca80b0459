"""The table of linear probes and its figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from src.reports.captions import caption, common, network, short
from src.reports.curves import CurvePanel, curves
from src.tables.network_names import NetworkName
from src.tables.tables import write_table
from src.values import Rank


@dataclass(frozen=True)
class ProbeRow:
    """A linear probe: a row of the table of `exec_probe.py`."""

    contents: ClassVar[str] = "probing"
    written_by: ClassVar[str] = "exec_probe.py -o"

    model: str
    layer: str
    rank: Rank
    accuracy: float  # on the test images
    train_accuracy: float | None  # None: not trained
    loss: float  # on the test images
    seed: int | None
    epochs: int | None
    model_type: str
    dataset: str
    n_images: int | None  # test images
    shortcut: float | None = None  # strength of the intervention: images had dots
    model_weights: str | None = None  # the first digits of their SHA-256
    train_images: str | None = None  # the first digits of their fingerprint
    test_images: str | None = None

    @property
    def networks(self) -> tuple[NetworkName]:
        """The network, as a tuple of one name like the networks of rows of pairs."""
        name = NetworkName.of(
            self.model, self.model_type, seed=self.seed, weights=self.model_weights
        )
        return (name,)


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
    epochs = "epoch" if n_epochs == 1 else "epochs"
    curves(
        path.with_suffix(".png"),
        [CurvePanel(accuracies, "accuracy of linear probes")],
        x_label="retained rank (components)",
        title=title,
        caption=caption(
            network=network(common(rows, "model"), common(rows, "model_type")),
            data=short(common(rows, "dataset")),
            method=f"linear probes, {n_epochs} {epochs}",
            images=common(rows, "n_images"),
        ),
    )
