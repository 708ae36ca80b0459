"""The table of linear probes, a row each, and its figure. Importing this spares torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.captions import caption, common, network
from src.figures import curves
from src.files import write_csv

if TYPE_CHECKING:
    from src.training import EpochLog


class Row(NamedTuple):
    """A probe: a row of the CSV of `exec_probe.py`. Older tables do not name type, dataset and number of images."""

    model: str
    layer: str
    rank: int | None  # None: full
    accuracy: float
    train_accuracy: float | None
    loss: float
    seed: int | None
    epochs: int | None
    model_type: str | None = None
    dataset: str | None = None
    n_images: int | None = None


def rows_of(logs: Mapping[tuple[str, int | None], EpochLog], *, made_with: Mapping[str, Any]) -> list[Row]:
    """Make the rows of probes from their logs of the last epoch.

    Args:
        logs: by layer and rank.
        made_with: the fields that are the same in all rows.
    """
    return [
        Row(layer=layer, rank=rank, accuracy=val.accuracy, train_accuracy=trained and trained.accuracy, loss=val.loss,
            **made_with)
        for (layer, rank), (trained, val) in logs.items()
    ]  # fmt: skip


def write_table(
    path: Path, rows: Sequence[Row], widths: Mapping[str, int], *, figure: str = ".png", title: str = ""
) -> None:
    """Write a CSV with one row a probe, and beside it a figure of accuracy over rank.

    Args:
        widths: features of each layer; full rank is drawn there, and so is every rank above.
        figure: the ending of its name, .png or .pdf.
    """
    write_csv(path, Row._fields, [row._asdict() for row in rows])
    lines: dict[str, dict[int, float]] = {layer: {} for layer in widths}
    for row in rows:
        lines[row.layer][min(row.rank or widths[row.layer], widths[row.layer])] = row.accuracy
    n_epochs = common(rows, "epochs")
    below = caption(
        network=network(common(rows, "model"), common(rows, "model_type")),
        data=common(rows, "dataset"),
        method=f"linear probes, {n_epochs} epoch{'' if n_epochs == 1 else 's'}",
        images=common(rows, "n_images"),
    )
    texts = {"x_label": "rank", "y_label": "accuracy", "y_range": (0, 1), "title": title, "caption": below}
    curves(Path(path).with_suffix(figure), {"linear probes": lines}, **texts)
