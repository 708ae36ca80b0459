"""The closed forms that stitching layers are matched by, and the objectives that they are trained
on, one row each.

To add one, write its row here, which the option and its help read, and its function: a closed form
in `src.stitching.closed_forms`, where `SOLVERS` lists it, a loss in `src.stitching.objectives`,
where `LOSSES` does."""

from collections.abc import Sequence
from typing import NamedTuple

from src.choices import STARTS

# Where activations are compared, of the end layer, the blocks behind it and the logits
NOWHERE, AT_END, FROM_END, AT_LAST, AT_LOGITS = (
    slice(0),
    slice(1),
    slice(-1),
    slice(-2, -1),
    slice(-1, None),
)


class Form(NamedTuple):
    """A closed form of direct matching."""

    description: str  # for `--help`
    along_axes: bool = (
        False  # of a source of low rank it takes the coordinates along the principal axes
    )
    target_scatter: bool = False  # it needs the covariance of the target, not only the variances
    held_out: bool = False  # it takes moments of more rows, on which it chooses a penalty
    cuts_off: bool = False  # it takes the cutoff of small singular values


class Objective(NamedTuple):
    """A loss of stitches, and the layers at which stitched and own activations of the end network
    are compared."""

    description: str  # for `--help`
    # key in `src.stitching.objectives.LOSSES`, or the name of user code; "": the cross-entropy
    loss: str = ""
    compares: slice = NOWHERE
    measures_accuracy: bool = (
        True  # in training; without it, nothing runs behind the last layer that is compared
    )

    def compared(self, end_layer: str, behind: Sequence[str], output: str) -> list[str]:
        """Return the layers at which stitched and own activations are compared.

        Args:
            behind: the blocks behind the end layer.
            output: the layer of the logits.
        """
        return [end_layer, *behind, output][self.compares]


FORMS = {
    "pinv": Form("least squares", cuts_off=True),
    "repair": Form("least squares, each channel rescaled to the target's deviation", cuts_off=True),
    "covariance": Form("the best map that gives the target's covariance", target_scatter=True),
    "ortho": Form("an orthogonal map", along_axes=True),
    "ridge": Form("least squares with a penalty", held_out=True),
}  # fmt: skip
INITS = {**STARTS, **{name: form.description for name, form in FORMS.items()}}

# Where a user's loss compares activations, by the attribute `at` of its function
PLACES = {"end": AT_END, "blocks": FROM_END, "logits": AT_LOGITS}
OBJECTIVES = {
    "task": Objective("cross-entropy"),
    "soft": Objective("KL divergence to the end network's predictions", "soft", AT_LOGITS),
    "hint": Objective(
        "relative distance at the end layer", "hint", AT_END, measures_accuracy=False
    ),
    "fula": Objective(
        "mean relative distance at the end layer and all blocks behind it", "hint", FROM_END
    ),
    "feature": Objective("mean squared difference at the last block", "feature", AT_LAST),
}
