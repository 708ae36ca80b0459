"""The rows of curves over depth."""

import math
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class DepthRow:
    """Means of a quantity at a depth: a row of the table of `misc/collect_results.py --curves`.

    Means are over pairs of networks, intervals of 95 %."""

    quantity: str  # accuracy, penalty, skill, similarity, distance
    line: str  # a method of stitching, or a measure
    layer: str  # of both networks; empty where networks have different layers
    value: float
    low: float  # of the interval, see `resampling`; NaN of few networks
    high: float
    n_networks: int
    n_pairs: int
    networks: str = ""  # front group → end group, if there are several groups
    relative_depth: float = math.nan  # of the layers: the share of the blocks up to them
    lowest: float = math.nan  # of the pairs of networks
    highest: float = math.nan

    contents: ClassVar[str] = "depth"
    written_by: ClassVar[str] = "misc/collect_results.py --curves"
