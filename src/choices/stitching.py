"""The closed forms of direct matching, and the objectives of training stitching layers.

To add a closed form, write its row here and its function in `src.stitching.closed_forms`, and list
the function in `SOLVERS` there. To add an objective, write its row here and its loss in
`src.stitching.objectives`, and list the loss in `LOSSES` there. This module does not import torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

from src.choices import STARTS
from src.ground.errors import UserError
from src.ground.user_code import CODE, absolute, is_user_code, title_of

# Where activations are compared: slices of the end layer, the blocks behind it, and the logits
NOWHERE = slice(0)
AT_END = slice(1)
FROM_END = slice(-1)
AT_LAST = slice(-2, -1)
AT_LOGITS = slice(-1, None)


class Form(NamedTuple):
    """A closed form of direct matching."""

    description: str  # for `--help`
    along_axes: bool = False  # a source of low rank is given along its principal axes
    target_scatter: bool = False  # it needs the covariance of the target, not only the variances
    held_out: bool = False  # it needs moments of further rows, to choose a penalty
    cuts_off: bool = False  # it has a cutoff of small singular values
    keeps_variance: bool = False  # its output has the variance of the target


class Objective(NamedTuple):
    """A loss of stitches, and the layers where it compares stitch and end network."""

    description: str  # for `--help`
    # Key in `src.stitching.objectives.LOSSES`, or the name of user code; "": the cross-entropy
    loss: str = ""
    compares: slice = NOWHERE
    # Whether accuracy is measured in training; otherwise the pass ends at the last compared layer
    measures_accuracy: bool = True

    def compared(self, end_layer: str, behind: Sequence[str], output: str) -> list[str]:
        """Return the layers at which activations are compared.

        Args:
            behind: the blocks behind the end layer.
            output: the layer of the logits.
        """
        return [end_layer, *behind, output][self.compares]


FORMS = {
    "pinv": Form("least squares", cuts_off=True),
    "repair": Form(
        "least squares, then each channel is rescaled to the standard deviation of the target",
        cuts_off=True,
        keeps_variance=True,
    ),
    "covariance": Form(
        "the map of least error among those whose output has the covariance of the target",
        target_scatter=True,
        keeps_variance=True,
    ),
    "ortho": Form("the best orthogonal map", along_axes=True),
    "ridge": Form("least squares with a ridge penalty", held_out=True),
}
KEEP_VARIANCE = [name for name, form in FORMS.items() if form.keeps_variance]
INITS = {**STARTS, **{name: form.description for name, form in FORMS.items()}}

IN_PAPER = {"pinv": "direct", "task": "task loss"}  # the names of the paper's methods

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


class Method(NamedTuple):
    """A way of stitching: a closed form, or training on an objective for some epochs."""

    name: str  # in `FORMS` or `OBJECTIVES`, or of user code
    n_epochs: int = 0  # of training; 0: a closed form

    @classmethod
    def of(cls, text: str) -> "Method":
        """Read a method such as pinv, task:10 or FILE.py:FUNCTION:10.

        Raises:
            UserError: there is no such form or objective, or the number of epochs is not 1 or more.
        """
        name, _, epochs = text.rpartition(":")
        if text in FORMS:
            return cls(text)
        is_objective = name in OBJECTIVES or is_user_code(name)
        if is_objective and epochs.isdecimal() and int(epochs) > 0:
            return cls(absolute(name), int(epochs))
        raise UserError(
            f"unknown method {text!r}; give {', '.join(FORMS)}, or an objective and its epochs, such "
            f"as task:10, of {', '.join(OBJECTIVES)}, or {CODE}:EPOCHS"
        )

    @property
    def title(self) -> str:
        """The name in tables and of folders, such as task10."""
        return f"{title_of(self.name)}{self.n_epochs or ''}"

    @property
    def words(self) -> str:
        """The name in figures, such as task loss matching."""
        name = self.name
        if name in IN_PAPER:
            name = IN_PAPER[name]
        elif name not in FORMS and name not in OBJECTIVES:
            name = title_of(name)
        return f"{name} matching"

    @property
    def description(self) -> str:
        """What it does, for captions."""
        if not self.n_epochs:
            return FORMS[self.name].description
        loss = title_of(self.name)
        if self.name in OBJECTIVES:
            loss = OBJECTIVES[self.name].description
        epochs = "1 epoch" if self.n_epochs == 1 else f"{self.n_epochs} epochs"
        return f"trained for {epochs} on the {loss}"

    def __str__(self) -> str:
        if self.n_epochs:
            return f"{self.name}:{self.n_epochs}"
        return self.name
