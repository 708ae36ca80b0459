"""The closed forms that stitching layers are matched by, and the objectives that they are trained on, one row each.

To add one, write its function in a module of `src.stitching` and its row here: the option and its help read the row.
"""

from collections.abc import Sequence
from typing import NamedTuple

from src.choices import STARTS

# Where activations are compared, of the end layer, the blocks behind it and the logits
NOWHERE, AT_END, FROM_END, AT_LAST, AT_LOGITS = slice(0), slice(1), slice(-1), slice(-2, -1), slice(-1, None)


class Form(NamedTuple):
    """A closed form of direct matching."""

    description: str  # for `--help`
    function: str  # "module.function" of `src.stitching`: moments -> the matching of each target
    along_axes: bool = False  # of a source of low rank it takes the coordinates along the principal axes
    target_scatter: bool = False  # it needs the covariance of the target, not only the variances
    held_out: bool = False  # it takes moments of more rows, on which it chooses a penalty
    cuts_off: bool = False  # it takes the cutoff of small singular values


class Objective(NamedTuple):
    """A loss of stitches, and the layers at which stitched and own activations of the end network are compared."""

    description: str  # for `--help`
    # "module.function" of `src.stitching`: stitched (P, B, …), own (B, …) -> (P,), of which the mean counts; "" stands
    # for the cross-entropy
    function: str = ""
    compares: slice = NOWHERE
    measures_accuracy: bool = True  # in training; without it, nothing runs behind the last layer that is compared

    def compared(self, end_layer: str, behind: Sequence[str], output: str) -> list[str]:
        """Return the layers at which stitched and own activations are compared.

        Args:
            behind: the blocks behind the end layer.
            output: the layer of the logits.
        """
        return [end_layer, *behind, output][self.compares]


FORMS = {
    "pinv": Form("least squares", "closed_forms.least_squares", cuts_off=True),
    "repair": Form("least squares, each channel rescaled to the target's deviation", "closed_forms.repair",
                   cuts_off=True),
    "covariance": Form("the best map that gives the target's covariance", "closed_forms.covariance",
                       target_scatter=True),
    "ortho": Form("an orthogonal map", "closed_forms.orthogonal", along_axes=True),
    "ridge": Form("least squares with a penalty", "closed_forms.ridge", held_out=True),
}  # fmt: skip
INITS = {**STARTS, **{name: form.description for name, form in FORMS.items()}}

OBJECTIVES = {
    "task": Objective("cross-entropy"),
    "soft": Objective("KL divergence to the end network's predictions", "objectives.soft_label_loss", AT_LOGITS),
    "hint": Objective("relative distance at the end layer", "objectives.hint_loss", AT_END, measures_accuracy=False),
    "fula": Objective(
        "mean relative distance at the end layer and all blocks behind it", "objectives.hint_loss", FROM_END
    ),
    "feature": Objective("mean squared difference at the last block", "objectives.feature_loss", AT_LAST),
}
