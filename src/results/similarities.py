"""Tables of similarity: the names of their columns, and the records that scripts write."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from src.core.choices.similarity import MEASURES
from src.core.errors import UserError
from src.core.user_code import is_user_code, title_of
from src.core.values import ALL_IMAGES, LARGEST, WITHIN_CLASSES, ComparedLayers, Null
from src.results.tables import COLUMNS, JUDGED, SIMILARITIES, columns

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
NULLS = {  # by the images that trade places in the null distribution
    ALL_IMAGES: "",
    WITHIN_CLASSES: "_within",
    LARGEST[ALL_IMAGES]: "_largest",
    LARGEST[WITHIN_CLASSES]: "_largest_within",
}
# Columns of either layer
OF_LAYER = ("model{}", "layer{}", "rank{}", "model{}_type", "model{}_weights", "relative_depth{}")
PLACES = {name: place for place, name in enumerate(MEASURES)}
NO_VALUES = {*columns(SIMILARITIES), "networks", "network_keys"}
COLUMN = re.compile(
    f"(.+?)({REVERSED})?(?:_({'|'.join(Null._fields)})({'|'.join(filter(None, NULLS.values()))})?)?"
)


def parts_of(column: str) -> tuple[str, str, str, str]:
    """Split the name of a column into the measure, `REVERSED` or "", the statistic of a null distribution or ""
    for the value itself, and the ending of `NULLS`."""
    measure, back, part, ending = COLUMN.fullmatch(column).groups("")  # type: ignore[union-attr]
    return measure, back, part, ending


def record_of(
    compared: ComparedLayers,
    source: Mapping[str, Any],
    depths: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
) -> dict[str, Any]:
    """Return the record of compared layers: a row of the table, by column.

    Args:
        source: the columns that say what networks and images they are of.
        depths: the relative depths of the layers of both networks, as far as they are known.
    """
    record = {**dict.fromkeys(columns(SIMILARITIES)), **source}
    record |= {name: getattr(compared, name) for name in compared._fields if name in record}
    record["relative_depth1"] = depths[0].get(compared.layer1)
    record["relative_depth2"] = depths[1].get(compared.layer2)
    return record | _values_of(compared)


def _values_of(compared: ComparedLayers) -> dict[str, float]:
    """Return all values by column: first those of measures, then the statistics of null distributions."""
    back = {f"{name}{REVERSED}": item for name, item in compared.reversed_values.items()}
    similarities = {**compared.values, **back}
    values = {name: item.value for name, item in similarities.items()}
    for name, item in similarities.items():
        for images, null in item.nulls.items():
            for part, number in null._asdict().items():
                values[f"{name}_{part}{NULLS[images]}"] = number
    return values


def value_columns(names: Iterable[str]) -> list[str]:
    """Return the columns of values and of their null distributions."""
    return [name for name in names if name not in NO_VALUES]


def measured_in(names: Iterable[str]) -> list[str]:
    """Return the measures with a column: those of `MEASURES` first, then functions of users."""
    measured = [name for name in value_columns(names) if parts_of(name)[0] == name]
    return sorted(measured, key=lambda name: PLACES.get(name, len(PLACES)))


def swapped(frame: "DataFrame") -> "DataFrame":
    """Return a frame with both layers exchanged. A measure without a reversed value keeps its value."""
    parts = {name: parts_of(name) for name in value_columns(frame)}
    have_directions = {measure for measure, back, *_ in parts.values() if back}
    names: dict[str, str] = {}
    for name in OF_LAYER:
        names |= {name.format(1): name.format(2), name.format(2): name.format(1)}
    for name, (measure, back, *_) in parts.items():
        if measure in have_directions:
            statistic = name.removeprefix(measure + back)
            names[name] = measure + ("" if back else REVERSED) + statistic
    exchanged = {
        name: [pair[::-1] for pair in frame[name]] for name in ("networks", "network_keys")
    }
    return frame.assign(**exchanged).rename(columns=names)


def refuse_names_of_columns(metrics: Iterable[str]) -> None:
    """Raise a UserError if the name of a user's function clashes with that of another column.

    Columns of a verdict count as well: it shows the values of measures beside its own.

    Args:
        metrics: names in `MEASURES`, or FILE.py:FUNCTION of a user's code.
    """
    for name in filter(is_user_code, metrics):
        title = title_of(name)
        ending = title.removeprefix(parts_of(title)[0])
        if ending:
            raise UserError(
                f"{name}: a name that ends in {ending} is that of another column; "
                "rename the function"
            )
        if title in (*columns(SIMILARITIES), *COLUMNS, *JUDGED):
            raise UserError(f"{name}: tables have a column {title}; rename the function")
