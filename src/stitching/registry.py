"""The objectives that stitching layers are trained on, one row each.

To add an objective, write its loss in a module of this package and its row here: the option and its help read the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from src.doors import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from src.stitching.objectives import Stitches

AT_END, FROM_END, AT_LAST = "at the end layer", "at the end layer and all blocks behind", "at the last block"


class Objective(NamedTuple):
    """A loss of stitches, and what has to be computed for it."""

    description: str  # for `--help`
    function: str  # "module.function" of this package: Stitches -> (P,)
    compares: str | None = None  # where stitched and own activations are compared: AT_END, FROM_END or AT_LAST
    stitched_logits: bool = False  # without them and FROM_END or AT_LAST, nothing behind the end layer runs in training
    end_logits: bool = False

    @property
    def loss(self) -> Callable[[Stitches], Tensor]:
        """The function."""
        return resolve(__package__, self.function)

    def compared(self, end_layer: str, behind: Sequence[str]) -> list[str]:
        """Return the layers at which stitched and own activations are compared.

        Args:
            behind: the blocks behind the end layer.
        """
        layers = [end_layer, *behind]
        return {None: [], AT_END: layers[:1], FROM_END: layers, AT_LAST: layers[-1:]}[self.compares]


OBJECTIVES = {
    "task": Objective("cross-entropy", "objectives.task", stitched_logits=True),
    "soft": Objective(
        "KL divergence to the end network's predictions", "objectives.soft", stitched_logits=True, end_logits=True
    ),
    "hint": Objective("relative distance at the end layer", "objectives.hint", AT_END),
    "fula": Objective(  # the logits, for the accuracy, cost next to nothing behind the last block
        "mean relative distance at the end layer and all blocks behind it", "objectives.functional", FROM_END,
        stitched_logits=True,
    ),
    "feature": Objective(
        "mean squared difference at the last block", "objectives.feature", AT_LAST, stitched_logits=True
    ),
}  # fmt: skip
