"""The closed forms of direct matching (their functions are in `src.stitching.closed_forms`), and
the objectives of training, which are in `src.stitching.objectives`."""

import difflib
from typing import NamedTuple

from src.choices import STARTS
from src.core.errors import UserError
from src.core.user_code import CODE, absolute, is_user_code, title_of


class Form(NamedTuple):
    """A closed form of direct matching."""

    description: str  # for `--help`
    cuts_off: bool = False  # it has a cutoff of small singular values
    keeps_variance: bool = False  # its output has the variance of the target


FORMS = {
    "pinv": Form("least squares", cuts_off=True),
    "covariance": Form(
        "the map of least error among those whose output has the covariance of the target",
        keeps_variance=True,
    ),
    "ortho": Form("the best orthogonal map"),
}
KEEP_VARIANCE = [name for name, form in FORMS.items() if form.keeps_variance]
INITS = {**STARTS, **{name: form.description for name, form in FORMS.items()}}

IN_PAPER = {"pinv": "direct", "task": "task loss"}  # the names of the paper's methods

OBJECTIVES = {  # help texts
    "task": "cross-entropy",
    "soft": "KL divergence to the end network's predictions",
    "hint": "relative distance at the end layer",
    "fula": "mean relative distance at the end layer and all blocks behind it",
    "feature": "mean squared difference at the last block",
}


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
        if text in FORMS:
            return cls(text)
        is_objective = name in OBJECTIVES or is_user_code(name)
        if is_objective and epochs.isdecimal() and int(epochs) > 0:
            return cls(absolute(name), int(epochs))
        if is_user_code(text) and name not in OBJECTIVES:
            return cls(absolute(text))
        if text in OBJECTIVES:
            raise UserError(f"the method {text} is trained: give its epochs, such as {text}:10")
        close = difflib.get_close_matches(text, [*FORMS, *OBJECTIVES], n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UserError(
            f"unknown method {text!r}; {meant}give {', '.join(FORMS)}, or a closed form of your own, {CODE}; or an "
            f"objective and its epochs, such as task:10, of {', '.join(OBJECTIVES)}, or {CODE}:EPOCHS"
        )

    @property
    def title(self) -> str:
        """The name of the method in tables and of folders, such as task10."""
        return f"{title_of(self.name)}{self.n_epochs or ''}"

    @property
    def words(self) -> str:
        """The name of the method in figures, such as task loss matching."""
        name = self.name
        if name in IN_PAPER:
            name = IN_PAPER[name]
        elif name not in FORMS and name not in OBJECTIVES:
            name = title_of(name)
        return f"{name} matching"

    @property
    def description(self) -> str:
        """The purpose of the method, for captions."""
        if not self.n_epochs and self.name in FORMS:
            return FORMS[self.name].description
        if not self.n_epochs:
            return f"the closed form {title_of(self.name)}"
        loss = title_of(self.name)
        if self.name in OBJECTIVES:
            loss = OBJECTIVES[self.name]
        epochs = "1 epoch" if self.n_epochs == 1 else f"{self.n_epochs} epochs"
        return f"trained for {epochs} on the {loss}"

    def __str__(self) -> str:
        if self.n_epochs:
            return f"{self.name}:{self.n_epochs}"
        return self.name
