"""Rows of tables of similarity, with the values of measures and their null distributions."""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from src.choices.similarity import MEASURES, SIMILARITY
from src.core.errors import UserError
from src.core.user_code import is_user_code, title_of
from src.results.experiments import options_beside_tables, warn_of_earlier
from src.results.network_names import OfTwoNetworks
from src.results.quantities import COLUMNS, JUDGED
from src.results.spec import FurtherOptions
from src.results.tables import columns, read_table, to_record
from src.values import (
    ALL_IMAGES,
    LARGEST,
    WITHIN_CLASSES,
    ComparedLayers,
    Null,
    Pair,
    Rank,
)

if TYPE_CHECKING:
    from pandas import DataFrame

# The options with a column, and those that select values
IN_COLUMNS = (
    "model1_path",
    "model2_path",
    "model1_type",
    "model2_type",
    "model1_layer",
    "model2_layer",
    "model1_ranks",
    "model2_ranks",
    "dataset",
    "shortcut",
    "seed",
    "n_samples",
    "metrics",
    "alignment",
    "n_permutations",
)
# Ends of the names of columns
REVERSED = "_reversed"  # from the second layer to the first
NULLS = {
    ALL_IMAGES: "",
    WITHIN_CLASSES: "_within",
    LARGEST[ALL_IMAGES]: "_largest",
    LARGEST[WITHIN_CLASSES]: "_largest_within",
}
IMAGES = {ending: images for images, ending in NULLS.items()}
# Groups: measure, reversed, part, and the images of the null
COLUMN = re.compile(
    f"^(.+?)({REVERSED})?(?:_({'|'.join(Null._fields)})({'|'.join(filter(None, IMAGES))})?)?$"
)


# Columns of either layer
SIDES = ("model{}", "layer{}", "rank{}", "model{}_type", "model{}_weights", "relative_depth{}")


class ValueColumn(NamedTuple):
    """The content of a column: the value of a measure, or a statistic of its null distribution."""

    measure: str
    is_reversed: bool = False  # from the second layer to the first
    part: str = ""  # a field of `Null`; empty: the value itself
    images: str = ""  # that trade places in the null, a key of `NULLS`; empty: the value itself

    @property
    def name(self) -> str:
        """The name of the column."""
        name = self.measure
        if self.is_reversed:
            name += REVERSED
        if self.part:
            name += f"_{self.part}{NULLS[self.images]}"
        return name


@functools.cache  # a table has many rows of the same columns
def column_of(name: str) -> ValueColumn:
    """Return the content of a column from its name."""
    ((measure, back, part, ending),) = COLUMN.findall(name)
    if not part:
        return ValueColumn(measure, bool(back))
    return ValueColumn(measure, bool(back), part, IMAGES[ending])


@dataclass(frozen=True)
class SimilarityRow(OfTwoNetworks):
    """The similarity of two layers at two ranks: a row of the table of
    `exec_compute_low_rank_sim_metrics.py`."""

    contents: ClassVar[str] = "similarity"
    written_by: ClassVar[str] = "exec_compute_low_rank_sim_metrics.py -o"
    network_columns: ClassVar = (
        ("model1", "model1_type", "model1_weights"),
        ("model2", "model2_type", "model2_weights"),
    )

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
    alignment_option: str  # the option: auto or pool
    n_permutations: int | None
    seed: int | None  # of randomly initialised weights
    values: dict[str, float]  # by column, see `ValueColumn`; NaN where a value is not defined
    shortcut: float | None = None  # images had dots
    model1_weights: str | None = None  # the first digits of their SHA-256
    model2_weights: str | None = None
    test_images: str | None = None  # the first digits of their fingerprint
    # The share of the network's blocks that a pass to the layer computes; None: not known
    relative_depth1: float | None = None
    relative_depth2: float | None = None
    further_options: FurtherOptions = FurtherOptions()  # noqa: RUF009 - immutable

    @classmethod
    def of(
        cls,
        compared: ComparedLayers,
        source: Mapping[str, Any],
        depths: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
    ) -> "SimilarityRow":
        """Return the row of compared layers.

        Args:
            source: the columns that say what networks and images they are of.
            depths: the relative depths of the layers of both networks, as far as they are known.
        """
        depths1, depths2 = depths
        return cls(
            **source,
            layer1=compared.layer1,
            layer2=compared.layer2,
            rank1=compared.rank1,
            rank2=compared.rank2,
            alignment=compared.alignment,
            values=_values_of(compared),
            relative_depth1=depths1.get(compared.layer1),
            relative_depth2=depths2.get(compared.layer2),
        )

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.layer1, self.layer2)

    @cached_property
    def measures(self) -> list[str]:
        """The measures that have a column: `MEASURES` first, then functions of users."""
        measured = [column.measure for column, _ in self.numbers if not column.part]
        of_users = [name for name in measured if name not in MEASURES]
        return [*filter(measured.__contains__, MEASURES), *dict.fromkeys(of_users)]

    @cached_property
    def swapped(self) -> "SimilarityRow":
        """The row with both layers exchanged. A measure without a reversed value keeps its value."""
        has_both_ways = {column.measure for column, _ in self.numbers if column.is_reversed}
        values = {}
        for column, value in self.numbers:
            if column.measure in has_both_ways:
                column = column._replace(is_reversed=not column.is_reversed)
            values[column.name] = value
        swapped: dict[str, Any] = {"values": values}
        for name in SIDES:
            first, second = name.format(1), name.format(2)
            swapped |= {first: getattr(self, second), second: getattr(self, first)}
        return replace(self, **swapped)

    @property
    def numbers(self) -> list[tuple[ValueColumn, float]]:
        """All values, in the order of their columns, each with the content of its column."""
        return [(column_of(name), value) for name, value in self.values.items()]


def _values_of(compared: ComparedLayers) -> dict[str, float]:
    """Return all values by column: first those of measures, then the statistics of null distributions."""
    similarities = {ValueColumn(name): item for name, item in compared.values.items()}
    for name, item in compared.reversed_values.items():
        similarities[ValueColumn(name, is_reversed=True)] = item
    values = {column.name: item.value for column, item in similarities.items()}
    for column, item in similarities.items():
        for images, null in item.nulls.items():
            for part, number in null._asdict().items():
                values[column._replace(part=part, images=images).name] = number
    return values


def refuse_names_of_columns(metrics: Iterable[str]) -> None:
    """Raise a UserError if the name of a user's function clashes with that of another column.

    Columns of a verdict count as well: it shows the values of measures beside its own.

    Args:
        metrics: names in `MEASURES`, or FILE.py:FUNCTION of a user's code.
    """
    for name in filter(is_user_code, metrics):
        title = title_of(name)
        ending = title.removeprefix(column_of(title).measure)
        if ending:
            raise UserError(
                f"{name}: a name that ends in {ending} is that of another column; "
                "rename the function"
            )
        if title in (*columns(SimilarityRow), *COLUMNS, *JUDGED):
            raise UserError(f"{name}: tables have a column {title}; rename the function")


def frame_of_rows(rows: Iterable[SimilarityRow]) -> "DataFrame":
    """Return the rows as a DataFrame; full rank is NaN."""
    import pandas as pd

    return pd.DataFrame.from_records(list(map(to_record, rows)))


def tables_of_similarity(source_dir: Path) -> list[Path]:
    """Return the paths of all tables of similarity in a folder and below it."""
    return sorted(source_dir.rglob(f"{SIMILARITY}/*.csv"))


def read_similarities(tables: Sequence[str | Path]) -> list[SimilarityRow]:
    """Return the rows of tables of similarity; warn of networks whose weights have changed since."""
    rows: list[SimilarityRow] = []
    for table in tables:
        rows += read_table(table, SimilarityRow)
    networks = chain.from_iterable(row.networks for row in rows)
    warn_of_earlier(networks, options_beside_tables(tables))
    return rows
