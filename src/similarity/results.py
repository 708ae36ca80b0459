"""A row of `similarity.csv`: two layers at two ranks. Importing this imports no torch."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from src.similarity.measures import MEASURES

Rank = int | None  # None: full


class Null(NamedTuple):
    """What becomes of a value when the images of one network are permuted (Gröger et al. 2026)."""

    p_value: float  # (1 + number of permutations that are as similar) / (1 + number of permutations)
    null_95: float  # 95 % of permutations are less similar
    calibrated: float  # 0 up to `null_95`, 1 for equal representations


class Row(NamedTuple):
    """What was measured, and what on. `values` and `nulls` are a column each measure in the file."""

    model1: str
    model2: str
    layer1: str
    layer2: str
    rank1: Rank
    rank2: Rank
    alignment: str  # how CCA and Procrustes make samples of activations
    n_samples: int
    values: dict[str, float]  # by measure, NaN where there is none
    nulls: dict[str, Null]
    model1_type: str = ""
    model2_type: str = ""
    dataset: str = ""
    alignment_option: str = ""  # what was asked for: auto, pool or positions
    n_permutations: int | None = None

    @classmethod
    def columns(cls) -> list[str]:
        """Return the columns of the file."""
        parts = {
            "values": list(MEASURES),
            "nulls": [f"{name}_{part}" for name in MEASURES for part in Null._fields],
        }
        return [column for field in cls._fields for column in parts.get(field, [field])]

    def record(self) -> dict[str, Any]:
        """Return the row by columns; what was not measured is missing."""
        record = {field: value for field, value in self._asdict().items() if field not in ("values", "nulls")}
        nulls = {f"{name}_{part}": value for name, null in self.nulls.items() for part, value in null._asdict().items()}
        return record | self.values | nulls

    @classmethod
    def read(cls, record: Mapping[str, str]) -> "Row":
        """Return the row that a line of the file holds; columns that an older file lacks are as if empty.

        Raises:
            ValueError, KeyError: it is damaged.
        """
        texts = {field: record.get(field) or "" for field in cls._fields}
        nulls = {
            name: Null(*(float(record[f"{name}_{part}"]) for part in Null._fields))
            for name in MEASURES
            if record.get(f"{name}_{Null._fields[0]}")
        }
        numbers = {name: _whole(texts[name]) for name in ("rank1", "rank2", "n_permutations")}
        values = {name: float(record[name]) for name in MEASURES if record.get(name)}
        n_samples = int(texts["n_samples"] or 0)
        return cls(**texts | numbers | {"n_samples": n_samples, "values": values, "nulls": nulls})

    @property
    def is_by_position(self) -> bool:
        """Whether positions or tokens are the samples of CCA and Procrustes."""
        return self.alignment in ("positions", "tokens")

    @property
    def is_by_image(self) -> bool:
        """Whether images are the samples of CCA and Procrustes; neither is where there are no samples."""
        return not self.is_by_position and self.alignment != "none"

    def value(self, name: str) -> float:
        """Return the value of a measure, NaN where it was not measured."""
        return self.values.get(name, math.nan)


def _whole(text: str) -> int | None:
    return int(text) if text else None
