"""The choices of options: names, and tables with a row for each name.

Parsers offer the names. The packages of science (`src.stitching`, `src.ood`, …) have the functions,
in dicts with the same keys. This package does not import torch.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from src.core.kinds import GRID, MAP, SEQUENCE, VECTOR

Options = Mapping[str, Any]  # of a script or a run, by name: values of JSON, as in a `config.txt`

AUTO = "auto"  # a stitching type: chosen by the kinds of the activations of both layers


class StitchingType(NamedTuple):
    """The kinds of activations that a stitching layer maps from and to."""

    source: str
    target: str

    @property
    def loses_positions(self) -> bool:
        """Whether exactly one side is a vector, which has no positions."""
        return (self.source == VECTOR) != (self.target == VECTOR)

    @property
    def reading(self) -> str:
        """The correspondence of the positions of both sides; "" for types of the paper."""
        if self.source == self.target == SEQUENCE:
            return "resampled linearly along the sequence"
        if self.source == self.target:
            return ""
        if self.source == GRID and self.target == VECTOR:
            return "the CLS token, or else a mean over positions"
        if self.target == VECTOR:
            return "a mean over positions"
        if self.source == VECTOR:
            return "one value at all positions"
        if self.source == SEQUENCE:
            return f"the {self.target} is read row by row"
        if self.target == SEQUENCE:
            return f"the {self.source} is read row by row"
        return ""


# A stitching type has the letters of the kinds of source and target, such as c2t
KINDS = {"c": MAP, "t": GRID, "s": SEQUENCE, "v": VECTOR}
LETTERS = {kind: letter for letter, kind in KINDS.items()}
# Between maps of any two sizes; the paper's code has two names for one function
OF_MAPS = ("rc2c_pre", "rc2c_post")
STITCHING_TYPES = dict.fromkeys(OF_MAPS, StitchingType(MAP, MAP)) | {
    f"{source}2{target}": StitchingType(KINDS[source], KINDS[target])
    for source, target in itertools.product(KINDS, repeat=2)
}
STARTS = {"rand": "random", "eye": "the identity"}  # of a stitching layer that is not matched
C2T_CLS_TOKENS = ("pool", "learn")
T2C_CLS_TOKENS = ("drop", "add", "only")
UPSAMPLE_MODES = ("bilinear", "nearest")
PRECISIONS = ("none", "bf16")
ALIGNMENTS = ("auto", "pool")  # of layers whose similarity is measured


WITH_POSITIONS = "A flattened layer, where the network has one, keeps positions."


def on_lost_positions(stitching_types: Iterable[str | None]) -> str:
    """Return a sentence on the stitches that lose positions; "" if all keep positions.

    Args:
        stitching_types: of stitches; None: of several types.
    """
    losing = [name for name, between in STITCHING_TYPES.items() if between.loses_positions]
    counts = Counter(name for name in stitching_types if name in losing)
    if not counts:
        return ""
    parts = []
    for name, n in counts.items():
        between = STITCHING_TYPES[name]
        parts.append(f"{n} from a {between.source} to a {between.target} ({between.reading})")
    return f"Stitches between positions and a vector: {', '.join(parts)}. They lose the differences between positions."
