"""The style sheet of the user, whose settings go over the style of figures.

The module imports matplotlib only to check a sheet.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from src.ground.errors import UserError

_style_sheets: list[Path] = []


def style_sheets() -> list[Path]:
    """Return the sheet that the user gave, if there is one."""
    return list(_style_sheets)


@contextlib.contextmanager
def use_style(path: str | None) -> Iterator[None]:
    """Draw figures in a style sheet of the user while the block runs.

    Args:
        path: of a style sheet of matplotlib; None: there is none.

    Raises:
        UserError: the file cannot be read, or a line of it is no setting of matplotlib.
    """
    if path is not None:
        _check(Path(path))
        _style_sheets.append(Path(path).absolute())
    try:
        yield
    finally:
        _style_sheets.clear()


class _Refusal(logging.Handler):
    """Raises what matplotlib would only log of a wrong line."""

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage().strip().splitlines()[0]
        raise UserError(f"--style: {line}; give a style sheet of matplotlib (.mplstyle)")


def _check(path: Path) -> None:
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
