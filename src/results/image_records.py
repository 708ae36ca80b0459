"""The images of results: recorded fingerprints, and their differences.

`config.txt` holds the fingerprints of training and test images, tables their first digits. Results
of the public code have none, and count as made with the same images.

This module does not import torch.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from src.choices import Options
from src.choices.datasets import INTERVENTIONS
from src.ground.console import listed, warn_once
from src.ground.errors import UserError
from src.ground.grouping import grouped
from src.results.network_names import SHORT

TRAIN = "train_images"
TEST = "test_images"
SPLITS = {TRAIN: "training images", TEST: "test images"}
# The options in `config.txt` that hold the fingerprints
RECORDS = {split: f"{split}_sha256" for split in SPLITS}
# Options that choose the images: images that have changed differ although these agree
CHOOSING = ("dataset", *INTERVENTIONS, "intervention_seed")


class RowOfImages(Protocol):
    """A row about images: a dataclass with these columns, and some of the columns `SPLITS`."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]

    @property
    def dataset(self) -> str | None:
        """The name or the path of the data set."""

    @property
    def shortcut(self) -> float | None:
        """The strength of the intervention: images had dots."""


Row = TypeVar("Row", bound=RowOfImages)


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


def title_of_data(before: Options, now: Options) -> str:
    """Return the data set of results in files, with their `-data` if it is another one now.

    Args:
        before: the options of the results.
        now: the options of this process.
    """
    dataset = str(now.get("dataset"))
    root = before.get("dataset_root")
    if root in (None, now.get("dataset_root")):
        return dataset
    return f"{dataset} in {root}"


def are_same(first: str | None, second: str | None) -> bool:
    """Return whether two fingerprints, or their first digits, are of the same images.

    They count as such where one of the two is not recorded.
    """
    return not first or not second or first[:SHORT] == second[:SHORT]


def told_apart(rows: Sequence[Row]) -> list[Row]:
    """Return rows in which different images have different names of data sets.

    Where rows of one data set recorded different images, the name of the data set has their
    fingerprints behind it, such as "digits [test images 0123456789ab]". All other rows stay.

    """
    groups = grouped(rows, _data_of)
    differing = {key: _differing_splits(group) for key, group in groups.items()}
    return [_with_images(row, differing[_data_of(row)]) for row in rows]


def warn_of_several(rows: Iterable[RowOfImages]) -> None:
    """Warn of data sets for which rows recorded different fingerprints of images."""
    for dataset, title, digests in _several(rows):
        warn_once(
            f"results of {dataset} are of different {title} ({listed(digests)}), and count as results of different "
            "data sets"
        )


def refuse_several(rows: Iterable[RowOfImages], where: str | Path) -> None:
    """Raise a UserError if rows of one data set recorded different fingerprints.

    Args:
        where: the folder of the rows, for the message.
    """
    for dataset, title, _ in _several(rows):
        raise UserError(
            f"{where} has results on different {title} of {dataset}, which have changed in between; keep a folder for "
            "each"
        )


def _several(rows: Iterable[RowOfImages]) -> Iterator[tuple[str | None, str, list[str]]]:
    """Yield each data set with different images, which images they are, and their fingerprints."""
    for group in grouped(rows, _data_of).values():
        for split in _differing_splits(group):
            digests = dict.fromkeys(getattr(row, split, None) for row in group)
            yield group[0].dataset, SPLITS[split], list(filter(None, digests))


def _data_of(row: RowOfImages) -> Hashable:
    """Return the settings by which a row identifies its images."""
    return row.dataset, row.shortcut


def _differing_splits(rows: Iterable[RowOfImages]) -> list[str]:
    """Return the splits for which rows recorded different fingerprints."""
    rows = list(rows)
    differing = []
    for split in SPLITS:
        digests = {getattr(row, split, None) for row in rows} - {None, ""}
        if len(digests) > 1:
            differing.append(split)
    return differing


def _with_images(row: Row, splits: Sequence[str]) -> Row:
    """Return a row with the fingerprints of splits behind the name of its data set."""
    digests = []
    for split in splits:
        digest = getattr(row, split, None)
        if digest:
            digests.append(f"{SPLITS[split]} {digest}")
    if not digests:
        return row
    return dataclasses.replace(row, dataset=f"{row.dataset} [{', '.join(digests)}]")
