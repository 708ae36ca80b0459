"""Changes since results were made: in the weights and the code of their networks, and in their images.

This module does not import torch.
"""

from collections.abc import Iterable
from typing import NamedTuple

from src.choices import Options
from src.results.image_records import changed_images, title_of_data
from src.results.weights import changed, changed_code, names_of


class Changes(NamedTuple):
    """Results of earlier weights, code or images."""

    n: int  # results
    weights: list[str]  # titles of the networks that have changed
    code: list[str]  # the files of a user's networks that have changed
    images: list[str]  # which images have changed, such as "test images"
    dataset: str  # of these images

    @property
    def text(self) -> str:
        """The changes in words, such as "weights of a.pt, b.pt and code of nets.py"."""
        parts = []
        if self.weights:
            parts.append(f"weights of {names_of(self.weights)}")
        if self.code:
            parts.append(f"code of {names_of(self.code)}")
        if self.images:
            parts.append(f"{' and '.join(self.images)} of {self.dataset}")
        return " and ".join(parts)

    @property
    def remedy(self) -> str:
        """The advice on runs in a folder below `results/`."""
        if self.weights:
            return "remove their folders, give another -dir, or the place of the old checkpoint"
        restored = "the code" if self.code else "the images"
        return f"remove their folders, give another -dir, or restore {restored}"


def changes(records: Iterable[Options], now: Options) -> Changes:
    """Return which weights, code and images have changed since results were made.

    Args:
        records: the options of each result in files.
        now: the options of this process.
    """
    return all_of(
        Changes(
            1,
            changed(before, now),
            changed_code(before, now),
            changed_images(before, now),
            title_of_data(before, now),
        )
        for before in records
    )


def all_of(parts: Iterable[Changes]) -> Changes:
    """Return the changes of all results together. Results without any change do not count."""
    changed_parts = [part for part in parts if part.weights or part.code or part.images]
    weights = dict.fromkeys(title for part in changed_parts for title in part.weights)
    code = dict.fromkeys(file for part in changed_parts for file in part.code)
    images = dict.fromkeys(title for part in changed_parts for title in part.images)
    n = sum(part.n for part in changed_parts)
    dataset = changed_parts[0].dataset if changed_parts else ""
    return Changes(n, list(weights), list(code), list(images), dataset)
