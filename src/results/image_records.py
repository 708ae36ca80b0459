"""The images of results: recorded fingerprints, and their differences.

`config.txt` holds the fingerprints of training and test images, tables their first digits. Results
of the public code have none, and count as made with the same images.

This module does not import torch.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from src.choices import Options
from src.choices.datasets import INTERVENTIONS
from src.core.console import listed, warn_once
from src.core.errors import UserError
from src.core.grouping import grouped
from src.results.network_names import SHORT

TRAIN = "train_images"
TEST = "test_images"
SPLITS = {TRAIN: "training inputs", TEST: "test inputs"}
# The options in `config.txt` that hold the fingerprints
RECORDS = {split: f"{split}_sha256" for split in SPLITS}
# Options that choose the images: images that have changed differ although these agree
CHOOSING = ("dataset", *INTERVENTIONS)


Row = TypeVar("Row")  # a dataclass with the columns `dataset` and `shortcut`, and some of `SPLITS`


def recorded_images(options: Options) -> dict[str, str]:
    """Return the fingerprints of images that options hold, by option."""
    return {name: options[name] for name in RECORDS.values() if options.get(name)}


def short_images(options: Options) -> dict[str, str | None]:
    """Return the first digits of the fingerprints in options, by column; None without a record."""
    columns: dict[str, str | None] = {}
    for split, record in RECORDS.items():
        fingerprint = options.get(record)
        columns[split] = fingerprint[:SHORT] if fingerprint else None
    return columns


def changed_images(before: Options, now: Options) -> list[str]:
    """Return which images of `before` have changed since: titles in `SPLITS`.

    Images that other options choose have not changed: they are others.

    Args:
        before: the options of a run in files.
        now: the options of this process.
    """
    if any(before.get(name, now.get(name)) != now.get(name) for name in CHOOSING):
        return []
    changed = []
    for split, title in SPLITS.items():
        name = RECORDS[split]
        if not are_same(before.get(name), now.get(name)):
            changed.append(title)
    return changed


def are_same(first: str | None, second: str | None) -> bool:
    """Return whether two fingerprints, or their first digits, are of the same images.

    They count as such where one of the two is not recorded.
    """
    return not first or not second or first[:SHORT] == second[:SHORT]


def on_same_images(first: Any, second: Any) -> bool:
    """Return whether two rows are on the same images: by the fingerprints that both recorded, or else
    by the names of the data set and the dots."""
    of_splits = [(getattr(first, split), getattr(second, split)) for split in SPLITS]
    recorded = [digests for digests in of_splits if all(digests)]
    if recorded:
        return all(are_same(*digests) for digests in recorded)
    is_known = None not in (first.dataset, second.dataset)
    return not is_known or _data_of(first) == _data_of(second)


def told_apart(rows: Sequence[Row]) -> list[Row]:
    """Return rows in which different images have different names of data sets.

    Where rows of one data set recorded different images, the name of the data set has their
    fingerprints behind it, such as "digits [test inputs 0123456789ab]". All other rows stay.
    """
    several = _several(rows)
    return [_with_images(row, several.get(_data_of(row), {})) for row in rows]


def warn_of_several(rows: Iterable[Any]) -> None:
    """Warn of data sets for which rows recorded different fingerprints of images."""
    for (dataset, _), digests_of in _several(rows).items():
        for split, digests in digests_of.items():
            warn_once(
                f"results of {dataset} are of different {SPLITS[split]} ({listed(digests)}), and count as results of "
                "different data sets"
            )


def refuse_several(rows: Iterable[Any], where: str | Path) -> None:
    """Raise a UserError if rows of one data set recorded different fingerprints.

    Args:
        where: the folder of the rows, for the message.
    """
    for (dataset, _), digests_of in _several(rows).items():
        titles = " and ".join(SPLITS[split] for split in digests_of)
        raise UserError(
            f"{where} has results on different {titles} of {dataset}, which have changed in between; keep a folder for "
            "each"
        )


def _several(rows: Iterable[Any]) -> dict[tuple[str, float | None], dict[str, list[str]]]:
    """Return the fingerprints of images, by split, of the data sets that have several in rows."""
    several: dict[tuple[str, float | None], dict[str, list[str]]] = {}
    for data, group in grouped(rows, _data_of).items():
        for split in SPLITS:
            digests = dict.fromkeys(getattr(row, split, None) for row in group)
            recorded = list(filter(None, digests))
            if len(recorded) > 1:
                several.setdefault(data, {})[split] = recorded
    return several


def _data_of(row: Any) -> tuple[str, float | None]:
    """Return the settings by which a row names its images."""
    return row.dataset, row.shortcut


def _with_images(row: Any, splits: Iterable[str]) -> Any:
    """Return a row with the fingerprints of splits behind the name of its data set."""
    digests = [
        f"{SPLITS[split]} {getattr(row, split)}" for split in splits if getattr(row, split, None)
    ]
    if not digests:
        return row
    return dataclasses.replace(row, dataset=f"{row.dataset} [{', '.join(digests)}]")
