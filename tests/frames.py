"""Frames of stitches and of similarities of networks a and b (group one), and c and d (group two)."""

import itertools
import math
from types import SimpleNamespace

import pandas as pd

from src.core.values import Pair
from src.results.tables import COLUMNS, PAIRS

NAMES = "abcd"
GROUP = dict(zip(NAMES, ("one", "one", "two", "two"), strict=True))
DEPTHS = {"x": 0.5, "y": 1.0}


def row(front: str, end: str, layers: str = "xx", **values) -> dict:
    """A stitch of two networks of one type, similar and with a skill of 0.5 unless said otherwise."""
    record = {
        "method": "dm",
        "dataset": "digits",
        "kind": PAIRS,
        "verdict": "similar",
        "skill": 0.5,
    }
    for side, name, layer in zip(("front", "end"), (front, end), layers, strict=True):
        record |= {f"{side}_network": name, f"{side}_training": f"training of {name}"}
        record |= {f"{side}_group": GROUP.get(name, "one"), f"{side}_type": "cnn"}
        record |= {f"{side}_layer": layer, f"{side}_relative_depth": DEPTHS.get(layer)}
    return record | values


def frame(rows) -> pd.DataFrame:
    records = pd.DataFrame.from_records(list(rows))
    return records.reindex(columns=[*COLUMNS, *(name for name in records if name not in COLUMNS)])


def skill(front: str, end: str) -> float:
    """0.1 for each place between the networks, and 0.01 for a front that comes first."""
    return 0.1 * abs(NAMES.index(front) - NAMES.index(end)) + 0.01 * (front < end)


def all_pairs(**values) -> pd.DataFrame:
    """Stitches of all ordered pairs of four networks, with 0.2 more skill at layer y."""
    pairs = itertools.permutations(NAMES, 2)
    return frame(
        row(*pair, layer + layer, skill=skill(*pair) + 0.2 * (layer == "y"), **values)
        for pair, layer in itertools.product(pairs, "xy")
    )


def compared(
    value: float = 0.5, *, front: str = "a", end: str = "b", layers: str = "xx", **values
) -> dict:
    """A row of similarity."""
    usual = {
        "method": "similarity",
        "verdict": None,
        "skill": math.nan,
        "cka": value,
        "is_reversed": False,
    }
    return row(front, end, layers, **usual | values)


def rows_of(verdicts: pd.DataFrame) -> list[SimpleNamespace]:
    """Return the rows of a frame of verdicts; a missing value is None."""
    known = verdicts.astype(object).where(verdicts.notna(), None)
    return [
        SimpleNamespace(**record, pair=Pair(record["front_layer"], record["end_layer"]))
        for record in known.to_dict("records")
    ]
