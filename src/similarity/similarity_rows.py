"""The row of a table of similarity."""

import re
from collections.abc import Collection
from typing import NamedTuple

from src.choices.similarity import MEASURES, REVERSED, measure_of
from src.network_names import NetworkName
from src.results.tables import Rank

BY_POSITION, NO_ALIGNMENT = (
    ("positions", "tokens"),
    "none",
)  # alignments; by all others images are the samples


class Null(NamedTuple):
    """A similarity against its values when the images of one network are permuted (Gröger et al.
    2026)."""

    p_value: (
        float  # (1 + number of permutations that are as similar) / (1 + number of permutations)
    )
    null_95: float  # 95 % of permutations are less similar
    calibrated: float  # 0 up to `null_95`, 1 for equal representations

    def columns(self, measure: str, which: str) -> dict[str, float]:
        """Return its values by column; `which` ends their names, as for `SimilarityRow.nulls`."""
        return {f"{measure}_{part}{which}": value for part, value in self._asdict().items()}


class SimilarityRow(NamedTuple):
    """Two layers at two ranks: a row of the table of `exec_compute_low_rank_sim_metrics.py`."""

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
    values: dict[str, float]  # by measure, NaN where there is none; and the columns of its nulls
    shortcut: float | None = None  # images had dots
    model1_weights: str | None = None  # the first digits of their SHA-256
    model2_weights: str | None = None

    contents, written_by = "similarity", "exec_compute_low_rank_sim_metrics.py -o"

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
        """The values by measure alone."""
        return {name: self.values[name] for name in measures_in(self.values)}

    @property
    def is_both_ways(self) -> bool:
        """Whether what is not symmetric was measured from the second layer to the first as well."""
        one_way = [name for name in self.measures if not measure_of(name).is_symmetric]
        return all(f"{name}{REVERSED}" in self.values for name in one_way)

    @property
    def turned(self) -> "SimilarityRow":
        """The row of the second layer and the first; what was measured one way only has the same
        values there."""
        values = dict(self.values)
        for name in measures_in(self.values):
            forth, back = _columns(name), _columns(f"{name}{REVERSED}")
            for column, other in zip(forth, back, strict=True):
                if other in self.values:
                    values |= {column: self.values[other], other: self.values[column]}
        return SimilarityRow(
            **{_of_other(name): getattr(self, name) for name in self._fields} | {"values": values}
        )

    def nulls(self, which: str = "") -> dict[str, Null]:
        """Return the measures against their values under permutations, as far as there were any.

        Args:
            which: of all images, or "_within": of those of each class.
        """
        known = [
            name for name in measures_in(self.values) if f"{name}_p_value{which}" in self.values
        ]
        return {
            name: Null(*(self.values[f"{name}_{part}{which}"] for part in Null._fields))
            for name in known
        }


# How a column ends that is derived from the value of a measure
DERIVED = re.compile(rf"({REVERSED}|_({'|'.join(Null._fields)})(_within)?)$")


def value_column(column: str) -> str:
    """Return the measure that a column belongs to: a value, its null, or a value in reverse."""
    return DERIVED.sub("", DERIVED.sub("", column))


def measures_in(columns: Collection[str]) -> list[str]:
    """Return the measures that columns hold values of: those of `MEASURES`, then a user's own."""
    of_the_suite = [name for name in MEASURES if name in columns]
    of_users = [name for name in columns if name not in MEASURES and not DERIVED.search(name)]
    return [*of_the_suite, *of_users]


def _columns(measure: str) -> list[str]:
    """Return the columns of a measure and of its nulls."""
    parts = [f"{part}{which}" for which in ("", "_within") for part in Null._fields]
    return [measure, *(f"{measure}_{part}" for part in parts)]


def _of_other(field: str) -> str:
    """Return the field that has of the other network or layer what this one has: `layer2` for
    `layer1`."""
    return field.translate({ord("1"): "2", ord("2"): "1"})
