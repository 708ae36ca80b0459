"""Measures of a user's code: functions of the activations of two layers for the same images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, SupportsFloat

from torch import Tensor

from src.choices.similarity import MEASURES
from src.core.console import warn
from src.core.errors import UserError
from src.core.ownership import call_on_copies
from src.core.user_code import by_title, failing_as_user_error, is_user_code, load


class UserMeasure(NamedTuple):
    """A measure (x, y) -> float of activations (N, ...) and (N, ...) of the same N images."""

    name: str  # FILE.py:FUNCTION
    function: Callable[[Tensor, Tensor], SupportsFloat]

    @property
    def is_symmetric(self) -> bool:
        """Whether the order of the two layers does not count."""
        return getattr(self.function, "symmetric", True)

    def value(self, x: Tensor, y: Tensor) -> float:
        """Return the measure of two activations; NaN where the function gives NaN.

        Raises:
            UserError: the function fails, or returns no number.
        """
        with failing_as_user_error(self.name):
            returned = call_on_copies(self.function, x, y)
        try:
            return float(returned)
        except (TypeError, ValueError, RuntimeError) as error:  # torch's of a tensor
            shape = getattr(returned, "shape", None)
            kind = type(returned).__name__
            title = f"a {kind}" if shape is None else f"a {kind} of shape {tuple(shape)}"
            raise UserError(
                f"{self.name} returns {title} instead of a number; let it return a float"
            ) from error


def load_measures(names: Sequence[str]) -> dict[str, UserMeasure]:
    """Load the user's functions among the names of measures; return the functions by column.

    Raises:
        UserError: the code fails, or two measures have one column.
    """
    measures: dict[str, UserMeasure] = {}
    further = [name for name in names if name not in MEASURES]
    for column, name in by_title(further, taken=MEASURES, noun="measure").items():
        if is_user_code(name):
            measures[column] = UserMeasure(name, load(name))
    return measures


def warn_of_cost(measures: Sequence[str], n_permutations: int, *, n_kinds: int) -> None:
    """Warn of the calls that permutations cost.

    Args:
        measures: the columns of user measures.
        n_kinds: 2 if images are permuted within their classes as well, or else 1.
    """
    if measures and n_permutations:
        n_calls = 1 + n_kinds * n_permutations
        warn(
            f"--permutations {n_permutations}: {', '.join(measures)} run {n_calls} times for each "
            "pair of layers"
        )
