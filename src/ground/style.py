"""The style sheet of the user, which overrides the style of figures, and the width.

The module imports matplotlib only to check a sheet.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.ground.errors import UserError

LAYOUT = {"figure.constrained_layout.use": True}  # the figures' sizes rest on it
WIDTHS = (8.5, 14.0, 17.0)  # cm: a column of a paper, a page of NeurIPS, two columns


class Style(NamedTuple):
    """The choices of the user for all figures."""

    sheets: tuple[Path, ...] = ()
    width: float | None = None  # cm; None: each figure has its own


_chosen = Style()


def chosen_style() -> Style:
    """Return the choices of the user."""
    return _chosen


@contextlib.contextmanager
def use_style(path: str | None, width: float | None = None) -> Iterator[None]:
    """Draw figures in a style sheet of the user and of a width while the block runs.

    Args:
        path: of a style sheet of matplotlib; None: there is none.
        width: of figures in cm; None: each figure has its own.

    Raises:
        UserError: matplotlib cannot read the file, or cannot draw in it.
    """
    global _chosen
    before = _chosen
    sheets = before.sheets
    if path is not None:
        _check(Path(path))
        sheets = (*sheets, Path(path).absolute())
    _chosen = Style(sheets, width)
    try:
        yield
    finally:
        _chosen = before


class _Refusal(logging.Handler):
    """Raises an error for a wrong line, where matplotlib would only log."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError(record.getMessage().strip())


def _check(path: Path) -> None:
    """Raise a UserError unless matplotlib draws an image with its axes in a style sheet."""
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UserError(f"--style {path}: matplotlib is not installed; install it") from None

    refusal = _Refusal(logging.WARNING)
    logger = logging.getLogger(matplotlib.__name__)
    logger.addHandler(refusal)
    try:
        with matplotlib.style.context([path.absolute(), LAYOUT]):
            figure = Figure()
            figure.add_subplot().imshow([[0, 1]], cmap=matplotlib.rcParams["image.cmap"])
            figure.savefig(io.BytesIO())
    except Exception as error:  # a value that is allowed fails anywhere in matplotlib
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--style {path}: matplotlib cannot draw in it: {reason}; give a style sheet of "
            "matplotlib (.mplstyle) with values that it can draw in"
        ) from error
    finally:
        logger.removeHandler(refusal)
