"""The style sheet of the user, whose settings override the style of figures, and the width.

The module imports matplotlib only to check a sheet.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

from src.ground.errors import UserError

LAYOUT = {"figure.constrained_layout.use": True}  # the figures' sizes rest on it
WIDTHS = (8.5, 14.0, 17.0)  # cm: a column of a paper, a page of NeurIPS, two columns

_style_sheets: list[Path] = []
_width: float | None = None


def style_sheets() -> list[Path]:
    """Return the sheet that the user gave, if there is one."""
    return list(_style_sheets)


def chosen_width() -> float | None:
    """Return the width of figures in cm; None: each figure has its own."""
    return _width


@contextlib.contextmanager
def use_style(path: str | None, width: float | None = None) -> Iterator[None]:
    """Draw figures in a style sheet of the user and of a width while the block runs.

    Args:
        path: of a style sheet of matplotlib; None: there is none.
        width: of figures in cm; None: each figure has its own.

    Raises:
        UserError: the file cannot be read, a line of it is no setting of matplotlib, or nothing can
            be drawn in it.
    """
    global _width
    before = style_sheets()
    width_before = _width
    if path is not None:
        _check_lines(Path(path))
        _check_drawing(Path(path))
        _style_sheets.append(Path(path).absolute())
    _width = width
    try:
        yield
    finally:
        _style_sheets[:] = before
        _width = width_before


class _Refusal(logging.Handler):
    """Raises a UserError for a wrong line, where matplotlib would only log."""

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage().strip().splitlines()[0]
        raise UserError(f"--style: {line}; give a style sheet of matplotlib (.mplstyle)")


def _check_lines(path: Path) -> None:
    """Raise a UserError unless each line of a style sheet is a setting of matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise UserError(f"--style {path}: matplotlib is not installed; install it") from None

    refusal = _Refusal(logging.WARNING)
    logger = logging.getLogger(matplotlib.__name__)
    logger.addHandler(refusal)
    try:
        matplotlib.rc_params_from_file(str(path.absolute()), use_default_template=False)
    except OSError as error:
        raise UserError(f"--style {path}: {error.strerror}; give a style sheet") from None
    finally:
        logger.removeHandler(refusal)


def _check_drawing(path: Path) -> None:
    """Raise a UserError unless matplotlib draws an image with its axes in a style sheet."""
    import matplotlib.style
    from matplotlib.figure import Figure

    try:
        with matplotlib.style.context([path.absolute(), LAYOUT]):
            if matplotlib.rcParams["font.size"] <= 0:
                raise ValueError("font.size has to be above 0")
            figure = Figure()
            figure.add_subplot().imshow([[0, 1]], cmap=matplotlib.rcParams["image.cmap"])
            figure.savefig(io.BytesIO())
    except Exception as error:  # a value that is allowed fails anywhere in matplotlib
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--style {path}: matplotlib cannot draw in it: {reason}; give a style sheet with values "
            "that it can draw in"
        ) from error
