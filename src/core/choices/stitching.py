"""The closed forms of direct matching and the objectives of training: a row for each, with its help text and
its function in `src.stitching`, which is loaded when it is used."""

import difflib
from typing import Any, NamedTuple

from src.core.choices import STARTS
from src.core.errors import UserError
from src.core.user_code import CODE, absolute, is_user_code, title_of


class ClosedForm(NamedTuple):
    """A closed form of direct matching."""

    description: str  # for `--help`
    solver: Any  # "module:function"; once it is loaded, the function itself
    paper_name: str = ""
    cuts_off: bool = False  # it has a cutoff of small singular values
    keeps_variance: bool = False  # its output has the variance of the target
    needs_covariance: bool = False  # of the target, not only the variances
    along_axes: bool = (
        False  # a source of low rank is given in coordinates along its principal axes
    )


FORMS = {
    "pinv": ClosedForm(
        "least squares",
        "src.stitching.closed_forms:least_squares",
        paper_name="direct",
        cuts_off=True,
    ),
    "covariance": ClosedForm(
        "the map of least error among those whose output has the covariance of the target",
        "src.stitching.closed_forms:covariance",
        keeps_variance=True,
        needs_covariance=True,
    ),
    "ortho": ClosedForm(
        "the best orthogonal map", "src.stitching.closed_forms:orthogonal", along_axes=True
    ),
}
KEEP_VARIANCE = [name for name, form in FORMS.items() if form.keeps_variance]
INITS = {**STARTS, **FORMS}

# Where activations are compared: slices of the end layer, the blocks behind it, and the logits
NOWHERE = slice(0)
AT_END = slice(1)
FROM_END = slice(-1)
AT_LAST = slice(-2, -1)
AT_LOGITS = slice(-1, None)


class Objective(NamedTuple):
    """An objective of training: a loss, and the layers where it compares stitch and end network."""

    description: str  # for `--help`
    loss: str = ""  # module:function, or user code; "": the cross-entropy
    compares: slice = NOWHERE
    paper_name: str = ""
    # Whether accuracy is measured in training; otherwise the pass ends at the last compared layer
    measures_accuracy: bool = True


OBJECTIVES = {
    "task": Objective("cross-entropy", paper_name="task loss"),
    "soft": Objective(
        "KL divergence to the end network's predictions",
        "src.stitching.objectives:soft_label_loss",
        AT_LOGITS,
    ),
    "hint": Objective(
        "relative distance at the end layer",
        "src.stitching.objectives:hint_loss",
        AT_END,
        measures_accuracy=False,
    ),
    "fula": Objective(
        "mean relative distance at the end layer and all blocks behind it",
        "src.stitching.objectives:hint_loss",
        FROM_END,
    ),
    "feature": Objective(
        "mean squared difference at the last block",
        "src.stitching.objectives:feature_loss",
        AT_LAST,
    ),
}
METHODS: dict[str, ClosedForm | Objective] = {**FORMS, **OBJECTIVES}


class Method(NamedTuple):
    """A method of stitching: a closed form, or training on an objective for some epochs."""

    name: str  # in `FORMS` or `OBJECTIVES`, or of user code
    n_epochs: int = 0  # of training; 0: a closed form

    @classmethod
    def of(cls, text: str) -> "Method":
        """Read a method such as pinv, task:10, FILE.py:FUNCTION or FILE.py:FUNCTION:10.

        Raises:
            UserError: there is no such form or objective, or the number of epochs is not 1 or more.
        """
        name, _, epochs = text.rpartition(":")
        is_objective = name in OBJECTIVES or is_user_code(name)
        if is_objective and epochs.isdecimal() and int(epochs) > 0:
            return cls(absolute(name), int(epochs))
        if text in FORMS or is_user_code(text):
            return cls(absolute(text))
        if text in OBJECTIVES:
            raise UserError(f"the method {text} is trained: give its epochs, such as {text}:10")
        close = difflib.get_close_matches(text, METHODS, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UserError(
            f"unknown method {text!r}; {meant}give {', '.join(FORMS)}, or a closed-form solver of your own, {CODE}; or "
            f"an objective and its epochs, such as task:10, of {', '.join(OBJECTIVES)}, or {CODE}:EPOCHS"
        )

    @property
    def title(self) -> str:
        """The name of the method in tables and of folders, such as task10."""
        return f"{title_of(self.name)}{self.n_epochs or ''}"

    @property
    def words(self) -> str:
        """The name of the method in figures, such as task loss matching."""
        name = title_of(self.name)
        if self.name in METHODS:
            name = METHODS[self.name].paper_name or name
        return f"{name} matching"

    def __str__(self) -> str:
        if self.n_epochs:
            return f"{self.name}:{self.n_epochs}"
        return self.name
