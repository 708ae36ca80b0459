"""The row of a table of similarity."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from src.choices.similarity import MEASURES, REVERSED
from src.tables.network_names import NetworkName
from src.values import Null, Rank


@dataclass(frozen=True)
class SimilarityRow:
    """Two layers at two ranks: a row of the table of `exec_compute_low_rank_sim_metrics.py`."""

    contents: ClassVar[str] = "similarity"
    written_by: ClassVar[str] = "exec_compute_low_rank_sim_metrics.py -o"

    model1: str
    model2: str
    layer1: str
    layer2: str
    rank1: Rank
    rank2: Rank
    alignment: str  # how CCA and Procrustes make samples of activations
    n_samples: int
    model1_type: str
    model2_type: str
    dataset: str
    alignment_option: str  # the option: auto, pool or positions
    n_permutations: int | None
    seed: int | None  # of fresh weights
    values: dict[str, float]  # by measure, NaN where it is not defined; and columns of nulls
    shortcut: float | None = None  # images had dots
    model1_weights: str | None = None  # the first digits of their SHA-256
    model2_weights: str | None = None
    test_images: str | None = None  # the first digits of their fingerprint

    @property
    def networks(self) -> tuple[NetworkName, NetworkName]:
        """Both networks."""
        first = NetworkName.of(
            self.model1, self.model1_type, seed=self.seed, weights=self.model1_weights
        )
        second = NetworkName.of(
            self.model2, self.model2_type, seed=self.seed, weights=self.model2_weights
        )
        return first, second

    @property
    def measures(self) -> dict[str, float]:
        """The values by measure, without nulls."""
        return {name: self.values[name] for name in measures_in(self.values)}

    @property
    def turned(self) -> "SimilarityRow":
        """The row of the second layer and the first. Measures without reversed values keep their
        values."""
        values = dict(self.values)
        for name in measures_in(self.values):
            columns = zip(_columns(name), _columns(f"{name}{REVERSED}"), strict=True)
            for forth, back in columns:
                if back in self.values:
                    values[forth] = self.values[back]
                    values[back] = self.values[forth]
        record = {_turned_field(name): value for name, value in vars(self).items()}
        return SimilarityRow(**record | {"values": values})

    def nulls(self, which: str = "") -> dict[str, Null]:
        """Return the nulls by measure; empty if images were not permuted.

        Args:
            which: "" for permutations of all images, "_within" for permutations within classes.
        """
        nulls = {}
        for name in measures_in(self.values):
            columns = [f"{name}_{part}{which}" for part in Null._fields]
            if columns[0] in self.values:
                nulls[name] = Null(*(self.values[column] for column in columns))
        return nulls


# How a column ends that is derived from the value of a measure
DERIVED = re.compile(rf"({REVERSED}|_({'|'.join(Null._fields)})(_within)?)$")


def value_column(column: str) -> str:
    """Return the measure of a column, which holds its value, a null, or a reversed value."""
    return DERIVED.sub("", DERIVED.sub("", column))


def measures_in(columns: Collection[str]) -> list[str]:
    """Return the measures among columns: first measures of `MEASURES`, then functions of users."""
    of_the_suite = [name for name in MEASURES if name in columns]
    of_users = [name for name in columns if name not in MEASURES and not DERIVED.search(name)]
    return [*of_the_suite, *of_users]


def _columns(measure: str) -> list[str]:
    """Return the columns of a measure and of its nulls."""
    columns = [measure]
    for which in ("", "_within"):
        columns += [f"{measure}_{part}{which}" for part in Null._fields]
    return columns


def _turned_field(field: str) -> str:
    """Return the field of the second network or layer for the first, and the reverse."""
    return field.translate({ord("1"): "2", ord("2"): "1"})
